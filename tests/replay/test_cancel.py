"""A workflow that somebody cancels: final, at once; its attempts end when that is durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from milepost.errors import IllegalEventError
from milepost.replay.decide import NOTHING, CancelSlices, Finish
from milepost.replay.events import StatusChanged
from milepost.replay.fold import apply
from milepost.replay.inputs import Input
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story


def test_a_cancel_ends_the_workflow_and_every_slice_once_it_is_durable(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0, 1), build.scheduled(1, 2))
    decision = story.when(build.cancel())
    (event,) = decision.append
    assert isinstance(event, StatusChanged)
    assert (event.status, event.who) == ("CANCELED", "ann")
    assert decision.effects == (
        CancelSlices(slices=(0, 1)),
        Finish(status=Status.CANCELED),
    )
    assert all(effect.sync_first for effect in decision.effects)


@pytest.mark.parametrize("status", ["PENDING", "FAILED"])
def test_what_does_not_run_is_canceled_at_once(build: Build, story: Story, status: str) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0))
    if status == "FAILED":
        story.given(build.failed(0, 0, final=True))
    story.given(build.status(status))
    story.when(build.cancel())
    assert story.state.status is Status.CANCELED


@pytest.mark.parametrize("status", ["SUCCESSFUL", "CANCELED"])
def test_what_has_ended_cannot_be_canceled(build: Build, story: Story, status: str) -> None:
    story.given(*build.started(build.single()), build.scheduled(0, 0), build.committed(0, 0))
    story.given(build.status(status))
    assert story.when(build.cancel()) == NOTHING


def test_nothing_follows_a_cancel(build: Build, story: Story) -> None:
    story.given(*build.started(build.fan(3)), build.scheduled(0, 0))
    story.when(build.cancel())
    late: list[Input] = [build.report(0, 0), build.loss(0), build.wanted(), build.resume()]
    assert [story.when(happened) for happened in late] == [NOTHING] * len(late)
    for event in (build.committed(0, 0), build.status("RUNNING")):
        with pytest.raises(IllegalEventError, match="has ended"):
            apply(story.state, event)
