"""Of workflows that nobody hosts, only what no later owner can leave out is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from front_desk import FrontDesk
from milepost.engine import hosting
from milepost.engine.host import WorkflowHost
from milepost.errors import (
    LostOwnershipError,
    OutputNotAvailableError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
)
from milepost.journal import take_ownership
from milepost.journal.states import settle_end
from milepost.replay.state import Status

FAN = ((), (), (), (0, 1, 2))


@pytest.mark.parametrize("desk", ["appending", "objects"], indirect=True)
async def test_what_a_fenced_owner_wrote_last_is_told_to_nobody_by_readers_either(
    desk: FrontDesk,
) -> None:
    """The rival read the journal before it: for the rival it never happened."""
    await desk.submit(())
    rival = desk.stage.make_host()
    desk.stage.workers.find(0).returns(value="vanishes")
    await desk.stage.settle()
    asked = [asyncio.create_task(desk.output()), asyncio.create_task(desk.dispatcher.status("w"))]
    asked.append(asyncio.create_task(desk.dispatcher.stored_statuses()))
    await desk.stage.settle()
    assert not any(each.done() for each in asked)
    await rival.take_over("rival", "test")
    refused, *statuses = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(refused, OutputNotAvailableError)
    assert statuses == ["RESUMABLE", {"w": "RESUMABLE"}]
    desk.stage.workers.find(0).returns(value="stays")
    await desk.stage.settle()
    assert await desk.output() == "stays"


@pytest.mark.parametrize("desk", ["appending", "objects"], indirect=True)
@pytest.mark.parametrize("ask", ["output", "status", "list"])
async def test_an_end_that_a_rival_may_leave_out_is_made_certain_before_it_is_told(
    desk: FrontDesk, ask: str
) -> None:
    """The rival may have died right behind its claim; or it was only slow, and is too late."""
    await desk.submit(())
    rival = desk.stage.make_host()
    desk.stage.workers.find(0).returns(value="stays")
    await desk.stage.settle()
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "output": desk.output,
        "status": lambda: desk.dispatcher.status("w"),
        "list": desk.dispatcher.stored_statuses,
    }
    told = {"output": "stays", "status": "SUCCESSFUL", "list": {"w": "SUCCESSFUL"}}
    assert await calls[ask]() == told[ask]
    with pytest.raises(LostOwnershipError):
        await rival.take_over("rival", "test")
    assert await desk.output() == "stays"
    assert desk.stage.stored().status is Status.SUCCESSFUL
    assert len(desk.stage.store.list("workflows/w/segments/")) <= 2  # nobody leaves more behind


async def test_a_failure_is_made_certain_and_stays_a_failure(desk: FrontDesk) -> None:
    await desk.submit(())
    take_ownership(desk.stage.store, "w", owner="dies at once")
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    assert await desk.dispatcher.status("w") == "FAILED"
    assert desk.stage.stored().epoch == 3
    assert await desk.dispatcher.resume("w") == "resumed"
    assert desk.stage.stored().epoch == 4


async def test_of_a_running_workflow_that_was_claimed_nothing_uncertain_is_told(
    desk: FrontDesk,
) -> None:
    """Nor is it taken from its claimant, who may be about to go on with it."""
    await desk.submit(*FAN)
    claim = take_ownership(desk.stage.store, "w", owner="slow")
    desk.stage.workers.find(0).returns(value="perhaps")
    await desk.stage.settle()
    desk.restart("another cluster")
    assert await desk.dispatcher.status("w") == "RESUMABLE"
    committed = desk.stage.stored().graph.task_id(0)
    assert isinstance(await desk.refused(desk.output(committed)), OutputNotAvailableError)
    claim.flush([])


@pytest.mark.parametrize("desk", ["appending", "objects"], indirect=True)
async def test_running_a_finished_workflow_again_makes_its_end_certain_first(
    desk: FrontDesk,
) -> None:
    await desk.submit(())
    rival = desk.stage.make_host()
    desk.stage.workers.find(0).returns(value="stays")
    await desk.stage.settle()
    assert await desk.dispatcher.resume("w") == "stored"
    with pytest.raises(LostOwnershipError):
        await rival.take_over("rival", "test")
    assert await desk.output() == "stays"


async def test_what_is_remembered_of_a_deleted_workflow_is_not_told_of_its_successor(
    desk: FrontDesk,
) -> None:
    """Another cluster deleted it and ran another one under the same id."""
    await desk.submit(())
    desk.stage.workers.find(0).returns(value="old")
    await desk.stage.settle()
    assert await desk.output() == "old"
    first = desk.dispatcher
    desk.restart("another")
    await desk.dispatcher.delete("w")
    await desk.submit((), nonce="new")
    desk.stage.workers.find(0).returns(value="new")
    await desk.stage.settle()
    desk.dispatcher = first
    assert await desk.output() == "new"


@pytest.mark.parametrize("ask", ["output", "status"])
async def test_an_owner_that_was_succeeded_unnoticed_tells_nothing_of_its_own(
    desk: FrontDesk, ask: str
) -> None:
    """It was paused, and now somebody asks it for what it has in memory."""
    await desk.submit(*FAN)
    await desk.finish(0)
    committed = desk.stage.stored().graph.task_id(0)
    first = desk.dispatcher
    desk.restart("another")
    await desk.dispatcher.delete("w")
    desk.dispatcher = first
    call = desk.output(committed) if ask == "output" else desk.dispatcher.status("w")
    assert isinstance(await desk.refused(call), LostOwnershipError | WorkflowNotFoundError)
    await desk.stage.settle()
    assert await first.live() == {}


@pytest.mark.parametrize("ask", ["output", "status", "resume", "list"])
async def test_an_end_that_was_made_certain_is_told_whoever_claims_the_workflow_then(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    """Readers who make it certain one after the other must not wait for each other for ever."""
    await desk.submit(())
    store = desk.stage.store
    take_ownership(store, "w", owner="another reader")
    desk.stage.workers.find(0).returns(value="stays")
    await desk.stage.settle()

    def settle_and_be_followed(*given: Any) -> None:
        settle_end(*given)
        take_ownership(store, "w", owner="the next reader")

    monkeypatch.setattr(hosting, "settle_end", settle_and_be_followed)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "output": desk.output,
        "status": lambda: desk.dispatcher.status("w"),
        "resume": lambda: desk.dispatcher.resume("w"),
        "list": desk.dispatcher.stored_statuses,
    }
    told = {
        "output": "stays",
        "status": "SUCCESSFUL",
        "resume": "stored",
        "list": {"w": "SUCCESSFUL"},
    }
    assert await asyncio.wait_for(calls[ask](), 60) == told[ask]


@pytest.mark.parametrize("end", ["SUCCESSFUL", "FAILED"])
async def test_an_owner_waits_for_an_end_that_others_may_read_in_the_journal_already(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Its flush hangs behind the write: a reader has told the end, and then it told RUNNING."""

    async def confirm(self: WorkflowHost) -> None:
        """Answers before the flush does."""

    monkeypatch.setattr(WorkflowHost, "confirm", confirm)
    await desk.submit(())
    desk.stage.threads.hold()
    worker = desk.stage.workers.find(0)
    worker.raises() if end == "FAILED" else worker.returns(value="told")
    await desk.stage.settle()
    status = asyncio.create_task(desk.dispatcher.status("w"))
    await desk.stage.settle()
    assert not status.done()
    desk.stage.threads.release()
    assert await status == end


@pytest.mark.parametrize("end", ["success", "cancel"])
async def test_a_resume_that_comes_a_moment_too_late_tells_how_the_workflow_ended(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    await desk.submit(())
    first = desk.dispatcher
    desk.restart("another cluster")
    find = desk.dispatcher._hosting._find_stored

    async def find_and_be_overtaken(workflow_id: str) -> Any:
        found = await find(workflow_id)
        if end == "cancel":
            await first.cancel("w")
        else:
            desk.stage.workers.find(0).returns(value="done")
            await desk.stage.settle()
        return found

    monkeypatch.setattr(desk.dispatcher._hosting, "_find_stored", find_and_be_overtaken)
    if end == "cancel":
        refusal = await desk.refused(desk.dispatcher.resume("w"))
        assert isinstance(refusal, WorkflowNotResumableError)
    else:
        assert await desk.dispatcher.resume("w") == "stored"
