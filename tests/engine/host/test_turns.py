"""Dispatchers and turns: who has none waits, durably; every end gives one back, exactly once."""

from __future__ import annotations

import asyncio

import pytest

from front_desk import FrontDesk
from milepost.engine.admission import Admission, Limits
from milepost.errors import TooManyWorkflowsError, WorkflowActiveError, WorkflowNotFoundError
from milepost.journal import read_journal, read_status
from milepost.replay.codec import decode_all
from milepost.replay.events import StatusChanged
from milepost.replay.state import Status


def limit(desk: FrontDesk, running: int, pending: int | None = None) -> None:
    desk.notes.admission = Admission(Limits(max_running=running, max_pending=pending))


async def status(desk: FrontDesk, workflow_id: str) -> str:
    await desk.stage.settle()
    return await desk.dispatcher.status(workflow_id)


async def start(desk: FrontDesk, *names: str) -> None:
    for name in names:
        await desk.submit((), workflow_id=name)


async def test_who_has_no_turn_is_pending_in_its_first_frame_and_runs_nothing(
    desk: FrontDesk,
) -> None:
    limit(desk, 1)
    await start(desk, "w", "x")
    first = next(iter(read_journal(desk.stage.store, "x")))
    (entered,) = [each for each in decode_all(first.raw) if isinstance(each, StatusChanged)]
    assert entered.status == "PENDING"
    assert await status(desk, "x") == "PENDING"
    assert len(desk.stage.workers.desks) == 1
    await desk.finish(0)
    assert await status(desk, "x") == "RUNNING"
    assert len(desk.stage.workers.desks) == 2
    assert read_status(desk.stage.store, "x").status is Status.RUNNING


async def test_a_full_queue_leaves_no_trace(desk: FrontDesk) -> None:
    limit(desk, 1, 1)
    await start(desk, "w", "x")
    writes = desk.stage.store.calls
    error = await desk.refused(desk.submit((), workflow_id="y"))
    assert isinstance(error, TooManyWorkflowsError)
    assert (error.max_running, error.max_pending) == (1, 1)
    assert desk.stage.store.calls == writes
    assert isinstance(await desk.refused(desk.dispatcher.status("y")), WorkflowNotFoundError)
    await desk.finish(0)
    await start(desk, "y")
    assert await status(desk, "y") == "PENDING"


async def test_a_failure_gives_the_turn_back_and_a_resume_waits_for_the_next(
    desk: FrontDesk,
) -> None:
    limit(desk, 1)
    await start(desk, "w", "x")
    desk.stage.workers.find(0).raises()
    assert await status(desk, "w") == "FAILED"
    assert await status(desk, "x") == "RUNNING"
    assert await desk.dispatcher.resume("w") == "resumed"
    assert await status(desk, "w") == "PENDING"
    await desk.finish(0)
    assert await status(desk, "w") == "RUNNING"
    await desk.finish(0)
    assert await status(desk, "w") == "SUCCESSFUL"


async def test_a_failed_workflow_whose_tasks_still_run_waits_where_it_is(desk: FrontDesk) -> None:
    limit(desk, 1)
    await desk.submit((), (), (0, 1))
    await start(desk, "x")
    desk.stage.workers.find(0).raises()
    assert (await status(desk, "w"), await status(desk, "x")) == ("FAILED", "RUNNING")
    running = desk.stage.workers.desks[1]
    await desk.dispatcher.resume("w")
    assert await status(desk, "w") == "PENDING"
    running.returns()
    await desk.stage.settle()
    desk.stage.workers.desks[2].returns()
    assert (await status(desk, "x"), await status(desk, "w")) == ("SUCCESSFUL", "RUNNING")
    await desk.finish(0, 2)
    assert await desk.output() == 2


async def test_a_resume_that_may_not_wait_changes_nothing(desk: FrontDesk) -> None:
    limit(desk, 1, 0)
    await start(desk, "w")
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    await start(desk, "x")
    assert isinstance(await desk.refused(desk.dispatcher.resume("w")), TooManyWorkflowsError)
    assert await status(desk, "w") == "FAILED"
    await desk.finish(0)
    await desk.dispatcher.resume("w")
    assert await status(desk, "w") == "RUNNING"


async def test_what_waits_is_canceled_at_once_and_cannot_be_deleted_or_resumed(
    desk: FrontDesk,
) -> None:
    limit(desk, 1)
    await start(desk, "w", "x", "y")
    for call in (desk.dispatcher.delete("x"), desk.dispatcher.resume("x")):
        assert isinstance(await desk.refused(call), WorkflowActiveError)
    await desk.dispatcher.cancel("x")
    assert await status(desk, "x") == "CANCELED"
    await desk.finish(0)
    assert await status(desk, "y") == "RUNNING"


@pytest.mark.parametrize("end", ["finish", "cancel", "fail", "lose"])
async def test_every_end_starts_the_next(desk: FrontDesk, end: str) -> None:
    limit(desk, 1)
    await start(desk, "w", "x")
    match end:
        case "finish":
            desk.stage.workers.find(0).returns()
        case "cancel":
            await desk.dispatcher.cancel("w")
        case "fail":
            desk.stage.workers.find(0).raises()
        case _:
            desk.stage.workers.find(0).breaks(RuntimeError("a defect"))
    assert await status(desk, "x") == "RUNNING"


async def test_a_turn_that_comes_while_the_creation_is_written_is_not_missed(
    desk: FrontDesk,
) -> None:
    limit(desk, 1)
    await start(desk, "w")
    desk.stage.threads.delay_s = 0.1
    creating = asyncio.create_task(desk.submit((), workflow_id="x"))
    await asyncio.sleep(0.15)
    desk.stage.workers.find(0).returns()
    await asyncio.sleep(2)
    assert read_status(desk.stage.store, "w").status is Status.SUCCESSFUL
    await creating
    desk.stage.threads.delay_s = 0.0
    assert await status(desk, "x") == "RUNNING"


async def test_after_a_restart_who_ran_runs_and_who_waited_waits(desk: FrontDesk) -> None:
    limit(desk, 1, 1)
    await start(desk, "w", "x")
    desk.restart()
    await desk.dispatcher.adopt(["x", "w"])
    assert (await status(desk, "w"), await status(desk, "x")) == ("RUNNING", "PENDING")
    await desk.finish(0)
    assert await status(desk, "x") == "RUNNING"


async def test_the_turn_of_what_a_former_process_did_not_get_to_store_is_given_back(
    desk: FrontDesk,
) -> None:
    limit(desk, 1)
    desk.stage.threads.hold()
    lost = asyncio.create_task(desk.submit(()))
    await desk.stage.settle()
    desk.stage.threads.step()
    await desk.stage.settle()
    desk.restart()
    desk.stage.threads.holding = False  # what the dead process was about to do is never done
    await desk.dispatcher.adopt(["w"])
    await start(desk, "x")
    assert await status(desk, "x") == "RUNNING"
    lost.cancel()


async def test_a_storage_that_fails_does_not_cost_the_place(desk: FrontDesk) -> None:
    limit(desk, 1)
    await start(desk, "w", "x", "y")
    desk.stage.store.fail_next()
    await desk.finish(0)  # its commit cannot be written
    await asyncio.sleep(5)
    assert await status(desk, "w") == "RUNNING"
    assert (await status(desk, "x"), await status(desk, "y")) == ("PENDING", "PENDING")
    await desk.finish(0)
    assert (await status(desk, "x"), await status(desk, "y")) == ("RUNNING", "PENDING")


async def test_a_creation_that_cannot_be_written_gives_its_turn_back(desk: FrontDesk) -> None:
    limit(desk, 1)
    desk.stage.store.plan = lambda number: "before"
    await desk.refused(desk.submit(()))
    desk.stage.store.plan = lambda number: None
    await start(desk, "x")
    assert await status(desk, "x") == "RUNNING"


async def test_without_limits_nobody_asks(desk: FrontDesk) -> None:
    limit(desk, -1)
    await start(desk, "w", "x", "y")
    assert desk.notes.admission._running == {}
    assert len(desk.stage.workers.desks) == 3


async def test_a_manager_that_comes_back_hears_of_turns_and_not_of_who_still_asks(
    desk: FrontDesk,
) -> None:
    limit(desk, 1, 1)
    await start(desk, "w", "x")
    limits = desk.notes.admission.limits
    answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
    desk.notes.admit.remote = lambda turn, must: answer
    asking = asyncio.create_task(desk.refused(desk.submit((), workflow_id="y")))
    await desk.stage.settle()
    told = {each.workflow_id: each.running for each in await desk.dispatcher.limit(limits)}
    assert told == {"w": True, "x": False}
    answer.set_result(None)
    assert isinstance(await asking, TooManyWorkflowsError)


async def test_who_ran_runs_again_first_though_nobody_remembers_and_the_other_is_asked_for(
    desk: FrontDesk,
) -> None:
    limit(desk, 1)
    await start(desk, "w", "x")
    desk.restart()
    limit(desk, 1)  # the manager, too, begins anew
    asking = asyncio.create_task(desk.dispatcher.output("x"))
    assert await status(desk, "x") == "PENDING"
    assert await status(desk, "w") == "RUNNING"
    await desk.finish(0)
    assert await status(desk, "x") == "RUNNING"
    await desk.finish(0)
    await asking
