"""Workers that run tasks of a program: slow, repeating themselves, dying now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgpack

from milepost.engine.host import Delivery, SliceLostError, WorkflowHost
from milepost.engine.messages import WorkerReport
from milepost.replay.decide import RunSlice
from milepost.replay.events import TaskError
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Continued, Raised
from programs import pack

if TYPE_CHECKING:
    from world import Process, World


class SimulatedWorkers:
    """Runs the slices of one process's hosts."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._started = 0
        self.slices_max = world.slices_max
        self.riders_max = world.riders_max

    async def run(self, host: WorkflowHost, slice_: RunSlice) -> AsyncIterator[Delivery]:
        """Runs a slice; every task of it is noted when it starts."""
        random, weather = self._world.random, self._world.weather
        self._started += 1
        worker = f"{self._process.name}/w{self._started % 3}"
        report = WorkerReport(node=worker)
        await asyncio.sleep(random.uniform(0.001, 0.02))
        attempts = list(zip(slice_.tasks, slice_.attempts, strict=True))
        kept = random.randint(1, len(attempts)) if random.random() < 0.1 else len(attempts)
        report.handed_back = attempts[kept:]  # given up first, then told, and never started
        values: dict[int, int] = {}  # what tasks of this slice returned, for those that ride along
        for task, attempt in attempts[:kept]:
            if _misses_input(host, slice_, task, values):
                continue
            await self._process.gate()
            self._world.record.task_started(host, task, attempt)
            await asyncio.sleep(random.choice((0.0005, 0.01, 0.2)))
            if weather.stormy and random.random() < 0.02:
                await self._process.gate()
                raise SliceLostError("killed")
            self._attempt(host, report, task, attempt, values)
            if random.random() < 0.4:
                await self._process.gate()
                yield report, {}
                if random.random() < 0.1:  # the same, said again later
                    yield report, {}
                report = WorkerReport(node=worker)
        report.last = True
        await self._process.gate()
        yield report, {}

    def _attempt(
        self,
        host: WorkflowHost,
        report: WorkerReport,
        task: int,
        attempt: int,
        values: dict[int, int],
    ) -> None:
        state = host.state
        program = self._world.record.program_of(host)
        task_id = state.graph.task_id(task)
        inputs = []
        for source in state.graph.inputs(task):
            payload = state.results[source]
            assert payload is not None or source in values, f"{task_id} runs before its inputs"
            inputs.append(values[source] if payload is None else msgpack.unpackb(payload.data)[0])
        outcome = program.attempt(task_id, attempt, inputs)
        if outcome is None:
            error = TaskError(
                kind="exception", type="ValueError", message="no", traceback="", exception=None
            )
            raised = Raised(task=task, attempt=attempt, error=error, retryable=True)
            report.raised.append(raised)
        elif isinstance(outcome, Fragment):
            continued = Continued(
                task=task, attempt=attempt, fragment=outcome, started_us=0, duration_us=1
            )
            report.continued.append(continued)
        else:
            values[task] = outcome
            report.tasks.append(task)
            report.attempts.append(attempt)
            # No two attempts return the same: whose commit counted can be told from the value.
            report.payloads.append(pack([outcome, self._world.random.getrandbits(32)]))
            report.started_us.append(self._world.now_us())
            report.durations_us.append(100)


def _misses_input(host: WorkflowHost, slice_: RunSlice, task: int, values: dict[int, int]) -> bool:
    """Tells whether a task rides behind one of its slice that came to no value."""
    inputs = set(host.state.graph.inputs(task))
    return any(source in inputs and source not in values for source in slice_.tasks)
