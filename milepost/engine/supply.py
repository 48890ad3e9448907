"""What the tasks of a slice take, and what they leave: inputs, constants, blobs, failures.

Both kinds of slices, of tasks and of items, get their arguments and describe their failures here,
in the worker process that runs them.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any

import ray

from milepost.engine.arguments import CONSTANT, REF
from milepost.engine.mapped import Location
from milepost.engine.messages import ItemOrder, SliceOrder
from milepost.engine.outputs import open_known
from milepost.engine.payloads import deserialize, put_value, serialize_opaque
from milepost.engine.references import WorkerSink
from milepost.errors import InvalidGraphError, MilepostError, StorageUnavailableError
from milepost.journal import map_blob
from milepost.replay.events import TaskError
from milepost.replay.fragment import Constant
from milepost.replay.payload import Payload

TEXT_CHARS_MAX = 20_000
"""Of an error's message and traceback; the whole exception is kept beside them."""


@cache
def describe_worker() -> str:
    """Returns the name of this process in journals."""
    return f"{ray.get_runtime_context().get_node_id()[:12]}:{os.getpid()}"


class Supply:
    """What one slice takes. Also the source of stored values for its tasks.

    Attributes:
        sink: Takes blobs and refs of this workflow.
        worker: The name of this process, for journals.
    """

    def __init__(
        self, order: SliceOrder | ItemOrder, refs: list[ray.ObjectRef[Any]], objects: Sequence[Any]
    ) -> None:
        """Prepare to hand out.

        Args:
            order: What was ordered.
            refs: Refs to the inputs that are Ray objects, as ``order.refs`` numbers them.
            objects: The values of ``refs``, fetched by Ray before the task started.
        """
        self.sink: WorkerSink = WorkerSink(order)
        self.worker: str = describe_worker()
        self._supplies = order
        self._refs = refs
        self._fresh = dict(enumerate(objects))
        self._made_refs: dict[int, ray.ObjectRef[Any]] = {}

    def close(self) -> None:
        """Lets go what it was given: an error's frames may hold it, in a process that idles."""
        self.sink.forget()
        self._refs = []
        self._fresh.clear()
        self._made_refs.clear()

    def resolve(self, inputs: Sequence[int], first_constant: int, kind: int, position: int) -> Any:
        """Returns what a mark in a template stands for."""
        if kind == CONSTANT:
            constant = self._supplies.constants[first_constant + position]
            return deserialize(constant.payload, _ConstantSource(self, constant))
        node = inputs[position]
        return self.make_ref(node) if kind == REF else self.read_value(node)

    def read_value(self, node: int) -> Any:
        """Returns a value that no other task of the slice shares."""
        if node not in self._supplies.refs:
            return deserialize(self._supplies.values[node], self)
        at = self._supplies.refs[node]
        return self._fresh.pop(at) if at in self._fresh else ray.get(self._refs[at])

    def make_ref(self, node: int) -> ray.ObjectRef[Any]:
        """Returns a ref to the value of ``node``; the same one for all tasks of the slice."""
        if node in self._supplies.refs:
            return self._refs[self._supplies.refs[node]]
        if node not in self._made_refs:
            self._made_refs[node] = put_value(self.read_value(node))
        return self._made_refs[node]

    @property
    def location(self) -> Location:
        """Where the blobs of the workflow are, without credentials."""
        order = self._supplies
        return open_known(order.storage).uri, order.workflow_id, order.incarnation

    def read_blob(self, payload: Payload) -> memoryview:
        """Returns the content of a blob of this workflow."""
        order = self._supplies
        store = open_known(order.storage)
        return map_blob(store, order.workflow_id, order.incarnation, payload.digest.hex())

    def load_ref(self, payload: Payload) -> ray.ObjectRef[Any]:
        """Returns a ref to a stored value; the same one for the whole cluster."""
        return self.sink.load_ref(payload, self)

    def refer(self, position: int) -> ray.ObjectRef[Any]:
        """Only constants hold references to nodes."""
        raise ValueError(f"a stored value refers to node {position} without being a constant")

    def describe_error(self, error: BaseException, frames_above: int = 2) -> TaskError:
        """Returns what a user's function raised, as data.

        Args:
            error: What it raised.
            frames_above: How many frames of the engine are above the function.
        """
        frames = error.__traceback__
        for _ in range(frames_above):
            frames = frames.tb_next if frames and frames.tb_next else frames
        text = "".join(traceback.format_exception(type(error), error, frames))
        try:
            exception = serialize_opaque(error, self.sink)
        except MilepostError:
            exception = None  # type, message and traceback must do
        return TaskError(
            kind="exception",
            type=f"{type(error).__module__}.{type(error).__qualname__}",
            message=_text_of(error)[:TEXT_CHARS_MAX],
            traceback=_storable(text)[-TEXT_CHARS_MAX:],
            exception=exception,
        )

    def is_retryable(self, error: BaseException) -> bool:
        """Tells whether what was raised is worth another attempt."""
        if isinstance(error, StorageUnavailableError):
            return True
        if isinstance(error, InvalidGraphError):
            return False
        try:
            policy = deserialize(self._supplies.retry_errors, self)
        except Exception:  # noqa: BLE001  a type that cannot be loaded is none that was raised
            return False
        return isinstance(error, policy) if isinstance(policy, tuple) else bool(policy)


def ends_worker(error: BaseException) -> bool:
    """Tells whether Ray raised this in the task: it cancels it, or this process has to end."""
    return isinstance(error, KeyboardInterrupt) or hasattr(error, "ray_terminate_msg")


def _text_of(error: BaseException) -> str:
    try:
        return _storable(str(error))
    except Exception:  # noqa: BLE001  the user's __str__ may raise, too
        return "(its text cannot be made)"


def _storable(text: str) -> str:
    """Journals hold UTF-8, texts of exceptions may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _ConstantSource:
    """Reads a constant: as its slice does, and knows the nodes inside the constant."""

    def __init__(self, supply: Supply, constant: Constant) -> None:
        self._supply = supply
        self._constant = constant

    @property
    def location(self) -> Location:
        return self._supply.location

    def read_blob(self, payload: Payload) -> memoryview:
        return self._supply.read_blob(payload)

    def load_ref(self, payload: Payload) -> ray.ObjectRef[Any]:
        return self._supply.load_ref(payload)

    def refer(self, position: int) -> ray.ObjectRef[Any]:
        return self._supply.make_ref(self._constant.nodes[position])
