"""The states of workflows that ended a moment ago, kept for callers yet to come."""

from __future__ import annotations

from collections import OrderedDict

from milepost.replay.state import State

RECENT_MAX = 256
RECENT_TASKS_MAX = 200_000
"""So many ended workflows, of so many tasks together, are kept."""


class RecentStates:
    """The newest of them, up to a limit."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, workflow_id: str) -> bool:
        return workflow_id in self._states

    def find(self, workflow_id: str) -> State | None:
        """Returns a state that is kept."""
        return self._states.get(workflow_id)

    def keep(self, state: State) -> None:
        """Keeps a state, and lets the oldest ones go if there are too many."""
        self._states[state.workflow_id] = state
        total = sum(len(each.tasks) for each in self._states.values())
        while total > RECENT_TASKS_MAX or len(self._states) > RECENT_MAX:
            _, dropped = self._states.popitem(last=False)
            total -= len(dropped.tasks)

    def drop(self, workflow_id: str) -> None:
        """Forgets a workflow, if it is kept."""
        self._states.pop(workflow_id, None)
