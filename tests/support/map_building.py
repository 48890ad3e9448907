"""Short ways to make graphs with maps, and events and inputs about their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack

from milepost.replay.events import (
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
    TaskError,
)
from milepost.replay.fragment import Fragment, Items, MapSpec, RangeItems
from milepost.replay.inputs import ItemRaised, ItemsReported
from milepost.replay.payload import Payload, inline
from milepost.replay.ranges import Range

if TYPE_CHECKING:
    from milepost.replay.mapping import Run

AT_US = 1_700_000_000_000_000
NUMBERS = RangeItems(first=0, step=1)


def with_maps(
    fragment: Fragment, lengths: dict[int, int], chunk_size: int = 0, items: Items = NUMBERS
) -> Fragment:
    """Returns ``fragment`` with some of its nodes made maps over so many values."""
    maps = tuple(
        MapSpec(node=node, length=length, chunk_size=chunk_size, items=items)
        for node, length in sorted(lengths.items())
    )
    return replace(fragment, maps=maps)


def values_of(start: int, stop: int) -> Payload:
    """Returns what the items of a run are worth: twice their numbers."""
    return inline(0, msgpack.packb([2 * item for item in range(start, stop)]))


def error(kind: str = "exception") -> TaskError:
    """Returns why an item failed."""
    return TaskError(kind=kind, type="ValueError", message="no", traceback="at", exception=None)


def scheduled(number: int, task: int, *runs: Run) -> ItemsScheduled:
    """Returns the event that hands runs of items to a worker."""
    starts, stops, attempts = zip(*runs, strict=True)
    return ItemsScheduled(
        slice=number, task=task, starts=starts, stops=stops, attempts=attempts, at_us=AT_US
    )


def committed(number: int, task: int, *runs: Range, node: str | int = "n1") -> ItemsCommitted:
    """Returns the event that gives runs of items their values."""
    starts, stops = zip(*runs, strict=True)
    return ItemsCommitted(
        slice=number,
        task=task,
        starts=starts,
        stops=stops,
        payloads=tuple(values_of(*run) for run in runs),
        started_us=AT_US,
        duration_us=7,
        node=node,
    )


def failed(
    number: int, task: int, item: int, *, attempt: int = 1, final: bool = False, kind: str = ""
) -> ItemFailed:
    """Returns the event of a failed attempt of an item."""
    return ItemFailed(
        slice=number,
        task=task,
        item=item,
        attempt=attempt,
        error=error(kind or "exception"),
        final=final,
        at_us=AT_US,
        node="n1",
    )


def lost(number: int, task: int) -> ItemsLost:
    """Returns the event of a dead worker."""
    return ItemsLost(slice=number, task=task, reason="killed", at_us=AT_US)


def handed_back(number: int, task: int, *runs: Range) -> ItemsHandedBack:
    """Returns the event of items that were never started."""
    starts, stops = zip(*runs, strict=True)
    return ItemsHandedBack(slice=number, task=task, starts=starts, stops=stops, at_us=AT_US)


def report(
    number: int,
    *runs: Range,
    raised: Sequence[ItemRaised] = (),
    handed_back: Sequence[Range] = (),
    epoch: int = 1,
) -> ItemsReported:
    """Returns what a worker tells: runs that returned, items that raised, what it gave back."""
    return ItemsReported(
        slice=number,
        epoch=epoch,
        starts=tuple(start for start, _ in runs),
        stops=tuple(stop for _, stop in runs),
        payloads=tuple(values_of(*run) for run in runs),
        started_us=AT_US,
        duration_us=7,
        raised=tuple(raised),
        handed_back=tuple(handed_back),
        node="n1",
        at_us=AT_US,
    )


def raised(item: int, *, attempt: int = 1, retryable: bool = True) -> ItemRaised:
    """Returns what a worker tells of an item that raised."""
    return ItemRaised(item=item, attempt=attempt, error=error(), retryable=retryable)
