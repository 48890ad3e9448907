"""The Python in the pages runs, page by page, on the cluster that the tests share.

A comment `#> text` is a line that the block must print; if it has one, these are all it prints.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from sybil import Example
from sybil.example import SybilFailure

from pages import evaluate, name_of, pages_with, source_of

EXPECTED = re.compile(r"#> ?(.*)$", re.MULTILINE)


def run_python(example: Example) -> None:
    """Executes a block in its page's namespace, and compares what it prints."""
    source = source_of(example)
    lines_before = "\n" * (example.line - 1)  # so that a traceback names the page's own line
    code = compile(lines_before + source, example.path, "exec", dont_inherit=True)
    example.namespace.setdefault("__name__", "__main__")  # its functions travel by value
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, example.namespace)
    expected = EXPECTED.findall(source)
    if expected and printed.getvalue().splitlines() != expected:
        raise SybilFailure(example, f"it printed:\n{printed.getvalue()}")


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_the_python_of_a_page_runs(
    page: Path, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILEPOST_STORAGE", str(storage))
    (tmp_path / "my-store").symlink_to(storage)
    evaluate(page, python=run_python)
