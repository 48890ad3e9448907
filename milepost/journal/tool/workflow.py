"""``milepost show``: one workflow in short."""

from __future__ import annotations

from typing import Any

import click

from milepost.journal.history import apply_entry
from milepost.journal.plain import to_plain
from milepost.journal.summary import summarize
from milepost.journal.tool.listing import describe_unsettled
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, paint, print_json, show_time
from milepost.replay.events import OwnershipTaken
from milepost.replay.state import State, TaskState


@click.command("show")
@click.argument("workflow_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(context: click.Context, workflow_id: str, as_json: bool) -> None:
    """Show a workflow: status, tasks by state, owners, errors."""
    history = chosen_history(context, workflow_id)
    state, owners = State(), []
    for entry in history:
        apply_entry(state, entry)
        if isinstance(entry.event, OwnershipTaken):
            owners.append(to_plain(entry.event))
    summary = summarize(history.store, workflow_id)
    told = describe_state(state)
    told |= {"owners": owners, "unsettled": describe_unsettled(history.store, summary)}
    if as_json:
        print_json(told)
    else:
        print_state(told)


def describe_state(state: State) -> dict[str, Any]:
    """Put a state into plain data.

    Args:
        state: The state of a workflow.

    Returns:
        What people ask for first; times in microseconds since 1970, 0 where unknown.
    """
    return {
        "workflow_id": state.workflow_id,
        "status": state.status.value if state.status else None,
        "events": state.next_seq,
        "epoch": state.epoch,
        "owner": state.owner,
        "created_us": state.created_us,
        "started_us": state.started_us,
        "ended_us": state.ended_us,
        "durability": state.durability,
        "versions": state.versions,
        "tasks": {each.name: state.counts[each] for each in TaskState if state.counts[each]},
        "errors": [
            {
                "task": state.graph.task_id(task),
                "kind": error.kind,
                "type": error.type,
                "message": error.message,
            }
            for task, error in state.failed.items()
        ],
        "digest": state.digest(),
    }


def print_state(told: dict[str, Any]) -> None:
    """Print for people what :func:`describe_state` says.

    Args:
        told: That, and perhaps ``owners`` and ``unsettled``.
    """
    for name in ("workflow_id", "status", "unsettled", "events", "durability", "versions"):
        if told.get(name):
            value = str(told[name])
            click.echo(f"{name:12} {paint(clean(value), value if name == 'status' else '')}")
    for name in ("created", "started", "ended"):
        click.echo(f"{name:12} {show_time(told[name + '_us'])}")
    counts = ", ".join(
        paint(f"{count} {name.lower()}", name) for name, count in told["tasks"].items()
    )
    click.echo(f"{'tasks':12} {counts or 'none'}")
    for each in told.get("owners", ()):
        line = f"epoch {each['epoch']} by {each['owner']} ({each['reason']})"
        click.echo(f"{'owner':12} {clean(line)}, {show_time(each['at_us'])}")
    for each in told["errors"]:
        click.echo(
            f"{'error':12} {clean(each['task'])}: {clean(each['type'])}: {clean(each['message'])}"
        )
    click.echo(f"{'digest':12} {told['digest']}")
