"""Objects that tasks hold by ref: stored once per workflow, and loaded once per cluster.

An ``ObjectRef`` may stand in a hundred arguments and results. Who meets it first asks the
workflow's dispatcher, which has one Ray task write the value behind it and remembers the payload.
On the way back it is the same: the first worker that needs the ref of a stored value makes the
dispatcher have it loaded, on that worker's node; all others get the same ref. The bytes never pass
through the dispatcher. Small values are stored inline, and each worker makes its own ref of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from milepost.engine.environment import build_runtime_env
from milepost.engine.outputs import StoredSource, open_known
from milepost.engine.payloads import RefMemo, Source, deserialize, load_here, serialize
from milepost.engine.submissions import read_environment
from milepost.errors import MilepostError
from milepost.journal import put_blob
from milepost.replay.payload import Payload

if TYPE_CHECKING:
    from milepost.engine.messages import ItemOrder, SliceOrder
    from milepost.replay.state import State


class BlobWriter(RefMemo):
    """A sink that writes the blobs of one workflow."""

    def __init__(self, storage: str, workflow_id: str, incarnation: int) -> None:
        super().__init__()
        self._place = (storage, workflow_id, incarnation)

    def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
        """Writes a blob, unless it is there.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        storage, workflow_id, incarnation = self._place
        digest, size = put_blob(open_known(storage), workflow_id, incarnation, parts)
        return bytes.fromhex(digest), size


class WorkerSink(BlobWriter):
    """The sink of one slice: asks the dispatcher about refs."""

    def __init__(self, order: SliceOrder | ItemOrder) -> None:
        super().__init__(order.storage, order.workflow_id, order.incarnation)
        self._order = order

    def store_ref(self, ref: ray.ObjectRef[Any], /) -> Payload:
        """Returns the payload of the value behind a ref.

        Raises:
            MilepostError: If it is lost, cannot be pickled, or the storage fails.
        """
        if self.find(ref) is None and (payload := self._ask(ref)) is not None:
            self.note(ref, payload)
        return super().store_ref(ref)

    def _ask(self, ref: ray.ObjectRef[Any]) -> Payload | None:
        order = self._order
        if order.dispatcher is None:
            return None
        call = order.dispatcher.store_ref.remote(order.workflow_id, order.incarnation, [ref])
        answer: Payload | MilepostError | None = ray.get(call)
        if isinstance(answer, MilepostError):
            raise answer
        return answer

    def load_ref(self, payload: Payload, source: Source) -> ray.ObjectRef[Any]:
        """Returns a ref to a stored value; of a large one the same for the whole cluster."""
        ref = self._fetch(payload) if payload.digest else None
        if ref is None:
            ref = load_here(payload, source)
        self.note(ref, payload)
        return ref

    def _fetch(self, payload: Payload) -> ray.ObjectRef[Any] | None:
        order = self._order
        if order.dispatcher is None:
            return None
        node = ray.get_runtime_context().get_node_id()
        call = order.dispatcher.load_ref.remote(order.workflow_id, order.incarnation, payload, node)
        box: list[ray.ObjectRef[Any]] = ray.get(call)
        return box[0] if box else None


class RefTable:
    """What a dispatcher knows of the refs of one workflow, as long as that is hosted."""

    def __init__(self) -> None:
        self._known: dict[bytes, Payload] = {}
        self._storing: dict[bytes, asyncio.Task[Payload | MilepostError]] = {}
        self._loaded: dict[bytes, ray.ObjectRef[Any]] = {}

    async def store(
        self, storage: str, state: State, ref: ray.ObjectRef[Any]
    ) -> Payload | MilepostError:
        """Returns the payload of the value behind a ref, or why it has none."""
        key = ref.binary()
        if key in self._known:
            return self._known[key]
        if key not in self._storing:
            self._storing[key] = asyncio.ensure_future(_run_storing(storage, state, ref))
        answer = await asyncio.shield(self._storing[key])
        self._storing.pop(key, None)  # where it failed, the next may have more luck
        if isinstance(answer, Payload) and answer.digest:  # small ones would fill the memory
            self._known[key] = answer
        return answer

    def clear(self) -> None:
        """Lets go all refs: the workflow is not hosted any more."""
        self._known.clear()
        self._loaded.clear()

    def load(self, storage: str, state: State, payload: Payload, node: str) -> Any:
        """Returns a ref to a stored value, which is loaded on ``node`` if it is not yet."""
        ref = self._loaded.get(payload.digest)
        if ref is None:
            ref = self._loaded[payload.digest] = _start_loading(storage, state, payload, node)
            self._known[ref.binary()] = payload
        return ref


async def _run_storing(
    storage: str, state: State, ref: ray.ObjectRef[Any]
) -> Payload | MilepostError:
    remote = _store_value.options(**_options_of(state))
    answer: Payload | MilepostError = await remote.remote(
        storage, state.workflow_id, state.incarnation, [ref]
    )
    return answer


def _start_loading(storage: str, state: State, payload: Payload, node: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=True)
    remote = _load_value.options(**_options_of(state), scheduling_strategy=there)
    return remote.remote(storage, state.workflow_id, state.incarnation, payload)


def _options_of(state: State) -> dict[str, Any]:
    """Values are pickled and unpickled where the modules of their classes are."""
    runtime_env = build_runtime_env(read_environment(state), None)
    return {} if runtime_env is None else {"runtime_env": runtime_env}


@ray.remote(num_cpus=0)
def _store_value(
    storage: str, workflow_id: str, incarnation: int, box: list[ray.ObjectRef[Any]]
) -> Payload | MilepostError:
    try:
        return serialize(ray.get(box[0]), BlobWriter(storage, workflow_id, incarnation))
    except MilepostError as error:
        return error


@ray.remote(num_cpus=0, max_retries=-1)
def _load_value(storage: str, workflow_id: str, incarnation: int, payload: Payload) -> Any:
    return deserialize(payload, StoredSource(storage, workflow_id, incarnation))
