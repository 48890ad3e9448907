"""The states of workflows that ended a moment ago, kept for callers yet to come."""

from __future__ import annotations

from collections import OrderedDict

from milepost.replay.state import State

RECENT_MAX = 256
RECENT_TASKS_MAX = 200_000
RECENT_BYTES_MAX = 64 * 2**20
"""So many ended workflows, of so many tasks and bytes of results together, are kept."""


class RecentStates:
    """The newest of them, up to a limit."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, State] = OrderedDict()
        self._result_bytes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, workflow_id: str) -> bool:
        return workflow_id in self._states

    def find(self, workflow_id: str) -> State | None:
        """Returns a state that is kept."""
        return self._states.get(workflow_id)

    def keep(self, state: State) -> None:
        """Keeps a state, and lets the oldest ones go if there are too many."""
        self.drop(state.workflow_id)
        if len(state.tasks) > RECENT_TASKS_MAX:
            return
        self._states[state.workflow_id] = state
        self._result_bytes[state.workflow_id] = _count_result_bytes(state)
        while self._states and self._is_full():
            self.drop(next(iter(self._states)))

    def _is_full(self) -> bool:
        tasks = sum(len(each.tasks) for each in self._states.values())
        return (
            len(self._states) > RECENT_MAX
            or tasks > RECENT_TASKS_MAX
            or sum(self._result_bytes.values()) > RECENT_BYTES_MAX
        )

    def drop(self, workflow_id: str) -> None:
        """Forgets a workflow, if it is kept."""
        self._states.pop(workflow_id, None)
        self._result_bytes.pop(workflow_id, None)


def _count_result_bytes(state: State) -> int:
    """Counts what is in memory; large results are in blobs."""
    of_tasks = sum(len(result.data) for result in state.results if result is not None)
    chunks = (payload for map_ in state.maps.values() for _, _, payload in map_.chunks())
    return of_tasks + sum(len(payload.data) for payload in chunks)
