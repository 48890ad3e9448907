"""Runs slices like a worker does, without a cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from milepost.engine.compiler import compile_dag
from milepost.engine.executor import run_slice
from milepost.engine.messages import SliceOrder, SliceTask, WorkerReport
from milepost.engine.payloads import deserialize, serialize
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Raised
from milepost.replay.payload import Payload

if TYPE_CHECKING:
    from tests.engine.conftest import Disk


@dataclass
class Bench:
    """Runs tasks of a DAG like a worker does, as one slice."""

    disk: Disk

    def order(self, dag: Any, tasks: tuple[int, ...] = (), **given: Any) -> SliceOrder:
        """Returns the order to run ``tasks``, by default those without inputs.

        Args:
            dag: The graph they belong to.
            tasks: Which of its tasks.
            given: ``values`` or ``refs`` of inputs, by task.
        """
        fragment = compile_dag(dag, self.disk)
        counts = fragment.input_counts
        tasks = tasks or tuple(task for task in range(len(counts)) if not counts[task])
        values = {
            task: serialize(value, self.disk) for task, value in given.get("values", {}).items()
        }
        refs = {task: at for at, task in enumerate(given.get("refs", {}))}
        return SliceOrder(
            storage=self.disk.uri,
            workflow_id="w",
            incarnation=1,
            epoch=1,
            slice=0,
            dispatcher=given.get("dispatcher"),
            tasks=tuple(_make_task(fragment, task) for task in tasks),
            functions=dict(enumerate(fragment.functions)),
            constants=dict(enumerate(fragment.constants)),
            values=values,
            refs=refs,
            retry_errors=fragment.options[fragment.node_options[tasks[0]]].retry_errors,
        )

    def run(self, order: SliceOrder, *objects: Any, refs: Any = ()) -> Outcome:
        """Runs an order; ``objects`` are the values of ``refs``, as Ray fetches them."""
        outcome = Outcome(self.disk)
        delivered = run_slice(order, list(refs), *objects)
        for report in delivered:
            assert isinstance(report, WorkerReport)
            assert report.node == "node:1"
            outcome.reports.append(report)
            for task in report.objects:
                outcome.objects[task] = pickle.loads(pickle.dumps(next(delivered)))
        lasts = [report.last for report in outcome.reports]
        assert lasts == [False] * (len(lasts) - 1) + [True]
        return outcome

    def attempt(self, dag: Any, *tasks: int, **given: Any) -> Outcome:
        """Runs tasks of a DAG whose inputs are given as values."""
        return self.run(self.order(dag, tasks, **given))


@dataclass
class Outcome:
    """What a worker reported."""

    disk: Disk

    def __post_init__(self) -> None:
        self.reports: list[WorkerReport] = []
        self.objects: dict[int, Any] = {}

    @property
    def payloads(self) -> dict[int, Payload]:
        return {
            task: payload
            for report in self.reports
            for task, payload in zip(report.tasks, report.payloads, strict=True)
        }

    @property
    def values(self) -> dict[int, Any]:
        return {task: deserialize(each, self.disk) for task, each in self.payloads.items()}

    @property
    def raised(self) -> dict[int, Raised]:
        return {raised.task: raised for report in self.reports for raised in report.raised}

    @property
    def continued(self) -> dict[int, Fragment]:
        return {each.task: each.fragment for report in self.reports for each in report.continued}


def _make_task(fragment: Fragment, task: int) -> SliceTask:
    start = sum(fragment.input_counts[:task])
    return SliceTask(
        task=task,
        attempt=2,
        task_id=f"task_{task}",
        function=fragment.node_functions[task],
        template=fragment.templates[fragment.node_templates[task]],
        inputs=fragment.inputs[start : start + fragment.input_counts[task]],
        first_constant=0,
    )


def task(function: Callable[..., Any], **options: Any) -> Any:
    return ray.remote(**options)(function) if options else ray.remote(function)


def gather(*nodes: Any) -> Any:
    """Returns a DAG in which these nodes stand in this order."""
    return task(lambda *given: None).bind(*nodes)


def fail_with(error: Callable[[], BaseException]) -> Any:
    def fail() -> None:
        raise error()

    return task(fail)
