"""The steps that all changes of a state are made of: refusals, states of tasks, values.

Used by :mod:`milepost.replay.fold` and its parts, and by nothing else.
"""

from __future__ import annotations

from collections import deque

from milepost.replay.payload import Payload
from milepost.replay.state import State, TaskState
from milepost.replay.waiting import note_value

TIME_US_MAX = 2**63 - 1

_READY = int(TaskState.READY)
_COMMITTED = int(TaskState.COMMITTED)


class Refused(Exception):
    """Why an event is not legal; :func:`milepost.replay.fold.apply` adds the place."""


def require(condition: bool, reason: str, *values: object) -> None:
    """Raises Refused, with the reason and the values, unless ``condition`` holds."""
    if not condition:
        shown = ", ".join(map(repr, values))
        raise Refused(f"{reason} ({shown})" if values else reason)


def require_known(state: State, node: str | int) -> None:
    """Raises Refused if ``node`` is the number of a worker that the journal has not named."""
    known = isinstance(node, str) or 0 <= node < len(state.workers)
    require(known, "the journal has not named this worker", node)


def note_worker(state: State, node: str | int) -> None:
    """Gives a worker its number, which later events name it by."""
    if isinstance(node, str) and node:
        state.workers.setdefault(node, len(state.workers))


def clip(us: int) -> int:
    """Returns a time that the columns can hold: clocks of workers can say anything."""
    return min(max(us, 0), TIME_US_MAX)


def move(state: State, task: int, to: int) -> None:
    """Says where ``task`` stands now."""
    state.counts[state.tasks[task]] -= 1
    state.counts[to] += 1
    state.tasks[task] = to


def make_ready(state: State, task: int) -> None:
    """Lets ``task`` be scheduled."""
    move(state, task, _READY)
    queue(state, task)


def queue(state: State, task: int) -> None:
    """Puts a task that is ready where schedulers look: maps stand apart from other tasks."""
    option = state.graph.node_options[task]
    if task in state.maps:
        state.open_maps.setdefault(option, {})[task] = None
    elif option in state.ready:
        state.ready[option].append(task)
    else:
        state.ready[option] = deque((task,))


def complete(state: State, task: int, payload: Payload) -> None:
    """Gives ``task`` its value, and with it every task whose continuation ends here."""
    completed: int | None = task
    while completed is not None:
        move(state, completed, _COMMITTED)
        state.results[completed] = payload
        for output in state.graph.outputs(completed):
            state.waiting[output] -= 1
            if state.waiting[output] == 0 and state.tasks[output] == TaskState.WAITING:
                make_ready(state, output)
        if state.awaited:
            note_value(state, completed)
        completed = state.creators.get(completed)
