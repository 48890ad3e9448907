"""What is printed fits its reader: a terminal of any width, or a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from journal_stories import tell_story
from milepost.journal import open_store

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "store"
    opened = open_store(folder)
    tell_story(opened, "nightly", shards=4)
    tell_story(opened, "a workflow with quite a long name, in 日本語 even", shards=3, seed=2)
    return folder


def on_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """Run a command on a terminal of its own; gives what it shows."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
    done = subprocess.Popen(
        [sys.executable, "-m", "milepost", *arguments], stdout=theirs, stdin=theirs, env=settings
    )
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 65536):
            shown += more
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    assert done.wait(60) == 0, shown
    return shown.decode()


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", [("ls",), ("tasks", "nightly"), ("stats", "nightly")])
def test_tables_fit_the_terminal(store: Path, command: tuple[str, ...], columns: int) -> None:
    shown = on_terminal(columns, "--storage", str(store), *command)
    lines = [COLOUR.sub("", line) for line in shown.splitlines()]
    table = [line for line in lines if command[0] != "stats" or line[:14].count("  ") == 0]
    assert max(map(cell_len, table)) <= columns
    assert COLOUR.search(shown)


def test_names_that_are_cut_keep_their_ends(store: Path) -> None:
    shown = on_terminal(75, "--storage", str(store), "tasks", "nightly")
    assert re.search(r"pip\w*…\w*_3\b", shown)
    assert "not shown, for want of room" in on_terminal(
        40, "--storage", str(store), "tasks", "nightly"
    )


def test_no_colour_where_none_is_wanted(store: Path) -> None:
    shown = on_terminal(80, "--storage", str(store), "show", "nightly", NO_COLOR="1")
    assert not COLOUR.search(shown)


@pytest.mark.parametrize("command", [("ls",), ("tasks", "nightly"), ("show", "nightly")])
def test_a_pipe_gets_everything_and_no_colour(store: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "milepost", "--storage", str(store), *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "40"},
    )
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    if command[0] == "ls":
        assert "a workflow with quite a long name, in 日本語 even" in done.stdout


def test_text_of_a_journal_cannot_drive_a_terminal(tmp_path: Path) -> None:
    tell_story(open_store(tmp_path / "store"), "evil\x1b[2J\nid", shards=2)
    shown = on_terminal(80, "--storage", str(tmp_path / "store"), "ls")
    assert "\x1b[2J" not in shown
    assert r"evil\x1b[2J\nid" in shown
