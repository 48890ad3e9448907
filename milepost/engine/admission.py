"""Which workflows of a store may run on this cluster, and which wait for their turn, in order.

Kept by the manager for all dispatchers. It holds no truth: whoever takes a turn knows of it too,
and a restarted manager asks them. Knows neither Ray nor the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from milepost.errors import ConflictingInitError, InvalidOptionError

UNLIMITED = -1
RESERVED = 0
"""The ticket of a turn that its dispatcher is still to ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many workflows may run, and how many may wait; None: nobody has said so far."""

    max_running: int | None = None
    max_pending: int | None = None

    def merge(self, asked: Limits) -> Limits:
        """Returns these limits with what they leave open filled from others.

        Raises:
            ConflictingInitError: If both say something else.
        """
        return Limits(
            max_running=_merge("max_running_workflows", self.max_running, asked.max_running),
            max_pending=_merge("max_pending_workflows", self.max_pending, asked.max_pending),
        )

    @property
    def limited(self) -> bool:
        """Whether any workflow may have to wait."""
        return self.max_running not in (None, UNLIMITED)


def _merge(setting: str, in_force: int | None, asked: int | None) -> int | None:
    if in_force is not None and asked not in (None, in_force):
        raise ConflictingInitError(setting, in_force, asked)
    return asked if in_force is None else in_force


def check_limits(max_running: object, max_pending: object) -> Limits:
    """Returns what a caller of ``init`` asked for.

    Raises:
        TypeError: If one of them is not an integer.
        InvalidOptionError: If one of them is a number that makes no sense.
    """
    _check("max_running_workflows", max_running, 1)
    _check("max_pending_workflows", max_pending, 0)
    return Limits(max_running=max_running, max_pending=max_pending)  # type: ignore[arg-type]


def _check(setting: str, value: object, least: int) -> None:
    if value is None:
        return
    if type(value) is not int:
        raise TypeError(f"{setting} must be an int or None, not {type(value).__name__}")
    if value != UNLIMITED and value < least:
        raise InvalidOptionError(f"{setting} must be {least} or more, or -1 for no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A workflow's right to run, or its place among those that wait for it.

    Attributes:
        ticket: Tells it from former and later ones of the same workflow.
        index: The dispatcher that has it.
        since_us: When it was asked for.
        running: Whether it has come.
    """

    workflow_id: str
    ticket: int
    index: int
    since_us: int
    running: bool


class Admission:
    """Gives turns while there are some, first come, first served.

    Attributes:
        limits: What is in force.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._running: dict[str, Turn] = {}
        self._waiting: dict[str, Turn] = {}
        self._released: set[tuple[str, int | None]] | None = None  # while turns are restored

    def ask(self, turn: Turn, must: bool = False) -> bool | None:
        """Gives a workflow a turn or a place in the queue; it keeps one that it has.

        Args:
            turn: Who asks.
            must: Whether it gets a place even if the queue is full.

        Returns:
            Whether it may run now; None if there is no place for it.
        """
        for held in (self._running, self._waiting):
            if turn.workflow_id in held:
                running = held is self._running
                held[turn.workflow_id] = replace(turn, running=running)
                return running
        if not self._waiting and self._has_room():
            self._running[turn.workflow_id] = replace(turn, running=True)
            return True
        pending_max = self.limits.max_pending
        if not must and pending_max not in (None, UNLIMITED) and len(self._waiting) >= pending_max:
            return None
        self._waiting[turn.workflow_id] = replace(turn, running=False)
        return False

    def _has_room(self) -> bool:
        limit = self.limits.max_running
        return limit is None or limit == UNLIMITED or len(self._running) < limit

    def release(self, workflow_id: str, ticket: int | None = None) -> None:
        """Takes a turn back.

        Args:
            workflow_id: Whose.
            ticket: Which one, if only that is meant: a workflow may have got another since.
        """
        if self._released is not None:
            self._released.add((workflow_id, ticket))
        for held in (self._running, self._waiting):
            if workflow_id in held and ticket in (None, held[workflow_id].ticket):
                del held[workflow_id]

    def call_up(self) -> list[Turn]:
        """Returns the turns that have come since the last call, in order."""
        called = []
        while self._waiting and self._has_room():
            workflow_id = next(iter(self._waiting))
            turn = replace(self._waiting.pop(workflow_id), running=True)
            self._running[workflow_id] = turn
            called.append(turn)
        return called

    def restore(self, turns: Iterable[Turn]) -> None:
        """Notes turns that others remember: who runs goes on, whoever waits does so by age."""
        for turn in turns:
            gone = (turn.workflow_id, turn.ticket) in (self._released or ())
            if not gone and turn.workflow_id not in (self._running | self._waiting):
                (self._running if turn.running else self._waiting)[turn.workflow_id] = turn
        waiting = sorted(self._waiting.values(), key=lambda turn: turn.since_us)
        self._waiting = {turn.workflow_id: turn for turn in waiting}

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Around calls of :meth:`restore`: what is released meanwhile stays so.

        What others remember may be older than what they have given back since.
        """
        self._released = set()
        try:
            yield
        finally:
            self._released = None
