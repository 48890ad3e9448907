"""What ended workflows leave in a dispatcher: nothing but a bounded memory of the newest."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.exceptions import WorkerCrashedError

from front_desk import FrontDesk
from milepost.engine import recent
from milepost.engine.healing import PAUSE_MAX_S
from milepost.engine.host import SliceLostError
from milepost.engine.messages import WorkerReport
from milepost.engine.workers import RayWorkers
from milepost.errors import (
    LostOwnershipError,
    WorkflowActiveError,
    WorkflowCancellationError,
    WorkflowExecutionError,
)
from milepost.journal import take_ownership

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

TIMES = 12
"""Workflows of each kind in a round. One object that each of them leaves shows as so many."""

FAN = ((), (), (), (0, 1, 2))
Life = Callable[[FrontDesk, str], Coroutine[Any, Any, None]]


async def succeed(desk: FrontDesk, name: str) -> None:
    await desk.submit(*FAN, workflow_id=name)
    waiting = [asyncio.create_task(desk.dispatcher.output(name)) for _ in range(3)]
    waiting.append(asyncio.create_task(desk.dispatcher.output(name, "f_1")))
    await desk.finish(0, 1, 2, 3)
    await asyncio.gather(*waiting)
    await desk.dispatcher.metadata(name)
    assert await desk.dispatcher.resume(name) == "stored"


async def give_up_waiting(desk: FrontDesk, name: str) -> None:
    await desk.submit((), workflow_id=name)
    waiting = asyncio.create_task(desk.dispatcher.output(name))
    await desk.stage.settle()
    waiting.cancel()
    await desk.finish(0)


async def fail_and_go_on(desk: FrontDesk, name: str) -> None:
    await desk.submit((), workflow_id=name)
    waiting = asyncio.create_task(desk.refused(desk.dispatcher.output(name)))
    desk.stage.workers.find(0).raises()
    assert isinstance(await waiting, WorkflowExecutionError)
    assert await desk.dispatcher.resume(name) == "resumed"
    assert isinstance(await desk.refused(desk.dispatcher.resume(name)), WorkflowActiveError)
    await desk.stage.settle()
    await desk.finish(0)


async def fail_for_good(desk: FrontDesk, name: str) -> None:
    await desk.submit(*FAN, workflow_id=name)
    desk.stage.workers.find(0).dies()
    await desk.stage.settle()
    desk.stage.workers.find(1).raises()
    await desk.stage.settle()
    for desk_ in list(desk.stage.workers.desks):
        desk_.returns()
    await desk.stage.settle()
    assert await desk.dispatcher.status(name) == "FAILED"


async def continue_(desk: FrontDesk, name: str) -> None:
    await desk.submit((), workflow_id=name)
    desk.stage.workers.find(0).continues(desk.stage.graph((), (0,)))
    await desk.stage.settle()
    await desk.finish(1, 2)


async def pass_large(desk: FrontDesk, name: str) -> None:
    await desk.submit((), (0,), workflow_id=name)
    desk.stage.workers.find(0).returns_objects(0)
    await desk.stage.settle()
    await desk.finish(1)


async def cancel(desk: FrontDesk, name: str) -> None:
    await desk.submit(*FAN, workflow_id=name)
    waiting = asyncio.create_task(desk.refused(desk.dispatcher.output(name)))
    await desk.stage.settle()
    await desk.dispatcher.cancel(name)
    assert isinstance(await waiting, WorkflowCancellationError)


async def heal(desk: FrontDesk, name: str) -> None:
    await desk.submit((), (0,), workflow_id=name)
    desk.stage.store.fail_next()
    desk.stage.workers.find(0).returns()
    await asyncio.sleep(PAUSE_MAX_S)
    desk.stage.workers.find(0).returns()
    await desk.stage.settle()
    await desk.finish(1)


async def fail_to_begin(desk: FrontDesk, name: str) -> None:
    desk.stage.store.fail_next()
    await desk.refused(desk.submit((), workflow_id=name))
    await desk.submit((), workflow_id=name)
    await desk.finish(0)


async def lose(desk: FrontDesk, name: str) -> None:
    await desk.submit((), workflow_id=name)
    waiting = asyncio.create_task(desk.refused(desk.dispatcher.output(name)))
    await desk.stage.settle()
    take_ownership(desk.stage.store, name, owner="rival")
    desk.stage.workers.find(0).returns()
    assert isinstance(await waiting, LostOwnershipError)


LIVES: list[Life] = [
    *(succeed, give_up_waiting, fail_and_go_on, fail_for_good, continue_, pass_large),
    *(cancel, heal, fail_to_begin, lose),
]


@pytest.fixture
def alone() -> Iterator[None]:
    """Leaves out what was there before the test, and logs, which hold all that errors came from."""
    logging.disable()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__.strip("_"))
async def test_ended_workflows_leave_nothing(
    desk: FrontDesk, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ids are used again in each round; the store holds as much after each."""
    monkeypatch.setattr(recent, "RECENT_MAX", 2)
    counts = []
    for _ in range(3):
        await play_a_round(desk, life)
        counts.append(count_objects())
    grown = {kind: count for kind, count in (counts[2] - counts[1]).items() if count >= TIMES}
    assert grown == {}
    assert await desk.dispatcher.live() == {}
    assert not any(desk.notes.hosted.values()), "the manager believes them hosted"


async def play_a_round(desk: FrontDesk, life: Life) -> None:
    for number in range(TIMES):
        name = f"w{number}"
        await life(desk, name)
        await desk.stage.settle()
        await desk.dispatcher.delete(name)
        desk.stage.workers.desks.clear()


def count_objects() -> Counter[str]:
    gc.collect()
    kinds = Counter(
        f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects()
    )
    kinds["a task of the event loop"] = len(asyncio.all_tasks())
    return kinds


@pytest.mark.usefixtures("alone")
async def test_only_so_many_ended_workflows_are_remembered(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "RECENT_MAX", 5)
    kinds = []
    for number in range(20):
        await desk.submit((), workflow_id=f"w{number}")
        await desk.finish(0)
        desk.stage.workers.desks.clear()
        kinds.append(count_objects()["milepost.replay.state.State"])
    assert kinds == [1, 2, 3, 4] + [5] * 16


class Generator:
    """What Ray gives for a slice that streams: awaitable refs to reports, or its loss."""

    def __init__(self, *reports: WorkerReport, lost: bool = False, hangs: bool = False) -> None:
        self._reports, self._lost, self._hangs = list(reports), lost, hangs

    def __aiter__(self) -> Generator:
        return self

    async def __anext__(self) -> Any:
        if self._reports:
            ref: asyncio.Future[WorkerReport] = asyncio.get_running_loop().create_future()
            ref.set_result(self._reports.pop(0))
            return ref
        if self._hangs:
            await asyncio.Event().wait()
        if self._lost:
            raise WorkerCrashedError
        raise StopAsyncIteration


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("ends", type(None)),
        ("dies", SliceLostError),
        ("is not wanted any more", asyncio.CancelledError),
    ],
)
async def test_a_slice_leaves_nothing_with_those_who_sent_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, how: str, outcome: type
) -> None:
    canceled: list[object] = []
    monkeypatch.setattr(ray, "cancel", lambda generator, force: canceled.append(generator))
    workers = RayWorkers(stage.store, "stage", 2)
    host = await stage.create(())
    (desk,) = stage.workers.desks
    generator = Generator(
        WorkerReport(node="n"), lost=how == "dies", hangs=how == "is not wanted any more"
    )
    monkeypatch.setattr(workers, "_start", lambda host, slice_: generator)
    before = len(asyncio.all_tasks())

    async def listen() -> None:
        async for _ in workers.run(host, desk.order):
            pass

    listening = asyncio.create_task(listen())
    await stage.settle()
    if how == "is not wanted any more":
        listening.cancel()
    (told,) = await asyncio.gather(listening, return_exceptions=True)
    assert type(told) is outcome
    assert canceled == [generator] * (how == "is not wanted any more")
    assert workers._mailboxes == {}
    await stage.settle()
    assert len(asyncio.all_tasks()) == before
