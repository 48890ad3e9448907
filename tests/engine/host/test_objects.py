"""Large values stay alive in Ray exactly as long as somebody is still to take them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from front_desk import FrontDesk
from milepost.engine.host import AnySlice, Delivery, WorkflowHost

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

FORK = ((), (0,), (0,), (1, 2))


async def test_a_large_value_is_kept_until_its_last_consumer_has_committed(stage: Stage) -> None:
    host = await stage.create(*FORK)
    stage.workers.find(0).returns_objects(0)
    await stage.settle()
    assert host.objects.find(0) == "object 0"
    stage.workers.find(1).returns()
    await stage.settle()
    assert host.objects.find(0) == "object 0"
    stage.workers.find(2).returns()
    await stage.settle()
    assert host.objects.find(0) is None


async def test_a_value_is_alive_before_the_tasks_that_take_it_are_sent(stage: Stage) -> None:
    host = await stage.create(*FORK)
    seen: list[object] = []
    run = stage.workers.run

    def watch(host: WorkflowHost, slice_: AnySlice) -> AsyncIterator[Delivery]:
        seen.append(host.objects.find(0))
        return run(host, slice_)

    stage.workers.run = watch  # type: ignore[method-assign]
    stage.workers.find(0).returns_objects(0)
    await stage.settle()
    assert seen == ["object 0", "object 0"]
    assert host.objects.find(0) == "object 0"


async def test_a_value_that_nobody_takes_is_not_kept(stage: Stage) -> None:
    host = await stage.create(())
    stage.workers.find(0).returns_objects(0, last=False)
    await stage.settle()
    assert host.objects.find(0) is None


async def test_a_small_value_has_no_object(stage: Stage) -> None:
    host = await stage.create(*FORK)
    stage.workers.find(0).returns()
    await stage.settle()
    assert host.objects.find(0) is None


async def test_a_failed_consumer_keeps_the_value_for_its_next_attempt(stage: Stage) -> None:
    host = await stage.create((), (0,))
    stage.workers.find(0).returns_objects(0)
    await stage.settle()
    stage.workers.find(1).raises(retryable=True)
    await stage.settle()
    assert host.objects.find(0) == "object 0"


async def test_a_consumer_that_continues_has_taken_its_value(stage: Stage) -> None:
    host = await stage.create((), (0,))
    stage.workers.find(0).returns_objects(0)
    await stage.settle()
    stage.workers.find(1).continues(stage.graph(()))
    await stage.settle()
    assert host.objects.find(0) is None


async def test_the_value_of_a_continuation_is_that_of_the_task_that_continued(
    stage: Stage,
) -> None:
    host = await stage.create((), (0,))
    stage.workers.find(0).continues(stage.graph((), (0,)))
    await stage.settle()
    stage.workers.find(2).returns()
    await stage.settle()
    stage.workers.find(3).returns_objects(3)
    await stage.settle()
    assert host.objects.find(0) == "object 3"
    assert host.objects.find(3) is None, "nobody takes the root itself"
    stage.workers.find(1).returns(last=False)
    await stage.settle()
    assert host.objects.find(0) is None


async def test_the_value_of_nested_continuations_reaches_the_outermost(stage: Stage) -> None:
    host = await stage.create((), (0,))
    for depth in range(4):
        stage.workers.desks[-1].continues(stage.graph(()))
        await stage.settle()
        assert stage.workers.sent[-1] == (depth + 2,)
    stage.workers.desks[-1].returns_objects(5)
    await stage.settle()
    assert host.objects.find(0) == "object 5"
    assert [host.objects.find(task) for task in range(2, 6)] == [None] * 4


async def test_values_that_a_lost_slice_took_are_read_from_their_blobs_next_time(
    stage: Stage,
) -> None:
    host = await stage.create((), (), (0, 1))
    stage.workers.find(0).returns_objects(0)
    stage.workers.find(1).returns_objects(1)
    await stage.settle()
    stage.workers.find(2).dies()
    await stage.settle()
    assert host.objects.find(0) is None
    assert host.objects.find(1) is None
    stage.workers.find(2).returns(last=False)
    await stage.settle()
    assert stage.stored().result is not None


async def test_a_value_reported_twice_is_let_go_all_the_same(stage: Stage) -> None:
    host = await stage.create(*FORK)
    desk = stage.workers.find(0)
    desk.returns_objects(0, last=False)
    desk.returns_objects(0)
    await stage.settle()
    for task in (1, 2):
        stage.workers.find(task).returns()
        await stage.settle()
    assert host.objects.find(0) is None


async def test_a_new_host_knows_no_objects_of_the_old_one(stage: Stage) -> None:
    await stage.create(*FORK)
    stage.workers.find(0).returns_objects(0)
    await stage.hosts[0].sync()
    second = await stage.take_over()
    assert second.objects.find(0) is None
    assert stage.workers.sent[-2:] == [(1,), (2,)]


async def test_a_workflow_that_ends_holds_nothing_any_more(desk: FrontDesk) -> None:
    """Its host may lie in a cycle of references, in a process that is idle for hours."""
    await desk.submit(*FORK)
    (host,) = desk.dispatcher._hosting.hosts.values()
    desk.stage.workers.find(0).returns_objects(0)
    await desk.stage.settle()
    assert host.objects.find(0) == "object 0"
    await desk.dispatcher.cancel("w")
    await desk.stage.settle()
    assert host.objects.find(0) is None
