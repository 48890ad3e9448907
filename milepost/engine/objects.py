"""Which values are alive as Ray objects. Each is let go when its last consumer has committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from milepost.replay.state import State


class ObjectTable:
    """Large values by task, with how many of their consumers are still to commit."""

    def __init__(self) -> None:
        self._refs: dict[int, Any] = {}
        self._uses_left: dict[int, int] = {}

    def find(self, task: int) -> Any | None:
        """Returns the ref to the value of ``task``, or None if it is not alive in Ray."""
        return self._refs.get(task)

    def take(self, state: State, committed: Sequence[int], refs: dict[int, Any]) -> None:
        """Keeps the refs of tasks that have just committed, and lets go what they used up."""
        for task, ref in refs.items():
            self._keep(state, task, ref)
        if self._refs:
            for task in committed:
                self._use(state, task)

    def _keep(self, state: State, task: int, ref: Any) -> None:
        """The value of a continuation's root is that of the task that returned it, too."""
        holder: int | None = task
        while holder is not None and state.results[holder] is not None:
            uses = len(state.graph.outputs(holder))
            if uses:
                self._refs[holder] = ref
                self._uses_left[holder] = uses
            holder = state.creators.get(holder)

    def _use(self, state: State, task: int) -> None:
        for source in state.graph.inputs(task):
            if source in self._uses_left:
                self._uses_left[source] -= 1
                if self._uses_left[source] == 0:
                    self._drop(source)

    def forget_inputs(self, state: State, tasks: Sequence[int]) -> None:
        """Drops the refs that ``tasks`` take: their slice was lost, perhaps because of them.

        The blobs are still there; the next attempt reads those.
        """
        for task in tasks:
            for source in state.graph.inputs(task):
                if source in self._refs:
                    self._drop(source)

    def clear(self) -> None:
        """Lets go all that is left: the workflow is not hosted any more."""
        self._refs.clear()
        self._uses_left.clear()

    def _drop(self, task: int) -> None:
        del self._refs[task], self._uses_left[task]
