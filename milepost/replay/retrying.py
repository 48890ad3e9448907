"""When a failed attempt is repeated: how often, and after what delay.

The delay grows with each failure as the options of the task say, and varies by chance that comes
from the journal itself, so that tasks which fail together do not all come back together. What is
decided stands in the event of the failure as a due time; the next owner keeps to it.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import TypeAlias

from milepost.replay.events import WORKER_DIED, AttemptFailed, ItemFailed, RetriesDue, TaskError
from milepost.replay.fragment import Backoff, TaskOptions
from milepost.replay.inputs import SliceLost
from milepost.replay.moves import make_ready, move
from milepost.replay.state import PutOff, State, TaskState

Failure: TypeAlias = AttemptFailed | ItemFailed

ENDLESS = -1
"""As the number of retries: no limit."""

PATIENT_FAILURES = 3
ENDLESS_BACKOFF = Backoff(delay_us=100_000, factor=2.0, jitter=0.1, delay_us_max=30_000_000)
"""Who retries for ever and says nothing of delays has this one from the fourth failure on: what
always fails at once must not keep a cluster busy with failing."""

DELAY_US_MAX = 10**15
"""Thirty years; powers of factors go anywhere."""


def is_exhausted(options: TaskOptions, failures: int) -> bool:
    """Tells whether a task that failed this often before, and again, has failed for good."""
    return options.max_retries != ENDLESS and failures >= options.max_retries


def find_retry_time(state: State, task: int, item: int, failures: int, at_us: int) -> int:
    """Returns when the next attempt is due, or 0 for at once.

    Args:
        state: The state, before the failure.
        task: The task that failed, or the map.
        item: The item of the map, or -1.
        failures: How often it failed before since the last resume.
        at_us: When it failed.
    """
    options = state.graph.options[state.graph.node_options[task]]
    backoff, grown = options.backoff, failures
    if backoff is None:
        if options.max_retries != ENDLESS or failures < PATIENT_FAILURES:
            return 0
        backoff, grown = ENDLESS_BACKOFF, failures - PATIENT_FAILURES
    delay_us = _grow(backoff, grown) * (1 + backoff.jitter * _draw(state, task, item, failures))
    return max(1, at_us + round(min(delay_us, DELAY_US_MAX))) if backoff.delay_us else 0


def _grow(backoff: Backoff, failures: int) -> float:
    """Multiplies step by step up to the greatest delay: a power could be more than any number."""
    delay_us, most = float(backoff.delay_us), float(backoff.delay_us_max)
    for _ in range(failures):
        if delay_us >= most or backoff.factor <= 1.0:
            break
        delay_us *= backoff.factor
    return min(delay_us, most)


def _draw(state: State, task: int, item: int, failures: int) -> float:
    """Returns a number from -1 to 1 that is the same whoever asks, and different for each retry."""
    seed = f"{state.workflow_id} {state.created_us} {task} {item} {failures} {state.epoch}"
    drawn = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    return drawn / 2**63 - 1


def describe_loss(lost: SliceLost) -> TaskError:
    """Returns the error of an attempt whose worker died or was ended."""
    return TaskError(
        kind=lost.kind,
        type=_ERROR_TYPES.get(lost.kind, "TaskCrashedError"),
        message=lost.reason,
        traceback="",
        exception=None,
    )


_ERROR_TYPES = {
    "timeout": "TaskTimeoutError",
    "memory": "TaskOutOfMemoryError",
    "node": "NodeLostError",
}


def find_fault(event: Failure) -> str | None:
    """Returns why a failure cannot say what it says of the next attempt, or None."""
    if event.retry_us < 0 or (event.final and event.retry_us):
        return "there is no such next attempt"
    return None


def put_off(state: State, event: Failure, item: int = -1) -> None:
    """Puts a failed task or item off until its next attempt is due."""
    heapq.heappush(state.put_off, PutOff(event.retry_us, event.at_us, event.task, item))
    if item < 0:
        move(state, event.task, TaskState.DELAYED)
    else:
        state.maps[event.task].put_off(item, suspects=int(event.error.kind in WORKER_DIED))


def find_due(state: State, at_us: int) -> RetriesDue | None:
    """Returns that attempts are due at this time, or None if none is."""
    due = bool(state.put_off) and state.put_off[0].due_us <= at_us
    return RetriesDue(at_us=at_us) if due else None


def take_due(state: State, at_us: int) -> list[int]:
    """Lets what is due by this time run again; returns the maps among them."""
    maps: dict[int, None] = {}
    while state.put_off and state.put_off[0].due_us <= at_us:
        entry = heapq.heappop(state.put_off)
        if entry.item < 0:
            make_ready(state, entry.task)
        else:
            state.maps[entry.task].take_due(entry.item)
            maps[entry.task] = None
    return list(maps)


def forget_needless(state: State) -> None:
    """Forgets the retries of what is needed no more."""
    if state.put_off:
        state.put_off = [entry for entry in state.put_off if _counts(state, entry)]
        heapq.heapify(state.put_off)


def _counts(state: State, entry: PutOff) -> bool:
    if entry.item < 0:
        return state.tasks[entry.task] == TaskState.DELAYED
    return state.tasks[entry.task] not in (TaskState.COMMITTED, TaskState.DROPPED)


def list_put_off(state: State) -> list[int]:
    """Returns the tasks, without items of maps, whose next attempt is not due yet."""
    return [entry.task for entry in state.put_off if entry.item < 0]


def follow_clock(state: State, at_us: int) -> None:
    """Goes by the clock of a new owner: if that says it failed later than now, it was now.

    A clock that was an hour ahead when a task failed would make its delay an hour longer.
    """
    if any(entry.since_us > at_us for entry in state.put_off):
        state.put_off = [
            entry
            if entry.since_us <= at_us
            else entry._replace(
                due_us=max(1, at_us + entry.due_us - entry.since_us), since_us=max(0, at_us)
            )
            for entry in state.put_off
        ]
        heapq.heapify(state.put_off)
