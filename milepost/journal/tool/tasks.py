"""``milepost tasks``: the tasks of one workflow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import print_json, print_table
from milepost.replay.state import State, TaskState


@click.command("tasks")
@click.argument("workflow_id")
@click.option(
    "--state",
    "wanted",
    type=click.Choice([each.name for each in TaskState], case_sensitive=False),
    help="Only tasks in this state.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context, workflow_id: str, wanted: str | None, limit: int | None, as_json: bool
) -> None:
    """List the tasks: state, attempts, duration, size of the result."""
    state = chosen_history(context, workflow_id).state_at()
    kind = TaskState[wanted.upper()] if wanted else None
    found = islice(_describe_tasks(state, kind), limit)
    if as_json:
        for each in found:
            print_json(each)
        return
    heads = ("TASK", "FUNCTION", "STATE", "ATTEMPTS", "DURATION", "BYTES")
    rows = [
        (
            each["task"],
            each["function"],
            each["state"],
            each["attempts"],
            each["shown"],
            each["bytes"],
        )
        for each in map(_with_duration, found)
    ]
    print_table(heads, rows)


def _describe_tasks(state: State, wanted: TaskState | None) -> Iterator[dict[str, Any]]:
    graph = state.graph
    for task, stands in enumerate(state.tasks):
        if wanted is not None and stands != wanted:
            continue
        result = state.results[task]
        yield {
            "task": graph.task_id(task),
            "function": graph.functions[graph.node_functions[task]].name,
            "state": TaskState(stands).name,
            "attempts": state.attempts[task],
            "started_us": state.task_started_us[task],
            "ended_us": state.task_ended_us[task],
            "bytes": result.size if result else None,
        }


def _with_duration(told: dict[str, Any]) -> dict[str, Any]:
    lasted_us = told["ended_us"] - told["started_us"] if told["ended_us"] else None
    shown = "-" if lasted_us is None else f"{lasted_us / 1e6:.3f} s"
    return {**told, "shown": shown, "bytes": "-" if told["bytes"] is None else told["bytes"]}
