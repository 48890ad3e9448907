"""Workers that run tasks of a program: slow, repeating themselves, dying now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

from mapped_tasks import ItemWorker
from milepost.engine.host import AnySlice, Delivery, SliceLostError, WorkflowHost
from milepost.engine.messages import WorkerReport
from milepost.errors import CorruptBlobError, StorageUnavailableError
from milepost.journal import put_blob
from milepost.replay.decide import RunSlice
from milepost.replay.decide_items import RunItems
from milepost.replay.events import TaskError
from milepost.replay.expanding import expand
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Continued, Raised
from milepost.replay.payload import Encoding, Payload
from programs import pack, read_value

if TYPE_CHECKING:
    from world import Process, World

ERROR = TaskError(kind="exception", type="ValueError", message="no", traceback="", exception=None)


class SimulatedWorkers:
    """Runs the slices of one process's hosts."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._started = 0
        self.slices_max = world.slices_max
        self.riders_max = world.riders_max

    async def run(self, host: WorkflowHost, slice_: AnySlice) -> AsyncIterator[Delivery]:
        """Runs a slice; every task or item of it is noted when it starts."""
        random, weather = self._world.random, self._world.weather
        self._started += 1
        worker = f"{self._process.name}/w{self._started % 3}"
        if isinstance(slice_, RunItems):
            await asyncio.sleep(random.uniform(0.001, 0.02))
            inputs = self._read_inputs(host, slice_.task, {})
            of_items = ItemWorker(self._world, self._process, host, slice_, worker, self._store)
            async for delivery in of_items.run(inputs):
                yield delivery
            return
        report = WorkerReport(node=worker)
        said: list[WorkerReport] = []
        await asyncio.sleep(random.uniform(0.001, 0.02))
        attempts = list(zip(slice_.tasks, slice_.attempts, strict=True))
        kept = random.randint(1, len(attempts)) if random.random() < 0.1 else len(attempts)
        report.handed_back = attempts[kept:]  # given up first, then told, and never started
        if host.state.graph.options[slice_.option].timeout_us:
            await self._process.gate()
            yield WorkerReport(node=worker, began=True), {}
        values: dict[int, int] = {}  # what tasks of this slice returned, for those that ride along
        for task, attempt in attempts[:kept]:
            if _misses_input(host, slice_, task, values):
                continue
            await self._process.gate()
            self._world.record.task_started(host, task, attempt)
            self._process.cluster.check_turns()
            program = self._world.record.program_of(host)
            if program.is_stuck(host.state.graph.task_id(task), attempt):
                self._world.record.counts["stuck"] += 1
                await self._process.nowhere()
            await asyncio.sleep(weather.task_s())
            if weather.stormy and random.random() < 0.02:
                await self._process.gate()
                raise SliceLostError("killed")
            await self._attempt(host, report, task, attempt, values)
            if random.random() < 0.4:
                await self._process.gate()
                yield report, {}
                said.append(report)
                report = WorkerReport(node=worker)
            if said and random.random() < 0.1:  # the same again, perhaps much later
                await self._process.gate()
                yield copy(random.choice(said)), {}
        report.last = True
        await self._process.gate()
        yield report, {}

    async def _attempt(
        self,
        host: WorkflowHost,
        report: WorkerReport,
        task: int,
        attempt: int,
        values: dict[int, int],
    ) -> None:
        program = self._world.record.program_of(host)
        task_id = host.state.graph.task_id(task)
        inputs = self._read_inputs(host, task, values)
        outcome = program.attempt(task_id, attempt, inputs)
        if outcome is None:
            report.raised.append(Raised(task=task, attempt=attempt, error=ERROR, retryable=True))
        elif isinstance(outcome, Fragment):
            continued = Continued(
                task=task, attempt=attempt, fragment=outcome, started_us=0, duration_us=1
            )
            report.continued.append(continued)
        else:
            # No two attempts return the same: whose commit counted can be told from the value.
            payload = pack([outcome, self._world.random.getrandbits(32)])
            if program.node(task_id).kind == "large":
                payload = await self._store(host, payload)
            values[task] = outcome
            report.tasks.append(task)
            report.attempts.append(attempt)
            report.payloads.append(payload)
            report.started_us.append(self._world.now_us())
            report.durations_us.append(100)

    def _read_inputs(self, host: WorkflowHost, task: int, values: dict[int, int]) -> list[int]:
        state, inputs = host.state, []
        for source in state.graph.inputs(task):
            payload = state.results[source]
            assert payload is not None or source in values, f"task {task} runs before its inputs"
            if payload is None:
                inputs.append(values[source])
                continue
            payload = expand(state, payload)
            try:
                value = read_value(self._world.disk, state.workflow_id, state.incarnation, payload)
            except CorruptBlobError:  # of a workflow that was deleted while its owner was paused
                raise SliceLostError("an input is gone") from None
            inputs.append(value)
        return inputs

    async def _store(self, host: WorkflowHost, payload: Payload) -> Payload:
        """Writes a value as a worker does: before it is reported."""
        state, loop = host.state, asyncio.get_running_loop()
        put = partial(
            put_blob, self._process.store, state.workflow_id, state.incarnation, [payload.data]
        )
        try:
            digest, size = await loop.run_in_executor(self._process.threads, put)
        except StorageUnavailableError:
            raise SliceLostError("its storage failed") from None
        return Payload(encoding=Encoding.PLAIN.value, digest=bytes.fromhex(digest), size=size)


def _misses_input(host: WorkflowHost, slice_: RunSlice, task: int, values: dict[int, int]) -> bool:
    """Tells whether a task rides behind one of its slice that came to no value."""
    inputs = set(host.state.graph.inputs(task))
    return any(source in inputs and source not in values for source in slice_.tasks)
