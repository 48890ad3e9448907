"""Looks beside what runs in a slice, so that nothing waits behind what runs long.

User code has the main thread, and so has the way that Ray has for results: while a call runs,
nothing can be sent by it. So a second thread looks. Once a call has run long, it has the slice give
up what was not started, and only then tells what has finished and what was given up, by a way
aside. That happens once: afterwards there is nothing left to give up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import ray

REPORT_INTERVAL_S = 0.05
"""What has finished is reported at least this often, and who runs longer runs long."""

WATCH_INTERVAL_S = 0.01
"""Between looks of the second thread: a call is found to run long at most so much late."""

Aside: TypeAlias = Callable[[Any], Callable[[], object]]
"""Sends a report while a call runs; returns what waits until it has arrived."""


def find_way_aside(dispatcher: Any, workflow_id: str, epoch: int, number: int) -> Aside | None:
    """Returns a way by which reports of a slice reach its dispatcher at once, if there is one."""
    if dispatcher is None:
        return None
    send = dispatcher.take_aside.remote

    def tell(report: Any) -> Callable[[], object]:
        ref = send(workflow_id, epoch, number, report)
        return lambda: ray.get(ref)

    return tell


class Watch:
    """The second thread of one slice.

    Attributes:
        lock: Held while what was finished, begun or given up changes.
        began: When the present call began, by the performance counter; 0 between calls.
    """

    def __init__(self, give_up: Callable[[], Any | None]) -> None:
        """Prepare to look.

        Args:
            give_up: Gives up what was not started, and returns a report of that and of what has
                finished, None if there is nothing to tell. Called with the lock held.
        """
        self.lock: threading.Lock = threading.Lock()
        self.began: float = 0.0
        self._give_up = give_up
        self._over = threading.Event()
        self._told: list[Callable[[], object]] = []

    @contextmanager
    def look(self, aside: Aside | None) -> Iterator[None]:
        """Looks while something runs; ends when what was told has arrived, so that last is last.

        Args:
            aside: Sends reports; without it there is no second thread.
        """
        thread = None
        if aside is not None:
            thread = threading.Thread(target=self._look, args=(aside,), daemon=True)
            thread.start()
        try:
            yield
        finally:
            self._over.set()
        if thread is not None:
            thread.join()
        for arrived in self._told:
            arrived()

    def _look(self, aside: Aside) -> None:
        while not self._over.wait(WATCH_INTERVAL_S):
            with self.lock:
                long = self.began and time.perf_counter() - self.began >= REPORT_INTERVAL_S
                if not long:
                    continue
                report = self._give_up()
            if report is not None:
                self._told.append(aside(report))
            return
