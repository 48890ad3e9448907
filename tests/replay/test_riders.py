"""Tasks that ride with what they wait for, and tasks that come back unstarted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from milepost.errors import IllegalEventError
from milepost.replay.decide import Decision, RunSlice
from milepost.replay.events import AttemptsLost, TasksCommitted, TasksHandedBack
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

CHEAP = {0: 1.0}


def sent(decision: Decision) -> list[tuple[int, ...]]:
    return [effect.tasks for effect in decision.effects if isinstance(effect, RunSlice)]


def want(story: Story, build: Build, **how: Any) -> list[tuple[int, ...]]:
    how.setdefault("costs_us", CHEAP)
    how.setdefault("riders_max", 500)
    return sent(story.when(build.wanted(**how)))


def test_a_chain_travels_as_one(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(4)))
    assert want(story, build) == [(0, 1, 2, 3)]
    story.when(build.report(0, 0, 1, 2, 3))
    assert story.state.status is Status.SUCCESSFUL


def test_nothing_rides_in_strict_durability(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3), "strict"))
    assert want(story, build) == [(0,)]


def test_what_may_be_long_does_not_ride(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(9)))
    assert want(story, build, costs_us={}) == [(0,)]
    story.when(build.report(0, 0))
    assert want(story, build, costs_us={0: 300.0}) == [(1, 2, 3)]


def test_a_join_rides_when_all_its_inputs_do(story: Story, build: Build) -> None:
    story.given(*build.started(build.fan(4)))
    assert want(story, build, slices_max=1) == [(0, 1, 2, 3, 4)]


def test_a_join_of_two_slices_rides_with_neither(story: Story, build: Build) -> None:
    story.given(*build.started(build.fan(4)))
    assert want(story, build, slices_max=2) == [(0, 1), (2, 3)]


def test_what_could_run_side_by_side_does_not_ride(story: Story, build: Build) -> None:
    story.given(*build.started(build.fragment((), (0,), (0,), (1, 2))))
    assert want(story, build) == [(0,)]


def test_tasks_of_another_class_do_not_ride(story: Story, build: Build) -> None:
    story.given(*build.started(build.fragment((), (0,), classes=(0, 1))))
    assert want(story, build) == [(0,)]


def test_an_input_taken_twice_is_one_input(story: Story, build: Build) -> None:
    story.given(*build.started(build.fragment((), (0, 0))))
    assert want(story, build) == [(0, 1)]
    story.when(build.report(0, 0, 1))
    assert story.state.status is Status.SUCCESSFUL


@pytest.mark.parametrize("retryable", [True, False])
def test_riders_of_a_task_that_raised_wait_again_without_an_attempt(
    story: Story, build: Build, retryable: bool
) -> None:
    story.given(*build.started(build.chain(4)))
    want(story, build)
    story.when(build.report(0, 0, raised=[build.raised(1, retryable=retryable)]))
    assert not story.state.slices
    assert list(story.state.tasks[2:]) == [TaskState.WAITING] * 2
    assert list(story.state.attempts) == [1, 1, 0, 0]


def test_riders_of_a_continuation_wait_for_its_value(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3)))
    want(story, build)
    story.when(build.report(0, continued=[build.continued(0, build.single())]))
    assert list(story.state.tasks[1:3]) == [TaskState.WAITING] * 2
    assert want(story, build) == [(3,)]
    story.when(build.report(1, 3))
    assert want(story, build) == [(1, 2)]


def test_what_is_handed_back_is_as_if_it_had_never_been_sent(story: Story, build: Build) -> None:
    story.given(*build.started(build.fan(3)))
    want(story, build, slices_max=1)
    decision = story.when(build.report(0, 0, handed_back=[2, 3]))
    assert [type(event) for event in decision.append] == [TasksHandedBack, TasksCommitted]
    assert not story.state.suspects
    assert list(story.state.attempts) == [1, 1, 0, 0]
    assert story.state.task_state(3) is TaskState.WAITING
    assert want(story, build) == [(2,)]


def test_a_suspect_that_comes_back_is_still_one(story: Story, build: Build) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0, 1))
    story.when(build.loss(0))
    story.given(build.scheduled(1, 0, 1, attempt=2))
    story.when(build.report(1, handed_back=[1], attempt=2))
    assert story.state.suspects == {0, 1}


def test_the_death_of_a_worker_costs_nothing_that_came_back_before(
    story: Story, build: Build
) -> None:
    story.given(*build.started(build.fan(3)))
    want(story, build, slices_max=1)
    story.when(build.report(0, handed_back=[1, 2, 3]))
    story.when(build.loss(0))
    assert story.state.failures == {0: 1}
    assert story.state.suspects == {0}


def test_the_death_of_a_worker_takes_riders_with_it(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3)))
    want(story, build)
    story.when(build.report(0, 0))
    (lost,) = story.when(build.loss(0)).append
    assert isinstance(lost, AttemptsLost)
    assert list(story.state.attempts) == [1, 1, 1]
    assert want(story, build) == [(1,)]


def test_a_new_owner_starts_riders_again_in_their_turn(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3)))
    want(story, build)
    story.when(build.gained(2))
    assert list(story.state.tasks) == [TaskState.READY, TaskState.WAITING, TaskState.WAITING]
    assert want(story, build) == [(0, 1, 2)]


def test_a_report_for_a_former_owners_slice_is_none_for_ours(story: Story, build: Build) -> None:
    story.given(build.created(build.single()), build.taken(2), build.status("RUNNING"))
    story.given(build.scheduled(0, 0))
    assert not story.when(build.report(0, 0, epoch=1)).append
    assert not story.when(build.loss(0, epoch=1)).append
    assert story.when(build.report(0, 0, epoch=2)).append


def test_no_commit_comes_before_what_it_depends_on(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3)), build.scheduled(0, 0, 1, 2))
    for illegal in (
        build.committed(0, 1),
        build.committed(0, 1, 0),
        build.committed(0, 0, 2),
        build.failed(0, 1),
        build.extended(0, 1, build.single()),
    ):
        with pytest.raises(IllegalEventError, match="an input has no value"):
            story.given(illegal)
    story.given(build.committed(0, 0, 1))


def test_a_rider_is_scheduled_behind_what_it_waits_for(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3)))
    for illegal in (build.scheduled(0, 1, 0), build.scheduled(0, 0, 2), build.scheduled(0, 1)):
        with pytest.raises(IllegalEventError, match="not ready"):
            story.given(illegal)
    story.given(build.scheduled(0, 0, 1))


def test_what_is_outstanding_is_handed_back_once(story: Story, build: Build) -> None:
    story.given(*build.started(build.chain(3)), build.scheduled(0, 0, 1, 2))
    with pytest.raises(IllegalEventError, match="once"):
        story.given(build.handed_back(0, 1, 1))
    with pytest.raises(IllegalEventError, match="columns"):
        story.given(build.handed_back(0))
    story.given(build.handed_back(0, 1))
    with pytest.raises(IllegalEventError, match="not outstanding"):
        story.given(build.handed_back(0, 2))
