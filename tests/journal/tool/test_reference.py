"""The page on the command line names every command and every option there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from milepost.__main__ import main

PAGES = [
    Path(__file__).parents[3] / "docs" / name for name in ("reference/cli.md", "how-to/recover.md")
]
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)
ROW = re.compile(r"^\| `milepost ([^`]*)`(.*?)\|", re.MULTILINE)


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def described(name: str) -> set[str]:
    """Name the options that the page gives a command."""
    lines = [row for row in ROW.finditer(TEXT) if row[1].split()[0] == name]
    whole = " ".join(f"{row[1]} {row[2]}" for row in lines)
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", whole))


@pytest.mark.parametrize("name", sorted(set(commands()) - {"recover"}))
def test_each_command_is_described_with_all_its_options(name: str) -> None:
    options = [each for each in commands()[name].params if isinstance(each, click.Option)]
    told = described(name)
    known = {text for each in options for text in (*each.opts, *each.secondary_opts)}
    assert told - known == set()
    assert [each.name for each in options if not told & {*each.opts, *each.secondary_opts}] in (
        [],
        ["as_json"],
    )


@pytest.mark.parametrize("name", sorted(set(commands()) - {"recover"}))
def test_each_command_speaks_json(name: str) -> None:
    assert any("--json" in each.opts for each in commands()[name].params)


def test_the_page_names_no_other_command() -> None:
    assert {row[1].split()[0] for row in ROW.finditer(TEXT)} <= set(commands())
