"""Builds the pages as a site (`make docs`): takes them as they are, and needs no network."""

from importlib.metadata import version as version_of

project = "Milepost"
author = "the Milepost authors"
copyright = author
version = release = version_of("milepost")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 3
"""Links like ``page.md#a-heading`` work, as where the pages are read as plain Markdown."""

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"Milepost {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_copyright = False
html_copy_source = False
