"""``milepost tasks``: the tasks of one workflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import islice
from typing import Any

import click

from milepost.journal.story import TaskRecord, read_story
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.table import print_table
from milepost.journal.tool.text import print_json, show_size, show_span
from milepost.replay.state import TaskState

SORTS: dict[str, Callable[[TaskRecord], Any]] = {
    "duration": lambda each: -(each.run_us or 0),
    "queue": lambda each: -(each.queue_us or 0),
    "attempts": lambda each: -each.attempts,
    "bytes": lambda each: -(each.bytes or 0),
    "start": lambda each: each.started_us or each.scheduled_us or 2**63,
}
"""What can be sorted by; the largest first, but for the start."""


@click.command("tasks")
@click.argument("workflow_id")
@click.option(
    "--state",
    "wanted",
    type=click.Choice([each.name for each in TaskState], case_sensitive=False),
    help="Only tasks in this state.",
)
@click.option("--function", metavar="TEXT", help="Only tasks whose function's name has this in it.")
@click.option("--sort", type=click.Choice(list(SORTS)), help="By default as in the graph.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    wanted: str | None,
    function: str | None,
    sort: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the tasks: state, attempts, time in queue and at work, worker, size."""
    found: Iterable[TaskRecord] = (
        each
        for each in read_story(chosen_history(context, workflow_id)).tasks()
        if (wanted is None or each.state == wanted.upper())
        and (function is None or function in each.function)
    )
    if sort is not None:
        found = sorted(found, key=SORTS[sort])
    found = islice(found, limit)
    if as_json:
        for each in found:
            print_json({**asdict(each), "run_us": each.run_us, "queue_us": each.queue_us})
        return
    heads = ("TASK", "FUNCTION", "STATE", "TRIES", "QUEUED", "LASTED", "WORKER", "SIZE")
    print_table(heads, map(_row, found))


def _row(each: TaskRecord) -> tuple[object, ...]:
    items = f" ({each.items_done}/{each.items} items)" if each.items is not None else ""
    return (
        each.task + items,
        each.function,
        each.state,
        each.attempts,
        show_span(each.queue_us),
        show_span(each.run_us),
        each.worker or "-",
        show_size(each.bytes),
    )
