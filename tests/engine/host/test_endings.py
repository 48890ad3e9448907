"""How a host ends, and what it leaves behind: each ending is told once, and to all who wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from milepost.engine import host as host_module
from milepost.engine.host import WorkflowHost
from milepost.errors import (
    EngineUnavailableError,
    LostOwnershipError,
    MilepostError,
    StorageUnavailableError,
)
from milepost.journal import take_ownership
from milepost.replay.codec import encode
from milepost.replay.events import (
    Event,
    OwnershipTaken,
    StatusChanged,
    TasksCommitted,
    TasksScheduled,
    WorkflowCreated,
)
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.engine.host.conftest import Fault, Stage

FAN = ((), (), (), (0, 1, 2))


def commits(stage: Stage) -> list[int]:
    events = [event for event in stage.journal() if isinstance(event, TasksCommitted)]
    return [task for event in events for task in event.tasks]


async def ending(host: WorkflowHost) -> MilepostError | None:
    """Waits like somebody who wants the result; returns why there is none."""
    try:
        while not host.ended:
            await host.change()
        await host.sync()
    except MilepostError as error:
        return error
    return host.stopped


async def test_a_host_whose_workflow_succeeded_ends_and_lets_go(stage: Stage) -> None:
    host = await stage.create(())
    waiting = asyncio.create_task(ending(host))
    stage.workers.find(0).returns()
    assert await waiting is None
    assert stage.told(host) is Status.SUCCESSFUL
    await stage.settle()
    assert stage.ends == [host]
    assert stage.is_closed(host)


async def test_a_host_whose_workflow_failed_ends_and_lets_go(stage: Stage) -> None:
    host = await stage.create(())
    waiting = asyncio.create_task(ending(host))
    stage.workers.find(0).raises()
    assert await waiting is None
    assert stage.told(host) is Status.FAILED
    await stage.settle()
    assert stage.ends == [host]
    assert stage.is_closed(host)


async def test_success_is_told_though_its_worker_says_goodbye_late(stage: Stage) -> None:
    host = await stage.create(())
    stage.workers.find(0).returns(last=False)
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL
    assert not host.ended
    assert stage.ends == []
    stage.workers.find(0).ends()
    await stage.settle()
    assert stage.ends == [host]


async def test_a_worker_that_dies_after_its_last_result_takes_nothing_back(stage: Stage) -> None:
    host = await stage.create(())
    stage.workers.find(0).returns(last=False)
    stage.workers.find(0).dies()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL
    assert stage.ends == [host]
    assert stage.stored().status is Status.SUCCESSFUL


async def test_a_host_that_takes_over_a_finished_graph_only_says_so(
    stage: Stage, creation: Callable[..., WorkflowCreated]
) -> None:
    """The last commit and the status behind it can be in two frames, and only one be durable."""
    writer = take_ownership(stage.store, "w", owner="first")
    payload = creation(()).metadata
    events: list[Event] = [
        creation(()),
        OwnershipTaken(epoch=writer.epoch, owner="first", reason="created", at_us=0),
        StatusChanged(status="RUNNING", reason="", who="first", at_us=0),
        TasksScheduled(slice=0, tasks=(0,), attempts=(1,), at_us=0),
        TasksCommitted(
            slice=0,
            tasks=(0,),
            attempts=(1,),
            payloads=(payload,),
            started_us=(0,),
            durations_us=(0,),
            node="n1",
        ),
    ]
    writer.flush([encode(event) for event in events])
    host = await stage.take_over()
    assert stage.told(host) is Status.SUCCESSFUL
    assert stage.workers.desks == []
    assert stage.ends == [host]
    assert stage.stored().status is Status.SUCCESSFUL


async def test_a_fenced_host_tells_nobody_anything(stage: Stage) -> None:
    host = await stage.create(*FAN)
    waiting = asyncio.create_task(ending(host))
    take_ownership(stage.store, "w", owner="rival")
    stage.workers.find(0).returns()
    stage.workers.find(1).returns()
    assert isinstance(await waiting, LostOwnershipError)
    assert isinstance(host.stopped, LostOwnershipError)
    assert stage.told(host) is Status.RUNNING
    with pytest.raises(LostOwnershipError):
        await host.sync()
    await stage.settle()
    assert stage.ends == [host]
    assert stage.is_closed(host)


async def test_a_host_fenced_at_its_last_commit_does_not_tell_the_result(stage: Stage) -> None:
    host = await stage.create(())
    waiting = asyncio.create_task(ending(host))
    take_ownership(stage.store, "w", owner="rival")
    stage.workers.find(0).returns()
    assert isinstance(await waiting, LostOwnershipError)
    assert stage.told(host) is Status.RUNNING
    assert stage.ends == [host]


@pytest.mark.parametrize("durability", ["pipelined", "strict"])
async def test_a_fenced_host_sends_no_more_slices_and_cancels_those_it_sent(
    stage: Stage, durability: str
) -> None:
    host = await stage.create(*FAN, (3,), durability=durability)
    for task in (0, 1):
        stage.workers.find(task).returns()
    await host.sync()
    take_ownership(stage.store, "w", owner="rival")
    stage.threads.hold()
    stage.workers.find(2).raises(retryable=True)
    await stage.settle()
    retried = stage.workers.sent.count((2,))
    assert retried == (2 if durability == "pipelined" else 1)
    stage.threads.release()
    await stage.settle()
    assert isinstance(host.stopped, LostOwnershipError)
    assert stage.workers.sent.count((2,)) == retried
    assert all(desk.closed for desk in stage.workers.desks)
    stage.workers.find(2).returns()
    await stage.settle()
    assert (3,) not in stage.workers.sent


async def test_a_creation_overtaken_by_a_rival_is_refused(
    stage: Stage, creation: Callable[..., WorkflowCreated]
) -> None:
    host = stage.make_host()
    take_ownership(stage.store, "w", owner="rival")
    with pytest.raises(LostOwnershipError):
        await host.create(creation(()), "owner")
    assert stage.told(host) is None
    assert stage.workers.desks == []
    await stage.settle()
    assert stage.ends == [host]


async def test_a_resume_overtaken_by_a_rival_is_refused(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).raises()
    await stage.settle()
    take_ownership(stage.store, "w", owner="rival")
    before = len(stage.workers.desks)
    with pytest.raises(LostOwnershipError):
        await host.resume("ann")
    await stage.settle()
    assert len(stage.workers.desks) == before
    assert stage.ends == [host]


async def test_two_hosts_of_one_workflow_end_with_one_result(stage: Stage) -> None:
    old = await stage.create(*FAN)
    new = await stage.take_over()
    for desk in list(stage.workers.desks):
        desk.returns()
    await stage.settle()
    stage.workers.find(3).returns(value="once")
    await stage.settle()
    assert isinstance(old.stopped, LostOwnershipError)
    assert stage.told(new) is Status.SUCCESSFUL
    assert sorted(commits(stage)) == [0, 1, 2, 3]
    assert stage.ends == [old, new]


@pytest.mark.parametrize("fault", ["before", "after", "torn"])
async def test_a_failing_flush_stops_the_host_and_another_goes_on(
    stage: Stage, fault: Fault
) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).returns()
    await host.sync()
    waiting = asyncio.create_task(ending(host))
    stage.store.fail_next(fault)
    stage.workers.find(1).returns()
    assert isinstance(await waiting, StorageUnavailableError)
    assert stage.told(host) is Status.RUNNING
    assert all(desk.closed for desk in stage.workers.desks)
    await stage.settle()
    assert stage.ends == [host]

    durable = {task for task, result in enumerate(stage.stored().results) if result is not None}
    assert 0 in durable
    assert durable <= {0, 1}
    stage.workers.desks.clear()
    second = await stage.take_over()
    sent = {task for tasks in stage.workers.sent for task in tasks}
    assert sent == {0, 1, 2} - durable
    for task in sorted(sent):
        stage.workers.find(task).returns()
    await stage.settle()
    stage.workers.find(3).returns(value="right")
    await stage.settle()
    assert stage.told(second) is Status.SUCCESSFUL
    assert sorted(commits(stage)) == [0, 1, 2, 3]
    assert stage.ends == [host, second]


@pytest.mark.parametrize("fault", ["before", "after", "torn"])
async def test_a_creation_that_cannot_be_written_is_refused(
    stage: Stage, creation: Callable[..., WorkflowCreated], fault: Fault
) -> None:
    host = stage.make_host()
    stage.store.fail_next(fault)
    with pytest.raises(StorageUnavailableError):
        await host.create(creation(()), "owner")
    assert stage.told(host) is None
    assert stage.workers.desks == []
    await stage.settle()
    assert stage.ends == [host]


async def test_who_waits_while_the_storage_fails_is_told_so(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    waiting = [asyncio.create_task(host.sync()) for _ in range(3)]
    await stage.settle()
    stage.store.fail_next()
    stage.threads.release()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in told] == [StorageUnavailableError] * 3


async def test_results_that_come_after_the_storage_failed_change_nothing(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.store.fail_next()
    stage.workers.find(0).returns()
    await stage.settle()
    seq = host.state.next_seq
    stage.workers.find(1).returns()
    await stage.settle()
    assert host.state.next_seq == seq
    assert stage.ends == [host]


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyError("x"), AssertionError()])
async def test_a_defect_in_the_workers_stops_the_host_rather_than_hanging_it(
    stage: Stage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    host = await stage.create(*FAN)
    waiting = asyncio.create_task(ending(host))
    with caplog.at_level(logging.ERROR):
        stage.workers.find(1).breaks(error)
        told = await waiting
    assert isinstance(told, EngineUnavailableError)
    assert type(error).__name__ in str(told)
    assert "'w'" in str(told)
    assert caplog.records[0].exc_info is not None
    await stage.settle()
    assert all(desk.closed for desk in stage.workers.desks)
    assert stage.ends == [host]
    assert stage.is_closed(host)


async def test_a_defect_while_a_flush_is_under_way_takes_nothing_back(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    host = await stage.create(*FAN)
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    told = asyncio.create_task(host.sync())
    stage.workers.find(1).breaks(RuntimeError("a defect"))
    await stage.settle()
    assert stage.ends == [], "the writer is closed under the flush"
    stage.threads.release()
    await asyncio.gather(told, return_exceptions=True)
    await stage.settle()
    assert stage.ends == [host]
    assert stage.stored().results[0] is not None
    assert caplog.records


async def test_a_host_that_stopped_sends_no_slice_that_waited_for_its_flush(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.create((), (), (0, 1), (0,), (2, 3), durability="strict")
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    stage.workers.find(1).breaks(RuntimeError("a defect"))
    await stage.settle()
    stage.threads.release()
    await stage.settle()
    assert stage.workers.sent == [(0,), (1,)]
    assert caplog.records


async def test_a_host_that_stopped_while_it_was_held_back_starts_nothing_after_its_flush(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_module, "BACKLOG_EVENTS_MAX", 0)
    await stage.create((), (), (0,), (1, 2))
    stage.threads.hold()
    stage.workers.find(0).returns()
    await stage.settle()
    assert stage.workers.sent == [(0,), (1,)], "it was not held back"
    stage.workers.find(1).breaks(RuntimeError("a defect"))
    await stage.settle()
    stage.threads.release()
    await stage.settle()
    assert stage.stored().results[0] is not None
    assert stage.workers.sent == [(0,), (1,)]
    assert caplog.records


async def test_another_host_goes_on_after_a_defect(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.create(())
    stage.workers.find(0).breaks(RuntimeError("a defect"))
    await stage.settle()
    host = await stage.take_over()
    stage.workers.find(0).returns()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL
    assert caplog.records


async def test_after_a_failure_siblings_run_to_their_end_and_count(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).raises()
    await stage.settle()
    assert stage.told(host) is Status.FAILED
    assert stage.ends == []
    stage.workers.find(1).returns()
    await host.sync()
    stage.workers.find(2).raises(retryable=True)
    await stage.settle()
    assert stage.workers.sent == [(0,), (1,), (2,)], "a task started after the failure"
    assert stage.ends == [host]
    stored = stage.stored()
    assert stored.status is Status.FAILED
    assert [stored.task_state(task) for task in range(3)] == [
        TaskState.FAILED,
        TaskState.COMMITTED,
        TaskState.READY,
    ]


async def test_a_resume_while_siblings_still_run_goes_on_where_they_are(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).raises()
    await stage.settle()
    assert await host.resume("ann")
    assert stage.told(host) is Status.RUNNING
    await stage.settle()
    assert stage.workers.sent == [(0,), (1,), (2,), (0,)]
    for task in (0, 1, 2):
        stage.workers.find(task).returns()
    await stage.settle()
    stage.workers.find(3).returns()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL
    assert stage.ends == [host]


async def test_a_resume_asked_before_the_failure_is_durable_comes_after_it(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.threads.hold()
    stage.workers.find(0).raises()
    await stage.settle()
    resumed = asyncio.create_task(host.resume("ann"))
    await stage.settle()
    stage.threads.release()
    assert await resumed
    await stage.settle()
    assert stage.told(host) is Status.RUNNING
    for task in (0, 1, 2, 3):
        stage.workers.find(task).returns()
        await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL


async def test_a_resume_of_a_host_that_has_ended_is_left_to_the_next(stage: Stage) -> None:
    host = await stage.create(*FAN)
    stage.workers.find(0).raises()
    for task in (1, 2):
        stage.workers.find(task).returns()
    await stage.settle()
    assert host.ended
    assert await host.resume("ann") is False
    assert stage.told(host) is Status.FAILED
    assert stage.ends == [host]
    second = await stage.take_over()
    assert stage.workers.sent[3:] == [(0,)]
    stage.workers.find(0).returns()
    await stage.settle()
    stage.workers.find(3).returns()
    await stage.settle()
    assert stage.told(second) is Status.SUCCESSFUL


async def test_a_resume_at_the_moment_the_last_sibling_ends_is_never_lost(stage: Stage) -> None:
    host = await stage.create((), (), (0, 1))
    stage.workers.find(0).raises()
    await stage.settle()
    stage.threads.hold()
    stage.workers.find(1).returns()
    resumed = asyncio.create_task(host.resume("ann"))
    await stage.settle()
    stage.threads.release()
    if not await resumed:
        await stage.take_over()
    await stage.settle()
    stage.workers.find(0).returns()
    await stage.settle()
    stage.workers.find(2).returns()
    await stage.settle()
    assert stage.told(stage.hosts[-1]) is Status.SUCCESSFUL
    assert sorted(commits(stage)) == [0, 1, 2]


async def test_a_host_that_failed_can_be_resumed_again_and_again(stage: Stage) -> None:
    host = await stage.create(*FAN)
    for _ in range(5):
        stage.workers.find(0).raises()
        await stage.settle()
        assert stage.told(host) is Status.FAILED
        assert await host.resume("ann")
        await stage.settle()
    assert stage.workers.find(0).attempt(0) == 6
    assert stage.ends == []
