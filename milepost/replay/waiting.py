"""Tasks that wait for something that no worker runs: what begins such a wait, and what ends it.

A task of this kind becomes ready like any other (one that waits for other tasks at once); then it
is AWAITING, which costs a few bytes of state and nothing else, until what it waits for has come.
What it waits for and since when is in the journal, so that the next owner goes on waiting for the
same. This module says when waits begin and end, and keeps the books; what moves tasks is
:mod:`milepost.replay.fold` alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import msgpack

from milepost.replay.events import Wait, WaitsBegan, WaitsEnded
from milepost.replay.fragment import AWAITED, Fragment
from milepost.replay.payload import unpack_plain
from milepost.replay.state import State, TaskState

Name = TypeVar("Name", int, str)

VALUE_EXTENSION = 1
"""Stands in an argument template for the value of an input (docs/events.md)."""

US_PER_S = 1_000_000
DURATION_S_MAX = 1e12
"""Who waits for more, some 30,000 years, gets this."""


def is_awaited(state: State, option: int) -> bool:
    """Tells whether tasks of this scheduling class wait for something that no worker runs."""
    return state.graph.options[option].waits_for in AWAITED


def count_blocking(fragment: Fragment) -> tuple[int, ...]:
    """Returns for each node how many inputs keep it from being ready when it is new."""
    eager = {at for at, each in enumerate(fragment.options) if each.waits_for == "tasks"}
    if not eager:
        return fragment.input_counts
    rows = zip(fragment.input_counts, fragment.node_options, strict=True)
    return tuple(0 if option in eager else count for count, option in rows)


def find_begun(state: State, at_us: int) -> WaitsBegan | None:
    """Returns the beginning of the waits of all tasks that are ready to wait, None without any."""
    tasks = tuple(
        dict.fromkeys(
            task
            for option, queue in state.ready.items()
            if is_awaited(state, option)
            for task in queue
            if state.tasks[task] == TaskState.READY
        )
    )
    waits = tuple(_describe(state, task, at_us) for task in tasks)
    return WaitsBegan(tasks=tasks, waits=waits, at_us=at_us) if tasks else None


def _describe(state: State, task: int, at_us: int) -> Wait:
    """Returns what ``task`` waits for, by its arguments; those of our nodes are checked."""
    match _waits_for(state, task), *_read_arguments(state, task):
        case "time", (float() | int()) as duration_s:
            return Wait(due_us=_add(at_us, duration_s))
        case "event", str() as key:
            return Wait(key=key or state.graph.task_id(task))
        case "task", str() as task_id:
            target = state.graph.find(task_id)
            assert target is not None, (task, task_id)
            return Wait(task=target)
        case "tasks", int() as count, (float() | int() | None) as timeout_s, *_:
            return Wait(count=count, due_us=0 if timeout_s is None else _add(at_us, timeout_s))
    raise ValueError(f"task {task} does not say what it waits for")


def _waits_for(state: State, task: int) -> str:
    return state.graph.options[state.graph.node_options[task]].waits_for


def _add(at_us: int, duration_s: float) -> int:
    return max(1, at_us + round(min(duration_s, DURATION_S_MAX) * US_PER_S))


def _read_arguments(state: State, task: int) -> list[Any]:
    """Returns the positional arguments of a task: plain data, or values that are; else None."""

    def resolve(kind: int, content: bytes) -> Any:
        result = state.results[state.graph.inputs(task)[msgpack.unpackb(content)]]
        return unpack_plain(result.data) if kind == VALUE_EXTENSION and result else None

    template = state.graph.templates[state.graph.node_templates[task]]
    arguments: list[Any] = msgpack.unpackb(template, ext_hook=resolve)[0]
    return arguments


def find_ended(state: State, at_us: int) -> WaitsEnded | None:
    """Returns the end of all waits that are over at this time, None if none is."""
    tasks = tuple(sorted({*state.ripe, *_iterate_due(state, at_us)}))
    return WaitsEnded(tasks=tasks, at_us=at_us) if tasks else None


def _iterate_due(state: State, at_us: int) -> Iterator[int]:
    """Yields what is due, without walking over what is not: the head of a heap is its least."""
    places, dues = [0], state.dues
    while places:
        place = places.pop()
        if place < len(dues) and dues[place][0] <= at_us:
            if _counts(state, dues[place]):
                yield dues[place][1]
            places += (2 * place + 1, 2 * place + 2)


def _counts(state: State, entry: tuple[int, int]) -> bool:
    """Tells whether an entry of the heap counts: what has ended is left in it for a while."""
    due_us, task = entry
    wait = state.awaited.get(task)
    return wait is not None and wait.due_us == due_us


def find_fault_in_begin(state: State, task: int, wait: Wait) -> str | None:
    """Returns why this wait of ``task`` may not begin, or None if it may."""
    if not 0 <= task < len(state.tasks) or state.tasks[task] != TaskState.READY:
        return "the task is not ready"
    said = (wait.due_us > 0, wait.key != "", wait.task >= 0)
    match _waits_for(state, task):
        case "time":
            fits = said == (True, False, False) and wait.count == 0
        case "event":
            fits = said == (False, True, False) and wait.count == 0
        case "task":
            fits = said == (False, False, True) and wait.count == 0
        case "tasks":
            fits = said[1:] == (False, False) and 0 < wait.count <= state.graph.input_count(task)
        case _:
            return "a worker runs the task"
    if not fits or wait.due_us < 0 or not -1 <= wait.task < len(state.tasks):
        return "the task does not wait for that"
    return None


def find_fault_in_end(state: State, task: int, at_us: int) -> str | None:
    """Returns why the wait of ``task`` may not end at this time, or None if it may."""
    wait = state.awaited.get(task)
    if wait is None:
        return "the task does not wait"
    due = 0 < wait.due_us <= at_us
    return None if due or task in state.ripe else "what it waits for has not come"


def note_begun(state: State, task: int, wait: Wait) -> None:
    """Notes that ``task`` waits."""
    state.awaited[task] = wait
    if wait.due_us:
        heapq.heappush(state.dues, (wait.due_us, task))
    if wait.key:
        state.listening.setdefault(wait.key, {})[task] = None
    if wait.task >= 0:
        state.following.setdefault(wait.task, {})[task] = None
    if _has_come(state, task, wait):
        state.ripe[task] = None


def _has_come(state: State, task: int, wait: Wait) -> bool:
    """Tells whether what ends the wait is there, whatever the time."""
    if wait.key:
        return wait.key in state.received
    if wait.task >= 0:
        return state.results[wait.task] is not None
    return 0 < wait.count <= state.graph.input_count(task) - state.waiting[task]


def note_value(state: State, source: int) -> None:
    """Notes that ``source`` has a value now, for those who wait for it."""
    for task in (*state.graph.outputs(source), *state.following.get(source, ())):
        wait = state.awaited.get(task)
        if wait is not None and _has_come(state, task, wait):
            state.ripe[task] = None


def note_received(state: State, key: str) -> None:
    """Notes that the event of this key is there, for those who wait for it."""
    state.ripe.update(dict.fromkeys(state.listening.get(key, ())))


def note_ended(state: State, task: int) -> None:
    """Notes that ``task`` waits no more, whatever the reason."""
    wait = state.awaited.pop(task)
    state.ripe.pop(task, None)
    while state.dues and not _counts(state, state.dues[0]):
        heapq.heappop(state.dues)
    if wait.key:
        _take_off(state.listening, wait.key, task)
    if wait.task >= 0:
        _take_off(state.following, wait.task, task)


def _take_off(waiters: dict[Name, dict[int, None]], name: Name, task: int) -> None:
    del waiters[name][task]
    if not waiters[name]:
        del waiters[name]


def follow_clock(state: State, at_us: int) -> None:
    """Goes by the clock of a new owner: who has not waited at all has the whole wait before it.

    A clock that was an hour ahead when a wait began would make it an hour longer for all others.
    """
    moved = False
    for task, wait in state.awaited.items():
        if wait.due_us and at_us < state.task_started_us[task]:
            whole_us = wait.due_us - state.task_started_us[task]
            state.awaited[task] = replace(wait, due_us=max(1, at_us + whole_us))
            state.task_started_us[task] = max(0, at_us)
            moved = True
    if moved:
        waits = state.awaited.items()
        state.dues = [(wait.due_us, task) for task, wait in waits if wait.due_us]
        heapq.heapify(state.dues)


def forget_needless(state: State) -> None:
    """Ends the waits of tasks that are needed no more."""
    for task in [each for each in state.awaited if state.tasks[each] != TaskState.AWAITING]:
        note_ended(state, task)
