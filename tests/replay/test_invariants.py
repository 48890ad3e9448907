"""Every invariant is really looked at: a state that breaks one does not pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from milepost.replay.fold import fold
from milepost.replay.invariants import check
from milepost.replay.state import State, Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build


def set_state(state: State, task: int, kind: TaskState) -> None:
    """Moves a task as fold would, but alone."""
    state.counts[state.tasks[task]] -= 1
    state.counts[kind] += 1
    state.tasks[task] = kind


def commit_creator_only(state: State) -> None:
    set_state(state, 1, TaskState.COMMITTED)
    state.results[1] = state.metadata
    state.waiting[3] -= 1


def swap_ids(state: State) -> None:
    ordinals = state.graph.node_ordinals
    ordinals[0], ordinals[1] = ordinals[1], ordinals[0]


BREAKS: dict[str, Callable[[State], Any]] = {
    "a column too long": lambda state: state.attempts.append(0),
    "a count too high": lambda state: state.counts.__setitem__(0, 9),
    "a wrong number of missing inputs": lambda state: state.waiting.__setitem__(3, 1),
    "a task that waits for nothing": lambda state: set_state(state, 2, TaskState.WAITING),
    "a commit without a value": lambda state: set_state(state, 2, TaskState.COMMITTED),
    "a failure without an error": lambda state: set_state(state, 2, TaskState.FAILED),
    "an attempt that was never made": lambda state: state.attempts.__setitem__(0, 0),
    "two ids exchanged": swap_ids,
    "a ready task in no queue": lambda state: state.ready.clear(),
    "an empty queue": lambda state: state.ready.__setitem__(1, deque()),
    "a queue with a stale head": lambda state: state.ready[0].appendleft(0),
    "a task in the queue of another class": lambda state: state.ready.__setitem__(1, deque([2])),
    "a task in two slices": lambda state: state.slices.__setitem__(9, state.slices[0]),
    "a task under way in no slice": lambda state: state.slices.clear(),
    "a wrong number of slices": lambda state: state.slice_counts.clear(),
    "success without a result": lambda state: setattr(state, "status", Status.SUCCESSFUL),
    "failure without a failed task": lambda state: setattr(state, "status", Status.FAILED),
    "a creator that committed alone": commit_creator_only,
    "a root of no continuation": lambda state: state.creators.__setitem__(3, 2),
}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
def test_a_broken_state_does_not_pass(build: Build, damage: Callable[[State], Any]) -> None:
    """Task 0 is under way, 1 returned a continuation (4), 2 is ready, 3 takes the three."""
    journal = [*build.started(build.fan(3)), build.scheduled(0, 0), build.scheduled(1, 1)]
    state = fold([*journal, build.extended(1, 1, build.single())])
    check(state)
    damage(state)
    with pytest.raises(AssertionError):
        check(state)


def test_success_with_slices_under_way_does_not_pass(build: Build) -> None:
    journal = [*build.started(build.single()), build.scheduled(0, 0), build.committed(0, 0)]
    state = fold([*journal, build.status("SUCCESSFUL")])
    under_way = fold([*build.started(build.single()), build.scheduled(0, 0)])
    state.slices = under_way.slices
    with pytest.raises(AssertionError):
        check(state)
