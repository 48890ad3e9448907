"""Delays between attempts, and attempts that run too long: hosts by the clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from milepost.errors import StorageUnavailableError
from milepost.replay.events import AttemptFailed, RetriesDue, WorkflowCreated
from milepost.replay.fragment import Backoff
from milepost.replay.state import Status

if TYPE_CHECKING:
    from milepost.engine.host import WorkflowHost
    from tests.engine.host.conftest import Stage


async def create(
    stage: Stage, *inputs: Any, delay_s: float = 0, timeout_s: float = 0, max_retries: int = 3
) -> WorkflowHost:
    """Starts a workflow whose tasks have a delay between attempts, or a time limit."""
    created = stage.creation(*inputs, max_retries=max_retries)
    host = stage.make_host()
    await host.create(limit(created, delay_s, timeout_s), "owner")
    await stage.settle()
    return host


def limit(created: WorkflowCreated, delay_s: float, timeout_s: float) -> WorkflowCreated:
    backoff = Backoff(delay_us=round(delay_s * 1e6), factor=2.0, jitter=0.0, delay_us_max=10**9)
    options = tuple(
        replace(each, backoff=backoff if delay_s else None, timeout_us=round(timeout_s * 1e6))
        for each in created.fragment.options
    )
    return replace(created, fragment=replace(created.fragment, options=options))


async def test_an_attempt_starts_when_it_is_due_and_not_before(stage: Stage) -> None:
    await create(stage, (), delay_s=10)
    stage.workers.desks[0].raises(retryable=True)
    await asyncio.sleep(9.9)
    assert len(stage.workers.desks) == 1
    await asyncio.sleep(0.2)
    assert len(stage.workers.desks) == 2
    assert stage.workers.desks[1].order.attempts == (2,)
    assert any(isinstance(event, RetriesDue) for event in stage.journal())


async def test_a_delay_outlasts_its_owner(stage: Stage) -> None:
    await create(stage, (), delay_s=10)
    stage.workers.desks[0].raises(retryable=True)
    await asyncio.sleep(6)
    stage.hosts[0]._stop(StorageUnavailableError("write", "it", "gone"))
    await stage.take_over()
    assert len(stage.workers.desks) == 1
    await asyncio.sleep(3.9)
    assert len(stage.workers.desks) == 1
    await asyncio.sleep(0.2)
    assert len(stage.workers.desks) == 2


async def test_a_failed_workflow_waits_for_no_retry(stage: Stage) -> None:
    host = await create(stage, (), (), (0, 1), delay_s=10)
    stage.workers.find(0).raises(retryable=True)
    stage.workers.find(1).raises(retryable=False)
    await asyncio.sleep(60)
    assert host.announced is Status.FAILED
    assert len(stage.workers.desks) == 2


async def test_an_attempt_that_runs_too_long_is_ended_and_the_next_one_starts(
    stage: Stage,
) -> None:
    await create(stage, (), timeout_s=5)
    first = stage.workers.desks[0]
    first.begins()
    await asyncio.sleep(4.9)
    assert stage.workers.desks == [first]
    await asyncio.sleep(0.2)
    assert first.closed
    (failure,) = [event for event in stage.journal() if isinstance(event, AttemptFailed)]
    assert failure.error.kind == "timeout"
    assert "5 s" in failure.error.message
    second = stage.workers.desks[1]
    second.begins()
    second.returns()
    await asyncio.sleep(60)
    assert stage.stored().status is Status.SUCCESSFUL


async def test_the_time_in_a_queue_does_not_count(stage: Stage) -> None:
    await create(stage, (), timeout_s=5)
    await asyncio.sleep(100)
    assert not stage.workers.desks[0].closed
    stage.workers.desks[0].begins()
    await asyncio.sleep(4)
    stage.workers.desks[0].returns()
    await stage.settle()
    assert stage.stored().status is Status.SUCCESSFUL


async def test_a_task_that_is_done_in_time_has_no_limit_behind_it(stage: Stage) -> None:
    await create(stage, (), (0,), timeout_s=5, max_retries=0)
    stage.workers.find(0).begins()
    stage.workers.find(0).returns()
    await asyncio.sleep(20)
    stage.workers.find(1).begins()
    stage.workers.find(1).returns()
    await asyncio.sleep(20)
    assert stage.stored().status is Status.SUCCESSFUL


async def test_the_last_time_out_fails_the_workflow(stage: Stage) -> None:
    host = await create(stage, (), timeout_s=5, max_retries=0)
    stage.workers.desks[0].begins()
    await asyncio.sleep(6)
    assert host.announced is Status.FAILED
    assert stage.workers.desks[0].closed
    assert stage.stored().failed[0].type == "TaskTimeoutError"
