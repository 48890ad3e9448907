"""Values to bytes and back: the only place that pickles and unpickles what users wrote.

Plain data become msgpack and can be read by any tool. Everything else is pickled by value where
needed (cloudpickle, protocol 5), its large buffers out of band, so that a blob can be mapped and
used without a copy. Two kinds of object are replaced on the way: an ``ObjectRef`` is stored by the
value behind it and comes back as a new ref; a task node becomes a reference to the task's value.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol

import cloudpickle
import ray
from ray.actor import ActorHandle
from ray.dag import DAGNode
from ray.exceptions import RayError

from milepost.engine.mapped import MapResult
from milepost.errors import (
    MilepostError,
    NodeLostError,
    NotSerializableError,
    TaskCrashedError,
    TaskOutOfMemoryError,
    TaskRaisedError,
    TaskTimeoutError,
)
from milepost.replay.catching import unpack_caught
from milepost.replay.composing import unpack_tuple
from milepost.replay.events import TaskError
from milepost.replay.mapping import pack_chunks, unpack_chunks
from milepost.replay.payload import Encoding, Payload, inline, pack_plain, unpack_plain

INLINE_BYTES_MAX = 64 * 1024
"""Larger values are blobs: they would make every replay carry their bytes."""

ALIGNMENT = 64
"""What vector instructions want; Arrow and NumPy use it too."""


class Sink(Protocol):
    """Sees to it that what is too large for a payload, or behind a ref, gets stored."""

    def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
        """Takes the parts of a blob; returns their digest and size."""

    def store_ref(self, ref: ray.ObjectRef[Any], /) -> Payload:
        """Returns the payload of the value behind a ref, which is stored once."""


class RefMemo(ABC):
    """A sink that fetches and serializes what is behind a ref once, however often it meets it."""

    def __init__(self) -> None:
        self._payloads: dict[ray.ObjectRef[Any], Payload] = {}

    @abstractmethod
    def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
        """Takes the parts of a blob; returns their digest and size."""

    def store_ref(self, ref: ray.ObjectRef[Any], /) -> Payload:
        """Returns the payload of the value behind a ref.

        Raises:
            NotSerializableError: If it is lost, or cannot be pickled.
        """
        payload = self.find(ref)
        if payload is None:
            payload = serialize(fetch(ref), self)
            self.note(ref, payload)
        return payload

    def find(self, ref: ray.ObjectRef[Any]) -> Payload | None:
        """Returns the payload of a ref that was met before."""
        return self._payloads.get(ref)

    def forget(self) -> None:
        """Lets go the refs it met."""
        self._payloads.clear()

    def note(self, ref: ray.ObjectRef[Any], payload: Payload) -> None:
        """Remembers the payload of a ref."""
        self._payloads[ref] = payload


def fetch(ref: ray.ObjectRef[Any]) -> Any:
    """Returns the value behind a ref.

    Raises:
        NotSerializableError: If it is lost.
    """
    try:
        return ray.get(ref)
    except RayError as error:
        raise NotSerializableError(f"the value of an ObjectRef is lost: {error}") from error


class Source(Protocol):
    """Where the parts of a stored value come from."""

    def read_blob(self, payload: Payload) -> memoryview:
        """Returns the content of a blob, checked against its digest."""

    def load_ref(self, payload: Payload) -> ray.ObjectRef[Any]:
        """Returns a ref to a stored value."""

    def refer(self, position: int) -> ray.ObjectRef[Any]:
        """Returns a ref to the value of the node at ``position`` of the constant being loaded."""


class BlobCollector(RefMemo):
    """A sink that keeps blobs in memory, for those who cannot or should not write them."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[bytes, bytes] = {}

    def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
        """Keeps a blob."""
        content = b"".join(parts)
        digest = hashlib.sha256(content).digest()
        self.blobs[digest] = content
        return digest, len(content)


def _refuse_node(node: DAGNode) -> object:
    raise NotSerializableError(
        f"a task node ({node}) is not a value; return milepost.continuation(node) to go on with it"
    )


def serialize(value: object, sink: Sink) -> Payload:
    """Returns ``value`` as a payload; what is large goes to ``sink``.

    Raises:
        NotSerializableError: If ``value`` or something in it cannot be pickled.
    """
    plain = pack_plain(value)
    if plain is not None:
        return store(Encoding.PLAIN, [plain], sink)
    if isinstance(value, MapResult) and is_at_home(value):
        return store(Encoding.CHUNKED, [pack_chunks(value.stored)], sink)
    return serialize_opaque(value, sink)


home: ContextVar[tuple[str, int] | None] = ContextVar("milepost_home", default=None)
"""The workflow and incarnation for which this thread serializes values, if it runs a task."""


@contextmanager
def away_from_home() -> Iterator[None]:
    """Serializes values for another workflow than the one whose task is running."""
    token = home.set(None)
    try:
        yield
    finally:
        home.reset(token)


def is_at_home(value: MapResult) -> bool:
    """Tells whether the chunks of a sequence are those of the workflow that stores it now."""
    return home.get() is not None and value.location[1:] == home.get()


def serialize_opaque(
    value: object, sink: Sink, number: Callable[[DAGNode], object] = _refuse_node
) -> Payload:
    """Pickles ``value``; ``number`` says what stands for a task node in it.

    Raises:
        NotSerializableError: If ``value`` or something in it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = _Pickler(stream, sink, number, buffers)
    try:
        pickler.dump(value)
    except MilepostError:  # of the sink, or of an object inside; it says itself what is wrong
        raise
    except Exception as error:  # whatever user code raises while it is being pickled
        raise NotSerializableError(
            f"a {type(value).__name__} cannot be stored: {type(error).__name__}: {error}"
        ) from error
    if not buffers:
        return store(Encoding.PICKLE, [stream.getvalue()], sink)
    parts = _lay_out([memoryview(stream.getbuffer()), *(each.raw() for each in buffers)])
    return store(Encoding.BUFFERS, parts, sink)


def store(encoding: Encoding, parts: Sequence[bytes | memoryview], sink: Sink) -> Payload:
    """Returns the payload of serialized ``parts``: inline if small, else through ``sink``."""
    size = sum(len(part) for part in parts)
    if size <= INLINE_BYTES_MAX:
        return inline(encoding.value, parts[0] if len(parts) == 1 else b"".join(parts))  # type: ignore[arg-type]
    digest, size = sink(parts)
    return Payload(encoding=encoding.value, digest=digest, size=size)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(
        self,
        stream: io.BytesIO,
        sink: Sink,
        number: Callable[[DAGNode], object],
        buffers: list[pickle.PickleBuffer],
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=buffers.append)
        self._sink = sink
        self._number = number

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ray.ObjectRef):
            stored = self._sink.store_ref(obj)
            return _restore_ref, (stored.encoding, stored.data, stored.digest, stored.size)
        if type(obj) is MapResult:
            if not is_at_home(obj):
                return list, (list(obj),)  # another workflow's blobs go when it does
            chunks = store(Encoding.CHUNKED, [pack_chunks(obj.stored)], self._sink)
            return _restore_chunks, (chunks.encoding, chunks.data, chunks.digest, chunks.size)
        if isinstance(obj, DAGNode):
            stands_for = self._number(obj)
            return _restore_node, (stands_for,)
        if isinstance(obj, ActorHandle):
            raise NotSerializableError(
                "an actor handle cannot be stored: actors do not outlive Ray"
            )
        return super().reducer_override(obj)


def _lay_out(buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    """Puts a table of lengths in front and aligns every buffer (docs/format.md, "buffers")."""
    table = struct.pack(f"<I{len(buffers)}Q", len(buffers), *(each.nbytes for each in buffers))
    parts: list[bytes | memoryview] = [table, bytes(-len(table) % ALIGNMENT)]
    for each in buffers:
        parts += [each.cast("B"), bytes(-each.nbytes % ALIGNMENT)]
    return parts


_source: ContextVar[Source] = ContextVar("milepost_payload_source")


def deserialize(payload: Payload, source: Source) -> Any:
    """Returns the value of ``payload``; runs code that the value's pickle names.

    Raises:
        CorruptBlobError: If its blob is missing or damaged.
        StorageUnavailableError: If its blob cannot be read now.
        ValueError: If the encoding is not known to this version.
    """
    content = source.read_blob(payload) if payload.digest else memoryview(payload.data)
    if payload.encoding == Encoding.PLAIN:
        return unpack_plain(bytes(content))
    if payload.encoding == Encoding.CAUGHT:
        return None, open_error(*unpack_caught(bytes(content)), source)
    if payload.encoding == Encoding.TUPLE:
        return tuple(deserialize(each, source) for each in unpack_tuple(bytes(content)))
    if payload.encoding == Encoding.CHUNKED:
        chunks = unpack_chunks(bytes(content))
        sequence = MapResult(chunks, source, deserialize)
        return (sequence, None) if chunks.caught else sequence
    token = _source.set(source)
    try:
        if payload.encoding == Encoding.PICKLE:
            return pickle.loads(content)
        if payload.encoding == Encoding.BUFFERS:
            stream, *buffers = _split(content)
            return pickle.loads(stream, buffers=buffers)
    finally:
        _source.reset(token)
    raise ValueError(f"payload encoding {payload.encoding} is not known")


_LOST: dict[str, Callable[[str, str], MilepostError]] = {
    "crash": TaskCrashedError,
    "memory": TaskOutOfMemoryError,
    "node": NodeLostError,
    "timeout": TaskTimeoutError,
}


def open_error(task_id: str, error: TaskError, source: Source) -> BaseException:
    """Returns the exception with which a task failed, or one that stands for it."""
    if error.kind in _LOST:
        return _LOST[error.kind](task_id, error.message)
    if error.exception is not None:
        try:
            cause = deserialize(error.exception, source)
        except Exception as reason:  # noqa: BLE001  its class may be missing here
            return _describe_error(task_id, error, f"{type(reason).__name__}: {reason}")
        if isinstance(cause, BaseException):
            _annotate(cause, task_id, error)
            return cause
    return _describe_error(task_id, error, "it could not be pickled")


def _describe_error(task_id: str, error: TaskError, reason: str) -> TaskRaisedError:
    cause = TaskRaisedError(task_id, error.type, error.message, reason)
    _annotate(cause, task_id, error)
    return cause


def _annotate(cause: BaseException, task_id: str, error: TaskError) -> None:
    with suppress(Exception):  # users' exceptions may be frozen
        cause.add_note(f"raised in task {task_id!r}:\n{error.traceback}")


def _split(content: memoryview) -> list[memoryview]:
    (count,) = struct.unpack_from("<I", content)
    lengths = struct.unpack_from(f"<{count}Q", content, 4)
    position = 4 + 8 * count
    buffers = []
    for length in lengths:
        position += -position % ALIGNMENT
        buffers.append(content[position : position + length].toreadonly())
        position += length
    return buffers


def load_here(payload: Payload, source: Source) -> ray.ObjectRef[Any]:
    """Returns a ref to a stored value that this process loads, and owns."""
    return put_value(deserialize(payload, source))


def put_value(value: Any) -> ray.ObjectRef[Any]:
    """Returns a ref to ``value``, which may be a ref itself: ``ray.put`` refuses those."""
    if not isinstance(value, ray.ObjectRef):
        return ray.put(value)
    held: ray.ObjectRef[Any] = _hold.remote([value])
    return held


@ray.remote(num_cpus=0)
def _hold(box: list[Any]) -> Any:
    return box[0]


# Pickles in journals name these functions: they keep their names and arguments for ever.


def _restore_ref(encoding: int, data: bytes, digest: bytes, size: int) -> ray.ObjectRef[Any]:
    payload = Payload(encoding=encoding, data=data, digest=digest, size=size)
    return _source.get().load_ref(payload)


def _restore_node(position: int) -> ray.ObjectRef[Any]:
    return _source.get().refer(position)


def _restore_chunks(encoding: int, data: bytes, digest: bytes, size: int) -> Any:
    payload = Payload(encoding=encoding, data=data, digest=digest, size=size)
    return deserialize(payload, _source.get())
