"""Runs whole workflows in one process: the compiler, a host and workers, without Ray."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import cloudpickle

from milepost.engine.compiler import compile_dag
from milepost.engine.executor import run_slice
from milepost.engine.host import AnySlice, Delivery, WorkflowHost
from milepost.engine.item_orders import build_item_order
from milepost.engine.item_runs import run_items
from milepost.engine.messages import ItemReport, WorkerReport
from milepost.engine.payloads import deserialize
from milepost.engine.workers import _build_order
from milepost.journal.states import load_state, own_state
from milepost.replay.decide_items import RunItems
from milepost.replay.events import WorkflowCreated
from milepost.replay.expanding import expand
from milepost.replay.invariants import check
from milepost.replay.state import State, Status

if TYPE_CHECKING:
    from tests.engine.conftest import Disk, Objects
    from tests.engine.host.conftest import Threads


class LocalWorkers:
    """Runs slices in this process, at once; large values become objects.

    Attributes:
        taken: Values that came as objects rather than out of a blob.
        sent: Every slice that was sent, in order.
    """

    slices_max = 2
    riders_max = 20

    def __init__(self, disk: Disk, objects: Objects) -> None:
        self.taken = 0
        self.sent: list[AnySlice] = []
        self._disk = disk
        self._objects = objects

    async def run(self, host: WorkflowHost, slice_: AnySlice) -> AsyncIterator[Delivery]:
        self.sent.append(slice_)
        refs: dict[int, Any] = {}
        of_items = isinstance(slice_, RunItems)
        build: Any = build_item_order if of_items else _build_order
        order = pickle.loads(cloudpickle.dumps(build(host, slice_, self._disk.uri, refs)))
        self.taken += len(refs)
        values = [self._objects.get(ref) for ref in refs.values()]
        delivered = (run_items if of_items else run_slice)(order, list(refs.values()), *values)
        for report in delivered:
            assert isinstance(report, WorkerReport | ItemReport)
            await asyncio.sleep(0.001)
            objects = {task: self._objects.put(next(delivered)) for task in report.objects}
            yield pickle.loads(pickle.dumps(report)), objects


class Engine:
    """Runs DAGs on a folder."""

    def __init__(
        self,
        disk: Disk,
        objects: Objects,
        threads: Threads,
        play: Callable[..., Any],
        creation: Callable[..., WorkflowCreated],
    ) -> None:
        self.disk = disk
        self.workers = LocalWorkers(disk, objects)
        self.threads = threads
        self._play = play
        self._creation = creation

    def run(self, dag: Any, *arguments: Any, **keywords: Any) -> Any:
        """Returns the result of ``dag``; raises AssertionError if it has none."""
        fragment = compile_dag(dag, self.disk, arguments, keywords)
        base = self._creation(())
        created = WorkflowCreated(
            workflow_id="w",
            at_us=0,
            fragment=fragment,
            metadata=base.metadata,
            environment=base.environment,
            durability="pipelined",
            versions="",
        )
        self._play(self._host(created))
        state = self.stored()
        check(state)
        assert state.status is Status.SUCCESSFUL, state.failed
        assert state.result is not None
        return deserialize(expand(state, state.result), self.disk)

    async def _host(self, created: WorkflowCreated) -> None:
        state, writer = own_state(self.disk.store, "w", "owner")
        host = WorkflowHost(state, writer, self.workers, self.threads, lambda: 0, lambda host: None)
        await host.create(created, "owner")
        while not host.ended:
            await host.change()
        assert host.stopped is None

    def stored(self) -> State:
        return load_state(self.disk.store, "w")
