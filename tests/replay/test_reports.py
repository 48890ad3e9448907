"""What follows from what workers report, and from workers that report nothing more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from milepost.errors import IllegalEventError
from milepost.replay.decide import NOTHING, Finish, RunSlice
from milepost.replay.events import (
    AttemptFailed,
    AttemptsLost,
    RetriesDue,
    StatusChanged,
    TasksCommitted,
)
from milepost.replay.fold import apply
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

ALL_CHEAP = {0: 0.0}


def statuses(events: tuple[object, ...]) -> list[str]:
    return [event.status for event in events if isinstance(event, StatusChanged)]


def test_what_returned_is_committed_in_one_event(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1, 2))
    decision = story.when(build.report(0, 0, 1, 2))
    assert decision.append == (build.committed(0, 0, 1, 2),)
    assert decision.effects == ()
    assert not story.state.slices


def test_a_partial_report_leaves_the_rest_of_the_slice_under_way(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1, 2))
    story.when(build.report(0, 1))
    assert list(story.state.slices[0].outstanding) == [0, 2]
    assert story.when(build.report(0, 0, 2)).append == (build.committed(0, 0, 2, node=0),)


def test_the_last_result_ends_the_workflow(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    decision = story.when(build.report(0, 0))
    assert decision.append[0] == build.committed(0, 0)
    assert statuses(decision.append) == ["SUCCESSFUL"]
    assert decision.effects == (Finish(status=Status.SUCCESSFUL),)
    assert story.state.result == build.payload([0, 1])


def test_a_report_that_arrives_twice_counts_once(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1))
    first = story.when(build.report(0, 0))
    assert first.append
    assert story.when(build.report(0, 0)) == NOTHING
    story.when(build.report(0, 0, 1))
    assert story.journal[-1] == build.committed(0, 1, node=0)
    assert story.when(build.report(0, 0, 1)) == NOTHING


def test_the_first_commit_wins(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0, 1))
    story.when(build.report(0, 0))
    other = replace(build.report(0, 0), payloads=(build.payload("another value"),))
    assert story.when(other) == NOTHING
    assert story.state.results[0] == build.payload([0, 1])


def test_only_what_is_new_in_a_report_is_kept_column_by_column(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1, 2), build.committed(0, 1))
    report = replace(build.report(0, 0, 1, 2), started_us=(10, 11, 12), durations_us=(20, 21, 22))
    (commit,) = story.when(report).append
    expected = build.committed(0, 0, 2, node=0)
    expected = replace(expected, started_us=(10, 12), durations_us=(20, 22))
    assert commit == expected


def test_a_worker_is_named_once_and_then_by_number(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(4)))
    for number, name in enumerate(("n1", "n2", "n2", "n1")):
        story.given(build.scheduled(number, number))
        story.when(replace(build.report(number, number), node=name))
    commits = [event for event in story.journal if isinstance(event, TasksCommitted)]
    assert [commit.node for commit in commits] == ["n1", "n2", 1, 0]
    assert story.state.workers == {"n1": 0, "n2": 1}


@pytest.mark.parametrize("node", [-1, 1])
def test_a_worker_that_was_never_named_is_refused(build: Build, story: Story, node: int) -> None:
    story.given(*build.started(build.fan(4)), build.scheduled(0, 0, 1), build.committed(0, 0))
    for event in (
        build.committed(0, 1, node=node),
        build.failed(0, 1, node=node),
        replace(build.extended(0, 1, build.single()), node=node),
    ):
        with pytest.raises(IllegalEventError, match="not named this worker"):
            apply(story.state, event)


def test_a_report_of_an_unknown_slice_is_dropped(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)))
    assert story.when(build.report(0, 0)) == NOTHING


def test_a_report_of_a_task_of_another_slice_is_dropped(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0), build.scheduled(1, 1))
    assert story.when(build.report(0, 1)) == NOTHING


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_report_of_another_attempt_is_dropped(build: Build, story: Story, attempt: int) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0))
    raised = build.raised(0, attempt=attempt)
    continued = build.continued(0, build.single(), attempt=attempt)
    assert story.when(build.report(0, 0, attempt=attempt)) == NOTHING
    assert story.when(build.report(0, raised=[raised])) == NOTHING
    assert story.when(build.report(0, continued=[continued])) == NOTHING


def test_a_late_report_of_another_owners_slice_is_dropped(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0, 1))
    story.when(build.gained(2))
    story.when(build.wanted(1, costs_us=ALL_CHEAP))
    assert story.when(build.report(0, 0, 1)) == NOTHING
    assert story.when(build.loss(0)) == NOTHING
    report = build.report(1, 0, attempt=2, epoch=2)
    assert story.when(report).append == (build.committed(1, 0, attempt=2),)


def test_a_canceled_workflow_ignores_what_its_workers_still_say(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0), build.status("CANCELED"))
    assert story.when(build.report(0, 0)) == NOTHING
    assert story.when(build.report(0, raised=[build.raised(0)])) == NOTHING
    assert story.when(build.loss(0)) == NOTHING


def test_a_pending_workflow_can_still_be_ended_by_its_last_result(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0), build.status("PENDING"))
    decision = story.when(build.report(0, 0))
    assert decision.effects == (Finish(status=Status.SUCCESSFUL),)


def raise_once(build: Build, story: Story, *, retryable: bool = True) -> AttemptFailed:
    """Schedules task 0 alone and lets it raise; returns the failure."""
    number = story.state.next_slice
    attempt = story.state.attempts[0] + 1
    story.given(build.scheduled(number, 0, attempt=attempt))
    raised = build.raised(0, attempt=attempt, retryable=retryable)
    failure = story.when(build.report(number, raised=[raised])).append[0]
    assert isinstance(failure, AttemptFailed)
    return failure


def test_a_failed_attempt_is_repeated_up_to_max_retries(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=2)))
    failures = [raise_once(build, story) for _ in range(3)]
    assert [failure.attempt for failure in failures] == [1, 2, 3]
    assert [failure.final for failure in failures] == [False, False, True]
    assert story.state.status is Status.FAILED
    assert story.state.failed == {0: build.error()}


def test_without_retries_the_first_failure_is_final(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=0)))
    assert raise_once(build, story).final


def test_an_exception_that_is_not_to_be_retried_is_final_at_once(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(2, max_retries=-1)))
    assert raise_once(build, story, retryable=False).final


def test_minus_one_retries_for_ever(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=-1)))
    for _ in range(50):
        failure = raise_once(build, story)
        assert not failure.final
        if failure.retry_us:
            story.given(RetriesDue(at_us=failure.retry_us))


def test_a_final_failure_ends_the_workflow_and_names_the_task(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=0)), build.scheduled(0, 0, 1))
    decision = story.when(build.report(0, raised=[build.raised(1)]))
    (status,) = (event for event in decision.append if isinstance(event, StatusChanged))
    assert (status.status, status.reason) == ("FAILED", "task f_1: ValueError")
    assert decision.effects == (Finish(status=Status.FAILED),)


def test_after_a_failure_nothing_new_starts_but_siblings_commits_count(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(4, max_retries=0)))
    story.given(build.scheduled(0, 0), build.scheduled(1, 1), build.scheduled(2, 2))
    story.when(build.report(0, raised=[build.raised(0)]))
    assert story.when(build.wanted()) == NOTHING
    assert story.when(build.report(1, 1)).append == (build.committed(1, 1, node=0),)
    story.when(build.report(2, continued=[build.continued(2, build.single())]))
    assert story.state.task_state(2) is TaskState.EXTENDED
    assert story.when(build.wanted()) == NOTHING
    assert story.state.status is Status.FAILED


def test_a_workflow_that_failed_is_declared_so_once(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(4, max_retries=0)))
    story.given(build.scheduled(0, 0, 1), build.scheduled(1, 2), build.scheduled(2, 3))
    first = story.when(build.report(0, raised=[build.raised(0), build.raised(1)]))
    second = story.when(build.report(1, raised=[build.raised(2)]))
    third = story.when(build.loss(2))
    assert [statuses(each.append) for each in (first, second, third)] == [["FAILED"], [], []]
    assert [each.effects for each in (second, third)] == [(), ()]
    assert list(story.state.failed) == [0, 1, 2, 3]


def test_one_report_can_hold_results_continuations_and_failures(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1, 2))
    report = build.report(
        0, 0, raised=[build.raised(1)], continued=[build.continued(2, build.single())]
    )
    known = replace(build.single(), functions=(build.function(code=False),))
    assert story.when(report).append == (
        build.committed(0, 0),
        build.extended(0, 2, known),
        build.failed(0, 1),
    )
    assert story.when(report) == NOTHING


def test_a_task_alone_with_its_worker_is_blamed_for_the_death(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0, 1), build.committed(0, 1))
    (failure,) = story.when(build.loss(0)).append
    assert isinstance(failure, AttemptFailed)
    assert (failure.task, failure.attempt, failure.final) == (0, 1, False)
    assert (failure.error.kind, failure.error.message) == ("crash", "killed")


def test_a_blamed_task_is_a_suspect_until_its_worker_survives_it(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0))
    story.when(build.loss(0))
    assert story.state.suspects == {0}
    story.given(build.scheduled(1, 0, attempt=2))
    story.when(build.report(1, raised=[build.raised(0, attempt=2)]))
    assert not story.state.suspects


def test_a_task_that_kills_its_worker_again_and_again_fails(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=1)))
    story.given(build.scheduled(0, 0))
    assert statuses(story.when(build.loss(0)).append) == []
    story.given(build.scheduled(1, 0, attempt=2))
    decision = story.when(build.loss(1))
    assert statuses(decision.append) == ["FAILED"]
    assert decision.effects == (Finish(status=Status.FAILED),)


def test_exceptions_and_crashes_count_against_the_same_retries(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=1)))
    raise_once(build, story)
    story.given(build.scheduled(1, 0, attempt=2))
    assert statuses(story.when(build.loss(1)).append) == ["FAILED"]


def test_of_several_tasks_on_a_dead_worker_none_is_blamed(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3, max_retries=0)), build.scheduled(0, 0, 1, 2))
    story.when(build.report(0, 1))
    decision = story.when(build.loss(0))
    assert decision.append == (build.lost(0, 0, 2),)
    assert not story.state.failures
    assert story.state.status is Status.RUNNING


def test_suspects_travel_alone_until_they_commit(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(6)), build.scheduled(0, 0, 1, 2))
    story.when(build.loss(0))
    decision = story.when(build.wanted(5, costs_us=ALL_CHEAP, slice_us=0))
    tasks = [effect.tasks for effect in decision.effects if isinstance(effect, RunSlice)]
    assert tasks == [(3, 4), (5,), (0,), (1,), (2,)]
    for number in (3, 4, 5):
        story.when(build.report(number, number - 3, attempt=2))
    assert not story.state.suspects


def test_a_suspect_between_innocents_parts_them(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(6)), build.scheduled(0, 0, 1))
    story.when(build.loss(0))
    decision = story.when(build.wanted(5, costs_us={0: 0.5}, slice_us=1000))
    tasks = [effect.tasks for effect in decision.effects if isinstance(effect, RunSlice)]
    assert tasks == [(2, 3), (4, 5), (0,), (1,)]


def test_the_poison_among_many_is_found_and_only_it_fails(build: Build, story: Story) -> None:
    poison = 5
    story.given(*build.started(build.fan(8, max_retries=1)))
    for _ in range(40):
        story.when(build.wanted(2, costs_us=ALL_CHEAP))
        for number, slice_ in list(story.state.slices.items()):
            if poison in slice_.outstanding:
                story.when(build.loss(number))
            else:
                attempts = tuple(story.state.attempts[task] for task in slice_.outstanding)
                report = build.report(number, *slice_.outstanding)
                story.when(replace(report, attempts=attempts))
    assert list(story.state.failed) == [poison]
    assert story.state.counts[TaskState.COMMITTED] == 7


def test_a_suspect_stays_one_when_the_owner_changes(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1), build.lost(0, 0, 1))
    story.given(build.scheduled(1, 0, attempt=2))
    story.when(build.gained(2))
    assert story.state.suspects == {0, 1}


def test_an_owner_that_dies_makes_no_suspects(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1))
    story.when(build.gained(2))
    assert not story.state.suspects
    assert not story.state.failures


def test_the_loss_of_an_unknown_or_finished_slice_is_nothing(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0), build.committed(0, 0))
    assert story.when(build.loss(0)) == NOTHING
    assert story.when(build.loss(99)) == NOTHING


def test_a_report_that_follows_a_loss_is_dropped(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1))
    lost = story.when(build.loss(0)).append
    assert isinstance(lost[0], AttemptsLost)
    assert story.when(build.report(0, 0, 1)) == NOTHING


def test_a_continuation_adds_its_nodes_and_its_root_stands_for_the_task(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.chain(2)), build.scheduled(0, 0))
    story.when(build.report(0, continued=[build.continued(0, build.chain(2))]))
    assert story.state.creators == {3: 0}
    assert story.state.task_state(0) is TaskState.EXTENDED
    story.given(build.scheduled(1, 2), build.committed(1, 2), build.scheduled(2, 3))
    assert story.state.task_state(1) is TaskState.WAITING
    story.given(build.committed(2, 3))
    assert story.state.results[0] == story.state.results[3] == build.payload([3, 1])
    assert story.state.task_state(1) is TaskState.READY


def test_the_result_is_reached_through_nested_continuations(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()))
    for depth in range(4):
        story.given(build.scheduled(depth, depth))
        decision = story.when(
            build.report(depth, continued=[build.continued(depth, build.single())])
        )
        assert decision.effects == ()
    story.given(build.scheduled(4, 4))
    decision = story.when(build.report(4, 4))
    assert statuses(decision.append) == ["SUCCESSFUL"]
    assert story.state.result == build.payload([4, 1])
    assert story.state.counts[TaskState.COMMITTED] == 5


def test_the_end_of_an_inner_continuation_is_not_the_end_of_the_workflow(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.chain(2)), build.scheduled(0, 0))
    story.when(build.report(0, continued=[build.continued(0, build.single())]))
    story.given(build.scheduled(1, 2))
    assert statuses(story.when(build.report(1, 2)).append) == []
    assert story.state.status is Status.RUNNING


def test_code_that_the_journal_holds_is_not_stored_again(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    fragment = build.fragment((), (0,), functions="fg")
    (event,) = story.when(build.report(0, continued=[build.continued(0, fragment)])).append
    known, fresh = build.function(code=False), build.function("g")
    assert event == build.extended(0, 0, replace(fragment, functions=(known, fresh)))
    assert story.state.graph.functions == [build.function("f"), build.function("g")]


def test_a_task_that_returned_a_continuation_never_runs_again(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.when(build.report(0, continued=[build.continued(0, build.single())]))
    story.when(build.gained(2))
    story.when(build.wanted())
    assert list(story.state.slices[1].outstanding) == [1]


def test_a_failure_inside_a_continuation_fails_the_workflow_and_resumes_there(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.when(build.report(0, continued=[build.continued(0, build.single(max_retries=0))]))
    story.given(build.scheduled(1, 1))
    assert statuses(story.when(build.report(1, raised=[build.raised(1)])).append) == ["FAILED"]
    story.when(build.resume())
    story.when(build.wanted())
    decision = story.when(build.report(2, 1, attempt=2))
    assert decision.effects == (Finish(status=Status.SUCCESSFUL),)
