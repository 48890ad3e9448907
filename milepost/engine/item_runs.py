"""Runs a slice of items of a map inside a Ray task, in a worker process.

Like :mod:`milepost.engine.executor` does tasks: one after the other on the main thread, reported
every 50 ms, the rest handed back when one runs long. What all items of a map share is loaded once
per slice; each value is serialized as soon as it is returned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import ray
from ray.dag import DAGNode

from milepost.engine.arguments import ITEM, unpack_template
from milepost.engine.chunks import ChunkBuilder
from milepost.engine.context import TaskContext, current_task
from milepost.engine.functions import load_function
from milepost.engine.items import ItemReader
from milepost.engine.logs import speak_for
from milepost.engine.messages import ItemOrder, ItemReport
from milepost.engine.payloads import home
from milepost.engine.supply import Supply, ends_worker
from milepost.engine.watching import REPORT_INTERVAL_S, Aside, Watch, find_way_aside
from milepost.errors import InvalidGraphError
from milepost.replay.inputs import ItemRaised
from milepost.replay.payload import Payload

REPORT_BYTES_MAX = 4 * 2**20
"""Of inline results in one report: a report becomes one event, and events have a limit."""


def run_items(order: ItemOrder, refs: list[ray.ObjectRef[Any]], *objects: Any) -> Iterator[Any]:
    """Runs the items of ``order``; the body of the Ray task.

    Args:
        order: What to run.
        refs: Refs to the inputs that are Ray objects, as ``order.refs`` numbers them.
        objects: The values of ``refs``, fetched by Ray before the task starts.

    Yields:
        An :class:`ItemReport`; again until one is the last.
    """
    alone = sum(stop - start for start, stop, _ in order.runs) == 1
    dispatcher = None if alone else order.dispatcher
    aside = find_way_aside(dispatcher, order.workflow_id, order.epoch, order.slice)
    home.set((order.workflow_id, order.incarnation))
    with closing(_ItemRun(order, refs, objects)) as run:
        yield from run.report(aside)


class _Arguments:
    """What every item of the slice is called with."""

    def __init__(self, order: ItemOrder, supply: Supply) -> None:
        self._function = load_function(order.function, supply)

        def resolve(kind: int, at: int) -> Any:
            if kind == ITEM:
                return None
            return supply.resolve(order.inputs, order.first_constant, kind, at)

        (_, *self._positional), self._keyword = unpack_template(order.template, resolve)

    def call(self, item: Any) -> Any:
        return self._function(item, *self._positional, **self._keyword)


class _ItemRun(Supply):
    """One slice being run."""

    def __init__(
        self,
        order: ItemOrder,
        refs: list[ray.ObjectRef[Any]],
        objects: Sequence[Any],
    ) -> None:
        super().__init__(order, refs, objects)
        self._order = order
        self._items = ItemReader(order.length, order.chunk_size, order.items, self)
        self._arguments: _Arguments | None = None
        self._left: list[tuple[int, int, int]] = list(reversed(order.runs))
        self._report = ItemReport(node=self.worker)
        self._built = ChunkBuilder(self.sink)
        self._watch = Watch(self._give_up)

    def report(self, aside: Aside | None) -> Iterator[ItemReport]:
        speak_for(self._order.job)
        with self._watch.look(aside):
            if self._order.timed:
                yield ItemReport(node=self.worker, began=True)
            yield from self._run_all()
        yield self._take_report(last=True)

    def _run_all(self) -> Iterator[ItemReport]:
        due = time.monotonic() + REPORT_INTERVAL_S
        while (found := self._take_next()) is not None:
            self._attempt(*found)
            full = self._built.size >= REPORT_BYTES_MAX
            if (full or time.monotonic() >= due) and self._left:
                yield self._take_report()
                due = time.monotonic() + REPORT_INTERVAL_S

    def _take_next(self) -> tuple[int, int] | None:
        with self._watch.lock:
            if not self._left:
                self._watch.began = 0.0
                return None
            start, stop, attempt = self._left.pop()
            if start + 1 < stop:
                self._left.append((start + 1, stop, attempt))
            self._watch.began = time.perf_counter()
            return start, attempt

    def _give_up(self) -> ItemReport | None:
        """Gives up what was not started; called by the second thread, with the lock held."""
        report = self._swap_report()
        report.handed_back = [(start, stop) for start, stop, _ in reversed(self._left)]
        self._left.clear()
        return report if report.starts or report.raised or report.handed_back else None

    def _take_report(self, *, last: bool = False) -> ItemReport:
        with self._watch.lock:
            self._watch.began = 0.0
            report = self._swap_report()
        report.last = last
        return report

    def _swap_report(self) -> ItemReport:
        built, self._built = self._built, ChunkBuilder(self.sink)
        built.close()
        report, self._report = self._report, ItemReport(node=self._report.node)
        report.starts, report.stops, report.payloads = built.starts, built.stops, built.payloads
        return report

    def _attempt(self, item: int, attempt: int) -> None:
        started_us = time.time_ns() // 1000
        clock = time.perf_counter_ns()
        try:
            payload = self._call(item, attempt)
        except BaseException as error:  # user code may raise anything
            if ends_worker(error):
                raise
            raised = ItemRaised(
                item=item,
                attempt=attempt,
                error=self.describe_error(error, frames_above=3),
                retryable=self.is_retryable(error),
            )
            with self._watch.lock:
                self._note_times(started_us, clock)
                self._report.raised.append(raised)
            return
        with self._watch.lock:
            self._note_times(started_us, clock)
            self._built.add(item, payload)

    def _note_times(self, started_us: int, clock: int) -> None:
        report = self._report
        report.started_us = report.started_us or started_us
        report.duration_us += (time.perf_counter_ns() - clock) // 1000

    def _call(self, item: int, attempt: int) -> Payload:
        if self._arguments is None:
            self._arguments = _Arguments(self._order, self)
        value = self._items.item(item)
        context = TaskContext(
            workflow_id=self._order.workflow_id,
            incarnation=self._order.incarnation,
            task_id=f"{self._order.task_id}[{item}]",
            attempt=attempt,
            epoch=self._order.epoch,
        )
        token = current_task.set(context)
        try:
            result = self._arguments.call(value)
        finally:
            current_task.reset(token)
        if isinstance(result, DAGNode):
            raise InvalidGraphError(
                "the function of a map returned a continuation, which only tasks can; return a "
                "value, or bind one task per item"
            )
        return self._built.pack((result, None) if self._order.catches else result)
