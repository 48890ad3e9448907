"""Which tasks travel together, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from milepost.replay.decide import NOTHING, SLICE_TASKS_MAX, Decision, Finish, RunSlice
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

CHEAP = {0: 1.0}


def slices(decision: Decision) -> list[tuple[int, ...]]:
    return [effect.tasks for effect in decision.effects if isinstance(effect, RunSlice)]


def test_each_slice_is_an_event_first_and_then_an_effect(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)))
    decision = story.when(build.wanted())
    assert decision.append == (build.scheduled(0, 0), build.scheduled(1, 1))
    assert decision.effects == tuple(
        RunSlice(slice=number, epoch=1, option=0, tasks=(number,), attempts=(1,), sync_first=False)
        for number in (0, 1)
    )


@pytest.mark.parametrize(("durability", "waits"), [("strict", True), ("pipelined", False)])
def test_a_strict_workflow_syncs_before_every_slice(
    build: Build, story: Story, durability: str, waits: bool
) -> None:
    story.given(*build.started(build.fan(3), durability))
    decision = story.when(build.wanted())
    synced = [effect.sync_first for effect in decision.effects]
    assert synced == [waits] * 3


def test_nobody_is_told_of_an_end_that_is_not_durable() -> None:
    assert Finish(status=Status.SUCCESSFUL).sync_first


def test_a_task_waits_for_all_its_inputs(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0, 1), build.committed(0, 0))
    assert story.when(build.wanted()) == NOTHING
    story.given(build.committed(0, 1))
    assert slices(story.when(build.wanted())) == [(2,)]


def test_a_task_that_takes_a_value_twice_waits_for_it_once(build: Build, story: Story) -> None:
    story.given(*build.started(build.fragment((), (0, 0))))
    story.given(build.scheduled(0, 0), build.committed(0, 0))
    assert slices(story.when(build.wanted())) == [(1,)]


def test_tasks_of_unknown_cost_travel_alone(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(5)))
    assert slices(story.when(build.wanted(8))) == [(0,), (1,), (2,), (3,), (4,)]


def test_cheap_tasks_travel_together_up_to_the_work_a_slice_should_hold(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(10)))
    decision = story.when(build.wanted(2, slice_us=3, costs_us=CHEAP))
    assert slices(decision) == [(0, 1, 2), (3, 4, 5)]


def test_a_task_dearer_than_a_slice_travels_alone(build: Build, story: Story) -> None:
    mixed = build.fragment((), (), (), (), (0, 1, 2, 3), functions="cdccc")
    story.given(*build.started(mixed))
    costs = {0: 1.0, 1: 50.0}
    assert slices(story.when(build.wanted(3, slice_us=10, costs_us=costs))) == [(0,), (1,), (2, 3)]


def test_few_tasks_are_shared_out_among_all_free_workers(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(8)))
    decision = story.when(build.wanted(4, costs_us=CHEAP))
    assert slices(decision) == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_the_fair_share_counts_only_workers_that_are_free(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(9)), build.scheduled(0, 0))
    assert slices(story.when(build.wanted(2, costs_us=CHEAP))) == [(1, 2, 3, 4, 5, 6, 7, 8)]


def test_no_slice_holds_more_than_the_limit(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(SLICE_TASKS_MAX + 1)))
    first = slices(story.when(build.wanted(1, slice_us=10**9, costs_us=CHEAP)))
    second = slices(story.when(build.wanted(2, slice_us=10**9, costs_us=CHEAP)))
    assert [len(tasks) for tasks in first + second] == [SLICE_TASKS_MAX, 1]


def test_each_class_has_its_own_limit_of_slices(build: Build, story: Story) -> None:
    graph = build.fragment(*[()] * 6, range(6), classes=(0, 0, 0, 1, 1, 1, 0))
    story.given(*build.started(graph))
    assert slices(story.when(build.wanted(2))) == [(0,), (1,), (3,), (4,)]
    assert story.when(build.wanted(2)) == NOTHING
    story.given(build.committed(0, 0))
    assert slices(story.when(build.wanted(2))) == [(2,)]
    assert slices(story.when(build.wanted(3))) == [(5,)]


def test_classes_are_never_mixed_in_a_slice(build: Build, story: Story) -> None:
    graph = build.fragment(*[()] * 6, range(6), classes=(0, 1, 0, 1, 0, 1, 0))
    story.given(*build.started(graph))
    decision = story.when(build.wanted(1, costs_us=CHEAP))
    assert slices(decision) == [(0, 2, 4), (1, 3, 5)]


def test_equal_options_of_another_fragment_are_the_same_class(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.given(build.extended(0, 0, build.fan(2)))
    assert len(story.state.graph.options) == 1
    assert slices(story.when(build.wanted(1, costs_us=CHEAP))) == [(1, 2)]


@pytest.mark.parametrize("slices_max", [0, -1, 1])
def test_without_a_free_worker_nothing_starts(build: Build, story: Story, slices_max: int) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0))
    assert story.when(build.wanted(slices_max)) == NOTHING


@pytest.mark.parametrize("status", ["PENDING", "FAILED", "CANCELED"])
def test_nothing_starts_unless_the_workflow_runs(build: Build, story: Story, status: str) -> None:
    story.given(*build.started(build.fan(2)), build.scheduled(0, 0))
    story.given(build.failed(0, 0, final=True), build.status(status))
    assert story.when(build.wanted()) == NOTHING


def test_nothing_starts_before_anybody_owns_the_workflow(build: Build, story: Story) -> None:
    story.given(build.created(build.fan(2)))
    assert story.when(build.wanted()) == NOTHING


def test_a_journal_that_scheduled_out_of_order_schedules_each_task_once(
    build: Build, story: Story
) -> None:
    """Another version may choose otherwise: what lies in the queue from then must do no harm."""
    story.given(*build.started(build.fan(4)), build.scheduled(0, 1), build.scheduled(1, 2))
    story.given(build.lost(0, 1))
    assert slices(story.when(build.wanted(9))) == [(0,), (1,), (3,)]


def test_ready_tasks_start_in_the_order_in_which_they_became_ready(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fragment((), (), (0,), (1,), (2, 3))))
    story.given(build.scheduled(0, 0, 1), build.committed(0, 1), build.committed(0, 0))
    assert slices(story.when(build.wanted())) == [(3,), (2,)]
