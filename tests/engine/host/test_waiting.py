"""Waiting costs a host nothing but a timer; it wakes in time, whoever owns the workflow then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from milepost.engine.alarm import NAP_S_MAX, Alarm
from milepost.errors import StorageUnavailableError
from milepost.replay.events import Event, WaitsBegan, WaitsEnded
from milepost.replay.state import State, Status, TaskState

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

AT_US = 1_700_000_000_000_000
SECOND = 1_000_000
HOUR_S = 3600.0


def sleep(seconds: float, node: int = 0) -> dict[str, Any]:
    return {"waits": {node: ("time", [seconds])}}


def now_s() -> float:
    return asyncio.get_running_loop().time()


def ends_of(journal: list[Event]) -> list[WaitsEnded]:
    return [event for event in journal if isinstance(event, WaitsEnded)]


async def test_a_sleep_ends_in_time_and_no_worker_hears_of_it(stage: Stage) -> None:
    host = await stage.create((), **sleep(HOUR_S))
    assert host.state.task_state(0) is TaskState.AWAITING
    await asyncio.sleep(HOUR_S - now_s() - 1)
    assert stage.told(host) is Status.RUNNING
    await asyncio.sleep(1.001)
    assert stage.told(host) is Status.SUCCESSFUL
    assert stage.workers.desks == []
    assert stage.ends == [host]


async def test_a_sleep_is_in_the_journal_before_it_is_over(stage: Stage) -> None:
    await stage.create((), **sleep(5))
    (began,) = [event for event in stage.journal() if isinstance(event, WaitsBegan)]
    assert began.waits[0].due_us == began.at_us + 5 * SECOND


async def test_whoever_takes_over_sleeps_what_is_left(stage: Stage) -> None:
    await stage.create((), **sleep(10))
    await asyncio.sleep(6)
    host = await stage.take_over()
    await asyncio.sleep(3.9)
    assert stage.told(host) is Status.RUNNING
    await asyncio.sleep(0.2)
    assert stage.told(host) is Status.SUCCESSFUL


async def test_a_sleep_that_was_over_before_the_take_over_ends_at_once(stage: Stage) -> None:
    first = await stage.create((), **sleep(10))
    stage.store.plan = lambda number: "before"
    await asyncio.sleep(20)
    assert isinstance(first.stopped, StorageUnavailableError)
    stage.store.plan = lambda number: None
    host = await stage.take_over()
    assert stage.told(host) is Status.SUCCESSFUL
    assert len(ends_of(stage.journal())) == 1


async def test_what_follows_a_sleep_runs_when_it_is_over(stage: Stage) -> None:
    await stage.create((), (0,), **sleep(10))
    await asyncio.sleep(9.9)
    assert stage.workers.sent == []
    await asyncio.sleep(0.2)
    assert stage.workers.sent == [(1,)]
    stage.workers.find(1).returns()
    await stage.settle()


async def test_many_sleeps_of_one_workflow_share_one_timer(stage: Stage) -> None:
    width = 50
    seconds = {node: ("time", [1.0 + (node * 7) % width]) for node in range(width)}
    host = await stage.create(*[()] * width, tuple(range(width)), waits=seconds)
    await asyncio.sleep(width + 0.1)
    ends = ends_of(stage.journal())
    assert len(ends) == width
    for end in ends:
        (task,) = end.tasks
        due_us = AT_US + round(seconds[task][1][0] * SECOND)
        assert 0 <= end.at_us - due_us < SECOND // 10
    assert host.state.task_state(width) is TaskState.SCHEDULED


async def test_a_failed_workflow_sleeps_on_when_it_is_resumed(stage: Stage) -> None:
    await stage.create((), (), (0, 1), max_retries=0, **sleep(10))
    stage.workers.find(1).raises()
    await asyncio.sleep(20)
    assert stage.stored().status is Status.FAILED
    assert stage.stored().task_state(0) is TaskState.AWAITING
    await stage.take_over()
    assert stage.stored().task_state(0) is TaskState.COMMITTED
    stage.workers.find(1).returns()
    await stage.settle()
    stage.workers.find(2).returns()
    await stage.settle()
    assert stage.stored().status is Status.SUCCESSFUL


async def test_a_canceled_sleep_leaves_no_timer(stage: Stage) -> None:
    host = await stage.create((), **sleep(HOUR_S))
    await host.cancel("ann")
    await stage.settle()
    assert stage.ends == [host]
    assert host._alarm._timer is None


async def test_a_crash_at_any_write_of_a_sleep_leaves_one_that_ends_in_time(
    stage: Stage,
) -> None:
    """Whatever of it is stored, the next owner comes to the end, and not before its time."""
    before = stage.store.calls
    await stage.create((), (0,), **sleep(3))
    writes = stage.store.calls - before
    for number in range(1, writes + 4):
        stage.store.fail_at(stage.store.calls + number, "after")
        await asyncio.sleep(1)
    stage.store.plan = lambda number: None
    await stage.take_over()
    await asyncio.sleep(3.1)
    stage.workers.find(1).returns()
    await stage.settle()
    assert stage.stored().status is Status.SUCCESSFUL
    assert len(ends_of(stage.journal())) == 1


class Clock:
    """A clock that the test sets, beside the loop's own."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return AT_US + round(now_s() * SECOND) + self.ahead_us


@pytest.fixture
def asleep() -> State:
    state = State()
    state.status = Status.RUNNING
    state.dues = [(AT_US + 1000 * SECOND, 0)]
    return state


async def test_a_clock_that_is_set_forward_delays_nobody_for_long(asleep: State) -> None:
    clock, woken = Clock(), asyncio.Event()
    Alarm(clock, woken.set).set(asleep)
    clock.ahead_us = 990 * SECOND
    await asyncio.wait_for(woken.wait(), NAP_S_MAX + 11)


async def test_a_clock_that_is_set_back_wakes_nobody_early(asleep: State) -> None:
    clock, woken = Clock(), asyncio.Event()
    Alarm(clock, woken.set).set(asleep)
    clock.ahead_us = -500 * SECOND
    await asyncio.sleep(1499)
    assert not woken.is_set()
    await asyncio.sleep(1.1)
    assert woken.is_set()


async def test_an_earlier_time_is_heeded(asleep: State) -> None:
    clock, woken = Clock(), asyncio.Event()
    alarm = Alarm(clock, woken.set)
    alarm.set(asleep)
    asleep.dues = [(AT_US + 5 * SECOND, 1)]
    alarm.set(asleep)
    await asyncio.sleep(5.1)
    assert woken.is_set()
