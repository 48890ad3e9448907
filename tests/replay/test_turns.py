"""A workflow that waits for its turn: PENDING, runs nothing, and goes on when the turn comes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from milepost.replay.decide import NOTHING
from milepost.replay.events import StatusChanged
from milepost.replay.inputs import TurnCame
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

CAME = TurnCame(at_us=5)


def test_who_is_not_admitted_waits_and_runs_nothing(build: Build, story: Story) -> None:
    story.given(build.created(build.fan(2)))
    story.when(replace(build.gained(), admitted=False))
    assert story.state.status is Status.PENDING
    assert story.when(build.wanted()) == NOTHING
    (began,) = story.when(CAME).append
    assert isinstance(began, StatusChanged)
    assert (began.status, began.who, began.at_us) == ("RUNNING", "owner 1", 5)
    assert story.when(build.wanted()).append


def test_a_failed_workflow_waits_before_it_goes_on(build: Build, story: Story) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    story.given(build.failed(0, 0, final=True), build.status("FAILED"))
    story.when(replace(build.resume(), admitted=False))
    assert story.state.status is Status.PENDING
    assert story.when(build.wanted()) == NOTHING
    story.when(CAME)
    assert story.when(build.wanted()).append


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "CANCELED"])
def test_a_turn_that_comes_too_late_or_twice_changes_nothing(
    build: Build, story: Story, status: str
) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    if status == "FAILED":
        story.given(build.failed(0, 0, final=True))
    story.given(build.status(status))
    assert story.when(CAME) == NOTHING


def test_who_takes_over_a_running_workflow_may_have_to_wait(build: Build, story: Story) -> None:
    story.given(*build.started(build.chain(2)), build.scheduled(0, 0))
    story.when(replace(build.gained(2), admitted=False))
    assert story.state.status is Status.PENDING
    story.when(CAME)
    assert story.when(build.wanted()).append[0].attempts == (2,)  # type: ignore[union-attr]
