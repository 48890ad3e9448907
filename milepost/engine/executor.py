"""Runs a slice inside a Ray task, in a worker process with the user's own Ray options.

Tasks run one after the other on the main thread. What has finished is reported at least every
``REPORT_INTERVAL_S``: between tasks by the way that Ray has for results, and once a task runs long
by a second thread, which first gives up what has not started and then hands it back. A large value
is written to its blob here, by the worker that has it, before it is reported, and follows its
report as a Ray object of its own.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

import ray
from ray.dag import DAGNode

from milepost.engine.arguments import CONSTANT, REF, unpack_template
from milepost.engine.compiler import compile_dag
from milepost.engine.context import TaskContext, current_task
from milepost.engine.functions import load_function
from milepost.engine.messages import SliceOrder, SliceTask, WorkerReport
from milepost.engine.outputs import open_known
from milepost.engine.payloads import (
    INLINE_BYTES_MAX,
    deserialize,
    put_value,
    serialize,
    serialize_opaque,
)
from milepost.engine.references import WorkerSink
from milepost.errors import MilepostError, StorageUnavailableError
from milepost.journal import map_blob
from milepost.replay.events import TaskError
from milepost.replay.fragment import Constant
from milepost.replay.inputs import Continued, Raised
from milepost.replay.payload import Payload

REPORT_INTERVAL_S = 0.05
REPORT_BYTES_MAX = 4 * 2**20
"""Of inline results in one report: a report becomes one event, and events have a limit."""

WATCH_INTERVAL_S = 0.01
"""Between looks of the second thread: a task is found to run long at most so much late."""

TEXT_CHARS_MAX = 20_000
"""Of an error's message and traceback; the whole exception is kept beside them."""


def run_slice(order: SliceOrder, refs: list[ray.ObjectRef[Any]], *objects: Any) -> Iterator[Any]:
    """Runs the tasks of ``order``; the body of the Ray task.

    Args:
        order: What to run.
        refs: Refs to the inputs that are Ray objects, as ``order.refs`` numbers them.
        objects: The values of ``refs``, fetched by Ray before the task starts.

    Yields:
        A :class:`WorkerReport`, then the Ray objects it announces; again until one is the last.
    """
    yield from SliceRun(order, refs, objects).report(_find_way_aside(order))


Aside: TypeAlias = Callable[[WorkerReport], Callable[[], object]]
"""Sends a report while a task runs; returns what waits until it has arrived."""


def _find_way_aside(order: SliceOrder) -> Aside | None:
    if order.dispatcher is None or len(order.tasks) == 1:
        return None
    send = order.dispatcher.take_aside.remote

    def tell(report: WorkerReport) -> Callable[[], object]:
        ref = send(order.workflow_id, order.epoch, order.slice, report)
        return lambda: ray.get(ref)

    return tell


@cache
def _describe_worker() -> str:
    return f"{ray.get_runtime_context().get_node_id()[:12]}:{os.getpid()}"


class SliceRun:
    """One slice being run. Also the source of stored values for its tasks.

    Those who run listeners use its parts: they wait where this would hold a worker.

    Attributes:
        sink: Takes blobs and refs of this workflow.
        worker: The name of this process, for journals.
    """

    def __init__(
        self, order: SliceOrder, refs: list[ray.ObjectRef[Any]], objects: Sequence[Any]
    ) -> None:
        self._order = order
        self._refs = refs
        self.sink = WorkerSink(order)
        self._fresh = dict(enumerate(objects))
        self._made_refs: dict[int, ray.ObjectRef[Any]] = {}
        seated = {task.task for task in order.tasks}
        ridden = seated.intersection(node for task in order.tasks for node in task.inputs)
        self._awaited: dict[int, Payload | None] = dict.fromkeys(ridden)
        self._large: list[Any] = []
        self.worker = _describe_worker()
        self._report = WorkerReport(node=self.worker)
        self._report_bytes = 0
        self._lock = threading.Lock()
        self._next = 0
        self._end = len(order.tasks)
        self._began = 0.0
        self._over = threading.Event()
        self._told: list[Callable[[], object]] = []

    def report(self, aside: Aside | None = None) -> Iterator[Any]:
        """Runs all tasks; yields what :func:`run_slice` does."""
        watch = None if aside is None else self._start_watch(aside)
        if self._order.timed:
            yield WorkerReport(node=self._report.node, began=True)
        try:
            yield from self._run_all()
        finally:
            self._over.set()
        if watch is not None:
            watch.join()
        for arrived in self._told:  # so that what is last is last
            arrived()
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
        with self._lock:
            while self._next < self._end:
                task = self._order.tasks[self._next]
                self._next += 1
                if self._can_run(task):
                    self._began = time.perf_counter()
                    return task
            self._began = 0.0
            return None

    def _can_run(self, task: SliceTask) -> bool:
        """Tells whether all that ``task`` rides on returned; if not, it is off the slice."""
        awaited = self._awaited
        return not any(node in awaited and awaited[node] is None for node in task.inputs)

    def _deliver(self) -> Iterator[Any]:
        with self._lock:
            self._began = 0.0
            report, large = self._swap_report(), self._large
            self._large = []
        yield report
        yield from large

    def _swap_report(self) -> WorkerReport:
        report, self._report = self._report, WorkerReport(node=self._report.node)
        self._report_bytes = 0
        return report

    def _start_watch(self, aside: Aside) -> threading.Thread:
        watch = threading.Thread(target=self._watch, args=(aside,), daemon=True)
        watch.start()
        return watch

    def _watch(self, aside: Aside) -> None:
        """Runs beside the tasks: when one runs long, the others have to wait no longer."""
        while not self._over.wait(WATCH_INTERVAL_S):
            with self._lock:
                long = self._began and time.perf_counter() - self._began >= REPORT_INTERVAL_S
                if not long:
                    continue
                left = self._order.tasks[self._next : self._end]
                self._end = self._next
                report = self._swap_report()
            report.handed_back = [(task.task, task.attempt) for task in left]
            if left or report.tasks or report.raised or report.continued:
                self._told.append(aside(report))
            return

    def _attempt(self, task: SliceTask) -> None:
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
                with self._lock:
                    self._report.continued.append(continued)
                return
            if task.catches:
                result = (result, None)
            payload = serialize(result, self.sink)
        except BaseException as error:  # user code may raise anything
            if _ends_worker(error):
                raise
            raised = self.describe_failure(task, error)
            with self._lock:
                self._report.raised.append(raised)
            return
        spent_us = (time.perf_counter_ns() - clock) // 1000
        if task.task in self._awaited:
            self._keep_for_riders(task.task, payload, result)
        with self._lock:
            self._add_result(task, payload, result, started_us, spent_us)

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
            task.template, lambda kind, position: self._resolve(task, kind, position)
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
        frames = error.__traceback__
        for _ in range(2):  # the two frames of this module above the user's function
            frames = frames.tb_next if frames and frames.tb_next else frames
        text = "".join(traceback.format_exception(type(error), error, frames))
        try:
            exception = serialize_opaque(error, self.sink)
        except MilepostError:
            exception = None  # type, message and traceback must do
        return Raised(
            task=task.task,
            attempt=task.attempt,
            error=TaskError(
                kind="exception",
                type=f"{type(error).__module__}.{type(error).__qualname__}",
                message=_describe_error(error)[:TEXT_CHARS_MAX],
                traceback=_storable(text)[-TEXT_CHARS_MAX:],
                exception=exception,
            ),
            retryable=self._is_retryable(error),
        )

    def _is_retryable(self, error: BaseException) -> bool:
        if isinstance(error, StorageUnavailableError):
            return True
        try:
            policy = deserialize(self._order.retry_errors, self)
        except Exception:  # noqa: BLE001  a type that cannot be loaded is none that was raised
            return False
        return isinstance(error, policy) if isinstance(policy, tuple) else bool(policy)

    def _resolve(self, task: SliceTask, kind: int, position: int) -> Any:
        if kind == CONSTANT:
            constant = self._order.constants[task.first_constant + position]
            return deserialize(constant.payload, _ConstantSource(self, constant))
        node = task.inputs[position]
        return self.make_ref(node) if kind == REF else self._read_value(node)

    def _read_value(self, node: int) -> Any:
        """Returns a value that no other task of the slice shares."""
        if node not in self._order.refs:
            if node in self._made_refs and node in self._awaited:
                return ray.get(self._made_refs[node])
            payload = self._awaited.get(node) or self._order.values[node]
            return deserialize(payload, self)
        at = self._order.refs[node]
        return self._fresh.pop(at) if at in self._fresh else ray.get(self._refs[at])

    def make_ref(self, node: int) -> ray.ObjectRef[Any]:
        """Returns a ref to the value of ``node``; the same one for all tasks of the slice."""
        if node in self._order.refs:
            return self._refs[self._order.refs[node]]
        if node not in self._made_refs:
            self._made_refs[node] = put_value(self._read_value(node))
        return self._made_refs[node]

    def read_blob(self, payload: Payload) -> memoryview:
        """Returns the content of a blob of this workflow."""
        order = self._order
        store = open_known(order.storage)
        return map_blob(store, order.workflow_id, order.incarnation, payload.digest.hex())

    def load_ref(self, payload: Payload) -> ray.ObjectRef[Any]:
        """Returns a ref to a stored value; the same one for the whole cluster."""
        return self.sink.load_ref(payload, self)

    def refer(self, position: int) -> ray.ObjectRef[Any]:
        """Only constants hold references to nodes."""
        raise ValueError(f"a stored value refers to node {position} without being a constant")


def _ends_worker(error: BaseException) -> bool:
    """Tells whether Ray raised this in the task: it cancels it, or this process has to end."""
    return isinstance(error, KeyboardInterrupt) or hasattr(error, "ray_terminate_msg")


def _describe_error(error: BaseException) -> str:
    try:
        return _storable(str(error))
    except Exception:  # noqa: BLE001  the user's __str__ may raise, too
        return "(its text cannot be made)"


def _storable(text: str) -> str:
    """Journals hold UTF-8, texts of exceptions may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _ConstantSource:
    """Reads a constant: like its slice, and knows the nodes inside the constant."""

    def __init__(self, run: SliceRun, constant: Constant) -> None:
        self._run = run
        self._constant = constant

    def read_blob(self, payload: Payload) -> memoryview:
        return self._run.read_blob(payload)

    def load_ref(self, payload: Payload) -> ray.ObjectRef[Any]:
        return self._run.load_ref(payload)

    def refer(self, position: int) -> ray.ObjectRef[Any]:
        return self._run.make_ref(self._constant.nodes[position])
