"""Runs a slice inside a Ray task, in a worker process with the user's own Ray options.

Tasks run one after the other on the main thread. What has finished is reported at least every
``REPORT_INTERVAL_S``: between tasks by the way that Ray has for results, and once a task runs long
by a second thread, which first gives up what has not started and then hands it back. A large value
is written to its blob here, by the worker that has it, before it is reported, and follows its
report as a Ray object of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import ray
from ray.dag import DAGNode

from milepost.engine.arguments import unpack_template
from milepost.engine.compiler import compile_dag
from milepost.engine.context import TaskContext, current_task
from milepost.engine.functions import load_function
from milepost.engine.logs import TaskLog, speak_for
from milepost.engine.messages import SliceOrder, SliceTask, WorkerReport
from milepost.engine.payloads import INLINE_BYTES_MAX, deserialize, home, serialize
from milepost.engine.supply import Supply, ends_worker
from milepost.engine.watching import REPORT_INTERVAL_S, Aside, Watch, find_way_aside
from milepost.replay.inputs import Continued, Raised
from milepost.replay.payload import Payload

REPORT_BYTES_MAX = 4 * 2**20
"""Of inline results in one report: a report becomes one event, and events have a limit."""


def run_slice(order: SliceOrder, refs: list[ray.ObjectRef[Any]], *objects: Any) -> Iterator[Any]:
    """Runs the tasks of ``order``; the body of the Ray task.

    Args:
        order: What to run.
        refs: Refs to the inputs that are Ray objects, as ``order.refs`` numbers them.
        objects: The values of ``refs``, fetched by Ray before the task starts.

    Yields:
        A :class:`WorkerReport`, then the Ray objects it announces; again until one is the last.
    """
    alone = len(order.tasks) == 1
    dispatcher = None if alone else order.dispatcher
    aside = find_way_aside(dispatcher, order.workflow_id, order.epoch, order.slice)
    home.set((order.workflow_id, order.incarnation))
    with closing(SliceRun(order, refs, objects)) as run:
        yield from run.report(aside)


class SliceRun(Supply):
    """One slice being run.

    Those who run listeners use its parts: they wait where this would hold a worker.
    """

    def __init__(
        self, order: SliceOrder, refs: list[ray.ObjectRef[Any]], objects: Sequence[Any]
    ) -> None:
        super().__init__(order, refs, objects)
        self._order = order
        seated = {task.task for task in order.tasks}
        ridden = seated.intersection(node for task in order.tasks for node in task.inputs)
        self._awaited: dict[int, Payload | None] = dict.fromkeys(ridden)
        self._large: list[Any] = []
        self._report = WorkerReport(node=self.worker)
        self._report_bytes = 0
        self._next = 0
        self._end = len(order.tasks)
        self._watch = Watch(self._give_up)
        self._log = TaskLog(order)

    def report(self, aside: Aside | None = None) -> Iterator[Any]:
        """Runs all tasks; yields what :func:`run_slice` does."""
        speak_for(self._order.job)
        with self._watch.look(aside):
            if self._order.timed:
                yield WorkerReport(node=self._report.node, began=True)
            yield from self._run_all()
        self._report.last = True
        yield from self._deliver()

    def _run_all(self) -> Iterator[Any]:
        due = time.monotonic() + REPORT_INTERVAL_S
        while (task := self._take_next()) is not None:
            self._attempt(task)
            # A large value leaves at once, before the next task can change it.
            full = self._large or self._report_bytes >= REPORT_BYTES_MAX
            if (full or time.monotonic() >= due) and self._next < self._end:
                yield from self._deliver()
                due = time.monotonic() + REPORT_INTERVAL_S

    def _take_next(self) -> SliceTask | None:
        with self._watch.lock:
            while self._next < self._end:
                task = self._order.tasks[self._next]
                self._next += 1
                if self._can_run(task):
                    self._watch.began = time.perf_counter()
                    return task
            self._watch.began = 0.0
            return None

    def _can_run(self, task: SliceTask) -> bool:
        """Tells whether all that ``task`` rides on returned; if not, it is off the slice."""
        awaited = self._awaited
        return not any(node in awaited and awaited[node] is None for node in task.inputs)

    def _deliver(self) -> Iterator[Any]:
        with self._watch.lock:
            self._watch.began = 0.0
            report, large = self._swap_report(), self._large
            self._large = []
        yield report
        yield from large

    def _swap_report(self) -> WorkerReport:
        report, self._report = self._report, WorkerReport(node=self._report.node)
        self._report_bytes = 0
        return report

    def _give_up(self) -> WorkerReport | None:
        left = self._order.tasks[self._next : self._end]
        self._end = self._next
        report = self._swap_report()
        report.handed_back = [(task.task, task.attempt) for task in left]
        told = left or report.tasks or report.raised or report.continued
        return report if told else None

    def _attempt(self, task: SliceTask) -> None:
        self._log.began(task)
        started_us = time.time_ns() // 1000
        clock = time.perf_counter_ns()
        try:
            result = self._call(task)
            if isinstance(result, DAGNode):
                fragment = compile_dag(result, self.sink)
                spent_us = (time.perf_counter_ns() - clock) // 1000
                continued = Continued(
                    task=task.task,
                    attempt=task.attempt,
                    fragment=fragment,
                    started_us=started_us,
                    duration_us=spent_us,
                )
                with self._watch.lock:
                    self._report.continued.append(continued)
                self._log.ended(task)
                return
            if task.catches:
                result = (result, None)
            payload = serialize(result, self.sink)
        except BaseException as error:  # user code may raise anything
            if ends_worker(error):
                raise
            raised = self.describe_failure(task, error)
            with self._watch.lock:
                self._report.raised.append(raised)
            self._log.failed(task, raised.error.type)
            return
        spent_us = (time.perf_counter_ns() - clock) // 1000
        if task.task in self._awaited:
            self._keep_for_riders(task.task, payload, result)
        with self._watch.lock:
            self._add_result(task, payload, result, started_us, spent_us)
        self._log.ended(task)

    def _keep_for_riders(self, task: int, payload: Payload, result: Any) -> None:
        """Keeps a value as bytes, or a large one as an object: whoever takes it gets its own."""
        self._awaited[task] = payload
        if payload.size > INLINE_BYTES_MAX:
            self._made_refs[task] = ray.put(result)

    def _add_result(
        self, task: SliceTask, payload: Payload, result: Any, started_us: int, spent_us: int
    ) -> None:
        report = self._report
        report.tasks.append(task.task)
        report.attempts.append(task.attempt)
        report.payloads.append(payload)
        self._report_bytes += len(payload.data)
        report.started_us.append(started_us)
        report.durations_us.append(spent_us)
        if payload.size > INLINE_BYTES_MAX:
            report.objects.append(task.task)
            self._large.append(result)

    def _call(self, task: SliceTask) -> Any:
        function = load_function(self._order.functions[task.function], self)
        positional, keyword = self.open_arguments(task)
        token = current_task.set(self.describe(task))
        try:
            return function(*positional, **keyword)
        finally:
            current_task.reset(token)

    def open_arguments(self, task: SliceTask) -> tuple[list[Any], dict[str, Any]]:
        """Returns the arguments of a task; may read from storage, and run what was pickled."""
        return unpack_template(
            task.template,
            lambda kind, at: self.resolve(task.inputs, task.first_constant, kind, at),
        )

    def describe(self, task: SliceTask) -> TaskContext:
        """Returns what a task can know about itself."""
        return TaskContext(
            workflow_id=self._order.workflow_id,
            incarnation=self._order.incarnation,
            task_id=task.task_id,
            attempt=task.attempt,
            epoch=self._order.epoch,
        )

    def describe_failure(self, task: SliceTask, error: BaseException) -> Raised:
        """Returns what is reported of an attempt that raised."""
        return Raised(
            task=task.task,
            attempt=task.attempt,
            error=self.describe_error(error),
            retryable=self.is_retryable(error),
        )

    def read_value(self, node: int) -> Any:
        """Returns a value that no other task of the slice shares."""
        if node not in self._awaited:
            return super().read_value(node)
        if node in self._made_refs:
            return ray.get(self._made_refs[node])
        payload = self._awaited[node]
        assert payload is not None, node
        return deserialize(payload, self)
