"""What callers are told: statuses, outputs and refusals, by a dispatcher without a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgpack
import pytest

from front_desk import FrontDesk
from milepost.engine import recent
from milepost.errors import (
    LostOwnershipError,
    OutputNotAvailableError,
    StorageUnavailableError,
    TaskNotFoundError,
    WorkflowActiveError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
)
from milepost.journal import take_ownership
from milepost.replay.payload import inline

if TYPE_CHECKING:
    pass

FAN = ((), (), (), (0, 1, 2))
CLUSTER = "cluster"


async def test_a_submission_is_acknowledged_when_it_is_durable(desk: FrontDesk) -> None:
    desk.stage.threads.hold()
    call = asyncio.create_task(desk.submit(()))
    for _ in range(4):  # looks for a stored one, takes ownership, stores blobs, and then flushes
        await desk.stage.settle()
        assert not call.done()
        with pytest.raises(WorkflowNotFoundError):
            desk.stage.stored()
        desk.stage.threads.step()
    assert await call == "created"
    assert desk.stage.stored().status == "RUNNING"


async def test_a_result_is_told_when_it_is_durable(desk: FrontDesk) -> None:
    await desk.submit(())
    early = asyncio.create_task(desk.output())
    desk.stage.threads.hold()
    desk.stage.workers.find(0).returns(value="result")
    await desk.stage.settle()
    late = asyncio.create_task(desk.output())
    status = asyncio.create_task(desk.dispatcher.status("w"))
    await desk.stage.settle()
    assert not early.done()
    assert not late.done()
    assert not status.done() or await status == "RUNNING"
    desk.stage.threads.release()
    assert await early == await late == "result"
    assert await desk.dispatcher.status("w") == "SUCCESSFUL"


async def test_a_result_of_one_task_is_told_when_it_is_durable(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    waiting = asyncio.create_task(desk.output("f_1"))
    desk.stage.threads.hold()
    desk.stage.workers.find(1).returns(value="one")
    await desk.stage.settle()
    assert not waiting.done()
    desk.stage.threads.release()
    assert await waiting == "one"


async def test_a_failure_is_told_when_it_is_durable(desk: FrontDesk) -> None:
    await desk.submit(())
    waiting = asyncio.create_task(desk.refused(desk.output()))
    desk.stage.threads.hold()
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    status = asyncio.create_task(desk.dispatcher.status("w"))
    await desk.stage.settle()
    assert not waiting.done()
    assert not status.done() or await status == "RUNNING"
    desk.stage.threads.release()
    assert isinstance(await waiting, WorkflowExecutionError)
    assert await desk.dispatcher.status("w") == "FAILED"


async def test_a_status_asked_while_the_creation_is_being_flushed_waits_for_it(
    desk: FrontDesk,
) -> None:
    desk.stage.threads.hold()
    call = asyncio.create_task(desk.submit(()))
    for _ in range(3):
        await desk.stage.settle()
        desk.stage.threads.step()
    await desk.stage.settle()
    status = asyncio.create_task(desk.dispatcher.status("w"))
    await desk.stage.settle()
    assert not status.done()
    desk.stage.threads.release()
    assert await status == "RUNNING"
    await call


async def test_all_who_wait_for_a_result_get_it(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    waiting = [asyncio.create_task(desk.output()) for _ in range(20)]
    await desk.finish(0, 1, 2)
    desk.stage.workers.find(3).returns(value="result")
    assert await asyncio.gather(*waiting) == ["result"] * 20
    assert await desk.output() == "result"


async def test_a_task_that_does_not_exist_yet_can_be_waited_for(desk: FrontDesk) -> None:
    await desk.submit((), (0,))
    waiting = asyncio.create_task(desk.output("f_2"))
    desk.stage.workers.find(0).continues(desk.stage.graph(()))
    await desk.stage.settle()
    desk.stage.workers.find(2).returns(value="of a continuation")
    assert await waiting == "of a continuation"
    assert await desk.output("f") == "of a continuation"


async def test_who_waits_for_a_task_that_never_came_is_told_at_the_end(desk: FrontDesk) -> None:
    await desk.submit(())
    waiting = asyncio.create_task(desk.refused(desk.output("nobody")))
    await desk.finish(0)
    assert isinstance(await waiting, TaskNotFoundError)


async def test_a_failed_workflow_still_gives_what_its_other_tasks_returned(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    late = asyncio.create_task(desk.output("f_2"))
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    assert isinstance(await desk.refused(desk.output()), WorkflowExecutionError)
    assert isinstance(await desk.refused(desk.output("f_3")), WorkflowExecutionError)
    assert not late.done(), "it is still running, and its result will count"
    await desk.finish(1, 2)
    assert await late == 2
    assert await desk.output("f_1") == 1
    assert isinstance(await desk.refused(desk.output("f")), WorkflowExecutionError)


async def test_an_unknown_workflow_is_not_found_and_not_made(desk: FrontDesk) -> None:
    assert isinstance(await desk.refused(desk.output()), WorkflowNotFoundError)
    assert isinstance(await desk.refused(desk.dispatcher.status("w")), WorkflowNotFoundError)
    assert isinstance(await desk.refused(desk.dispatcher.resume("w")), WorkflowNotResumableError)
    assert desk.stage.store.list("") == []


async def test_a_message_that_ray_sends_twice_starts_one_workflow(desk: FrontDesk) -> None:
    assert await desk.submit(*FAN, nonce="one") == "created"
    assert await desk.submit(*FAN, nonce="one") == "created"
    assert len(desk.stage.workers.desks) == 3
    await desk.finish(0, 1, 2, 3)
    assert await desk.submit(*FAN, nonce="one") == "created"
    assert await desk.output() == 3


async def test_a_message_sent_again_to_a_restarted_dispatcher_goes_on_with_it(
    desk: FrontDesk,
) -> None:
    await desk.submit(*FAN, nonce="one")
    await desk.finish(0)
    desk.restart()
    desk.stage.workers.desks.clear()
    assert await desk.submit(*FAN, nonce="one") == "created"
    assert desk.stage.workers.sent == [(1,), (2,)]


async def test_a_running_workflow_cannot_be_started_or_resumed(desk: FrontDesk) -> None:
    await desk.submit(*FAN, nonce="one")
    assert isinstance(await desk.refused(desk.submit(*FAN, nonce="two")), WorkflowActiveError)
    assert isinstance(await desk.refused(desk.dispatcher.resume("w")), WorkflowActiveError)
    assert len(desk.stage.workers.desks) == 3


async def test_of_two_that_start_a_workflow_at_once_one_wins(desk: FrontDesk) -> None:
    desk.stage.threads.delay_s = 0.005
    told = await asyncio.gather(
        desk.submit((), nonce="one"), desk.submit((), nonce="two"), return_exceptions=True
    )
    assert told[0] == "created"
    assert isinstance(told[1], WorkflowActiveError)
    assert desk.notes.hosted == {"w": 1}


async def test_a_finished_workflow_is_not_run_again(desk: FrontDesk) -> None:
    await desk.submit(())
    await desk.finish(0)
    desk.stage.workers.desks.clear()
    assert await desk.submit((), nonce="two") == "stored"
    assert await desk.submit((), (0,), nonce="three") == "stored differs"
    assert await desk.dispatcher.resume("w") == "stored"
    assert await desk.output() == 0
    assert desk.stage.workers.desks == []


async def test_a_failed_workflow_goes_on_where_it_failed(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    await desk.finish(1, 2)
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    assert desk.notes.hosted == {"w": 0}
    desk.stage.workers.desks.clear()
    assert await desk.submit(*FAN, nonce="two") == "resumed"
    assert desk.stage.workers.sent == [(0,)]
    assert desk.notes.hosted == {"w": 1}
    await desk.finish(0, 3)
    assert await desk.output() == 3
    assert desk.notes.hosted == {"w": 0}


async def test_a_failed_workflow_whose_tasks_still_run_is_resumed_in_place(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    assert await desk.dispatcher.resume("w") == "resumed"
    assert await desk.dispatcher.status("w") == "RUNNING"
    await desk.stage.settle()
    waiting = asyncio.create_task(desk.output())
    await desk.finish(0, 1, 2, 3)
    assert await waiting == 3
    assert len([each for each in desk.stage.journal() if hasattr(each, "epoch")]) == 1


async def test_of_two_that_resume_at_once_one_is_refused(desk: FrontDesk) -> None:
    await desk.submit(())
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    desk.stage.threads.delay_s = 0.005
    told = await asyncio.gather(
        desk.dispatcher.resume("w"), desk.dispatcher.resume("w"), return_exceptions=True
    )
    assert told[0] == "resumed"
    assert isinstance(told[1], WorkflowActiveError)


async def test_a_restarted_dispatcher_goes_on_with_what_it_owned(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    await desk.finish(0)
    desk.restart()
    desk.stage.workers.desks.clear()
    await desk.dispatcher.adopt(["w", "never there"])
    await desk.stage.settle()
    assert desk.stage.workers.sent == [(1,), (2,)]
    assert await desk.dispatcher.live() == {"w": "RUNNING"}
    await desk.dispatcher.adopt(["w"])
    assert desk.stage.workers.sent == [(1,), (2,)]


async def test_who_asks_a_restarted_dispatcher_for_a_result_gets_it(desk: FrontDesk) -> None:
    await desk.submit(())
    desk.restart()
    waiting = asyncio.create_task(desk.output())
    await desk.stage.settle()
    desk.stage.workers.find(0).returns(value="result")
    assert await waiting == "result"


async def test_what_another_cluster_left_behind_is_resumable_and_nobodys_to_wait_for(
    desk: FrontDesk,
) -> None:
    await desk.submit(())
    desk.restart("another cluster")
    assert await desk.dispatcher.status("w") == "RESUMABLE"
    assert isinstance(await desk.refused(desk.output()), OutputNotAvailableError)
    await desk.dispatcher.adopt(["w"])
    assert await desk.dispatcher.live() == {}
    assert await desk.dispatcher.resume("w") == "resumed"
    assert await desk.dispatcher.status("w") == "RUNNING"


async def test_who_waits_on_a_fenced_owner_is_told_so(desk: FrontDesk) -> None:
    await desk.submit(())
    waiting = asyncio.create_task(desk.refused(desk.output()))
    await desk.stage.settle()
    take_ownership(desk.stage.store, "w", owner="rival")
    desk.stage.workers.find(0).returns(value="never told")
    assert isinstance(await waiting, LostOwnershipError)
    await desk.stage.settle()
    assert desk.notes.hosted == {"w": 0}


@pytest.mark.parametrize("desk", ["objects"], indirect=True)
async def test_a_status_is_found_behind_segments_that_tell_none(desk: FrontDesk) -> None:
    """On object storage every flush is a segment; on a disk a new one begins after 64 MiB."""
    await desk.submit(*FAN)
    await desk.finish(0)
    desk.restart("another cluster")
    assert await desk.dispatcher.status("w") == "RESUMABLE"
    assert await desk.dispatcher.stored_statuses() == {"w": "RESUMABLE"}


async def test_a_result_of_another_cluster_is_found(desk: FrontDesk) -> None:
    await desk.submit(())
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    first = desk.dispatcher
    desk.restart("another cluster")
    await desk.dispatcher.resume("w")
    await desk.stage.settle()
    desk.stage.workers.find(0).returns(value="theirs")
    await desk.stage.settle()
    desk.dispatcher = first
    assert await desk.dispatcher.status("w") == "SUCCESSFUL"
    assert await desk.output() == "theirs"


async def test_a_caller_who_gives_up_does_not_leave_a_workflow_half_started(
    desk: FrontDesk,
) -> None:
    desk.stage.threads.hold()
    call = asyncio.create_task(desk.submit(()))
    for _ in range(3):
        await desk.stage.settle()
        desk.stage.threads.step()
    await desk.stage.settle()
    call.cancel()
    await desk.stage.settle()
    desk.stage.threads.release()
    await desk.stage.settle()
    assert await desk.dispatcher.status("w") == "RUNNING"
    await desk.finish(0)
    assert await desk.output() == 0


async def test_a_caller_who_gives_up_does_not_leave_a_workflow_half_resumed(
    desk: FrontDesk,
) -> None:
    await desk.submit(*FAN)
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    desk.stage.threads.hold()
    call = asyncio.create_task(desk.dispatcher.resume("w"))
    await desk.stage.settle()
    call.cancel()
    await desk.stage.settle()
    desk.stage.threads.release()
    await desk.stage.settle()
    assert await desk.dispatcher.status("w") == "RUNNING"
    assert desk.stage.workers.sent[3:] == [(0,)]


async def test_those_who_give_up_waiting_disturb_nobody(desk: FrontDesk) -> None:
    await desk.submit(())
    waiting = [asyncio.create_task(desk.output()) for _ in range(4)]
    await desk.stage.settle()
    for each in waiting[:3]:
        each.cancel()
    await desk.finish(0)
    assert await waiting[3] == 0


async def test_a_submission_that_cannot_be_stored_can_be_sent_again(desk: FrontDesk) -> None:
    desk.stage.store.plan = lambda number: "before" if number > 1 else None
    told = await desk.refused(desk.submit((), nonce="one"))
    assert isinstance(told, StorageUnavailableError)
    await desk.stage.settle()
    assert +desk.notes.hosted == {}
    desk.stage.store.plan = lambda number: None
    assert await desk.submit((), nonce="two") == "created"


@pytest.mark.parametrize(
    ("limit", "number"),
    [("RECENT_MAX", 3), ("RECENT_TASKS_MAX", 3), ("RECENT_BYTES_MAX", 3 * len(msgpack.packb(0)))],
)
async def test_ended_workflows_are_remembered_up_to_a_limit(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch, limit: str, number: int
) -> None:
    monkeypatch.setattr(recent, limit, number)
    for number in range(10):
        await desk.submit((), nonce=str(number), workflow_id=f"w{number}")
        desk.stage.workers.desks[-1].returns(value=number)
        await desk.stage.settle()
    assert len(desk.dispatcher._hosting.recent) == 3
    assert len(desk.dispatcher._hosting.hosts) == 0
    assert len(desk.dispatcher._hosting._locks) == 0
    for number in range(10):
        sealed = await desk.dispatcher.output(f"w{number}")
        assert sealed._parts[3] == inline(0, msgpack.packb(number))


async def test_a_workflow_larger_than_the_limit_drives_out_no_other(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "RECENT_TASKS_MAX", 2)
    await desk.submit((), workflow_id="small")
    await desk.finish(0)
    await desk.submit((), (), (0, 1), workflow_id="large")
    await desk.finish(0, 1, 2)
    assert "small" in desk.dispatcher._hosting.recent
    assert "large" not in desk.dispatcher._hosting.recent
