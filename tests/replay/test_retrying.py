"""Retries that wait: how long, since when, for whom; attempts that run too long; blame."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from milepost.errors import IllegalEventError
from milepost.replay.decide import NOTHING, CancelSlices, RunSlice
from milepost.replay.events import AttemptFailed, AttemptsLost, RetriesDue
from milepost.replay.fold import apply
from milepost.replay.fragment import MapSpec, RangeItems
from milepost.replay.inputs import ItemRaised, ItemsReported
from milepost.replay.retrying import ENDLESS_BACKOFF, PATIENT_FAILURES
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from milepost.replay.events import Event
    from tests.replay.conftest import Build, Story

AT_US = 1_700_000_000_000_000
SECOND = 1_000_000


def fail(build: Build, story: Story, number: int, attempt: int) -> AttemptFailed:
    story.given(build.scheduled(number, 0, attempt=attempt))
    raised = build.raised(0, attempt=attempt)
    report = replace(build.report(number, raised=[raised]), epoch=story.state.epoch)
    failure = story.when(report).append[0]
    assert isinstance(failure, AttemptFailed)
    return failure


def delays(build: Build, story: Story, count: int) -> list[int]:
    """Returns how long each of so many failures puts the next attempt off."""
    found = []
    for at in range(count):
        failure = fail(build, story, at, at + 1)
        found.append(failure.retry_us - AT_US if failure.retry_us else 0)
        if failure.retry_us:
            story.given(RetriesDue(at_us=failure.retry_us))
    return found


def test_each_delay_is_longer_up_to_the_greatest(build: Build, story: Story) -> None:
    graph = build.patient(build.single(max_retries=9), SECOND, delay_us_max=5 * SECOND)
    story.given(*build.started(graph))
    assert delays(build, story, 5) == [SECOND, 2 * SECOND, 4 * SECOND, 5 * SECOND, 5 * SECOND]


def test_jitter_varies_each_delay_and_is_the_same_for_everybody(build: Build, story: Story) -> None:
    graph = build.patient(build.single(max_retries=9), SECOND, jitter=0.5, delay_us_max=SECOND)
    story.given(*build.started(graph))
    found = delays(build, story, 6)
    assert len(set(found)) == 6
    assert all(SECOND / 2 <= each <= 1.5 * SECOND for each in found)
    assert found[:3] == [1017028, 942924, 822625], "on every machine, in every version"


def test_without_delays_the_next_attempt_may_start_at_once(build: Build, story: Story) -> None:
    story.given(*build.started(build.patient(build.single(max_retries=9), 0)))
    assert delays(build, story, 3) == [0, 0, 0]


def test_who_retries_for_ever_does_not_spin(build: Build, story: Story) -> None:
    story.given(*build.started(build.single(max_retries=-1)))
    found = delays(build, story, 20)
    assert found[:PATIENT_FAILURES] == [0] * PATIENT_FAILURES
    assert all(each > 0 for each in found[PATIENT_FAILURES:])
    most = ENDLESS_BACKOFF.delay_us_max
    assert 0.8 * most < found[-1] < 1.2 * most


def test_what_is_put_off_is_not_scheduled_before_it_is_due(build: Build, story: Story) -> None:
    story.given(*build.started(build.patient(build.single())))
    fail(build, story, 0, 1)
    assert story.state.task_state(0) is TaskState.DELAYED
    assert story.when(build.wanted(after_us=SECOND - 1)) == NOTHING
    (due,) = story.when(build.wanted(after_us=SECOND)).append
    assert due == build.due(SECOND)
    (again,) = story.when(build.wanted(after_us=SECOND)).effects
    assert isinstance(again, RunSlice)
    assert again.attempts == (2,)


def test_the_last_failure_is_final_and_puts_nothing_off(build: Build, story: Story) -> None:
    story.given(*build.started(build.patient(build.single(max_retries=1))))
    fail(build, story, 0, 1)
    story.given(build.due(SECOND))
    failure = fail(build, story, 1, 2)
    assert (failure.final, failure.retry_us) == (True, 0)
    assert story.state.status is Status.FAILED


def test_the_next_owner_keeps_to_the_due_time(build: Build, story: Story) -> None:
    story.given(*build.started(build.patient(build.single())))
    fail(build, story, 0, 1)
    story.when(replace(build.gained(2), at_us=AT_US + 1))
    assert story.when(build.wanted(after_us=SECOND - 1)) == NOTHING
    assert story.when(build.wanted(after_us=SECOND)).append == (build.due(SECOND),)


def test_a_former_owner_whose_clock_was_ahead_makes_no_delay_longer(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.patient(build.single())))
    fail(build, story, 0, 1)
    story.when(replace(build.gained(2), at_us=AT_US - 3600 * SECOND))
    assert story.when(build.wanted(after_us=-3599 * SECOND)).append


@pytest.mark.parametrize("after_us", [0, SECOND - 1])
def test_nothing_is_due_before_its_time(build: Build, story: Story, after_us: int) -> None:
    story.given(*build.started(build.patient(build.single())))
    with pytest.raises(IllegalEventError, match="no retry is due"):
        apply(story.state, build.due(after_us))
    fail(build, story, 0, 1)
    with pytest.raises(IllegalEventError, match="no retry is due"):
        apply(story.state, build.due(after_us))


@pytest.mark.parametrize(("final", "retry_us"), [(True, 5), (False, -1)])
def test_a_failure_that_contradicts_itself_is_refused(
    build: Build, story: Story, final: bool, retry_us: int
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    event: Event = replace(build.failed(0, 0, final=final), retry_us=retry_us)
    with pytest.raises(IllegalEventError, match="a retry that cannot be"):
        apply(story.state, event)


def test_what_is_needed_no_more_is_not_tried_again(build: Build, story: Story) -> None:
    """Two tasks of a continuation; one is put off when the other's failure is caught."""
    inner = build.patient(build.fragment((), (), (0, 1), max_retries=1))
    story.given(*build.started(build.catcher()), build.scheduled(0, 0))
    story.given(build.extended(0, 0, inner), build.scheduled(1, 1), build.scheduled(2, 2))
    story.given(replace(build.failed(1, 1), retry_us=AT_US + SECOND))
    story.given(build.failed(2, 2, final=True))
    assert story.state.task_state(1) is TaskState.DROPPED
    assert story.when(build.wanted(after_us=SECOND)) == NOTHING


def test_items_are_put_off_one_by_one(build: Build, story: Story) -> None:
    graph = build.patient(build.single(max_retries=3))
    items = MapSpec(node=0, length=3, chunk_size=0, items=RangeItems(first=0, step=1))
    story.given(*build.started(replace(graph, maps=(items,))))
    story.when(build.wanted(1, costs_us={0: 1.0}))
    report = ItemsReported(
        slice=0,
        epoch=1,
        starts=(0,),
        stops=(1,),
        payloads=(build.payload([0]),),
        started_us=AT_US,
        duration_us=1,
        raised=tuple(
            ItemRaised(item=item, attempt=1, error=build.error(), retryable=True) for item in (1, 2)
        ),
        handed_back=(),
        node="n1",
        at_us=AT_US,
    )
    story.when(report)
    assert story.state.maps[0].delayed.keys() == {1, 2}
    assert story.when(build.wanted(after_us=1)) == NOTHING
    assert story.when(build.wanted(after_us=SECOND)).append == (build.due(SECOND),)
    assert story.when(build.wanted(after_us=SECOND)).effects


def test_a_task_with_a_time_limit_travels_alone(build: Build, story: Story) -> None:
    story.given(*build.started(build.patient(build.fan(4), timeout_us=SECOND)))
    (run,) = story.when(build.wanted(1, costs_us={0: 0.1}, riders_max=9)).effects
    assert isinstance(run, RunSlice)
    assert run.tasks == (0,)


def test_an_attempt_that_runs_too_long_has_failed_and_its_worker_ends_at_once(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.single(max_retries=1)), build.scheduled(0, 0))
    late = replace(build.loss(0), kind="timeout", reason="it ran too long")
    decision = story.when(late)
    (failure,) = decision.append
    assert isinstance(failure, AttemptFailed)
    assert (failure.error.kind, failure.error.type) == ("timeout", "TaskTimeoutError")
    assert decision.effects == (CancelSlices(slices=(0,), sync_first=False),)
    assert story.when(late) == NOTHING


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("crash", "TaskCrashedError"),
        ("memory", "TaskOutOfMemoryError"),
        ("node", "NodeLostError"),
    ],
)
def test_why_a_worker_was_lost_is_told_apart(
    build: Build, story: Story, kind: str, name: str
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    (failure,) = story.when(replace(build.loss(0), kind=kind)).append
    assert isinstance(failure, AttemptFailed)
    assert (failure.error.kind, failure.error.type) == (kind, name)
    assert 0 in story.state.suspects


def test_a_task_that_never_began_because_an_input_was_lost_is_not_blamed(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.single(max_retries=0)), build.scheduled(0, 0))
    (lost,) = story.when(replace(build.loss(0), kind="input")).append
    assert isinstance(lost, AttemptsLost)
    assert story.when(build.wanted()).effects
