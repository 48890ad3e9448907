"""Failures that are caught: the nearest catcher gets a pair, what is needed no more is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from milepost.replay.catching import pack_caught, unpack_caught
from milepost.replay.decide import CancelSlices, Finish
from milepost.replay.events import StatusChanged, TaskError
from milepost.replay.payload import Encoding, Payload, inline
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story


def caught_in(state_result: Payload | None) -> tuple[str, TaskError]:
    assert state_result is not None
    assert state_result.encoding == Encoding.CAUGHT
    return unpack_caught(state_result.data)


def statuses(events: tuple[object, ...]) -> list[str]:
    return [event.status for event in events if isinstance(event, StatusChanged)]


def test_what_was_caught_is_read_as_it_was() -> None:
    blob = Payload(encoding=2, digest=bytes(range(32)), size=1 << 20)
    for exception in (None, blob, inline(1, b"pickle")):
        error = TaskError(kind="crash", type="T", message="é", traceback="t", exception=exception)
        packed = pack_caught("task", error)
        assert (packed.encoding, packed.size) == (Encoding.CAUGHT, len(packed.data))
        assert unpack_caught(packed.data) == ("task", error)


def test_a_task_that_catches_has_its_own_failure_as_its_value(build: Build, story: Story) -> None:
    story.given(*build.started(build.catcher()), build.scheduled(0, 0))
    decision = story.when(build.report(0, raised=[build.raised(0)]))
    assert statuses(decision.append) == ["SUCCESSFUL"]
    assert decision.effects == (Finish(status=Status.SUCCESSFUL),)
    assert caught_in(story.state.result) == ("f", build.error())
    assert not story.state.failed
    assert not story.state.failures


def test_a_crash_is_caught_as_well(build: Build, story: Story) -> None:
    story.given(*build.started(build.catcher()), build.scheduled(0, 0))
    decision = story.when(build.loss(0))
    assert statuses(decision.append) == ["SUCCESSFUL"]
    assert caught_in(story.state.result)[1].kind == "crash"
    assert not story.state.suspects


def test_a_failure_is_caught_only_when_no_retry_is_left(build: Build, story: Story) -> None:
    story.given(*build.started(build.fragment((), catching=[0], max_retries=1)))
    story.given(build.scheduled(0, 0))
    assert len(story.when(build.report(0, raised=[build.raised(0)])).append) == 1
    assert story.state.result is None
    story.given(build.scheduled(1, 0, attempt=2))
    story.when(build.report(1, attempt=2, raised=[build.raised(0, attempt=2)]))
    assert caught_in(story.state.result)[0] == "f"


def test_a_failure_goes_to_the_nearest_who_catches(build: Build, story: Story) -> None:
    story.given(*build.started(build.catcher()))
    story.given(build.scheduled(0, 0), build.extended(0, 0, build.chain(2)))
    story.given(build.scheduled(1, 1), build.extended(1, 1, build.single()))
    story.given(build.scheduled(2, 3))
    decision = story.when(build.report(2, raised=[build.raised(3, retryable=False)]))
    assert statuses(decision.append) == ["SUCCESSFUL"]
    task_id, error = caught_in(story.state.result)
    assert (task_id, error.message) == (story.state.graph.task_id(3), "no")
    kinds = [story.state.task_state(task).name for task in range(4)]
    assert kinds == ["COMMITTED", "DROPPED", "COMMITTED", "DROPPED"]
    assert story.state.results[2] == story.state.results[0], "the root of a chain has its value"


def test_the_root_of_a_continuation_catches_like_the_task_that_returned_it(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.catcher()))
    story.given(build.scheduled(0, 0), build.extended(0, 0, build.chain(2)))
    assert story.state.catchers == {0, 2}
    story.given(build.scheduled(1, 1), build.committed(1, 1), build.scheduled(2, 2))
    story.when(build.report(2, raised=[build.raised(2, retryable=False)]))
    assert caught_in(story.state.results[2]) == caught_in(story.state.result)


def test_a_failure_that_nobody_catches_fails_the_workflow(build: Build, story: Story) -> None:
    graph = build.fragment((), (), (0, 1), classes=(0, 1, 1), catching=[0], max_retries=0)
    story.given(*build.started(graph), build.scheduled(0, 0), build.scheduled(1, 1))
    story.when(build.report(0, raised=[build.raised(0)]))
    assert story.state.status is Status.RUNNING
    decision = story.when(build.report(1, raised=[build.raised(1)]))
    assert statuses(decision.append) == ["FAILED"]
    assert list(story.state.failed) == [1]


def under_way(build: Build, story: Story) -> None:
    """Tells of a catcher 0 beside 1; its continuation 3 to 6 is at work in slices 2 and 3."""
    graph = build.fragment((), (), (0, 1), classes=(0, 1, 1), catching=[0], max_retries=0)
    story.given(*build.started(graph), build.scheduled(0, 0), build.scheduled(1, 1))
    story.given(build.extended(0, 0, build.fragment((), (), (), (0, 1, 2), max_retries=0)))
    story.given(build.scheduled(2, 3, 4), build.scheduled(3, 5))


def test_what_is_needed_no_more_is_dropped_and_its_slices_end(build: Build, story: Story) -> None:
    under_way(build, story)
    decision = story.when(build.report(2, raised=[build.raised(3)]))
    assert decision.effects == (CancelSlices(slices=(2, 3)),)
    assert list(story.state.slices) == [1], "what others need goes on"
    assert [story.state.task_state(task).name for task in (3, 4, 5)] == ["DROPPED"] * 3
    late = story.when(build.report(3, 5))
    assert not late.append
    story.when(build.report(1, 1))
    assert story.when(build.wanted()).effects, "the task that takes both is ready"


def test_two_failures_of_one_report_are_caught_once(build: Build, story: Story) -> None:
    under_way(build, story)
    decision = story.when(build.report(2, raised=[build.raised(3), build.raised(4)]))
    assert len(decision.append) == 1
    assert caught_in(story.state.results[0])[0] == story.state.graph.task_id(3)


def test_results_that_came_before_the_failure_count(build: Build, story: Story) -> None:
    under_way(build, story)
    story.when(build.report(2, 3, raised=[build.raised(4)]))
    assert story.state.task_state(3) is TaskState.COMMITTED
    assert story.state.task_state(5) is TaskState.DROPPED


def test_a_new_owner_runs_nothing_that_was_dropped(build: Build, story: Story) -> None:
    under_way(build, story)
    story.when(build.report(2, raised=[build.raised(3)]))
    story.when(build.gained(2))
    (run,) = story.when(build.wanted()).effects
    assert getattr(run, "tasks", None) == (1,)


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_a_failure_is_caught_from_any_depth(build: Build, story: Story, depth: int) -> None:
    story.given(*build.started(build.chain(2)))
    story.given(build.scheduled(0, 0), build.extended(0, 0, build.catcher()))
    for level in range(depth):
        last = len(story.state.graph) - 1 if level == 0 else len(story.state.graph) - 2
        number = story.state.next_slice
        graph = build.fragment((), (0,), max_retries=0)
        story.given(build.scheduled(number, last), build.extended(number, last, graph))
    number, last = story.state.next_slice, len(story.state.graph) - 2
    story.given(build.scheduled(number, last))
    story.when(build.report(number, raised=[build.raised(last)]))
    assert story.state.results[0] is not None
    assert story.state.task_state(1) is TaskState.READY
