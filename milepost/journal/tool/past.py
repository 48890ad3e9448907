"""``milepost state``: a workflow as it stood at any point."""

from __future__ import annotations

import time

import click

from milepost.journal.tool.moment import parse_moment
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import print_json
from milepost.journal.tool.workflow import describe_state, print_state


@click.command("state")
@click.argument("workflow_id")
@click.option("--at", metavar="SEQ|TIME", help="An event's number, or a time as ISO 8601 (UTC).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(context: click.Context, workflow_id: str, at: str | None, as_json: bool) -> None:
    """Rebuild the state after an event, or at a time."""
    seq, at_us = _parse(at)
    told = describe_state(chosen_history(context, workflow_id).state_at(seq=seq, at_us=at_us))
    if as_json:
        print_json(told)
    else:
        print_state(told)


def _parse(at: str | None) -> tuple[int | None, int | None]:
    """Give the number or the time in microseconds that ``at`` names."""
    if at is None:
        return None, None
    if at.isascii() and at.isdigit():
        return int(at), None
    return None, parse_moment(at, time.time_ns() // 1000, "--at")
