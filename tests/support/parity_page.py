"""Writes docs/reference/ray-workflows-parity.md: what ray.workflow's tests promised, and ours.

``tests/cluster/parity/upstream.tsv`` lists the tests of ``ray.workflow``; the marker
``@pytest.mark.parity(...)`` on a test of ours names those whose promise it keeps. The page is made
from the two, without running anything: ``make parity`` writes it, a test compares.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = ROOT / "tests" / "cluster" / "parity" / "upstream.tsv"
PAGE = ROOT / "docs" / "reference" / "ray-workflows-parity.md"

INTRODUCTION = """\
# Parity with ray.workflow

This page is made by `make parity`; do not edit it. Each row is a test of `ray.workflow`, as last
shipped in Ray 2.47, with what it promised. A row is *kept* when a test of Milepost makes the same
promise, *open* when none does so far, and *left out* for the reason that stands there. Our tests
are written afresh; many of them promise more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A test of ``ray.workflow``.

    Attributes:
        mark: "must", "adapted" (something in it cannot be as it was) or "left out".
        promise: What it promised, or why it is left out.
    """

    area: str
    mark: str
    test: str
    promise: str


def read_upstream() -> list[Row]:
    """Returns the tests of ``ray.workflow`` in the order of the list."""
    with UPSTREAM.open(newline="") as file:
        return [Row(**row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def find_kept() -> dict[str, list[str]]:
    """Returns for each test of ``ray.workflow`` those of ours that name it."""
    kept: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, function in _find_marked(path):
            kept.setdefault(name, []).append(f"{path.relative_to(ROOT).as_posix()}::{function}")
    return kept


def _find_marked(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(
                "mark.parity"
            ):
                for argument in decorator.args:
                    yield str(ast.literal_eval(argument)), node.name


def make_page() -> str:
    """Returns the whole page.

    Raises:
        ValueError: If a marker names a test that the list does not hold, or that is left out.
    """
    rows, kept = read_upstream(), find_kept()
    unknown = kept.keys() - {row.test for row in rows if row.mark != "left out"}
    if unknown:
        raise ValueError(f"no such tests of ray.workflow are to be kept: {sorted(unknown)}")
    parts = [INTRODUCTION, _count(rows, kept)]
    for area, members in groupby(rows, lambda row: row.area):
        parts.append(f"## {area}\n\n| test of ray.workflow | promise | state | kept by |")
        parts[-1] += "\n|---|---|---|---|\n" + "\n".join(_format(row, kept) for row in members)
        parts[-1] += "\n"
    return "\n".join(parts)


def _count(rows: list[Row], kept: dict[str, list[str]]) -> str:
    states = [_state(row, kept) for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("kept", "open", "left out"))
    return f"Of {len(rows)} tests: {counts}.\n"


def _state(row: Row, kept: dict[str, list[str]]) -> str:
    if row.mark == "left out":
        return row.mark
    return "kept" if row.test in kept else "open"


def _format(row: Row, kept: dict[str, list[str]]) -> str:
    ours = [_link(each) for each in kept.get(row.test, [])]
    promise = row.promise.replace("|", "\\|")
    return f"| `{row.test}` | {promise} | {_state(row, kept)} | {'<br>'.join(ours)} |"


def _link(test: str) -> str:
    path, _, function = test.partition("::")
    return f"[{function}](../../{path})"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(make_page())
