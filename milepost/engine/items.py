"""What a map is over: values on their way into a journal, and out of it to whoever runs an item.

The integers of a ``range`` are counted, not stored. Other values are stored in chunks: a worker
gets those that its items are in, and no others.
"""

from __future__ import annotations

import pickle
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

import pyarrow as pa
import ray

from milepost.engine.mapped import MapResult, Reader, read_chunk
from milepost.engine.messages import ItemChunk
from milepost.engine.payloads import BlobCollector, Sink, deserialize, fetch, is_at_home, serialize
from milepost.errors import InvalidGraphError, NotSerializableError
from milepost.replay.fragment import ChunkItems, Items, RangeItems, ResultItems
from milepost.replay.payload import Payload

CHUNK_BYTES = 256 * 1024
"""About so many has a chunk: a worker loads a few at most for the items of a slice."""

CHUNK_VALUES_MAX = 65_536
PROBE_VALUES = 16
"""So many values are in the first chunk, which tells how large they are."""

Cut: TypeAlias = tuple[int, Payload]
"""How many values a chunk holds, and the chunk."""


def store_items(items: Any, chunk_size: int, sink: Sink) -> tuple[int, Items]:
    """Stores what a map is over.

    Args:
        items: A range, a table or record batch (its rows), any iterable, or a ref to one.
        chunk_size: How many values make an item, 0 if each is one; chunks hold whole items.
        sink: Takes what is too large to stand in an event.

    Returns:
        How many values there are, and where they are. An iterator is drained, chunk by chunk.

    Raises:
        InvalidGraphError: If ``items`` is not something to iterate over.
        NotSerializableError: If a value cannot be pickled.
    """
    if isinstance(items, ray.ObjectRef):
        items = fetch(items)
    if isinstance(items, range):
        return len(items), RangeItems(first=items.start, step=items.step)
    if isinstance(items, MapResult) and is_at_home(items) and items.stored.task is not None:
        return len(items), ResultItems(task=items.stored.task)
    unit = max(1, chunk_size)
    if isinstance(items, pa.Table | pa.RecordBatch):
        cuts = _cut_table(items, unit, sink)
    else:
        cuts = _cut_values(require_iterable(items), unit, sink)
    counts: list[int] = []
    payloads: list[Payload] = []
    for count, payload in cuts:
        counts.append(count)
        payloads.append(payload)
    return sum(counts), ChunkItems(counts=tuple(counts), payloads=tuple(payloads))


def iterate_items(items: Any, chunk_size: int) -> Iterator[Any]:
    """Yields items as the function of a map gets them, with nothing stored."""
    if isinstance(items, ray.ObjectRef):
        items = ray.get(items)
    if isinstance(items, pa.Table | pa.RecordBatch):
        if chunk_size:
            yield from (items.slice(at, chunk_size) for at in range(0, len(items), chunk_size))
            return
        items = items.to_pylist()
    if not chunk_size:
        yield from items
        return
    rest = iter(items)
    while chunk := list(islice(rest, chunk_size)):
        yield chunk


def require_iterable(items: Any) -> Iterable[Any]:
    """Returns ``items``, if a map can be over them.

    Raises:
        InvalidGraphError: If not; the text says what to pass.
    """
    kind = type(items).__name__
    if isinstance(items, str | bytes | bytearray | memoryview):
        raise InvalidGraphError(
            f"map() takes items to iterate over, not one {kind}; put it in a list"
        )
    if isinstance(items, Mapping):
        raise InvalidGraphError(
            f"map() over a {kind} is ambiguous; pass list(d.items()) or list(d)"
        )
    if isinstance(items, AsyncIterator) or hasattr(items, "__aiter__"):
        raise InvalidGraphError(f"map() cannot drain the asynchronous {kind}; pass a list")
    if not isinstance(items, Iterable) and not hasattr(items, "__getitem__"):
        raise InvalidGraphError(
            f"map() takes items to iterate over (a list, range, generator, Arrow table, ObjectRef, "
            f"or a task that returns one of these), not an object of type {kind}"
        )
    found: Iterable[Any] = items
    return found


def _cut_values(values: Iterable[Any], unit: int, sink: Sink) -> Iterator[Cut]:
    """Cuts values into chunks of about ``CHUNK_BYTES``, by what the chunk before took."""
    rest = iter(values)
    count = _round_up(PROBE_VALUES, unit)
    while chunk := list(islice(rest, count)):
        for stored, payload in _store_chunk(chunk, unit, sink):
            yield stored, payload
            fitting = CHUNK_BYTES * stored // max(1, payload.size)
            count = _round_up(min(fitting, CHUNK_VALUES_MAX, 16 * count), unit)


def _store_chunk(chunk: list[Any], unit: int, sink: Sink) -> Iterator[Cut]:
    """Stores values together; in halves, if they turn out to be much larger than those before."""
    held = BlobCollector()
    payload = _serialize(chunk, held)
    middle = _round_up(len(chunk) // 2, unit)
    if payload.size > 4 * CHUNK_BYTES and middle < len(chunk):
        yield from _store_chunk(chunk[:middle], unit, sink)
        yield from _store_chunk(chunk[middle:], unit, sink)
        return
    for content in held.blobs.values():
        sink([content])
    yield len(chunk), payload


def _serialize(chunk: list[Any], sink: Sink) -> Payload:
    try:
        return serialize(chunk, sink)
    except NotSerializableError as error:
        raise NotSerializableError(f"items of a map: {error}") from error


def _cut_table(table: pa.Table | pa.RecordBatch, unit: int, sink: Sink) -> Iterator[Cut]:
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    rows = _round_up(min(4 * CHUNK_BYTES // row_bytes, CHUNK_VALUES_MAX), unit)
    for start in range(0, table.num_rows, rows):
        part = table.slice(start, rows)
        yield part.num_rows, serialize(_StoredTable(part), sink)


class _StoredTable:
    """Pickles as the rows of a table: a slice of one would take along the whole."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __reduce__(self) -> Any:
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, self._table.schema) as writer:
            writer.write_table(self._table)
        return _restore_table, (pickle.PickleBuffer(stream.getvalue()),)


def _restore_table(content: Any) -> pa.Table:
    """Pickles in journals name this function: it keeps its name and arguments for ever."""
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()


def _round_up(count: int, unit: int) -> int:
    return max(1, -(-count // unit)) * unit


class ItemReader:
    """Gives the items of one order, each to be used once: a second look loads it anew."""

    def __init__(
        self,
        length: int,
        chunk_size: int,
        items: RangeItems | tuple[ItemChunk, ...],
        reader: Reader,
    ) -> None:
        """Prepare to give items.

        Args:
            length: How many values the map is over.
            chunk_size: How many values make an item, 0 if each is one.
            items: The values that the items of the order need.
            reader: Reads blobs.
        """
        self._length = length
        self._chunk_size = chunk_size
        self._items = items
        self._reader = reader
        self._starts = [] if isinstance(items, RangeItems) else [each.start for each in items]
        self._loaded = -1
        self._values: Any = None
        self._used: set[int] = set()

    def item(self, number: int) -> Any:
        """Returns an item: a value, a row as a dict, or a list or table of so many of them.

        Raises:
            CorruptBlobError: If its chunk is missing or damaged.
            StorageUnavailableError: If its chunk cannot be read now.
            Exception: Whatever unpickling a user's value raises.
        """
        if not self._chunk_size:
            return self._value(number)
        low = number * self._chunk_size
        high = min(low + self._chunk_size, self._length)
        if isinstance(self._items, RangeItems):
            return [self._count(at, self._items) for at in range(low, high)]
        return self._gather(low, high)

    def _count(self, at: int, items: RangeItems) -> int:
        return items.first + at * items.step

    def _value(self, at: int) -> Any:
        if isinstance(self._items, RangeItems):
            return self._count(at, self._items)
        values, start = self._load(at), self._items[self._loaded].start
        self._used.add(at)
        return values[at - start]

    def _gather(self, low: int, high: int) -> Any:
        parts: list[Any] = []
        at = low
        while at < high:
            values = self._load(at, as_rows=False)
            assert not isinstance(self._items, RangeItems)
            chunk = self._items[self._loaded]
            end = min(high, chunk.stop)
            if isinstance(values, pa.Table):
                parts.append(values.slice(at - chunk.start, end - at))
            else:
                parts.append(values[at - chunk.start : end - chunk.start])
                self._used.update(range(at, end))
            at = end
        if isinstance(parts[0], pa.Table):
            return pa.concat_tables(parts)
        return [value for part in parts for value in part]

    def _load(self, at: int, *, as_rows: bool = True) -> Any:
        """Returns the values of the chunk that holds value ``at``, which was not given out yet."""
        assert not isinstance(self._items, RangeItems)
        number = bisect_right(self._starts, at) - 1
        if number != self._loaded or at in self._used:
            chunk = self._items[number]
            count = chunk.stop - chunk.start
            values = read_chunk(chunk.payload, count, self._reader, deserialize)
            self._values = (
                values.to_pylist() if as_rows and isinstance(values, pa.Table) else values
            )
            self._loaded = number
            self._used.clear()
        return self._values
