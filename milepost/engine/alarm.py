"""Wakes the host of a workflow when the next of its waits is due; costs one timer of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from milepost.replay.state import State, Status

NAP_S_MAX = 60.0
"""Longest sleep between looks at the clock: by so much a clock that is set, or a machine that
stood still, can delay anybody."""

US_PER_S = 1_000_000


class Alarm:
    """Calls its host when the first due time of a workflow has come."""

    def __init__(self, now_us: Callable[[], int], wake: Callable[[], object]) -> None:
        self._now_us = now_us
        self._wake = wake
        self._due_us = 0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, state: State) -> None:
        """Looks when the next wait of ``state`` ends; only a workflow that runs has such."""
        running = state.status is Status.RUNNING
        due_us = _find_due(state) if running else 0
        if due_us == self._due_us and (self._timer is not None or not due_us):
            return
        self.stop()
        if due_us:
            self._due_us = due_us
            self._nap()

    def stop(self) -> None:
        """Wakes nobody any more."""
        self._due_us = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _nap(self) -> None:
        left_s = (self._due_us - self._now_us()) / US_PER_S
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, min(left_s, NAP_S_MAX)), self._ring)

    def _ring(self) -> None:
        if self._due_us > self._now_us():
            self._nap()
            return
        self.stop()
        self._wake()


def _find_due(state: State) -> int:
    """Returns the first time at which a wait ends or an attempt is due, 0 if there is none."""
    heads = [heap[0][0] for heap in (state.dues, state.put_off) if heap]
    return min(heads, default=0)
