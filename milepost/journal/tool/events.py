"""``milepost journal``: the events of one workflow, as they stand in its journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from milepost.errors import TaskNotFoundError
from milepost.journal.history import Entry, History, apply_entry
from milepost.journal.plain import to_plain
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, print_json, terminal_columns
from milepost.replay.state import State

LINE_CHARACTERS_MAX = 200
"""A line for people is cut there; JSON is whole."""


@click.command("journal")
@click.argument("workflow_id")
@click.option("--kind", "kinds", multiple=True, help="Only this kind, as TasksCommitted.")
@click.option("--task", "task_id", help="Only events that name this task.")
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="First seq.")
@click.option("--to", "last", type=click.IntRange(min=0), help="Last seq.")
@click.option("--redact", is_flag=True, help="Leave out what payloads and error texts contain.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    kinds: tuple[str, ...],
    task_id: str | None,
    first: int,
    last: int | None,
    redact: bool,
    as_json: bool,
) -> None:
    """Print the events, verified and decoded."""
    history = chosen_history(context, workflow_id)
    for entry in history if task_id is None else _about(history, task_id):
        if last is not None and entry.seq > last:
            break
        name = type(entry.event).__name__
        if entry.seq < first or (kinds and name not in kinds):
            continue
        told = describe_entry(entry, redact)
        if as_json:
            print_json(told)
        else:
            print_event(told)


def _about(history: History, task_id: str) -> Iterator[Entry]:
    """Give the events that name a task; which number it has, the graph says."""
    state, task = State(), None
    for entry in history:
        apply_entry(state, entry)
        task = state.graph.find(task_id) if task is None else task
        event = entry.event
        if task is not None and (
            task == getattr(event, "task", None) or task in getattr(event, "tasks", ())
        ):
            yield entry
    if task is None:
        raise TaskNotFoundError(history.workflow_id, task_id, state.graph.find_near(task_id))


def describe_entry(entry: Entry, redact: bool) -> dict[str, Any]:
    """Put an event into plain data.

    Args:
        entry: The event and its place.
        redact: Whether to leave out what payloads and error texts contain.

    Returns:
        Its number, epoch, kind and fields.
    """
    told = to_plain(entry.event, redact=redact)
    if redact and "error" in told:
        told["error"] |= {"message": "(redacted)", "traceback": "(redacted)"}
    name = type(entry.event).__name__
    return {"seq": entry.seq, "epoch": entry.epoch, "kind": name, "event": told}


def print_event(told: dict[str, Any]) -> None:
    """Print an event for people, in one line.

    Args:
        told: What :func:`describe_entry` gives.
    """
    parts = [
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in told["event"].items()
    ]
    line = clean(f"{told['seq']:>8} e{told['epoch']} {told['kind']} " + " ".join(parts))
    width = min(LINE_CHARACTERS_MAX, terminal_columns() or LINE_CHARACTERS_MAX)
    click.echo(line[: width - 4] + " ..." if len(line) > width else line)
