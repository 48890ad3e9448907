"""Workflows of one dispatcher do not keep each other waiting: counted in slices, not in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from milepost.engine.host import FOLDED_AT_ONCE_MAX, SLICE_US, AnySlice, WorkflowHost
from milepost.engine.shares import RECENT_S, Shares
from milepost.journal import MemoryStore
from milepost.journal.states import own_state
from milepost.replay.events import WorkflowCreated
from milepost.replay.state import Status
from tests.engine.host.conftest import Desk, Workers, settle

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage, Threads

PLACES = 4
CHAIN = ((), (0,), (1,))


def fan(width: int) -> list[Any]:
    """Returns the inputs of independent tasks and of one that takes them all."""
    return [*[()] * width, range(width)]


class Queue(Workers):
    """Workers that take the slices of all hosts in the order they came, as Ray does."""

    def __init__(self) -> None:
        super().__init__(PLACES)
        self.owners: list[WorkflowHost] = []
        self.done = 0

    async def run(self, host: WorkflowHost, slice_: AnySlice) -> Any:
        desk = Desk(slice_)
        self.desks.append(desk)
        self.owners.append(host)
        async for delivery in desk.listen():
            yield delivery

    async def finish_next(self) -> None:
        desk = self.desks[self.done]
        self.done += 1
        desk.returns(duration_us=SLICE_US)
        await settle()

    def drop(self, host: WorkflowHost) -> None:
        """Forgets the slices of a host that was canceled."""
        kept = [each for each in zip(self.desks, self.owners, strict=True) if each[1] is not host]
        self.desks = [desk for desk, _ in kept]
        self.owners = [owner for _, owner in kept]
        self.done = sum(desk.closed for desk in self.desks)

    def count_waiting(self, host: WorkflowHost) -> int:
        return self.owners[self.done :].count(host)


class House:
    """Hosts that share the places of one dispatcher."""

    def __init__(self, creation: Callable[..., WorkflowCreated], threads: Threads) -> None:
        self.workers = Queue()
        self.creation = creation
        self._threads = threads
        self._shares = Shares(self.workers)
        self._store = MemoryStore()
        self._numbers = count()

    async def start(self, *inputs: Any) -> WorkflowHost:
        host = self.make_host()
        await host.create(self.creation(*inputs), "owner")
        await settle()
        return host

    def make_host(self) -> WorkflowHost:
        state, writer = own_state(self._store, f"w{next(self._numbers)}", "owner")
        return WorkflowHost(
            state,
            writer,
            self.workers,
            self._threads,
            lambda: round(asyncio.get_running_loop().time() * 1e6),
            lambda host: None,
            shares=self._shares,
        )


@pytest.fixture
def house(creation: Callable[..., WorkflowCreated], stage: Stage) -> House:
    return House(creation, stage.threads)


async def test_a_workflow_alone_has_all_places(house: House) -> None:
    alone = await house.start(*fan(100))
    assert house.workers.count_waiting(alone) == PLACES


async def test_a_small_workflow_passes_large_ones(house: House) -> None:
    large = [await house.start(*fan(500)) for _ in range(3)]
    for _ in range(20):
        await house.workers.finish_next()
    small = await house.start(*CHAIN)
    begun = house.workers.done
    while not small.ended:
        await house.workers.finish_next()
    passed = house.workers.done - begun - len(CHAIN)
    assert passed <= len(CHAIN) * (PLACES + 1)
    assert all(not host.ended for host in large)


async def test_places_that_others_give_back_are_taken_at_once(house: House) -> None:
    large = await house.start(*fan(100))
    small = await house.start(*fan(100))
    for _ in range(PLACES):
        await house.workers.finish_next()
    assert house.workers.count_waiting(large) == PLACES // 2
    await small.cancel("test")
    await settle()
    house.workers.drop(small)
    assert house.workers.count_waiting(large) == PLACES


async def test_a_slice_that_takes_long_keeps_no_place_from_others(house: House) -> None:
    long = await house.start(*fan(100))
    other = await house.start(*fan(100))
    assert house.workers.count_waiting(other) == PLACES // 2
    await asyncio.sleep(2 * RECENT_S)
    assert house.workers.count_waiting(other) == PLACES
    assert house.workers.count_waiting(long) == PLACES


async def test_everybody_has_one_place_at_least(house: House) -> None:
    """Else tasks that wait for other workflows could keep all of those from running."""
    hosts = [await house.start(*fan(10)) for _ in range(3 * PLACES)]
    assert all(house.workers.count_waiting(host) >= 1 for host in hosts)


async def test_the_loop_goes_on_while_a_large_graph_is_folded(house: House, stage: Stage) -> None:
    large = house.make_host()
    stage.threads.hold()
    creating = asyncio.create_task(large.create(house.creation(*fan(FOLDED_AT_ONCE_MAX)), "owner"))
    await settle()
    assert large.state.next_seq == 0, "it was folded on the loop"
    stage.threads.release()
    await creating
    await settle()
    assert large.announced is Status.RUNNING
    assert house.workers.count_waiting(large) == PLACES
