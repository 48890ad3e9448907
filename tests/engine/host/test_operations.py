"""What ten thousand no-op tasks cost, counted in operations, which no noise can change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.journal import read_journal
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
