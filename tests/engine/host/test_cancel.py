"""Cancels: told when they are durable, final, and the end of every attempt under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from front_desk import FrontDesk
from milepost.errors import (
    LostOwnershipError,
    StorageUnavailableError,
    WorkflowCancellationError,
    WorkflowEndedError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
)
from milepost.journal import take_ownership
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

FAN = ((), (), (), (0, 1, 2))


async def test_a_cancel_is_told_and_attempts_end_when_it_is_durable(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    waiting = asyncio.create_task(desk.refused(desk.output()))
    await desk.stage.settle()
    desk.stage.threads.hold()
    call = asyncio.create_task(desk.dispatcher.cancel("w"))
    for _ in range(3):
        await desk.stage.settle()
        stored = desk.stage.stored().status
        if stored is Status.CANCELED:
            break
        assert not call.done()
        assert not waiting.done()
        assert not any(each.closed for each in desk.stage.workers.desks)
        desk.stage.threads.step()
    desk.stage.threads.release()
    await call
    assert desk.stage.stored().status is Status.CANCELED
    assert isinstance(await waiting, WorkflowCancellationError)
    assert await desk.dispatcher.status("w") == "CANCELED"
    await desk.stage.settle()
    assert all(each.closed for each in desk.stage.workers.desks)
    assert desk.notes.hosted["w"] == 0


async def test_a_host_that_is_canceled_ends_and_takes_nothing_more(stage: Stage) -> None:
    host = await stage.create(*FAN)
    assert await host.cancel("ann") is Status.CANCELED
    stage.workers.find(0).returns()
    await stage.settle()
    assert stage.ends == [host]
    assert stage.is_closed(host)
    assert stage.stored().results == [None] * 4


async def test_a_canceled_workflow_stays_so(desk: FrontDesk) -> None:
    await desk.submit(())
    await desk.dispatcher.cancel("w")
    await desk.dispatcher.cancel("w")
    for call in (desk.dispatcher.resume("w"), desk.submit((), nonce="again")):
        assert isinstance(await desk.refused(call), WorkflowNotResumableError)
    assert isinstance(await desk.refused(desk.output()), WorkflowCancellationError)
    assert await desk.dispatcher.status("w") == "CANCELED"


async def test_a_workflow_without_an_owner_is_taken_over_and_canceled(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    desk.restart("another")
    await desk.dispatcher.cancel("w")
    stored = desk.stage.stored()
    assert (stored.status, stored.owner) == (Status.CANCELED, "another/0")
    assert len(desk.stage.workers.desks) == 3, "no task was started again"


async def test_a_failed_workflow_can_be_canceled(desk: FrontDesk) -> None:
    await desk.submit(())
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    assert await desk.dispatcher.status("w") == "FAILED"
    await desk.dispatcher.cancel("w")
    assert await desk.dispatcher.status("w") == "CANCELED"


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_successful_workflow_keeps_its_result(desk: FrontDesk, restarted: bool) -> None:
    await desk.submit(())
    await desk.finish(0)
    if restarted:
        desk.restart("another")
    assert isinstance(await desk.refused(desk.dispatcher.cancel("w")), WorkflowEndedError)
    assert await desk.output() == 0


async def test_a_result_that_is_being_written_comes_before_a_cancel(desk: FrontDesk) -> None:
    await desk.submit(())
    desk.stage.threads.hold()
    desk.stage.workers.find(0).returns()
    await desk.stage.settle()
    call = asyncio.create_task(desk.refused(desk.dispatcher.cancel("w")))
    await desk.stage.settle()
    desk.stage.threads.release()
    assert isinstance(await call, WorkflowEndedError)
    assert await desk.output() == 0


async def test_an_unknown_workflow_is_not_made_by_a_cancel(desk: FrontDesk) -> None:
    assert isinstance(await desk.refused(desk.dispatcher.cancel("w")), WorkflowNotFoundError)
    with pytest.raises(WorkflowNotFoundError):
        desk.stage.stored()


async def test_an_owner_that_was_overtaken_cancels_nothing(desk: FrontDesk) -> None:
    await desk.submit(())
    take_ownership(desk.stage.store, "w", owner="another")
    assert isinstance(await desk.refused(desk.dispatcher.cancel("w")), LostOwnershipError)
    assert desk.stage.stored().status is Status.RUNNING


async def test_a_cancel_that_cannot_be_written_is_not_told(desk: FrontDesk) -> None:
    await desk.submit(())
    desk.stage.store.fail_next()
    assert isinstance(await desk.refused(desk.dispatcher.cancel("w")), StorageUnavailableError)
    assert desk.stage.stored().status is Status.RUNNING
