"""``milepost why``: what a workflow waits for, or why it failed, and what to do about it."""

from __future__ import annotations

import time
from itertools import islice

import click

from milepost.journal.lease import Lease, list_leases
from milepost.journal.summary import summarize
from milepost.journal.tool.listing import describe_unsettled
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, print_json, show_time
from milepost.replay.events import Wait
from milepost.replay.state import State, Status, TaskState

TASKS_SHOWN_MAX = 10


@click.command("why")
@click.argument("workflow_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(context: click.Context, workflow_id: str, as_json: bool) -> None:
    """Say what a workflow waits for, and what to do."""
    history = chosen_history(context, workflow_id)
    state = history.state_at()
    lease = list_leases(history.store).get(state.owner)
    reasons = explain(state, lease, time.time_ns() // 1000)
    unsettled = describe_unsettled(history.store, summarize(history.store, workflow_id))
    if unsettled:
        reasons.insert(0, f"{unsettled}, which has not written yet and may not keep the end")
    if as_json:
        status = state.status.value if state.status else None
        print_json({"workflow_id": workflow_id, "status": status, "reasons": reasons})
        return
    for each in reasons:
        click.echo(clean(each))


def explain(state: State, lease: Lease | None, now_us: int) -> list[str]:
    """Say why a workflow has come no further.

    Args:
        state: What its journal says.
        lease: That of its owner, if there is one.
        now_us: The time here, microseconds since 1970.

    Returns:
        Sentences, what matters most first.
    """
    if state.status in (Status.SUCCESSFUL, Status.CANCELED):
        return [f"it waits for nothing: {state.status.value} since {show_time(state.ended_us)}"]
    if state.status is Status.FAILED:
        return [*_failures(state), "milepost.resume(id) goes on from there, with the stored code"]
    reasons = []
    if lease is None or not lease.is_fresh(now_us):
        renewed = f"renewed last {show_time(lease.written_us)}" if lease else "it has no lease"
        reasons += [
            f"its owner {state.owner} (epoch {state.epoch}) seems gone: {renewed}",
            "milepost recover goes on with it, on any cluster",
        ]
    if state.status is Status.PENDING:
        return [*reasons, "it waits until other workflows end: as many run as may"]
    return [*reasons, *_failures(state), *_under_way(state)]


def _failures(state: State) -> list[str]:
    return [
        f"task {state.graph.task_id(task)} failed ({error.kind}) after {state.attempts[task]} "
        f"attempts: {error.type}: {error.message}"
        for task, error in state.failed.items()
    ]


def _under_way(state: State) -> list[str]:
    running = [task for slice_ in state.slices.values() for task in slice_.outstanding]
    reasons = [
        f"task {state.graph.task_id(task)} was handed to a worker at "
        f"{show_time(state.task_started_us[task])}, attempt {state.attempts[task]}: it runs, or "
        "waits for resources of the cluster"
        for task in running[:TASKS_SHOWN_MAX]
    ]
    if len(running) > TASKS_SHOWN_MAX:
        reasons.append(f"and {len(running) - TASKS_SHOWN_MAX} more tasks are with workers")
    reasons += _waits(state)
    for kind, told in ((TaskState.READY, "ready"), (TaskState.WAITING, "waiting for their inputs")):
        if state.counts[kind]:
            reasons.append(f"tasks {told}: {state.counts[kind]}")
    return reasons


def _waits(state: State) -> list[str]:
    reasons = [
        f"task {state.graph.task_id(task)} waits for {_describe(state, task, wait)}"
        for task, wait in islice(state.awaited.items(), TASKS_SHOWN_MAX)
    ]
    if len(state.awaited) > TASKS_SHOWN_MAX:
        reasons.append(f"and {len(state.awaited) - TASKS_SHOWN_MAX} more tasks wait likewise")
    return reasons


def _describe(state: State, task: int, wait: Wait) -> str:
    if wait.key:
        return f"an event of the key {wait.key!r}"
    if wait.task >= 0:
        return f"task {state.graph.task_id(wait.task)}"
    until = f"{show_time(wait.due_us)}" if wait.due_us else ""
    if wait.count:
        known = state.graph.input_count(task) - state.waiting[task]
        some = f"{wait.count} of its inputs, of which {known} are there"
        return f"{some}, at most until {until}" if until else some
    return until
