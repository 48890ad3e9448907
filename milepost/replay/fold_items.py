"""The part of the fold that is about maps: from events about items to their :class:`MapState`.

As in :mod:`milepost.replay.fold`, everything is checked before anything changes. A map that can be
scheduled stands in ``open_maps`` while some item of it is pending; it is SCHEDULED while some item
is under way, and READY while none is.
"""

from __future__ import annotations

from milepost.replay import retrying
from milepost.replay.catching import name_item, pack_caught
from milepost.replay.events import (
    WORKER_DIED,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
)
from milepost.replay.fragment import Fragment, ResultItems
from milepost.replay.mapping import ItemSlice, MapState, pack_mapped
from milepost.replay.moves import (
    clip,
    complete,
    make_ready,
    move,
    note_worker,
    queue,
    require,
    require_known,
)
from milepost.replay.payload import Encoding
from milepost.replay.ranges import Ranges, are_ascending
from milepost.replay.state import State, Status, TaskState

_OPEN = (TaskState.READY, TaskState.SCHEDULED)


def require_items(state: State, fragment: Fragment) -> None:
    """Raises Refused if maps of ``fragment`` take values that the workflow does not have."""
    for spec in fragment.maps:
        if isinstance(spec.items, ResultItems):
            source = spec.items.task
            result = state.results[source] if 0 <= source < len(state.results) else None
            whole = result is not None and result.encoding == Encoding.MAPPED
            require(whole and source in state.maps, "no such map has a value", source)
            width = state.maps[source].width
            require(width == spec.length, "the map is of another width", width, spec.length)


def add_maps(state: State, fragment: Fragment, first: int) -> None:
    """Notes which nodes of a fragment that was just added are maps."""
    for spec in fragment.maps:
        catches = fragment.options[fragment.node_options[spec.node]].catch_exceptions
        state.maps[first + spec.node] = MapState(spec, catches)


def schedule_items(state: State, event: ItemsScheduled) -> None:
    """Takes pending items into a slice."""
    require(state.status is Status.RUNNING, "the workflow does not run", state.status)
    require(event.slice == state.next_slice, "slices are numbered densely", event.slice)
    require(event.task in state.maps, "there is no such map", event.task)
    require(state.tasks[event.task] in _OPEN, "the map is not ready", event.task)
    map_ = state.maps[event.task]
    require(are_ascending(event.starts, event.stops), "runs are disjoint and in order")
    require(len(event.attempts) == len(event.starts), "columns differ in length")
    rows = list(zip(event.starts, event.stops, event.attempts, strict=True))
    for start, stop, attempt in rows:
        require(start >= 0 and map_.is_pending(start, stop), "items are not pending", start, stop)
        known = list(map_.list_runs(start, stop)) == [(start, stop, attempt)]
        require(known, "not the next attempt of these items", start, stop, attempt)
    suspects = max([map_.take(*row) for row in rows])
    option = state.graph.node_options[event.task]
    outstanding = Ranges(zip(event.starts, event.stops, strict=True))
    state.item_slices[event.slice] = ItemSlice(option, event.task, outstanding, suspects)
    state.slice_counts[option] += 1
    state.next_slice += 1
    if not state.attempts[event.task]:
        state.task_started_us[event.task] = clip(event.at_us)
    state.attempts[event.task] = max(state.attempts[event.task], *event.attempts)
    restate_map(state, event.task)


def commit_items(state: State, event: ItemsCommitted) -> None:
    """Gives items their values; the map has its own when all have."""
    require(len(event.payloads) == len(event.starts), "columns differ in length")
    slice_, map_ = _require_outstanding(state, event.slice, event.task, event.starts, event.stops)
    require_known(state, event.node)
    for start, stop, payload in zip(event.starts, event.stops, event.payloads, strict=True):
        slice_.outstanding.remove(start, stop)
        map_.commit(start, stop, payload)
    note_worker(state, event.node)
    _settle(state, event.slice, clip(event.started_us + event.duration_us))


def fail_item(state: State, event: ItemFailed) -> bool:
    """Takes the failure of an item; tells whether the map has failed with it."""
    item, span = event.item, (event.item, event.item + 1)
    slice_, map_ = _require_outstanding(state, event.slice, event.task, (item,), (item + 1,))
    require(event.attempt == map_.present_attempt(item), "not the present attempt", event.attempt)
    require(retrying.find_fault(event) is None, "a retry that cannot be", event.retry_us)
    require_known(state, event.node)
    slice_.outstanding.remove(*span)
    map_.failures[item] = map_.failures.get(item, 0) + 1
    if event.retry_us:
        retrying.put_off(state, event, item)
    elif not event.final:
        map_.put_back(*span, suspects=int(event.error.kind in WORKER_DIED))
    elif map_.catches:
        map_.commit(*span, pack_caught(name_item(state, event.task, item), event.error))
    else:
        map_.under_way -= 1
        map_.failed[item] = event.error
    note_worker(state, event.node)
    _settle(state, event.slice, clip(event.at_us))
    return event.final and not map_.catches


def lose_items(state: State, event: ItemsLost) -> None:
    """Lets what a dead worker had be scheduled again, as suspects."""
    slice_, map_ = _require_slice(state, event.slice, event.task)
    for start, stop in slice_.outstanding:
        map_.put_back(start, stop, suspects=len(slice_.outstanding))
    slice_.outstanding = Ranges()
    _settle(state, event.slice)


def hand_back_items(state: State, event: ItemsHandedBack) -> None:
    """Lets items that were never started be scheduled again, in the same attempt."""
    slice_, map_ = _require_outstanding(state, event.slice, event.task, event.starts, event.stops)
    for start, stop in zip(event.starts, event.stops, strict=True):
        slice_.outstanding.remove(start, stop)
        for item in range(start, stop):
            map_.attempts[item] = map_.present_attempt(item) - 1
        map_.put_back(start, stop, slice_.suspects)
    _settle(state, event.slice)


def give_up_items(state: State) -> None:
    """Lets all that is under way be scheduled again: its owner is gone."""
    slices = list(state.item_slices.values())
    state.item_slices.clear()
    for slice_ in slices:
        for start, stop in slice_.outstanding:
            state.maps[slice_.task].put_back(start, stop, slice_.suspects)
        restate_map(state, slice_.task)


def revive_map(state: State, task: int) -> None:
    """Gives a failed map a fresh start; what it has under way goes on."""
    state.maps[task].revive()
    make_ready(state, task)
    restate_map(state, task)


def close_maps(state: State) -> None:
    """Lets go of the items under way of maps that have their value, or will never have one."""
    for number, slice_ in list(state.item_slices.items()):
        if state.tasks[slice_.task] in (TaskState.COMMITTED, TaskState.DROPPED):
            state.maps[slice_.task].under_way -= len(slice_.outstanding)
            _end_slice(state, number)
    for maps in list(state.open_maps.values()):
        for task in list(maps):
            restate_map(state, task)


def restate_map(state: State, task: int) -> None:
    """Says where a map stands after something happened to its items."""
    map_, option = state.maps[task], state.graph.node_options[task]
    standing = state.tasks[task]
    if standing in _OPEN:
        wanted = TaskState.SCHEDULED if map_.under_way else TaskState.READY
        if standing != wanted:
            move(state, task, wanted)
    waiting = state.open_maps.get(option, {})
    if standing in _OPEN and map_.pending:
        if task not in waiting:
            queue(state, task)
    elif task in waiting:
        del waiting[task]
        if not waiting:
            del state.open_maps[option]


def _require_slice(state: State, number: int, task: int) -> tuple[ItemSlice, MapState]:
    slice_ = state.item_slices.get(number)
    require(slice_ is not None, "no such slice of items is under way", number)
    assert slice_ is not None
    require(slice_.task == task, "the slice is of another map", slice_.task, task)
    return slice_, state.maps[task]


def _require_outstanding(
    state: State, number: int, task: int, starts: tuple[int, ...], stops: tuple[int, ...]
) -> tuple[ItemSlice, MapState]:
    slice_, map_ = _require_slice(state, number, task)
    require(are_ascending(starts, stops), "runs are disjoint and in order")
    for start, stop in zip(starts, stops, strict=True):
        known = slice_.outstanding.covers(start, stop)
        require(known, f"items are not outstanding in slice {number}", start, stop)
    return slice_, map_


def _settle(state: State, number: int, at_us: int = 0) -> None:
    """Ends a slice with nothing outstanding, and gives its map the value that it may have now."""
    slice_ = state.item_slices[number]
    task, map_ = slice_.task, state.maps[slice_.task]
    if not slice_.outstanding:
        _end_slice(state, number)
    state.task_ended_us[task] = max(state.task_ended_us[task], at_us)
    if map_.done == map_.width:
        complete(state, task, pack_mapped(task, task in state.catchers))
    restate_map(state, task)


def _end_slice(state: State, number: int) -> None:
    slice_ = state.item_slices.pop(number)
    state.slice_counts[slice_.option] -= 1
