"""The time limits of slices under way: one timer of the loop each, from when the worker began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

US_PER_S = 1_000_000


class TimeLimits:
    """Calls its host when a slice has run for too long."""

    def __init__(self) -> None:
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def start(self, number: int, limit_us: int, end: Callable[[], object]) -> None:
        """Begins to count for a slice; that it began may be told twice."""
        if limit_us and number not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[number] = loop.call_later(limit_us / US_PER_S, end)

    def stop(self, number: int) -> None:
        """Counts no more for a slice."""
        timer = self._timers.pop(number, None)
        if timer is not None:
            timer.cancel()

    def stop_all(self) -> None:
        """Counts for nobody any more."""
        for number in list(self._timers):
            self.stop(number)
