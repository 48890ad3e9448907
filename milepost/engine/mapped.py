"""The value of a map: a sequence whose parts are loaded when they are looked at.

It holds where its chunks are, not what is in them: those of a million items are a few hundred
references, or the small values themselves, still serialized. It is pickled as that, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol, TypeAlias, overload

from milepost.errors import CorruptBlobError
from milepost.replay.mapping import Chunks, pack_chunks, unpack_listed
from milepost.replay.payload import Encoding, Payload

Location: TypeAlias = tuple[str, str, int]
"""Where blobs are: the store's name without credentials, the workflow, its incarnation."""

NOWHERE: Location = ("", "", 0)

REPR_ITEMS_MAX = 6
"""Of the values, so many are shown."""


class Reader(Protocol):
    """Reads the blobs of one workflow; its attribute ``location``, if any, tells where they are."""

    def read_blob(self, payload: Payload) -> memoryview:
        """Returns the content of a blob, checked against its digest."""


class MapResult(Sequence[Any]):
    """The values of a map, in the order of its items.

    Behaves like a list that cannot be changed: it has a length, can be indexed and sliced (a slice
    is a list), iterated, and compared with lists. Iterating loads one chunk after the other, so the
    whole need not fit into memory. Every look at a value may load it anew: do not rely on two looks
    giving the same object.

    Example:
        >>> squares = milepost.run(milepost.map(square, range(1_000_000)))
        >>> squares[-1], sum(squares[:10])
        (999998000001, 285)
    """

    __slots__ = ("_chunks", "_ends", "_load", "_loaded", "_reader")

    def __init__(self, chunks: Chunks, reader: Reader, load: Callable[[Payload, Any], Any]) -> None:
        """Make a sequence of stored chunks.

        Args:
            chunks: Which they are.
            reader: Reads those that are blobs.
            load: Deserializes a payload, with the reader.
        """
        self._chunks = chunks
        self._reader = reader
        self._load = load
        self._ends = list(accumulate(chunks.counts))
        self._loaded: tuple[int, list[Any]] | None = None

    @property
    def stored(self) -> Chunks:
        """What it refers to."""
        return self._chunks

    @property
    def location(self) -> Location:
        """Where its blobs are."""
        found: Location = getattr(self._reader, "location", NOWHERE)
        return found

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> Any: ...

    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        position = at + len(self) if at < 0 else at
        if not 0 <= position < len(self):
            raise IndexError(f"index {at} of a sequence of {len(self)}")
        number = bisect_right(self._ends, position)
        start = self._ends[number - 1] if number else 0
        return self._open(number)[position - start]

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[list[Any]]:
        """Yields the values as lists, as they were stored: each is loaded when its turn comes."""
        for number in range(len(self._ends)):
            yield self._read(number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | MapResult):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__: None = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:REPR_ITEMS_MAX]))
        more = ", ..." if len(self) > REPR_ITEMS_MAX else ""
        return f"<MapResult of {len(self)}: [{shown}{more}]>"

    def _open(self, number: int) -> list[Any]:
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = number, self._read(number)
        return self._loaded[1]

    def _read(self, number: int) -> list[Any]:
        payload, count = self._chunks.payloads[number], self._chunks.counts[number]
        values: list[Any] = read_chunk(payload, count, self._reader, self._load)
        return values


def read_chunk(
    payload: Payload, count: int, reader: Reader, load: Callable[[Payload, Any], Any]
) -> Any:
    """Returns the values of a chunk: a list, or a table whose rows they are.

    Raises:
        CorruptBlobError: If its blob is missing or damaged, or does not hold so many values.
        StorageUnavailableError: If its blob cannot be read now.
    """
    if payload.encoding == Encoding.CAUGHT:
        values: Any = [load(payload, reader)]
    elif payload.encoding == Encoding.LISTED:
        content = bytes(reader.read_blob(payload)) if payload.digest else payload.data
        values = [load(each, reader) for each in unpack_listed(content)]
    else:
        values = load(payload, reader)
    if len(values) != count:
        raise CorruptBlobError(payload.digest.hex(), f"it holds {len(values)} values, not {count}")
    return values


def seal_chunks(result: MapResult) -> tuple[Location | None, bytes]:
    """Returns what a sequence is made of: where its blobs are, if it has some, and its content."""
    chunks = result.stored
    has_blobs = any(_has_blob(payload) for payload in chunks.payloads)
    return (result.location if has_blobs else None), pack_chunks(chunks)


def _has_blob(payload: Payload) -> bool:
    if payload.digest:
        return True
    if payload.encoding != Encoding.LISTED:
        return payload.encoding == Encoding.CAUGHT  # its exception may be one
    return any(each.digest for each in unpack_listed(payload.data))
