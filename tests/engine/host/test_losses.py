"""Workers that die, stop talking or say things twice: no task is lost, none runs for nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from milepost.engine.host import WorkflowHost
from milepost.replay.events import AttemptFailed, AttemptsLost, TasksCommitted
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.engine.host.conftest import Desk, Stage

FAN = ((), (), (), (0, 1, 2))


def failures(stage: Stage) -> list[AttemptFailed]:
    return [event for event in stage.journal() if isinstance(event, AttemptFailed)]


def commits(stage: Stage) -> list[int]:
    events = [event for event in stage.journal() if isinstance(event, TasksCommitted)]
    return [task for event in events for task in event.tasks]


async def send_together(stage: Stage, host: WorkflowHost) -> Desk:
    """Teaches the host that tasks are cheap, so that tasks 1 to 3 of five travel together."""
    stage.workers.find(0).returns(duration_us=1)
    await stage.settle()
    return stage.workers.desks[-1]


WIDE = ((), (), (), (), (0, 1, 2, 3))


async def test_a_task_whose_worker_died_runs_again_in_another_slice(stage: Stage) -> None:
    host = await stage.create(())
    stage.workers.find(0).dies("node lost")
    await stage.settle()
    assert stage.workers.sent == [(0,), (0,)]
    assert stage.workers.find(0).attempt(0) == 2
    stage.workers.find(0).returns()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL
    assert [event.error.kind for event in failures(stage)] == ["crash"]
    assert failures(stage)[0].error.message == "node lost"


async def test_a_task_that_kills_its_workers_fails_after_its_retries(stage: Stage) -> None:
    host = await stage.create((), max_retries=2)
    for _ in range(3):
        stage.workers.find(0).dies()
        await stage.settle()
    assert stage.told(host) is Status.FAILED
    assert len(stage.workers.desks) == 3
    assert [event.final for event in failures(stage)] == [False, False, True]
    assert stage.stored().failed[0].kind == "crash"
    assert stage.ends == [host]


async def test_a_task_without_retries_fails_with_its_first_worker(stage: Stage) -> None:
    host = await stage.create((), max_retries=0)
    stage.workers.find(0).dies()
    await stage.settle()
    assert stage.told(host) is Status.FAILED
    assert len(stage.workers.desks) == 1


async def test_a_task_with_endless_retries_never_fails(stage: Stage) -> None:
    host = await stage.create((), max_retries=-1)
    for _ in range(50):
        stage.workers.find(0).dies()
        await asyncio.sleep(60)  # more often it does not die: there are delays between attempts
    assert stage.told(host) is Status.RUNNING
    assert stage.workers.find(0).attempt(0) == 51


async def test_retries_of_errors_and_of_crashes_count_together(stage: Stage) -> None:
    host = await stage.create((), max_retries=2)
    stage.workers.find(0).raises(retryable=True)
    await stage.settle()
    stage.workers.find(0).dies()
    await stage.settle()
    stage.workers.find(0).raises(retryable=True)
    await stage.settle()
    assert stage.told(host) is Status.FAILED


async def test_an_error_that_is_not_to_be_retried_fails_at_once(stage: Stage) -> None:
    host = await stage.create((), max_retries=-1)
    stage.workers.find(0).raises(retryable=False)
    await stage.settle()
    assert stage.told(host) is Status.FAILED


async def test_a_worker_that_stops_without_a_last_report_counts_as_dead(stage: Stage) -> None:
    host = await stage.create(())
    stage.workers.find(0).ends()
    await stage.settle()
    assert "last report" in host_story(stage)
    stage.workers.find(0).returns()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL


def host_story(stage: Stage) -> str:
    return " ".join(event.error.message for event in failures(stage))


async def test_of_several_tasks_on_a_lost_worker_none_is_blamed(stage: Stage) -> None:
    stage.workers.slices_max = 1
    host = await stage.create(*WIDE, max_retries=0)
    desk = await send_together(stage, host)
    assert desk.tasks == (1, 2, 3)
    desk.dies("killed")
    await stage.settle()
    lost = [event for event in stage.journal() if isinstance(event, AttemptsLost)]
    assert [event.tasks for event in lost] == [(1, 2, 3)]
    assert lost[0].reason == "killed"
    assert failures(stage) == []
    assert stage.told(host) is Status.RUNNING


async def test_after_that_each_of_them_travels_alone(stage: Stage) -> None:
    stage.workers.slices_max = 1
    host = await stage.create(*WIDE, max_retries=0)
    (await send_together(stage, host)).dies()
    await stage.settle()
    for task in (1, 2):
        assert stage.workers.sent[-1] == (task,)
        stage.workers.find(task).returns(duration_us=1)
        await stage.settle()
    stage.workers.find(3).dies()
    await stage.settle()
    assert stage.told(host) is Status.FAILED
    assert list(stage.stored().failed) == [3]
    assert sorted(commits(stage)) == [0, 1, 2]


async def test_what_a_worker_reported_before_it_died_counts(stage: Stage) -> None:
    stage.workers.slices_max = 1
    host = await stage.create(*WIDE)
    desk = await send_together(stage, host)
    desk.returns(1, last=False)
    desk.returns(2, last=False)
    desk.dies()
    await stage.settle()
    assert stage.workers.sent[-1] == (3,)
    stage.workers.find(3).returns()
    await stage.settle()
    assert sorted(commits(stage)) == [0, 1, 2, 3]
    assert [event.task for event in failures(stage)] == [3]


async def test_a_worker_that_leaves_tasks_out_of_its_last_report_counts_as_dead(
    stage: Stage,
) -> None:
    stage.workers.slices_max = 1
    host = await stage.create(*WIDE)
    desk = await send_together(stage, host)
    desk.returns(1, last=True)
    await stage.settle()
    sent = {task for tasks in stage.workers.sent[2:] for task in tasks}
    assert sent == {2}, "what the worker left out never runs"
    stage.workers.find(2).returns()
    await stage.settle()
    stage.workers.find(3).returns()
    await stage.settle()
    stage.workers.find(4).returns()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL


async def test_a_slow_task_does_not_hold_back_what_its_companions_make_ready(stage: Stage) -> None:
    stage.workers.slices_max = 1
    host = await stage.create((), (), (), (1,), (0, 2, 3))
    desk = await send_together(stage, host)
    assert desk.tasks == (1, 2)
    stage.workers.slices_max = 2
    desk.returns(1, last=False)
    await stage.settle()
    assert stage.workers.sent[-1] == (3,)


async def test_a_result_reported_twice_is_committed_once(stage: Stage) -> None:
    await stage.create(*FAN)
    desk = stage.workers.find(0)
    desk.returns(last=False)
    desk.returns(value="another", last=False)
    desk.raises(last=True)
    await stage.settle()
    assert commits(stage) == [0]
    assert stage.stored().task_state(0) is TaskState.COMMITTED
    assert failures(stage) == []


async def test_continuations_are_part_of_the_workflow(stage: Stage) -> None:
    host = await stage.create((), (0,))
    fragment = stage.graph((), (), (0, 1))
    stage.workers.find(0).continues(fragment)
    await stage.settle()
    assert stage.workers.sent[1:] == [(2,), (3,)]
    for task in (2, 3, 4):
        stage.workers.find(task).returns(value=task)
        await stage.settle()
    assert stage.workers.sent[-1] == (1,)
    assert host.state.results[0] == host.state.results[4]
    stage.workers.find(1).returns()
    await stage.settle()
    assert stage.told(host) is Status.SUCCESSFUL


async def test_a_continuation_survives_its_host(stage: Stage) -> None:
    host = await stage.create(())
    stage.workers.find(0).continues(stage.graph((), (0,)))
    await host.sync()
    await stage.settle()
    second = await stage.take_over()
    assert stage.workers.sent[-1] == (1,), "the task that continued ran again"
    for task in (1, 2):
        stage.workers.find(task).returns(value="end")
        await stage.settle()
    assert stage.told(second) is Status.SUCCESSFUL
    assert second.state.results[0] == second.state.results[2]
