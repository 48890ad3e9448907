"""What a dispatcher sends to the process of its listeners: few messages, again when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from milepost.engine.host import SliceLostError
from milepost.engine.listening import PAUSE_S, PAUSE_S_MAX, STARTS_MAX, Listening
from milepost.engine.messages import Listened, ListenOrder, SliceOrder, SliceTask, WorkerReport
from milepost.replay.fragment import TaskOptions
from milepost.replay.payload import inline

NOTHING = inline(0, b"\xc0")


class Process:
    """Plays the actor in which listeners wait."""

    def __init__(self) -> None:
        self.orders: list[ListenOrder] = []
        self.calls = 0
        self.dropped: list[Any] = []
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.listen, self.drop = _Remote(self._listen), _Remote(self.dropped.extend)
        self.count, self.watch = _Remote(self._count), _Remote(lambda: self.end)

    def _listen(self, orders: Sequence[ListenOrder]) -> None:
        self.calls += 1
        self.orders += orders

    async def _count(self) -> int:
        return len(self.orders)

    def dies(self) -> None:
        self.end.set_exception(ActorDiedError())


class _Remote:
    def __init__(self, method: Any) -> None:
        self.remote = method


class Room:
    """A dispatcher's side, and every process it started."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.environments: list[Any] = []
        self.broken: Exception | None = None
        self.listening = Listening(self._start)

    def _start(self, name: str, runtime_env: Any) -> Process:
        self.environments.append(runtime_env)
        if self.broken:
            raise self.broken
        self.processes.append(Process())
        return self.processes[-1]

    def ask(self, number: int, env: Any = None) -> asyncio.Task[WorkerReport]:
        async def run() -> WorkerReport:
            async for report, _ in self.listening.run(order(number), env):
                assert isinstance(report, WorkerReport)
                return report
            raise AssertionError("no report")

        return asyncio.create_task(run())


def order(number: int) -> ListenOrder:
    task = SliceTask(
        task=number,
        attempt=3,
        task_id="t",
        function=0,
        template=b"",
        inputs=(),
        first_constant=0,
    )
    slice_ = SliceOrder(
        storage="s",
        workflow_id="w",
        incarnation=1,
        epoch=5,
        slice=number,
        dispatcher=None,
        tasks=(task,),
        functions={},
        constants={},
        values={},
        refs={},
        retry_errors=NOTHING,
    )
    options = TaskOptions(max_retries=0, retry_errors=NOTHING, ray=NOTHING, waits_for="poll")
    return ListenOrder(kind="poll", slice=slice_, refs=[], options=options)


def listened(number: int, epoch: int = 5) -> Listened:
    report = WorkerReport(node="n", tasks=[number], last=True)
    return Listened(key=("w", 1, number), workflow_id="w", epoch=epoch, slice=number, report=report)


async def test_listeners_that_are_sent_together_are_one_call() -> None:
    room = Room()
    asked = [room.ask(number) for number in range(500)]
    await asyncio.sleep(0.1)
    (process,) = room.processes
    assert (process.calls, len(process.orders)) == (1, 500)
    assert room.listening.take([listened(number) for number in range(500)]) == [True] * 500
    assert [(await each).tasks for each in asked] == [[number] for number in range(500)]


async def test_only_who_is_still_wanted_is_taken_and_only_once() -> None:
    room = Room()
    asked = room.ask(1)
    await asyncio.sleep(0.1)
    told = room.listening.take([listened(2), listened(1, epoch=4), listened(1), listened(1)])
    assert told == [False, False, True, False]
    await asked


async def test_each_environment_has_a_process_of_its_own() -> None:
    room = Room()
    environments = [None, {"env_vars": {"A": "1"}}, {"env_vars": {"A": "1"}}, None]
    asked = [room.ask(number, env) for number, env in enumerate(environments)]
    await asyncio.sleep(0.1)
    assert len(room.processes) == 2
    room.listening.take([listened(number) for number in range(4)])
    await asyncio.gather(*asked)


async def test_when_their_process_dies_all_are_lost_and_sent_again_after_a_while() -> None:
    room = Room()
    asked = [room.ask(number) for number in range(3)]
    await asyncio.sleep(0.1)
    room.processes[0].dies()
    for each in asked:
        with pytest.raises(SliceLostError, match="process in which listeners wait"):
            await each
    again = room.ask(7)
    await asyncio.sleep(PAUSE_S - 0.1)
    assert len(room.processes) == 1
    await asyncio.sleep(0.2)
    assert [each.slice.slice for each in room.processes[1].orders] == [7]
    room.listening.take([listened(7)])
    await again
    later = room.ask(8)
    await asyncio.sleep(0.1)
    assert room.listening.take([listened(8)]) == [True], "a process that lives is sent to at once"
    await later


async def test_the_pause_grows_with_each_death_up_to_a_limit() -> None:
    room = Room()
    pauses = []
    for number in range(8):
        asked = room.ask(number)
        began = asyncio.get_running_loop().time()
        while len(room.processes) <= number:  # noqa: ASYNC110  what is tested tells nobody
            await asyncio.sleep(0.05)
        pauses.append(asyncio.get_running_loop().time() - began)
        await asyncio.sleep(0.1)
        room.processes[-1].dies()
        with pytest.raises(SliceLostError):
            await asked
    expected = [0, *(min(PAUSE_S * 2**times, PAUSE_S_MAX) for times in range(7))]
    assert pauses == pytest.approx(expected, abs=0.2)


async def test_where_no_process_can_be_started_an_attempt_of_each_is_spent() -> None:
    room = Room()
    room.broken = ActorDiedError()
    report = await room.ask(1)
    (raised,) = report.raised
    assert (raised.task, raised.attempt, raised.error.kind) == (1, 3, "crash")
    assert "listeners cannot be started" in raised.error.message
    assert len(room.environments) == STARTS_MAX
    room.broken = ValueError("no such option")
    (raised,) = (await room.ask(2)).raised
    assert "no such option" in raised.error.message


async def test_who_is_canceled_is_dropped_where_it_waits() -> None:
    room = Room()
    asked, other = room.ask(1), room.ask(2)
    await asyncio.sleep(0.1)
    asked.cancel()
    await asyncio.sleep(0.1)
    assert room.processes[0].dropped == [(("w", 1, 1), 5)]
    assert not other.done()
    room.listening.take([listened(2)])
    await other
