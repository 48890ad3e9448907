"""An event loop that never waits, and threads of which only one ever runs.

Work that blocks runs in real threads, since the code is real. But a thread runs only while it holds
the baton, which the event loop hands it and gets back at the thread's next pause: each call of a
storage, each sleep, each lock that is taken. So every interleaving is possible, one of them
happens, and the seed alone says which.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_here = threading.local()


class VirtualLoop(asyncio.SelectorEventLoop):
    """With nothing left to do, its clock jumps to the next timer. Without a timer: an error."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.faults.append(context))
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None) -> Any:
            if timeout is None:
                raise RuntimeError("nothing is left to do, and somebody still waits")
            self._now += timeout
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._now


class Abandoned(BaseException):
    """Unwinds a thread whose process died; not an Exception, so that nobody handles it."""


class Fiber:
    """One piece of blocking work in a thread of its own."""

    def __init__(self, work: Callable[[], None], process: Any) -> None:
        self.process = process
        self.done = False
        self.abandoned = False
        self._work = work
        self._pause_s = 0.0
        self._forth = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> float:
        """Lets the thread run to its next pause; returns how long that is to last."""
        self._forth.release()
        self._back.acquire()
        return self._pause_s

    def pause(self, pause_s: float) -> None:
        """Gives the baton back; returns when the thread has it again. Called by the thread."""
        if self.abandoned:
            raise Abandoned
        self._pause_s = pause_s
        self._back.release()
        self._forth.acquire()
        if self.abandoned:
            raise Abandoned

    def abandon(self) -> None:
        """Ends the thread where it is; nothing it still does has an effect."""
        self.abandoned = True
        while not self.done:
            self.step()
        self._thread.join()

    def _run(self) -> None:
        self._forth.acquire()
        _here.fiber = self
        try:
            if not self.abandoned:
                self._work()
        except Abandoned:
            pass
        finally:
            self.done = True
            self._back.release()


def current_fiber() -> Fiber | None:
    """Returns the fiber that runs, None on the event loop."""
    return getattr(_here, "fiber", None)


def pause(pause_s: float) -> None:
    """Lets time pass in a thread; on the event loop it does nothing."""
    fiber = current_fiber()
    if fiber is not None:
        fiber.pause(pause_s)


class Lock:
    """A lock whose waiting costs virtual time and leaves the baton to others."""

    def __init__(self) -> None:
        self._taken = False

    def __enter__(self) -> None:
        pause_s = 0.000_1
        while self._taken:
            assert current_fiber() is not None, "the event loop would wait for a thread"
            pause(pause_s)
            pause_s = min(2 * pause_s, 1.0)  # who holds it may be paused for minutes
        self._taken = True

    def __exit__(self, *given: object) -> None:
        self._taken = False


class Threads(Executor):
    """Runs blocking work of one process, each piece in a fiber.

    Args:
        process: Whose work it is; decides with ``resume_at`` when a fiber goes on.
        start_s: How long a piece of work waits for its first step.
    """

    def __init__(self, process: Any, start_s: Callable[[], float]) -> None:
        self._process = process
        self._start_s = start_s
        self.fibers: list[Fiber] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # who waits may give up; the work goes on
        outcome: list[Callable[[], None]] = []

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  as an executor does
                failure = error
                outcome.append(lambda: future.set_exception(failure))
            else:
                outcome.append(lambda: future.set_result(result))

        fiber = Fiber(work, self._process)
        self.fibers.append(fiber)
        self._process.limbo.append(future)  # somebody waits for it, even if it never comes
        self._plan(fiber, self._start_s(), outcome)
        return future

    def _plan(self, fiber: Fiber, pause_s: float, outcome: list[Callable[[], None]]) -> None:
        def go_on() -> None:
            if self._process.dead:
                return
            wait_s = self._process.paused_for_s()
            if wait_s > 0:
                self._plan(fiber, wait_s, outcome)
                return
            next_s = fiber.step()
            if not fiber.done:
                self._plan(fiber, next_s, outcome)
                return
            self.fibers.remove(fiber)
            outcome[0]()

        asyncio.get_running_loop().call_later(pause_s, go_on)

    def abandon(self) -> None:
        """Ends all threads; they belong to a process that is dead, or the play is over."""
        for fiber in self.fibers:
            fiber.abandon()
        self.fibers.clear()
