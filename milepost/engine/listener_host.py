"""The actor in which listeners wait: one process for all of them that have one environment.

Each is a coroutine on one event loop; what blocks (reading arguments, storing an event) happens in
threads. Whoever sends a listener twice, since it died in between or another took its place, finds
it still waiting: a listener is polled once as long as this process lives, and what it got is kept
until somebody has taken it. Nothing here is durable: dispatchers see to that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ray.exceptions import RayError

from milepost.engine.arguments import CONSTANT, mark, pack_template
from milepost.engine.context import current_task
from milepost.engine.executor import SliceRun
from milepost.engine.listener import EventListener, is_told, settle
from milepost.engine.messages import Listened, ListenerKey, ListenOrder, WorkerReport
from milepost.engine.payloads import serialize, serialize_opaque
from milepost.replay.fragment import Constant, Fragment
from milepost.replay.inputs import Continued

_log = logging.getLogger(__name__)

GRACE_S = 60.0
"""So long listeners of a dispatcher that died wait for the one that takes its place."""

UNTAKEN_MAX = 10_000
"""Events that nobody has taken so far; beyond, the oldest is forgotten, and polled again."""


@dataclass(slots=True)
class _Listening:
    """A listener that waits, for whoever sent it last."""

    order: ListenOrder
    runner: asyncio.Task[None] | None = field(default=None)


class ListenerHost:
    """See the module."""

    def __init__(self) -> None:
        self._listening: dict[ListenerKey, _Listening] = {}
        self._untaken: OrderedDict[ListenerKey, WorkerReport] = OrderedDict()
        self._outboxes: dict[Any, list[Listened]] = {}
        self._watches: dict[Any, asyncio.Task[None]] = {}
        self._postmen: set[asyncio.Task[None]] = set()

    async def listen(self, orders: Sequence[ListenOrder]) -> None:
        """Has listeners wait; returns at once. What comes of it goes to who sent them."""
        for order in orders:
            self._watch(order.slice.dispatcher)
            key = _key(order)
            waiting = self._listening.get(key)
            if waiting is not None:
                waiting.order = order
            elif key in self._untaken:
                self._deliver(order, self._untaken.pop(key))
            else:
                waiting = self._listening[key] = _Listening(order)
                waiting.runner = asyncio.create_task(self._run(key, waiting))

    async def drop(self, needless: Sequence[tuple[ListenerKey, int]]) -> None:
        """Ends listeners that nobody needs any more, named by their key and their owner's epoch."""
        for key, epoch in needless:
            waiting = self._listening.get(key)
            if waiting is not None and waiting.order.slice.epoch <= epoch:
                self._drop(key)
            self._untaken.pop(key, None)

    def _drop(self, key: ListenerKey) -> None:
        waiting = self._listening.pop(key, None)
        if waiting is not None and waiting.runner is not None:
            waiting.runner.cancel()

    async def watch(self) -> None:
        """Never returns: who waits for it learns when this process dies."""
        await asyncio.Event().wait()

    async def count(self) -> int:
        """Returns how many listeners wait here."""
        return len(self._listening)

    async def _run(self, key: ListenerKey, waiting: _Listening) -> None:
        report = await _attempt(waiting.order)
        if self._listening.get(key) is waiting:
            del self._listening[key]
            self._deliver(waiting.order, report)

    def _deliver(self, order: ListenOrder, report: WorkerReport) -> None:
        """Puts a report into the next message to who sent the order; it fits the latest order."""
        slice_ = order.slice
        report = _readdress(report, slice_.tasks[0].attempt)
        listened = Listened(
            key=_key(order),
            workflow_id=slice_.workflow_id,
            epoch=slice_.epoch,
            slice=slice_.slice,
            report=report,
        )
        outbox = self._outboxes.setdefault(slice_.dispatcher, [])
        outbox.append(listened)
        if len(outbox) == 1:
            postman = asyncio.create_task(self._send(slice_.dispatcher))
            self._postmen.add(postman)
            postman.add_done_callback(self._postmen.discard)

    async def _send(self, dispatcher: Any) -> None:
        """Sends what has gathered, and keeps what nobody took."""
        batch = self._outboxes.pop(dispatcher)
        try:
            taken: list[bool] = await dispatcher.take_listened.remote(batch)
        except RayError as error:
            _log.warning("a dispatcher cannot be told of events: %s", error)
            taken = [False] * len(batch)
        for listened, was_taken in zip(batch, taken, strict=True):
            if not was_taken and (listened.report.tasks or listened.report.continued):
                self._untaken[listened.key] = listened.report
        while len(self._untaken) > UNTAKEN_MAX:
            self._untaken.popitem(last=False)

    def _watch(self, dispatcher: Any) -> None:
        if dispatcher not in self._watches:
            self._watches[dispatcher] = asyncio.create_task(self._look_after(dispatcher))

    async def _look_after(self, dispatcher: Any) -> None:
        """Ends the listeners of a dispatcher that died, unless its successor claims them."""
        with suppress(RayError):
            await dispatcher.watch.options(max_task_retries=0).remote()
        del self._watches[dispatcher]
        sent = [
            (key, waiting.order)
            for key, waiting in self._listening.items()
            if waiting.order.slice.dispatcher == dispatcher
        ]
        await asyncio.sleep(GRACE_S)
        for key, order in sent:
            waiting = self._listening.get(key)
            if waiting is not None and waiting.order is order:
                self._drop(key)


def _key(order: ListenOrder) -> ListenerKey:
    return order.slice.workflow_id, order.slice.incarnation, order.slice.tasks[0].task


def _readdress(report: WorkerReport, attempt: int) -> WorkerReport:
    """Returns a report as of another attempt of its task: that of who takes it in the end."""
    return replace(
        report,
        attempts=[attempt for _ in report.attempts],
        raised=[replace(each, attempt=attempt) for each in report.raised],
        continued=[replace(each, attempt=attempt) for each in report.continued],
    )


async def _attempt(order: ListenOrder) -> WorkerReport:
    """Runs one listener to its end; whatever it does, there is a report."""
    (task,) = order.slice.tasks
    run = SliceRun(order.slice, order.refs, ())
    report = WorkerReport(node=run.worker, last=True)
    started_us = time.time_ns() // 1000
    try:
        listener, result = await _call(order, run)
        spent_us = time.time_ns() // 1000 - started_us
        if order.kind == "poll" and is_told(listener):
            fragment = await asyncio.to_thread(_follow_up, order, run, listener, result)
            continued = Continued(
                task=task.task,
                attempt=task.attempt,
                fragment=fragment,
                started_us=started_us,
                duration_us=spent_us,
            )
            report.continued.append(continued)
            return report
        value = (result, None) if task.catches else result
        report.payloads.append(await asyncio.to_thread(serialize, value, run.sink))
    except BaseException as error:  # noqa: BLE001  user code may raise anything, or cancel itself
        report.raised.append(await asyncio.to_thread(run.describe_failure, task, error))
        return report
    report.tasks.append(task.task)
    report.attempts.append(task.attempt)
    report.started_us.append(started_us)
    report.durations_us.append(max(0, spent_us))
    return report


async def _call(order: ListenOrder, run: SliceRun) -> tuple[type[EventListener], Any]:
    """Polls a listener, or tells it of its event; returns the event."""
    (task,) = order.slice.tasks
    (listener, *positional), keyword = await asyncio.to_thread(run.open_arguments, task)
    current_task.set(run.describe(task))  # of this coroutine alone
    made: EventListener = listener()
    if order.kind == "poll":
        return listener, await settle(made.poll_for_event(*positional, **keyword))
    (event,) = positional
    await settle(made.event_checkpointed(event))
    return listener, event


def _follow_up(
    order: ListenOrder, run: SliceRun, listener: type[EventListener], event: Any
) -> Fragment:
    """Returns what makes an event durable, and has its listener told when it is."""
    (task,) = order.slice.tasks
    kind = Constant(payload=serialize_opaque(listener, run.sink))
    content = Constant(payload=serialize(event, run.sink))
    return Fragment(
        names=(f"{task.task_id}.checkpointed",),
        functions=(order.slice.functions[task.function],),
        options=(replace(order.options, waits_for="notice", catch_exceptions=False),),
        templates=(pack_template([mark(CONSTANT, 0), mark(CONSTANT, 1)], {}),),
        constants=(kind, content),
        node_names=(0,),
        node_functions=(0,),
        node_options=(0,),
        node_templates=(0,),
        input_counts=(0,),
        inputs=(),
    )
