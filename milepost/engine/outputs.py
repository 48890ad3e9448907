"""Results on their way to callers: opened where they arrive, never on the way.

An actor of the engine hands out a :class:`SealedOutput`; unpickling it, in the caller's process and
environment, gives the user's value. A :class:`~milepost.errors.WorkflowExecutionError` likewise
carries the user's own exception as bytes until it arrives, where it becomes the ``__cause__``.

Both bring along what opens the store, which may hold credentials. What a user's program holds in
its hands, and may store, never does: there only the store's name is left.
"""

from __future__ import annotations

import copyreg
from dataclasses import replace
from typing import Any, TypeAlias

import ray

from milepost.engine.mapped import NOWHERE, MapResult, seal_chunks
from milepost.engine.mapped import Location as SourceLocation
from milepost.engine.payloads import (
    BlobCollector,
    deserialize,
    load_here,
    open_error,
    serialize_opaque,
)
from milepost.errors import MilepostError, WorkflowExecutionError
from milepost.journal import Location, Store, map_blob, open_store
from milepost.replay.catching import name_item
from milepost.replay.events import TaskError
from milepost.replay.mapping import unpack_chunks
from milepost.replay.payload import Payload
from milepost.replay.state import State


class SealedOutput:
    """A stored value that becomes the user's value when it is unpickled."""

    def __init__(self, storage: str, workflow_id: str, incarnation: int, payload: Payload) -> None:
        self._parts = (storage, workflow_id, incarnation, payload)

    def __reduce__(self) -> Any:
        return _open_output, self._parts


def _open_output(storage: str, workflow_id: str, incarnation: int, payload: Payload) -> Any:
    return deserialize(payload, StoredSource(storage, workflow_id, incarnation))


class StoredSource:
    """Reads blobs of one workflow from its storage."""

    def __init__(self, storage: str, workflow_id: str, incarnation: int) -> None:
        self._storage = storage
        self._workflow_id = workflow_id
        self._incarnation = incarnation

    @property
    def location(self) -> SourceLocation:
        """Where the blobs are, without credentials."""
        name = open_known(self._storage).uri if self._storage else ""
        return name, self._workflow_id, self._incarnation

    def read_blob(self, payload: Payload) -> memoryview:
        """Returns the content of a blob.

        Raises:
            CorruptBlobError: If it is missing or damaged.
            StorageUnavailableError: If it cannot be read now.
        """
        store = open_known(self._storage)
        return map_blob(store, self._workflow_id, self._incarnation, payload.digest.hex())

    def load_ref(self, payload: Payload) -> ray.ObjectRef[Any]:
        """Returns a ref that this process owns."""
        return load_here(payload, self)

    def refer(self, position: int) -> ray.ObjectRef[Any]:
        """Raises ValueError: a result holds no references to nodes."""
        raise ValueError(f"a result refers to node {position}")


_stores: dict[str, Store] = {}
"""The stores that this process reads; each also by the name that holds no credentials."""


def open_known(uri: str) -> Store:
    """Opens a store once per process.

    Args:
        uri: What opens it, or its name without credentials if it was opened here before.

    Raises:
        StorageUriError: If it cannot be opened.
    """
    store = _stores.get(uri)
    if store is None:
        store = _stores[uri] = open_store(uri, create=False)
        _stores.setdefault(store.uri, store)
    return store


SealedCause: TypeAlias = tuple[str, str, int, TaskError]
"""Storage, workflow and incarnation where the blobs of an error are, and the error."""


def describe_failure(storage: str, state: State, task: int) -> WorkflowExecutionError:
    """Returns the error of a failed task; its cause is attached where it is unpickled."""
    error = state.failed[task]
    failure = WorkflowExecutionError(
        state.workflow_id, _name_culprit(state, task), error.type, error.message
    )
    failure.__dict__["_sealed_cause"] = (storage, state.workflow_id, state.incarnation, error)
    return failure


def _name_culprit(state: State, task: int) -> str:
    if task in state.maps:
        return name_item(state, task, next(iter(state.maps[task].failed)))
    return state.graph.task_id(task)


def _reduce_sequence(sequence: MapResult) -> Any:
    """Sequences travel as references, by Ray and in users' own pickles."""
    location, content = seal_chunks(sequence)
    return _open_sequence, (location, content)


def _open_sequence(location: SourceLocation | None, content: bytes) -> MapResult:
    source = StoredSource(*(location or NOWHERE))
    return MapResult(unpack_chunks(content), source, deserialize)


copyreg.pickle(MapResult, _reduce_sequence)


def _reduce_failure(failure: WorkflowExecutionError) -> Any:
    sealed = failure.__dict__.get("_sealed_cause")
    if sealed is None and failure.__cause__ is not None:
        sealed = _seal_cause(failure)
    return _restore_failure, (type(failure), failure.args, sealed)


def _seal_cause(failure: WorkflowExecutionError) -> SealedCause | None:
    """Takes along the cause of an error that is sent on by a user's own program."""
    blobs = BlobCollector()
    try:
        exception = serialize_opaque(failure.__cause__, blobs)
    except MilepostError:
        return None
    if exception.digest:  # no storage comes along
        exception = replace(exception, data=blobs.blobs[exception.digest], digest=b"")
    error = TaskError(
        kind="exception",
        type=failure.error_type,
        message=failure.message,
        traceback="",
        exception=exception,
    )
    return "", failure.workflow_id, 0, error


def _restore_failure(
    kind: type[WorkflowExecutionError], args: tuple[Any, ...], sealed: SealedCause | None
) -> WorkflowExecutionError:
    failure = kind(*args)
    if sealed is not None:
        storage, *rest = sealed
        failure.__cause__ = open_error(failure.task_id, sealed[3], StoredSource(*sealed[:3]))
        failure.__dict__["_sealed_cause"] = (str(Location(storage)), *rest)
    return failure


copyreg.pickle(WorkflowExecutionError, _reduce_failure)
