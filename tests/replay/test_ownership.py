"""Owners come and go, workflows are resumed: what a new start keeps and what it forgets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from milepost.replay.decide import NOTHING, Finish
from milepost.replay.fold import apply, fold
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story


def test_a_new_owner_writes_its_epoch_and_the_status_together(build: Build, story: Story) -> None:
    story.given(build.created(build.single()))
    decision = story.when(build.gained(4))
    running = replace(build.status("RUNNING"), reason="start", who="owner 4")
    assert decision.append == (build.taken(4), running)
    assert decision.effects == ()
    assert (story.state.epoch, story.state.owner) == (4, "owner 4")


def test_outstanding_tasks_are_ready_again_for_a_new_owner(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(4)))
    story.given(build.scheduled(0, 0, 1), build.scheduled(1, 2), build.committed(0, 1))
    story.when(build.gained(2))
    assert not story.state.slices
    states = [story.state.task_state(task) for task in range(4)]
    ready = TaskState.READY
    assert states == [ready, TaskState.COMMITTED, ready, ready]
    decision = story.when(build.wanted())
    assert decision.append == (
        build.scheduled(2, 3),
        build.scheduled(3, 0, attempt=2),
        build.scheduled(4, 2, attempt=2),
    )


def test_numbers_of_slices_are_never_used_again(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    for epoch in (2, 3):
        story.when(build.gained(epoch))
        story.when(build.wanted())
    assert list(story.state.slices) == [2]


def test_an_owner_that_finds_the_result_committed_only_finishes(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0), build.committed(0, 0))
    decision = story.when(build.gained(2))
    assert [type(event).__name__ for event in decision.append] == [
        "OwnershipTaken",
        "StatusChanged",
        "StatusChanged",
    ]
    assert decision.effects == (Finish(status=Status.SUCCESSFUL),)
    assert story.state.status is Status.SUCCESSFUL
    assert story.state.result == build.payload([0, 1])


def test_an_owner_that_finds_the_result_of_a_continuation_finishes(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.given(build.extended(0, 0, build.single()), build.scheduled(1, 1), build.committed(1, 1))
    assert story.when(build.gained(2)).effects == (Finish(status=Status.SUCCESSFUL),)


@pytest.mark.parametrize("status", ["SUCCESSFUL", "CANCELED"])
def test_a_workflow_that_has_ended_cannot_be_taken(build: Build, story: Story, status: str) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.given(build.committed(0, 0), build.status(status))
    with pytest.raises(AssertionError, match=status):
        story.when(build.gained(2))


@pytest.mark.parametrize("status", ["SUCCESSFUL", "CANCELED"])
def test_an_end_that_is_made_certain_stays_what_it_was(
    build: Build, story: Story, status: str
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.given(build.committed(0, 0), build.status(status))
    ended_us, result = story.state.ended_us, story.state.result
    story.given(build.taken(7))
    assert (story.state.status, story.state.epoch) == (Status(status), 7)
    assert (story.state.ended_us, story.state.result) == (ended_us, result)


def test_an_owner_gives_failed_tasks_a_fresh_start(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0))
    story.given(build.failed(0, 0, final=True))
    story.when(build.gained(2))
    assert not story.state.failed
    assert story.state.task_state(0) is TaskState.READY


def test_resume_gives_failed_tasks_a_fresh_start_and_numbers_go_on(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(2, max_retries=1)))
    for attempt in (1, 2):
        story.when(build.wanted(2))
        number = story.state.next_slice - 1 if attempt == 2 else 0
        raised = build.raised(0, attempt=attempt)
        story.when(build.report(number, raised=[raised]))
    assert story.state.status is Status.FAILED
    assert story.when(build.resume()).append == (
        replace(build.status("RUNNING"), reason="resumed"),
    )
    assert not story.state.failures
    story.when(build.wanted(3))
    (number,) = (at for at, slice_ in story.state.slices.items() if 0 in slice_.outstanding)
    assert story.state.attempts[0] == 3
    first = story.when(build.report(number, raised=[build.raised(0, attempt=3)])).append
    assert first == (build.failed(number, 0, attempt=3, node=0),)


def test_siblings_that_run_on_keep_running_through_a_resume(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2, max_retries=0)))
    story.given(build.scheduled(0, 0), build.scheduled(1, 1))
    story.when(build.report(0, raised=[build.raised(0)]))
    story.when(build.resume())
    assert story.when(build.report(1, 1)).append == (build.committed(1, 1, node=0),)


def test_the_end_time_is_cleared_when_a_workflow_goes_on(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0))
    story.given(build.failed(0, 0, final=True), build.status("FAILED"))
    assert story.state.ended_us > 0
    story.when(build.resume())
    assert story.state.ended_us == 0


@pytest.mark.parametrize("status", ["RUNNING", "PENDING", "CANCELED"])
def test_resume_concerns_failed_workflows_only(build: Build, story: Story, status: str) -> None:
    story.given(*build.started(build.fan(2)), build.status(status))
    assert story.when(build.resume()) == NOTHING


def test_a_pending_workflow_runs_when_its_turn_comes(build: Build, story: Story) -> None:
    story.given(build.created(build.single()), build.taken(), build.status("PENDING"))
    story.given(build.status("PENDING"))
    story.given(build.status("RUNNING"))
    assert story.when(build.wanted()).append == (build.scheduled(0, 0),)


def test_a_failed_workflow_that_waits_for_its_turn_starts_afresh_then(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0))
    story.given(build.failed(0, 0, final=True), build.status("FAILED"), build.status("PENDING"))
    assert list(story.state.failed) == [0]
    story.given(build.status("RUNNING"))
    assert not story.state.failed


def test_a_note_changes_nothing_but_the_length_of_the_journal(build: Build) -> None:
    plain, noted = fold(build.started(build.single())), fold(build.started(build.single()))
    apply(noted, build.noted())
    assert noted.next_seq == plain.next_seq + 1
    noted.next_seq -= 1
    assert noted.digest() == plain.digest()


def test_the_state_says_what_the_events_said(build: Build, story: Story) -> None:
    story.given(*build.started(build.single(), "strict"))
    state = story.state
    assert (state.workflow_id, state.durability, state.versions) == ("w", "strict", "milepost 1")
    assert (state.metadata, state.environment) == (
        build.payload({"user": "ann"}),
        build.payload({}),
    )
    assert state.created_us == state.started_us > 0
    assert state.result is None
