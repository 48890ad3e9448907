"""Nobody is told anything that is not durable, and no flush is spent on what can wait for company.

A flush is held back here by the thread it runs in; what a host does meanwhile shows what it waits
for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from milepost.engine import host as host_module
from milepost.engine.host import LAZY_FLUSH_S
from milepost.replay.events import (
    OwnershipTaken,
    StatusChanged,
    TasksCommitted,
    TasksScheduled,
    WorkflowCreated,
)
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

FAN = ((), (), (), (0, 1, 2))
CHAIN = ((), (0,), (1,))


def statuses(stage: Stage) -> list[str]:
    return [event.status for event in stage.journal() if isinstance(event, StatusChanged)]


async def test_a_creation_is_told_when_its_flush_has_returned(
    stage: Stage, creation: Callable[..., WorkflowCreated]
) -> None:
    stage.threads.hold()
    host = stage.make_host()
    created = asyncio.create_task(host.create(creation(()), "owner"))
    await stage.settle()
    assert stage.threads.held == 1
    assert not created.done()
    assert stage.told(host) is None
    assert stage.workers.desks == [], "a task ran for a workflow that does not exist yet"
    stage.threads.release()
    await created
    assert stage.told(host) is Status.RUNNING
    assert statuses(stage) == ["RUNNING"]


async def test_no_task_starts_before_its_new_owner_is_durable(stage: Stage) -> None:
    await stage.create(*FAN)
    stage.workers.desks.clear()
    stage.threads.hold()
    host = stage.make_host()
    taken = asyncio.create_task(host.take_over("owner", "test"))
    await stage.settle()
    assert stage.workers.desks == []
    assert stage.told(host) is None
    stage.threads.release()
    await taken
    assert len(stage.workers.desks) == 3


async def test_success_is_told_when_its_flush_has_returned(stage: Stage) -> None:
    host = await stage.create(())
    stage.threads.hold()
    stage.workers.desks[0].returns()
    await stage.settle()
    assert host.state.status is Status.SUCCESSFUL
    assert stage.told(host) is Status.RUNNING
    assert "SUCCESSFUL" not in statuses(stage)
    told = asyncio.create_task(host.sync())
    await stage.settle()
    assert not told.done()
    stage.threads.release()
    await told
    assert stage.told(host) is Status.SUCCESSFUL
    assert statuses(stage)[-1] == "SUCCESSFUL"


async def test_a_failure_is_told_when_its_flush_has_returned(stage: Stage) -> None:
    host = await stage.create(())
    stage.threads.hold()
    stage.workers.desks[0].raises()
    await stage.settle()
    assert host.state.status is Status.FAILED
    assert stage.told(host) is Status.RUNNING
    stage.threads.release()
    await stage.settle()
    assert stage.told(host) is Status.FAILED


async def test_a_resume_is_told_when_its_flush_has_returned(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).raises()
    await stage.settle()
    stage.threads.hold()
    resumed = asyncio.create_task(host.resume("ann"))
    await stage.settle()
    assert not resumed.done()
    assert stage.told(host) is None
    stage.threads.release()
    assert await resumed
    assert stage.told(host) is Status.RUNNING


async def test_a_second_failure_during_a_resume_is_not_told_before_it_is_durable(
    stage: Stage,
) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).raises()
    await stage.settle()
    stage.threads.hold()
    resumed = asyncio.create_task(host.resume("ann"))
    await stage.settle()
    stage.workers.find(1).raises()  # reaches the host while the resume is being flushed
    await stage.settle()
    stage.threads.step()
    assert await resumed
    assert host.state.status is Status.FAILED
    assert stage.told(host) is Status.RUNNING
    assert statuses(stage)[-1] == "RUNNING"
    stage.threads.release()
    await stage.settle()
    assert stage.told(host) is Status.FAILED


async def test_a_sync_covers_what_was_queued_before_it_and_only_that(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    first = asyncio.create_task(host.sync())
    stage.workers.find(1).returns()
    await stage.settle()
    second = asyncio.create_task(host.sync())
    await stage.settle()
    stage.threads.step()
    await first
    await stage.settle()
    assert not second.done()
    stage.threads.release()
    await second


async def test_a_flush_does_not_keep_the_event_loop_from_other_work(stage: Stage) -> None:
    await stage.create(*FAN)
    stage.threads.hold()
    for task in (0, 1, 2):
        stage.workers.find(task).returns()
    await stage.settle()
    assert stage.workers.sent == [(0,), (1,), (2,), (3,)]


async def test_pipelined_a_dependent_starts_while_its_input_is_being_flushed(stage: Stage) -> None:
    host = await stage.create(*CHAIN)
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    stage.workers.find(1).returns()
    await stage.settle()
    assert stage.workers.sent == [(0,), (1,), (2,)]
    assert stage.stored().results == [None] * 3
    stage.workers.find(2).returns()
    await stage.settle()
    stage.threads.release()
    await host.sync()
    committed = [event.tasks for event in stage.journal() if isinstance(event, TasksCommitted)]
    assert committed == [(0,), (1,), (2,)]


async def test_pipelined_what_is_durable_stands_without_what_is_not(stage: Stage) -> None:
    host = await stage.create((), (0,), (0,), (1, 2), (3,))
    stage.threads.hold()
    for wave in ((0,), (1, 2), (3,), (4,)):
        for task in wave:
            stage.workers.find(task).returns()
            await stage.settle()
        stage.check()
        stage.threads.step()
        await stage.settle()
        stage.check()
    stage.threads.release()
    await host.sync()
    assert stage.stored().status is Status.SUCCESSFUL


@pytest.mark.parametrize("durability", ["strict", "pipelined"])
async def test_strict_a_dependent_starts_only_when_its_input_is_durable(
    stage: Stage, durability: str
) -> None:
    await stage.create(*CHAIN, durability=durability)
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    started = (1,) in stage.workers.sent
    assert started == (durability == "pipelined")
    stage.threads.release()
    await stage.settle()
    assert (1,) in stage.workers.sent
    assert stage.stored().results[0] is not None


async def test_strict_even_a_retry_starts_only_when_its_failure_is_durable(stage: Stage) -> None:
    await stage.create((), durability="strict")
    stage.threads.hold()
    stage.workers.find(0).raises(retryable=True)
    await stage.settle()
    assert stage.workers.sent == [(0,)]
    stage.threads.release()
    await stage.settle()
    assert stage.workers.sent == [(0,), (0,)]


async def test_all_that_is_reported_during_a_flush_becomes_one_flush(stage: Stage) -> None:
    stage.workers.slices_max = 50
    host = await stage.create(*[()] * 50, range(50))
    await asyncio.sleep(LAZY_FLUSH_S * 2)
    before = len(stage.frames())
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    for task in range(1, 50):
        stage.workers.find(task).returns()
        await stage.settle()
    assert stage.threads.held == 1
    stage.threads.release()
    await host.sync()
    frames = stage.frames()[before:]
    commits = [
        sum(len(event.tasks) for event in frame if isinstance(event, TasksCommitted))
        for frame in frames
    ]
    assert commits == [1, 49]


@pytest.mark.parametrize("limit", ["BACKLOG_EVENTS_MAX", "BACKLOG_BYTES_MAX"])
async def test_a_storage_slower_than_the_workers_holds_the_workers_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Results must not pile up in memory while a flush takes long."""
    monkeypatch.setattr(host_module, limit, 10)
    chain = tuple((at - 1,) if at else () for at in range(40))
    host = await stage.create(*chain)
    stage.threads.hold()
    for task in range(40):
        if not any(task in slice_.tasks for slice_ in stage.workers.desks):
            break
        stage.workers.find(task).returns()
        await stage.settle()
    sent = len(stage.workers.desks)
    assert sent < 20
    stage.threads.release()
    await stage.settle()
    for done in range(sent - 1, 40):
        stage.workers.find(done).returns()
        await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL


async def test_events_go_to_the_journal_in_the_order_they_happened(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.threads.hold()
    for task in (2, 0, 1):
        stage.workers.find(task).returns()
        await stage.settle()
    stage.workers.find(3).returns()
    stage.threads.release()
    await host.sync()
    await stage.settle()
    committed = [event.tasks for event in stage.journal() if isinstance(event, TasksCommitted)]
    assert committed == [(2,), (0,), (1,), (3,)]
    assert stage.stored().digest() == host.state.digest()


async def test_a_schedule_alone_waits_for_company(stage: Stage) -> None:
    host = await stage.create(*FAN)
    assert len(stage.frames()) == 1, "the schedule was flushed at once"
    await asyncio.sleep(LAZY_FLUSH_S / 2)
    stage.workers.find(0).returns()
    await host.sync()
    frames = stage.frames()
    assert len(frames) == 2
    assert [type(event) for event in frames[1]] == [TasksScheduled] * 3 + [TasksCommitted]


async def test_a_schedule_alone_is_written_before_long(stage: Stage) -> None:
    host = await stage.create(*FAN)
    await asyncio.sleep(LAZY_FLUSH_S / 2)
    assert len(stage.frames()) == 1
    await asyncio.sleep(LAZY_FLUSH_S)
    assert [type(event) for event in stage.frames()[1]] == [TasksScheduled] * 3
    assert stage.stored().digest() == host.state.digest()
    await asyncio.sleep(1)
    assert len(stage.frames()) == 2, "something is flushed over and over"


async def test_every_owner_starts_with_one_frame_that_tells_the_status(stage: Stage) -> None:
    await stage.create(())
    await stage.take_over()
    firsts = [
        frame
        for frame in stage.frames()
        if any(isinstance(event, OwnershipTaken) for event in frame)
    ]
    assert len(firsts) == 2
    assert all(any(isinstance(event, StatusChanged) for event in frame) for frame in firsts)
