"""Sends slices to Ray: one streaming Ray task per slice, with the user's own options."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeAlias

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
)

from milepost.engine.arguments import constant_positions
from milepost.engine.environment import build_runtime_env
from milepost.engine.executor import run_slice
from milepost.engine.host import AnySlice, Delivery, SliceLostError, WorkflowHost
from milepost.engine.item_orders import build_item_order, supply_value
from milepost.engine.item_runs import run_items
from milepost.engine.listener_host import ListenerHost
from milepost.engine.listening import Listening
from milepost.engine.messages import (
    ItemOrder,
    Listened,
    ListenOrder,
    SliceOrder,
    SliceTask,
    WorkerReport,
)
from milepost.engine.names import NAMESPACE, listeners_name
from milepost.engine.parcels import write_parcels
from milepost.engine.payloads import deserialize, load_here
from milepost.engine.submissions import read_environment
from milepost.journal import Store, map_blob
from milepost.replay.decide import SLICE_TASKS_MAX, RunSlice
from milepost.replay.decide_items import RunItems
from milepost.replay.fragment import LISTENED, Constant
from milepost.replay.payload import Payload
from milepost.replay.state import State

SLICES_PER_CPU = 2
"""One runs, one waits at hand; more would only sit in Ray's queue."""

SLICES_MIN = 4

LISTENER_CALLS_MAX = 100_000
"""Calls that may wait in a process of listeners: of events that they wait for themselves."""

_remote_run = ray.remote(run_slice)
_remote_items = ray.remote(run_items)
_remote_run_once = ray.remote(max_calls=1)(run_slice)
_remote_items_once = ray.remote(max_calls=1)(run_items)
"""For tasks with GPUs: a worker process that stays would keep the device's memory."""


class RayWorkers:
    """Runs the slices of all workflows of one dispatcher."""

    def __init__(self, store: Store, storage: str, cpus: int) -> None:
        self.slices_max: int = max(SLICES_MIN, SLICES_PER_CPU * cpus)
        self.riders_max = SLICE_TASKS_MAX
        self._store = store
        self._storage = storage
        self._mailboxes: dict[tuple[str, int, int], _Mailbox] = {}
        self._listening = Listening(partial(_start_listeners, store.uri))

    def take_listened(self, listened: Sequence[Listened]) -> list[bool]:
        """Takes what listeners got; tells of each whether somebody here still wants it."""
        return self._listening.take(listened)

    async def write_parcels(
        self, workflow_id: str, incarnation: int, parcels: Sequence[Any]
    ) -> None:
        """Has the parcels of a submission written, a few at a time, by Ray tasks.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        await write_parcels(self._storage, workflow_id, incarnation, parcels)

    def take_aside(self, workflow_id: str, epoch: int, number: int, report: WorkerReport) -> None:
        """Takes a report that a worker sends while a task of its slice runs long."""
        mailbox = self._mailboxes.get((workflow_id, epoch, number))
        if mailbox is not None:
            mailbox.put_nowait((report, {}))

    async def run(self, host: WorkflowHost, slice_: AnySlice) -> AsyncIterator[Delivery]:
        """Runs a slice on some worker; yields its reports as they come.

        Raises:
            SliceLostError: If the worker died, or Ray could not start it.
        """
        listens = host.state.graph.options[slice_.option].waits_for in LISTENED
        if listens and isinstance(slice_, RunSlice):
            async for delivery in self._listen(host, slice_):
                yield delivery
            return
        try:
            generator = self._start(host, slice_)
        except (RayError, ValueError, TypeError) as error:  # Ray refuses the options
            raise SliceLostError(f"Ray did not take the task: {error}") from error
        key = (host.state.workflow_id, slice_.epoch, slice_.slice)
        mailbox = self._mailboxes[key] = asyncio.Queue()
        postman = asyncio.create_task(_bring(generator, mailbox))
        try:
            while not isinstance(mail := await mailbox.get(), SliceLostError | None):
                yield mail
        except (asyncio.CancelledError, GeneratorExit):
            ray.cancel(generator, force=True)  # with everything it started
            raise
        finally:
            postman.cancel()
            del self._mailboxes[key]
        if mail is not None:
            raise mail

    def _start(self, host: WorkflowHost, slice_: AnySlice) -> Any:
        options = self._read_options(host.state, slice_.option)
        once = options.pop("max_calls", None)
        refs: dict[int, Any] = {}
        order: SliceOrder | ItemOrder
        if isinstance(slice_, RunItems):
            remote = _remote_items_once if once else _remote_items
            order = build_item_order(host, slice_, self._storage, refs)
        else:
            remote = _remote_run_once if once else _remote_run
            order = _build_order(host, slice_, self._storage, refs)
        order = replace(order, dispatcher=_find_own_handle())
        return remote.options(
            **options, num_returns="streaming", max_retries=0, retry_exceptions=False
        ).remote(order, list(refs.values()), *refs.values())

    def _listen(self, host: WorkflowHost, slice_: RunSlice) -> AsyncIterator[Delivery]:
        options = host.state.graph.options[slice_.option]
        refs: dict[int, Any] = {}
        built = _build_order(host, slice_, self._storage, refs)
        order = ListenOrder(
            kind=options.waits_for,
            slice=replace(built, dispatcher=_find_own_handle()),
            refs=list(refs.values()),
            options=options,
        )
        runtime_env = build_runtime_env(read_environment(host.state), None)
        return self._listening.run(order, runtime_env)

    def _read_options(self, state: State, option: int) -> dict[str, Any]:
        source = _StoreSource(self._store, state.workflow_id, state.incarnation)
        options = dict(deserialize(state.graph.options[option].ray, source))
        runtime_env = build_runtime_env(read_environment(state), options.pop("runtime_env", None))
        if runtime_env is not None:
            options["runtime_env"] = runtime_env
        return options


def _start_listeners(uri: str, name: str, runtime_env: dict[str, Any] | None) -> Any:
    return (
        ray.remote(ListenerHost)
        .options(
            name=listeners_name(uri, name),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=LISTENER_CALLS_MAX,
            enable_task_events=False,
            runtime_env=runtime_env,
        )
        .remote()
    )


_Mailbox: TypeAlias = "asyncio.Queue[Delivery | SliceLostError | None]"


async def _bring(generator: Any, mailbox: _Mailbox) -> None:
    """Puts what a worker sends by the way that Ray has for it into the mailbox of its slice."""
    try:
        async for ref in generator:
            report = await ref
            mailbox.put_nowait((report, await _take_objects(report, generator)))
        mailbox.put_nowait(None)
    except (RayError, StopAsyncIteration) as error:
        lost = SliceLostError(_describe(error), _find_kind(error))
        lost.__cause__ = error
        mailbox.put_nowait(lost)


async def _take_objects(report: WorkerReport, generator: Any) -> dict[int, Any]:
    """Takes the refs that follow a report, without fetching what they refer to.

    Values that do not come (their worker died in between) are in their blobs all the same.
    """
    objects: dict[int, Any] = {}
    with suppress(RayError, StopAsyncIteration):
        for task in report.objects:
            objects[task] = await anext(generator)
    return objects


def _find_kind(error: BaseException) -> str:
    """Returns why a slice was lost, as errors of tasks name it."""
    for kind, types in _KINDS.items():
        if isinstance(error, types):
            return kind
    return "crash"


_KINDS: dict[str, tuple[type[BaseException], ...]] = {
    "memory": (OutOfMemoryError,),
    "node": (NodeDiedError, LocalRayletDiedError),
    "input": (ObjectLostError,),
}


def _describe(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0]}"


class _StoreSource:
    """Reads stored options, which hold no nodes."""

    def __init__(self, store: Store, workflow_id: str, incarnation: int) -> None:
        self._store = store
        self._workflow_id = workflow_id
        self._incarnation = incarnation

    def read_blob(self, payload: Payload) -> memoryview:
        digest = payload.digest.hex()
        return map_blob(self._store, self._workflow_id, self._incarnation, digest)

    def load_ref(self, payload: Payload) -> Any:
        return load_here(payload, self)

    def refer(self, position: int) -> Any:
        raise ValueError(f"options refer to node {position}")


def _build_order(
    host: WorkflowHost, slice_: RunSlice, storage: str, refs: dict[int, Any]
) -> SliceOrder:
    """Puts together what a worker needs; ``refs`` gets the inputs that are Ray objects."""
    state, graph = host.state, host.state.graph
    tasks = tuple(
        SliceTask(
            task=task,
            attempt=attempt,
            task_id=graph.task_id(task),
            function=graph.node_functions[task],
            template=graph.templates[graph.node_templates[task]],
            inputs=tuple(graph.inputs(task)),
            first_constant=graph.node_constants[task],
            catches=task in state.catchers,
        )
        for task, attempt in zip(slice_.tasks, slice_.attempts, strict=True)
    )
    values: dict[int, Payload] = {}
    for node in {node for task in tasks for node in task.inputs}.difference(slice_.tasks):
        supply_value(host, node, storage, values, refs)
    functions = {task.function: graph.functions[task.function] for task in tasks}
    return SliceOrder(
        storage=storage,
        workflow_id=state.workflow_id,
        incarnation=state.incarnation,
        epoch=slice_.epoch,
        slice=slice_.slice,
        dispatcher=None,
        tasks=tasks,
        functions=functions,
        constants=_select_constants(state, tasks),
        values=values,
        refs={node: at for at, node in enumerate(refs)},
        retry_errors=graph.options[slice_.option].retry_errors,
        timed=graph.options[slice_.option].timeout_us > 0,
        job=host.job,
    )


@cache
def _find_own_handle() -> Any:
    """Returns the handle of the actor that this process is."""
    return ray.get_runtime_context().current_actor


def _select_constants(state: State, tasks: tuple[SliceTask, ...]) -> dict[int, Constant]:
    positions: dict[bytes, list[int]] = {}
    selected: dict[int, Constant] = {}
    for task in tasks:
        if task.template not in positions:
            positions[task.template] = constant_positions(task.template)
        for position in positions[task.template]:
            number = task.first_constant + position
            selected[number] = state.graph.constants[number]
    return selected
