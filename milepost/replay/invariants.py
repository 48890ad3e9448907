"""What holds in every state, whatever the events were. Tests call it after every step."""

from __future__ import annotations

from collections import Counter
from functools import partial

from milepost.replay.payload import Encoding
from milepost.replay.state import State, Status, TaskState


def check(state: State) -> None:
    """Checks the invariants of ``state``; linear in its size, meant for tests and tools.

    Raises:
        AssertionError: With the task or the figures that break an invariant.
    """
    _check_sizes(state)
    _check_counts(state)
    for task in range(len(state.graph)):
        _check_task(state, task)
    _check_put_off(state)
    _check_queues(state)
    _check_slices(state)
    _check_waits(state)
    for task in state.maps:
        _check_map(state, task)
    _check_status(state)


def _check_put_off(state: State) -> None:
    entries = [(entry.task, entry.item) for entry in state.put_off]
    assert len(entries) == len(set(entries)), entries
    delayed = {(at, -1) for at, kind in enumerate(state.tasks) if kind == TaskState.DELAYED}
    for task, map_ in state.maps.items():
        if state.tasks[task] not in (TaskState.COMMITTED, TaskState.DROPPED):
            delayed |= {(task, item) for item in map_.delayed}
    assert delayed == set(entries), delayed.symmetric_difference(entries)
    for place, entry in enumerate(state.put_off[1:], 1):
        assert state.put_off[(place - 1) // 2] <= entry, (place, state.put_off)


def _check_sizes(state: State) -> None:
    sizes = {len(state.graph), len(state.tasks), len(state.attempts), len(state.waiting)}
    sizes |= {len(state.task_started_us), len(state.task_ended_us)}
    assert sizes == {len(state.results)}, sizes
    numbers = list(state.workers.values())
    assert numbers == list(range(len(numbers))), numbers


def _check_counts(state: State) -> None:
    counted = Counter(state.tasks)
    expected = [counted.get(kind, 0) for kind in TaskState]
    assert state.counts == expected, (state.counts, expected)


def _check_task(state: State, task: int) -> None:
    kind = state.task_state(task)
    missing = sum(state.results[source] is None for source in state.graph.inputs(task))
    assert state.waiting[task] == missing, (task, state.waiting[task], missing)
    needless = kind == TaskState.DROPPED or _is_spared(state, task)
    waits_for = state.graph.options[state.graph.node_options[task]].waits_for
    if not needless and waits_for != "tasks" and kind != TaskState.SCHEDULED:  # see _check_slices
        assert (kind == TaskState.WAITING) == (missing > 0), (task, kind, missing)
    assert (state.results[task] is not None) == (kind == TaskState.COMMITTED), (task, kind)
    assert (task in state.failed) == (kind == TaskState.FAILED), (task, kind)
    assert (task in state.awaited) == (kind == TaskState.AWAITING), (task, kind)
    if not needless and not waits_for and kind not in (TaskState.WAITING, TaskState.READY):
        assert state.attempts[task] > 0, (task, kind)
    found = state.graph.find(state.graph.task_id(task))
    assert found == task, (task, state.graph.task_id(task), found)


def _is_spared(state: State, task: int) -> bool:
    """Tells whether ``task``, a continuation's root, got its value because an error was caught."""
    result = state.results[task]
    caught = result is not None and result.encoding == Encoding.CAUGHT
    return caught and task in state.creators


def _check_queues(state: State) -> None:
    queued = {task for queue in state.ready.values() for task in queue}
    ready = {task for task, kind in enumerate(state.tasks) if kind == TaskState.READY}
    ready -= state.maps.keys()
    assert queued.isdisjoint(state.maps), queued
    assert ready <= queued, ready - queued
    for option, queue in state.ready.items():
        assert queue, option
        assert state.task_state(queue[0]) == TaskState.READY, (option, queue[0])
        assert all(state.graph.node_options[task] == option for task in queue), option


def _check_slices(state: State) -> None:
    outstanding = [task for slice_ in state.slices.values() for task in slice_.outstanding]
    assert len(outstanding) == len(set(outstanding)), outstanding
    scheduled = {task for task, kind in enumerate(state.tasks) if kind == TaskState.SCHEDULED}
    scheduled -= state.maps.keys()
    assert set(outstanding) == scheduled, (outstanding, scheduled)
    for slice_ in state.slices.values():
        for task in slice_.outstanding:
            for source in state.graph.inputs(task):
                known = state.results[source] is not None
                assert known or source in slice_.outstanding, (task, source)
    counted = Counter(slice_.option for slice_ in state.slices.values())
    counted.update(slice_.option for slice_ in state.item_slices.values())
    assert state.slice_counts == counted, (state.slice_counts, counted)
    assert not state.slices.keys() & state.item_slices.keys(), list(state.item_slices)


def _check_map(state: State, task: int) -> None:
    """Every item is in one place, and the map stands where its items are."""
    map_, kind = state.maps[task], state.task_state(task)
    slices = [slice_ for slice_ in state.item_slices.values() if slice_.task == task]
    assert all(slice_.outstanding for slice_ in slices), (task, slices)
    under_way = [each for slice_ in slices for each in slice_.outstanding]
    assert map_.under_way == sum(stop - start for start, stop in under_way), (task, under_way)
    done = [(start, stop) for start, stop, _ in map_.chunks()]
    assert map_.done == sum(stop - start for start, stop in done), (task, map_.done)
    failed = [(item, item + 1) for item in map_.failed]
    suspects = [(start, stop) for start, stop, _ in map_.suspects]
    fresh = [(map_.fresh, map_.width)] if map_.fresh < map_.width else []
    _check_option(state, task)
    if kind in (TaskState.DROPPED, TaskState.COMMITTED):
        assert not slices, (task, kind, slices)
        if kind == TaskState.DROPPED or map_.done < map_.width:
            return  # nobody needs the rest
    delayed = [(item, item + 1) for item in map_.delayed]
    parts = sorted([*done, *under_way, *failed, *delayed, *suspects, *map_.requeued, *fresh])
    ends = [0, *(stop for _, stop in parts)]
    assert [start for start, _ in parts] == ends[:-1], (task, parts)
    assert ends[-1] == map_.width, (task, parts)
    assert (map_.done == map_.width) == (kind == TaskState.COMMITTED), (task, kind, map_.done)
    assert all(item < map_.fresh for item in map_.attempts), (task, map_.attempts)
    if kind in (TaskState.READY, TaskState.SCHEDULED):
        assert (kind == TaskState.SCHEDULED) == bool(map_.under_way), (task, kind)


def _check_option(state: State, task: int) -> None:
    map_, kind = state.maps[task], state.task_state(task)
    waits = task in state.open_maps.get(state.graph.node_options[task], {})
    can_run = kind in (TaskState.READY, TaskState.SCHEDULED) and map_.pending > 0
    assert waits == can_run, (task, kind, map_.pending)
    assert all(state.open_maps.values()), state.open_maps


def _check_waits(state: State) -> None:
    dues = {(wait.due_us, task) for task, wait in state.awaited.items() if wait.due_us}
    assert dues <= set(state.dues), dues.difference(state.dues)
    assert not state.dues or state.dues[0] in dues, state.dues[0]
    for place, entry in enumerate(state.dues[1:], 1):
        assert state.dues[(place - 1) // 2] <= entry, (place, state.dues)
    keys = {(wait.key, task) for task, wait in state.awaited.items() if wait.key}
    assert keys == {(key, task) for key, tasks in state.listening.items() for task in tasks}, keys
    targets = {(wait.task, task) for task, wait in state.awaited.items() if wait.task >= 0}
    assert targets == {(to, task) for to, tasks in state.following.items() for task in tasks}
    assert state.ripe.keys() == set(filter(partial(_has_come, state), state.awaited)), state.ripe


def _has_come(state: State, task: int) -> bool:
    wait = state.awaited[task]
    if wait.count:
        known = sum(state.results[source] is not None for source in state.graph.inputs(task))
        return known >= wait.count
    followed = wait.task >= 0 and state.results[wait.task] is not None
    return followed or wait.key in state.received


def _check_status(state: State) -> None:
    if state.status is Status.SUCCESSFUL:
        assert state.result is not None, state.root
        assert not state.slices, state.slices
        assert not state.awaited, state.awaited
        assert not state.item_slices, state.item_slices
    if state.status is Status.FAILED:
        assert state.failed, state.status
    for root, creator in state.creators.items():
        kinds = (state.task_state(root), state.task_state(creator))
        committed = [kind == TaskState.COMMITTED for kind in kinds]
        assert committed[0] == committed[1], (root, creator, kinds)
        dropped = (TaskState.DROPPED, TaskState.DROPPED)
        kept = kinds[1] in (TaskState.EXTENDED, TaskState.COMMITTED)
        assert kept or kinds == dropped, (creator, kinds)
