"""``milepost journal``: the events of one workflow, as they stand in its journal."""

from __future__ import annotations

import json
from typing import Any

import click

from milepost.journal.history import Entry
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.plain import to_plain
from milepost.journal.tool.text import clean, print_json

LINE_CHARACTERS_MAX = 200
"""A line for people is cut there; JSON is whole."""


@click.command("journal")
@click.argument("workflow_id")
@click.option("--kind", "kinds", multiple=True, help="Only this kind, as TasksCommitted.")
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="First seq.")
@click.option("--to", "last", type=click.IntRange(min=0), help="Last seq.")
@click.option("--redact", is_flag=True, help="Leave out what payloads and error texts contain.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    kinds: tuple[str, ...],
    first: int,
    last: int | None,
    redact: bool,
    as_json: bool,
) -> None:
    """Print the events, verified and decoded."""
    for entry in chosen_history(context, workflow_id):
        if last is not None and entry.seq > last:
            break
        name = type(entry.event).__name__
        if entry.seq < first or (kinds and name not in kinds):
            continue
        told = _describe(entry, name, redact)
        if as_json:
            print_json(told)
        else:
            _print(told)


def _describe(entry: Entry, name: str, redact: bool) -> dict[str, Any]:
    told = to_plain(entry.event, redact=redact)
    if redact and "error" in told:
        told["error"] |= {"message": "(redacted)", "traceback": "(redacted)"}
    return {"seq": entry.seq, "epoch": entry.epoch, "kind": name, "event": told}


def _print(told: dict[str, Any]) -> None:
    parts = [
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in told["event"].items()
    ]
    line = clean(f"{told['seq']:>8} e{told['epoch']} {told['kind']} " + " ".join(parts))
    cut = len(line) > LINE_CHARACTERS_MAX
    click.echo(line[: LINE_CHARACTERS_MAX - 4] + " ..." if cut else line)
