"""What ten thousand no-op tasks cost, counted in operations, which no noise can change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack

from map_building import with_maps
from milepost.engine.messages import ItemReport
from milepost.journal import read_journal
from milepost.replay.decide_items import SLICE_ITEMS_MAX, RunItems
from milepost.replay.payload import Payload, inline
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

TASKS = 10_000
NOOP_US = 10


async def finish(stage: Stage, *, riders_max: int, chain: bool = False) -> None:
    """Runs ten thousand tasks, each worker reporting a slice as a whole, to their end."""
    stage.workers.riders_max = riders_max
    if chain:
        host = await stage.create((), *[(task,) for task in range(TASKS - 1)])
    else:
        host = await stage.create(*[()] * TASKS, range(TASKS))
    answered = 0
    while not host.ended:
        waiting = stage.workers.desks[answered:]
        answered += len(waiting)
        for desk in waiting:
            desk.returns(value=0, duration_us=NOOP_US)
        await stage.settle()
    assert host.state.status is Status.SUCCESSFUL


def count_bytes(stage: Stage) -> int:
    """Returns the bytes of the frames behind the creation, before compression."""
    raw = [frame.raw for frame in read_journal(stage.store, "w")][1:]
    return sum(map(len, raw))


async def test_a_wide_graph_takes_few_calls_events_and_flushes(stage: Stage) -> None:
    await finish(stage, riders_max=500)
    assert len(stage.workers.desks) <= 40, "Ray calls"
    assert len(stage.journal()) <= 3 + 2 * 40 + 1, "events"
    assert len(stage.frames()) <= 45, "flushes"
    assert count_bytes(stage) <= 30 * TASKS


async def test_a_chain_takes_few_calls_events_and_flushes(stage: Stage) -> None:
    await finish(stage, riders_max=500, chain=True)
    assert len(stage.workers.desks) <= 30, "Ray calls"
    assert len(stage.journal()) <= 3 + 2 * 30 + 1, "events"
    assert len(stage.frames()) <= 35, "flushes"
    assert count_bytes(stage) <= 30 * TASKS


async def test_a_map_takes_few_calls_events_and_bytes(stage: Stage) -> None:
    """Whether of ten thousand items or a million: the slices are those of the first, and larger."""
    items = 1_000_000
    host = stage.make_host()
    created = stage.creation(())
    graph = with_maps(created.fragment, {0: items})
    await host.create(replace(created, fragment=graph), "owner")
    answered, most = 0, 0
    while not host.ended:
        waiting = stage.workers.desks[answered:]
        answered += len(waiting)
        most = max(most, host.state.maps[0].under_way)
        for desk in waiting:
            assert isinstance(desk.order, RunItems)
            desk.send(report_items(desk.order), last=True)
        await stage.settle()
    assert host.state.status is Status.SUCCESSFUL
    assert len(stage.workers.desks) <= items // SLICE_ITEMS_MAX + 20, "Ray calls"
    assert len(stage.journal()) <= 4 + 2 * len(stage.workers.desks), "events"
    assert len(stage.frames()) <= 5 + len(stage.workers.desks), "flushes"
    assert count_bytes(stage) <= 1.1 * items, "a byte per None, before compression"
    assert most <= 4 * SLICE_ITEMS_MAX, "items under way"


def report_items(order: RunItems) -> ItemReport:
    """Returns what a worker says of items that did nothing."""
    runs = zip(order.starts, order.stops, strict=True)
    return ItemReport(
        node="n1",
        starts=list(order.starts),
        stops=list(order.stops),
        payloads=[pack_nothing(stop - start) for start, stop in runs],
        started_us=1,
        duration_us=sum(order.stops) - sum(order.starts),
    )


def pack_nothing(count: int) -> Payload:
    """Returns the payload of so many Nones."""
    return inline(0, msgpack.packb([None] * count))
