"""The survey itself: plain functions from source text to figures to a report.

Nothing here knows of Ray or of Milepost. The same functions run as tasks of a workflow and, to
check that workflow's report, one after the other in plain Python. They are deterministic: the same
files give the same report, byte for byte.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""What is known of a file or of a package: counts, and the longest function with its place."""

TOP_LEVEL = "(top level)"
COUNTS = ("lines", "functions", "classes", "imports")
NOT_STANDARD = frozenset({"site-packages", "dist-packages", "__pycache__"})


def standard_library() -> Path:
    """Return the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_packages(root: Path) -> dict[str, list[str]]:
    """Find every Python file of a library, grouped by the folder it lies in.

    Args:
        root: The library's folder.

    Returns:
        Package name to its files, as sorted paths relative to ``root`` with forward slashes.
    """
    packages: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if NOT_STANDARD.isdisjoint(relative.parts):
            package = ".".join(relative.parent.parts) or TOP_LEVEL
            packages.setdefault(package, []).append(relative.as_posix())
    return packages


def survey_file(root: str, path: str) -> Figures:
    """Parse one file and count what it defines.

    A file that is not valid Python (the standard library has some, as test data) is counted as
    unparsable, with its lines and nothing else.

    Args:
        root: The library's folder.
        path: The file, relative to ``root``.

    Returns:
        The file's figures.
    """
    source = Path(root, path).read_bytes()
    figures = no_figures()
    figures["files"] = 1
    figures["lines"] = len(source.splitlines())
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source, filename=path)
    except (SyntaxError, ValueError):
        figures["unparsable"] = 1
        return figures
    for node in ast.walk(tree):
        count_node(node, path, figures)
    return figures


def count_node(node: ast.AST, path: str, figures: Figures) -> None:
    """Add one node of a syntax tree to the figures of its file."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        figures["functions"] += 1
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        longest = [lines, f"{path}:{node.lineno}", node.name]
        figures["longest"] = longer(figures["longest"], longest)
    elif isinstance(node, ast.ClassDef):
        figures["classes"] += 1
    elif isinstance(node, ast.Import):
        figures["imports"] += len(node.names)
        count_imports((name.name for name in node.names), figures)
    elif isinstance(node, ast.ImportFrom):
        figures["imports"] += 1
        if node.module and not node.level:
            count_imports([node.module], figures)


def count_imports(modules: Iterable[str], figures: Figures) -> None:
    """Count imports by the first part of the module's name."""
    imported = figures["imported"]
    for module in modules:
        top = module.partition(".")[0]
        imported[top] = imported.get(top, 0) + 1


def reduce_package(package: str, files: Sequence[Figures]) -> Figures:
    """Add up the figures of a package's files.

    Args:
        package: The package's name.
        files: The figures of its files, in any order.

    Returns:
        The package's figures, with its name.
    """
    return add_up(files) | {"package": package}


def add_up(parts: Iterable[Figures]) -> Figures:
    """Sum figures; of the longest functions, keep the longest."""
    total = no_figures()
    imported: Counter[str] = Counter()
    for part in parts:
        for name in ("files", "unparsable", *COUNTS):
            total[name] += part[name]
        total["longest"] = longer(total["longest"], part["longest"])
        imported.update(part["imported"])
    total["imported"] = dict(sorted(imported.items()))
    return total


def no_figures() -> Figures:
    """Return the figures of nothing."""
    counts: Figures = dict.fromkeys(("files", "unparsable", *COUNTS), 0)
    return counts | {"longest": [0, "", ""], "imported": {}}


def longer(one: list[Any], other: list[Any]) -> list[Any]:
    """Return the longer of two functions, each ``[lines, place, name]``; ties go by place."""
    return min(one, other, key=lambda function: (-function[0], function[1]))


def write_report(packages: Sequence[Figures]) -> str:
    """Write the report on a library.

    Args:
        packages: The figures of every package, in any order.

    Returns:
        Plain text that ends in a line break.
    """
    total = add_up(packages)
    lines, place, name = total["longest"]
    head = [
        "Survey of the Python standard library",
        "",
        f"{total['files']:,} files, {total['unparsable']:,} of them not valid Python",
        *(f"{total[count]:,} {count}" for count in COUNTS),
        f"longest function: {name}, {lines:,} lines, {place}",
        f"most imported: {', '.join(most_imported(total['imported'], 8))}",
        "",
    ]
    titles = f"{'package':<44}{'files':>7}" + "".join(f"{count:>11}" for count in COUNTS)
    rows = [
        f"{row['package']:<44}{row['files']:>7,}" + "".join(f"{row[c]:>11,}" for c in COUNTS)
        for row in sorted(packages, key=lambda row: (-row["lines"], row["package"]))
    ]
    return "\n".join([*head, titles, *rows]) + "\n"


def most_imported(imported: Mapping[str, int], count: int) -> list[str]:
    """Name the modules imported most often, most frequent first; ties go by name."""
    ranked = sorted(imported.items(), key=lambda item: (-item[1], item[0]))
    return [f"{module} ({times:,})" for module, times in ranked[:count]]


def survey_plainly(
    root: Path, packages: Mapping[str, Sequence[str]], on_file: Callable[[], None] = lambda: None
) -> str:
    """Make the whole report in this process, without any engine.

    Args:
        root: The library's folder.
        packages: What :func:`find_packages` found.
        on_file: Called after each file.

    Returns:
        The report.
    """
    reduced = []
    for package, paths in packages.items():
        figures = []
        for path in paths:
            figures.append(survey_file(str(root), path))
            on_file()
        reduced.append(reduce_package(package, figures))
    return write_report(reduced)
