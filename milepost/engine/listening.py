"""A dispatcher's side of the processes in which listeners wait.

Messages are gathered: listeners that are sent in one turn of the event loop are one Ray call, and
so are the events that come back. Listeners of one runtime environment share a process; where it
dies, what waited in it is lost without blame and sent again, after a while that grows with each
death.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

from ray.exceptions import RayActorError, RayError

from milepost.engine.host import Delivery, SliceLostError
from milepost.engine.messages import Listened, ListenerKey, ListenOrder, WorkerReport
from milepost.replay.events import TaskError
from milepost.replay.inputs import Raised

_log = logging.getLogger(__name__)

PAUSE_S = 1.0
PAUSE_S_MAX = 30.0
"""Before listeners are sent again to a process that died: twice as long each time it dies again."""

LIVED_S = 300.0
"""A process that lived so long has not died again, but anew."""

STARTS_MAX = 3
"""So often a process is started before those who are to wait in it are told that it cannot be."""

Start: TypeAlias = Callable[[str, "dict[str, Any] | None"], Any]
"""Returns the actor of this name and runtime environment, started if it does not run."""

Address: TypeAlias = tuple[str, int, int]
"""Workflow, epoch and slice."""


class Listening:
    """The listeners of one dispatcher."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._links: dict[str, _Link] = {}

    async def run(
        self, order: ListenOrder, runtime_env: dict[str, Any] | None
    ) -> AsyncIterator[Delivery]:
        """Has a listener wait; yields its only report.

        Raises:
            SliceLostError: If the process that it waits in dies.
        """
        text = json.dumps(runtime_env, sort_keys=True, default=str)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = _Link(lambda: self._start(name, runtime_env))
        yield await link.ask(order), {}

    def take(self, listened: Sequence[Listened]) -> list[bool]:
        """Takes what listeners got; tells of each whether somebody here still wants it."""
        return [any(link.take(each) for link in self._links.values()) for each in listened]


class _Link:
    """What goes to and comes from one process."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._actor: Any = None
        self._asked: dict[Address, asyncio.Future[WorkerReport]] = {}
        self._orders: list[ListenOrder] = []
        self._drops: list[tuple[ListenerKey, int]] = []
        self._sender: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._pause_s = 0.0

    async def ask(self, order: ListenOrder) -> WorkerReport:
        slice_ = order.slice
        address = (slice_.workflow_id, slice_.epoch, slice_.slice)
        answer: asyncio.Future[WorkerReport] = asyncio.get_running_loop().create_future()
        self._asked[address] = answer
        self._orders.append(order)
        self._send_soon()
        try:
            return await answer
        except asyncio.CancelledError:
            task = slice_.tasks[0].task
            key = (slice_.workflow_id, slice_.incarnation, task)
            self._drops.append((key, slice_.epoch))
            self._send_soon()
            raise
        finally:
            self._asked.pop(address, None)

    def take(self, listened: Listened) -> bool:
        answer = self._asked.get((listened.workflow_id, listened.epoch, listened.slice))
        if answer is None or answer.done():
            return False
        answer.set_result(listened.report)
        return True

    def _send_soon(self) -> None:
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        await asyncio.sleep(self._pause_s if self._actor is None else 0)
        self._sender = None
        orders, self._orders = self._orders, []
        drops, self._drops = self._drops, []
        try:
            actor = self._actor = self._actor or await self._begin()
        except (RayError, ValueError, TypeError) as error:  # the environment cannot be made
            self._refuse(orders, error)
            return
        if drops:
            actor.drop.remote(drops)
        if orders:
            actor.listen.remote(orders)  # if it does not arrive, the watcher tells

    async def _begin(self) -> Any:
        """Starts a process, or finds the one there is; the one that is found may be dying."""
        for left in reversed(range(STARTS_MAX)):
            try:
                actor = self._start()
                await actor.count.remote()
            except RayActorError:
                if not left:
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            self._watcher = asyncio.create_task(self._watch(actor))
            return actor
        raise AssertionError("unreachable")

    def _refuse(self, orders: Sequence[ListenOrder], error: Exception) -> None:
        """Reports that listeners could not even be sent: an attempt of each is spent on it."""
        reason = f"listeners cannot be started: {type(error).__name__}: {error}"
        for order in orders:
            (task,) = order.slice.tasks
            failure = TaskError(
                kind="crash", type="TaskCrashedError", message=reason, traceback="", exception=None
            )
            raised = Raised(task=task.task, attempt=task.attempt, error=failure, retryable=True)
            slice_ = order.slice
            answer = self._asked.get((slice_.workflow_id, slice_.epoch, slice_.slice))
            if answer is not None and not answer.done():
                answer.set_result(WorkerReport(node="", raised=[raised], last=True))

    async def _watch(self, actor: Any) -> None:
        """Tells all who wait in a process when it dies; the next message starts another."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await actor.watch.remote()
        except RayError as error:
            lost = SliceLostError(f"the process in which listeners wait died: {error}")
        lived_s = loop.time() - began
        again_s = min(PAUSE_S_MAX, 2 * self._pause_s) or PAUSE_S
        self._pause_s = PAUSE_S if lived_s >= LIVED_S else again_s
        self._actor = None
        for answer in list(self._asked.values()):
            if not answer.done():
                answer.set_exception(lost)
