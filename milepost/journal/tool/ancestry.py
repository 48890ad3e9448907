"""``milepost lineage``: what went into a task's result."""

from __future__ import annotations

from typing import Any

import click

from milepost.errors import TaskNotFoundError
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.table import print_table
from milepost.journal.tool.text import print_json
from milepost.replay.state import State, TaskState


@click.command("lineage")
@click.argument("workflow_id")
@click.argument("task_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(context: click.Context, workflow_id: str, task_id: str, as_json: bool) -> None:
    """List the tasks that went into a result, the task itself first."""
    state = chosen_history(context, workflow_id).state_at()
    task = state.graph.find(task_id)
    if task is None:
        raise TaskNotFoundError(workflow_id, task_id, state.graph.find_near(task_id))
    found = [_describe(state, each) for each in find_upstream(state, task)]
    if as_json:
        for each in found:
            print_json(each)
        return
    heads = ("TASK", "FUNCTION", "CODE", "STATE", "ATTEMPT", "INPUTS")
    rows = [
        (
            each["task"],
            each["function"],
            each["code"][:12],
            each["state"],
            each["attempt"],
            ", ".join(each["inputs"]) or "-",
        )
        for each in found
    ]
    print_table(heads, rows)


def find_upstream(state: State, task: int) -> list[int]:
    """Find every task whose value a result rests on.

    Args:
        state: The state of the workflow.
        task: The task.

    Returns:
        The task and all of these, once each, the nearest first.
    """
    found = {task: None}
    for each in (order := [task]):
        for source in _sources(state, each):
            if source not in found:
                found[source] = None
                order.append(source)
    return order


def _sources(state: State, task: int) -> list[int]:
    """The inputs of a task, and what ties a continuation to the task that returned it."""
    continued = state.continuations.get(task)
    creator = state.creators.get(task)
    links = [each for each in (continued, creator) if each is not None]
    return list(dict.fromkeys([*state.graph.inputs(task), *links]))


def _describe(state: State, task: int) -> dict[str, Any]:
    graph = state.graph
    function = graph.functions[graph.node_functions[task]]
    return {
        "task": graph.task_id(task),
        "function": function.name,
        "code": function.digest.hex(),
        "state": TaskState(state.tasks[task]).name,
        "attempt": state.attempts[task],
        "inputs": [graph.task_id(each) for each in _sources(state, task)],
    }
