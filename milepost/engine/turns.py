"""A dispatcher's side of the limits: the turns that its workflows have, or wait for.

While there are no limits nobody is asked, and starting a workflow costs no message. What is known
here outlives the manager, who asks for it when it is restarted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from milepost.engine.admission import Limits, Turn
from milepost.errors import MilepostError, TooManyWorkflowsError


@dataclass(slots=True, kw_only=True)
class _Held:
    ticket: int
    since_us: int
    answered: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    follower: asyncio.Task[None] | None = None


class Turns:
    """The turns of one dispatcher's workflows."""

    def __init__(self, manager: Any, index: int) -> None:
        """Begin with none.

        Args:
            manager: The actor that gives them.
            index: Which dispatcher this is.
        """
        self._manager = manager
        self._index = index
        self._limits: Limits | None = None
        self._held: dict[str, _Held] = {}
        self._ticket = 0

    def __contains__(self, workflow_id: str) -> bool:
        """Tells whether a workflow has a turn, or a place in the queue."""
        return workflow_id in self._held

    async def take(self, workflow_id: str, must: bool) -> bool:
        """Takes the turn of a workflow, or a place in the queue; it keeps what it has.

        Args:
            workflow_id: The workflow. Its lock is held, or it is hosted nowhere.
            must: Whether it is to wait even if the queue is full.

        Returns:
            Whether it may run now.

        Raises:
            TooManyWorkflowsError: If it may not even wait.
        """
        held = self._held.get(workflow_id)
        if held is None:
            held = self._held[workflow_id] = self._make_ticket()
            try:
                await self._ask(workflow_id, held, must)
            finally:
                held.asked.set()
        else:  # maybe for one that is to come before another: its place must be sure
            await held.asked.wait()
        return held.came.is_set()

    async def _ask(self, workflow_id: str, held: _Held, must: bool) -> None:
        limits = self._limits or self._learn(await self._manager.read_limits.remote())
        if not limits.limited:
            held.came.set()
            return
        admitted = await self._manager.admit.remote(self._describe(workflow_id, held), must)
        if admitted is None:
            del self._held[workflow_id]
            raise TooManyWorkflowsError(
                workflow_id, limits.max_running or 0, limits.max_pending or 0
            )
        held.answered = True
        if admitted:
            held.came.set()

    def _learn(self, limits: Limits) -> Limits:
        """Notes what the manager said, unless it has said something newer meanwhile."""
        self._limits = self._limits or limits
        return self._limits

    def _make_ticket(self) -> _Held:
        now_us = _now_us()
        self._ticket = max(self._ticket + 1, now_us)
        return _Held(ticket=self._ticket, since_us=now_us)

    def follow(self, workflow_id: str, begin: Callable[[], Awaitable[None]]) -> None:
        """Has a hosted workflow that is PENDING begin when its turn comes, or has come by now."""
        held = self._held.get(workflow_id)
        if held is not None:
            _dismiss(held)
            held.follower = asyncio.create_task(self._follow(held, begin))

    async def _follow(self, held: _Held, begin: Callable[[], Awaitable[None]]) -> None:
        await held.came.wait()
        with suppress(MilepostError):  # its host has stopped, and says so
            await begin()

    def come(self, workflow_id: str) -> None:
        """Notes that the turn of a workflow has come."""
        held = self._held.get(workflow_id)
        if held is not None:
            held.came.set()

    def give_back(self, workflow_id: str) -> None:
        """Gives back the turn of a workflow that has ended, or did not start; at most once."""
        held = self._held.pop(workflow_id, None)
        if held is not None:
            _dismiss(held)
            self._release(workflow_id, held.ticket)

    def disclaim(self, workflow_id: str) -> None:
        """Gives back the turn of what is not hosted, even if a former process took it."""
        if workflow_id in self._held:
            self.give_back(workflow_id)
        else:
            self._release(workflow_id, None)

    def _release(self, workflow_id: str, ticket: int | None) -> None:
        if self._limits is None or self._limits.limited:
            self._manager.release.remote(workflow_id, ticket)

    def limit(self, limits: Limits) -> list[Turn]:
        """Puts limits in force; returns the turns that there are."""
        self._limits = limits
        return [
            self._describe(workflow_id, held)
            for workflow_id, held in self._held.items()
            if held.answered or held.came.is_set()  # who is still asking may not even wait
        ]

    def _describe(self, workflow_id: str, held: _Held) -> Turn:
        return Turn(
            workflow_id=workflow_id,
            ticket=held.ticket,
            index=self._index,
            since_us=held.since_us,
            running=held.came.is_set(),
        )


def _dismiss(held: _Held) -> None:
    """Has nothing begin any more when its turn comes; what has begun goes on."""
    if held.follower is not None and not held.came.is_set():
        held.follower.cancel()


def _now_us() -> int:
    return time.time_ns() // 1000
