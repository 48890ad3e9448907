"""The part of the decisions that is about maps: which items to hand out, what became of them.

Items are cut into slices by what they cost, like tasks. Items that were lost together with a worker
are suspect: they travel apart from others, in ever smaller groups, until one is alone with a dead
worker and is blamed for it. Nothing here is linear in the width of a map.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter

from milepost.replay.events import (
    Event,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
)
from milepost.replay.inputs import ItemRaised, ItemsReported, SliceLost, WorkWanted
from milepost.replay.mapping import ItemSlice, MapState, Run
from milepost.replay.retrying import describe_loss, find_retry_time, is_exhausted
from milepost.replay.state import State

SLICE_ITEMS_MAX = 10_000
"""More items per slice save nothing more; with the number of slices it bounds what is under way."""

SUSPECT_PARTS = 16
"""Into so many slices go items that were lost together: four losses find one among 10,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunItems:
    """Hand these items of a map to one worker; its reports name the epoch, too."""

    slice: int
    epoch: int
    option: int
    task: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    attempts: tuple[int, ...]
    sync_first: bool

    @property
    def tasks(self) -> tuple[int, ...]:
        """The one task that these items belong to."""
        return (self.task,)


def schedule_items(
    state: State, wanted: WorkWanted, scheduled: Counter[int]
) -> tuple[list[ItemsScheduled], list[RunItems]]:
    """Cuts pending items into slices, for as many workers as are free; maps take turns.

    Args:
        state: The state.
        wanted: What workers can take.
        scheduled: For each scheduling class, how many slices were cut for it in this decision.
    """
    events: list[ItemsScheduled] = []
    effects: list[RunItems] = []
    number = state.next_slice + scheduled.total()
    for option, maps in state.open_maps.items():
        free = wanted.slices_max - state.slice_counts[option] - scheduled[option]
        for task, runs in _take_turns(state, maps, wanted, free):
            starts, stops, attempts = zip(*runs, strict=True)
            event = ItemsScheduled(
                slice=number + len(events),
                task=task,
                starts=starts,
                stops=stops,
                attempts=attempts,
                at_us=wanted.at_us,
            )
            events.append(event)
            effects.append(_run(state, event, option))
    return events, effects


def _run(state: State, event: ItemsScheduled, option: int) -> RunItems:
    return RunItems(
        slice=event.slice,
        epoch=state.epoch,
        option=option,
        task=event.task,
        starts=event.starts,
        stops=event.stops,
        attempts=event.attempts,
        sync_first=state.durability == "strict",
    )


def _take_turns(
    state: State, maps: dict[int, None], wanted: WorkWanted, free: int
) -> Iterator[tuple[int, list[Run]]]:
    turns: deque[tuple[int, Iterator[list[Run]]]] = deque()
    for task in maps:
        if len(turns) >= free:
            break
        turns.append((task, _cut_slices(state, task, wanted, free)))
    while turns and free > 0:
        task, slices = turns.popleft()
        runs = next(slices, None)
        if runs is not None:
            free -= 1
            turns.append((task, slices))
            yield task, runs


def _cut_slices(state: State, task: int, wanted: WorkWanted, free: int) -> Iterator[list[Run]]:
    """Cuts the pending items of a map: the requeued first, then the suspects, then the fresh."""
    map_ = state.maps[task]
    cost = wanted.costs_us.get(state.graph.node_functions[task], float(wanted.slice_us))
    fair_share = -(-map_.pending // free)
    size = max(1, min(int(wanted.slice_us / max(cost, 0.01)), SLICE_ITEMS_MAX, fair_share))
    if state.graph.options[state.graph.node_options[task]].timeout_us:
        size = 1  # each has its own time limit
    runs: list[Run] = []
    room = size
    for start, stop in map_.requeued:
        while start < stop:
            end = min(stop, start + room)
            runs.extend(map_.list_runs(start, end))
            start, room = end, room - (end - start)
            if room == 0:
                yield runs
                runs, room = [], size
    if runs:
        yield runs
    for start, stop, together in map_.suspects:
        part = min(size, -(-together // SUSPECT_PARTS))
        for first in range(start, stop, part):
            yield list(map_.list_runs(first, min(stop, first + part)))
    for first in range(map_.fresh, map_.width, size):
        yield [(first, min(map_.width, first + size), 1)]


def take_items(state: State, slice_: ItemSlice, report: ItemsReported) -> list[Event]:
    """Returns the events that a report leads to; those of failures come last, in order."""
    report = _drop_settled(state, slice_, report)
    events: list[Event] = []
    if report.handed_back:
        starts, stops = zip(*report.handed_back, strict=True)
        events.append(
            ItemsHandedBack(
                slice=report.slice,
                task=slice_.task,
                starts=starts,
                stops=stops,
                at_us=report.at_us,
            )
        )
    if report.starts:
        events.append(_committed(state, slice_, report))
    events.extend(_failed(state, slice_, report, raised) for raised in report.raised)
    return events


def _drop_settled(state: State, slice_: ItemSlice, report: ItemsReported) -> ItemsReported:
    """Leaves out what the slice no longer waits for: a report may arrive twice or late."""
    outstanding, map_ = slice_.outstanding, state.maps[slice_.task]
    rows = zip(report.starts, report.stops, report.payloads, strict=True)
    kept = sorted((row for row in rows if outstanding.covers(row[0], row[1])), key=itemgetter(0))
    return replace(
        report,
        starts=tuple(row[0] for row in kept),
        stops=tuple(row[1] for row in kept),
        payloads=tuple(row[2] for row in kept),
        raised=tuple(
            each
            for each in report.raised
            if outstanding.covers(each.item, each.item + 1)
            and map_.present_attempt(each.item) == each.attempt
        ),
        handed_back=tuple(sorted(run for run in report.handed_back if outstanding.covers(*run))),
    )


def _committed(state: State, slice_: ItemSlice, report: ItemsReported) -> ItemsCommitted:
    return ItemsCommitted(
        slice=report.slice,
        task=slice_.task,
        starts=report.starts,
        stops=report.stops,
        payloads=report.payloads,
        started_us=report.started_us,
        duration_us=report.duration_us,
        node=state.workers.get(report.node, report.node),
    )


def _failed(
    state: State, slice_: ItemSlice, report: ItemsReported, raised: ItemRaised
) -> ItemFailed:
    final, retry_us = _find_next(state, slice_, raised.item, report.at_us)
    final = final or not raised.retryable
    return ItemFailed(
        slice=report.slice,
        task=slice_.task,
        item=raised.item,
        attempt=raised.attempt,
        error=raised.error,
        final=final,
        at_us=report.at_us,
        node=state.workers.get(report.node, report.node),
        retry_us=0 if final else retry_us,
    )


def _find_next(state: State, slice_: ItemSlice, item: int, at_us: int) -> tuple[bool, int]:
    """Tells whether an item that fails now has no further attempt, and when that is due if so."""
    failures = state.maps[slice_.task].failures.get(item, 0)
    if is_exhausted(state.graph.options[slice_.option], failures):
        return True, 0
    return False, find_retry_time(state, slice_.task, item, failures, at_us)


def take_loss(state: State, slice_: ItemSlice, lost: SliceLost) -> Event:
    """Blames an item that was alone with its worker; of several, none can be blamed."""
    if len(slice_.outstanding) > 1:
        return ItemsLost(slice=lost.slice, task=slice_.task, reason=lost.reason, at_us=lost.at_us)
    ((item, _),) = slice_.outstanding
    final, retry_us = _find_next(state, slice_, item, lost.at_us)
    return ItemFailed(
        slice=lost.slice,
        task=slice_.task,
        item=item,
        attempt=state.maps[slice_.task].present_attempt(item),
        error=describe_loss(lost),
        final=final,
        at_us=lost.at_us,
        node="",
        retry_us=retry_us,
    )


def completes(map_: MapState, events: list[Event]) -> bool:
    """Tells whether these events give all items of a map their values."""
    done = map_.done
    for event in events:
        if isinstance(event, ItemsCommitted):
            done += sum(event.stops) - sum(event.starts)
        elif isinstance(event, ItemFailed) and event.final and map_.catches:
            done += 1
    return done == map_.width
