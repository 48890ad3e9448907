"""The tree keeps its own rules: directions, sizes, docstrings, links, documents that are true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSES = ("engine", "journal", "replay")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

SOURCES = sorted(
    path
    for folder in ("milepost", "tests", "docs", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "milepost")]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = [
    *(ROOT / name for name in ("pyproject.toml", "Makefile", ".ci/run", ".pre-commit-config.yaml")),
    *sorted((ROOT / "milepost").rglob("*.toml")),
]

PURE_MODULES = {
    *(
        "__future__",
        "abc",
        "array",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "difflib",
        "enum",
    ),
    *("functools", "hashlib", "heapq", "itertools", "math", "msgpack", "operator", "re"),
    *("struct", "types", "typing", "zlib"),
}
"""What replay may import besides itself and the errors: nothing that can see the world."""

IMPURE_CALLS = {"__import__", "compile", "eval", "exec", "hash", "input", "open", "print"}
UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME")))
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|home)/")
"""A path of one machine; written so that it does not find itself."""


def faults(paths: Iterable[Path], find: Callable[[Path], Iterable[object]]) -> dict[str, list[str]]:
    """Look for faults in each file; only the files that have some are in the answer."""
    found = {
        path.relative_to(ROOT).as_posix(): [str(fault) for fault in find(path)] for path in paths
    }
    return {name: named for name, named in found.items() if named}


@cache
def text_of(path: Path) -> str:
    """Read a file once."""
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(text_of(path))


def imports_of(path: Path) -> set[str]:
    """Name every module that a file imports, wherever in it, from the root of its package on."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{'.' * node.level}{node.module}.{name.name}" for name in node.names)
    return found


def roots_of(path: Path) -> set[str]:
    """Name the top-level packages that a file imports."""
    return {module.partition(".")[0] for module in imports_of(path)}


def parts_of(path: Path) -> set[str]:
    """Name the parts of Milepost that a file imports: its houses and single modules."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("milepost.")}


def in_house(house: str) -> list[Path]:
    """Return the files of one of the three folders; there are some."""
    paths = [path for path in PACKAGE if path.is_relative_to(ROOT / "milepost" / house)]
    assert paths
    return paths


# Directions


def test_replay_sees_nothing_but_values() -> None:
    allowed = PURE_MODULES | {"milepost"}
    assert faults(in_house("replay"), lambda path: roots_of(path) - allowed) == {}
    assert faults(in_house("replay"), lambda path: parts_of(path) - {"replay", "errors"}) == {}
    assert faults(in_house("replay"), lambda path: IMPURE_CALLS & calls_of(path)) == {}


def calls_of(path: Path) -> set[str]:
    """Name the functions that a file calls by their bare name."""
    calls = (node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def test_the_journal_knows_no_ray_and_unpickles_nothing() -> None:
    below = {"journal", "replay", "errors"}
    assert faults(in_house("journal"), lambda path: roots_of(path) & (UNPICKLERS | {"ray"})) == {}
    assert faults(in_house("journal"), lambda path: parts_of(path) - below) == {}


def test_only_the_engine_imports_ray_and_cloudpickle() -> None:
    others = set(PACKAGE) - set(in_house("engine"))
    assert faults(others, lambda path: roots_of(path) & {"ray", "cloudpickle"}) == {}


def test_no_import_is_relative_or_goes_through_the_links() -> None:
    assert faults(SOURCES, lambda path: roots_of(path) & {*HOUSES, ""}) == {}


@pytest.mark.parametrize("module", ["milepost", "milepost.journal", "milepost.replay"])
def test_importing_does_not_load_ray(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{'ray', 'cloudpickle'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


# Sizes


def test_files_are_not_too_long() -> None:
    def find(path: Path) -> list[int]:
        lines = len(text_of(path).splitlines())
        return [lines] if lines > FILE_LINES_MAX else []

    assert faults(SOURCES, find) == {}


def test_functions_are_not_too_long() -> None:
    def find(path: Path) -> list[str]:
        return [
            f"{node.name}, line {node.lineno}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
        ]

    assert faults(SOURCES, find) == {}


# Words


def test_every_module_says_what_it_is() -> None:
    assert faults(SOURCES, lambda path: [] if ast.get_docstring(tree_of(path)) else ["bare"]) == {}


def test_everything_public_has_a_docstring() -> None:
    assert faults(PACKAGE, lambda path: undocumented(tree_of(path))) == {}


def undocumented(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Name the public classes and functions of a module or class that have no docstring."""
    for node in scope.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or declares_only(node):
            continue
        if not ast.get_docstring(node):
            yield f"{node.name}, line {node.lineno}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node)


def declares_only(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function is one of several signatures, sets a property, or overrides."""
    marks = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return not marks.isdisjoint({"overload", "override", "setter"})


def test_nothing_is_unfinished_or_of_one_machine() -> None:
    def find(path: Path) -> list[str]:
        return UNFINISHED.findall(text_of(path)) + MACHINE_PATH.findall(text_of(path))

    assert faults([*SOURCES, *DOCUMENTS, *SETTINGS], find) == {}


# Links and documents


@pytest.mark.parametrize("house", HOUSES)
def test_the_signposts_at_the_root_point_to_the_houses(house: str) -> None:
    link = ROOT / house
    assert link.is_symlink()
    assert link.readlink() == Path("milepost", house)
    assert link.is_dir()


def test_links_between_documents_lead_somewhere() -> None:
    def find(path: Path) -> list[str]:
        targets = re.findall(r"\]\(([^)\s]+)\)", text_of(path))
        inside = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
        return [t for t in inside if not (path.parent / t.partition("#")[0]).exists()]

    assert faults(DOCUMENTS, find) == {}


def test_make_commands_in_documents_exist() -> None:
    commands = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))

    def find(path: Path) -> set[str]:
        code = re.findall(r"```.*?```|`[^`\n]+`", text_of(path), re.DOTALL)
        return set(re.findall(r"\bmake ([a-z-]+)", "\n".join(code))) - commands

    assert faults(DOCUMENTS, find) == {}


def test_the_readme_begins_with_the_two_commands() -> None:
    first_screen = "\n".join(text_of(ROOT / "README.md").splitlines()[:30])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_the_example_of_the_readme_is_a_file_that_runs() -> None:
    shown = re.findall(r"```python\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    examples = [text_of(path) for path in SOURCES if path.is_relative_to(ROOT / "docs/examples")]
    assert shown
    assert [code for code in shown if not any(code in example for example in examples)] == []


def test_ci_checks_and_then_tests_last() -> None:
    lines = [line for line in text_of(ROOT / ".ci/run").splitlines() if line]
    assert lines[-2:] == ["make check", "make test"]
