"""What the pages say can be typed: commands are parsed, programs exist, manifests are YAML.

The Python in them is executed in `tests/cluster/test_pages.py`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner
from sybil import Example
from sybil.example import SybilFailure

from milepost.__main__ import main
from pages import PAGES, ROOT, evaluate, name_of, pages_with, source_of

NO_COMMAND = re.compile(r"\w+=|export$")


def check_commands(example: Example) -> None:
    """Parses the commands of a block as the programs would; runs none."""
    for line in source_of(example).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        program, *arguments = [word for word in words if not NO_COMMAND.match(word)] or [""]
        if Path(program).name == "milepost":
            done = CliRunner().invoke(main, [*arguments, "--help"])
            if done.exit_code != 0:
                raise SybilFailure(example, f"{line}: {done.output}")
        for word in arguments:
            if word.startswith("docs/") and not (ROOT / word).is_file():
                raise SybilFailure(example, f"{line}: there is no {word}")


def check_yaml(example: Example) -> None:
    """Reads every document of a block."""
    if not list(yaml.safe_load_all(source_of(example))):
        raise SybilFailure(example, "there is nothing in it")


def check_syntax(example: Example) -> None:
    """Compiles a block."""
    compile(source_of(example), example.path, "exec", dont_inherit=True)


@pytest.mark.parametrize("page", pages_with("sh", "bash", "yaml"), ids=name_of)
def test_commands_and_manifests_of_a_page_are_well_formed(page: Path) -> None:
    evaluate(page, sh=check_commands, bash=check_commands, yaml=check_yaml)


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_the_python_of_a_page_compiles(page: Path) -> None:
    evaluate(page, python=check_syntax)


def test_no_block_is_in_a_language_that_nobody_checks() -> None:
    known = {"python", "sh", "bash", "yaml", "text", "json", "mermaid", ""}
    fences = (re.findall(r"^```+(\w*)$", page.read_text("utf-8"), re.MULTILINE) for page in PAGES)
    assert {language for found in fences for language in found} <= known


def test_a_command_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for line in ("milepost lss", "milepost ls --sttus RUNNING", "python docs/examples/gone.py"):
        page.write_text(f"```sh\n{line}\n```\n", encoding="utf-8")
        with pytest.raises(SybilFailure):
            evaluate(page, sh=check_commands)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=name_of)
def test_a_page_that_tells_how_says_what_to_do_when_it_goes_wrong(page: Path) -> None:
    folders = {"tutorial", "how-to", "explanation"}
    if page.parent.name in folders and page.name != "security.md":
        assert "## When it goes wrong" in page.read_text(encoding="utf-8")
