"""The items of a map: one node of width n, whose items are scheduled, run and committed in ranges.

A :class:`MapState` holds what there is per range, and per item only what is rare: an item that was
tried more than once. So a map of a million items takes as much memory as its slices under way and
its results. It is changed by :mod:`milepost.replay.fold_items` and by nothing else.

An item is fresh (never scheduled; all behind the first fresh one are), under way in a slice,
requeued, suspect (its worker died with it and others; all that were lost together know how many
they were), failed for good, or done.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import msgpack

from milepost.replay.columns import (
    expect_fields,
    expect_payload,
    pack_integers,
    pack_payload,
    unpack_integers,
)
from milepost.replay.events import TaskError
from milepost.replay.fragment import ChunkItems, MapSpec
from milepost.replay.payload import Encoding, Payload, inline
from milepost.replay.ranges import Ranges

Run: TypeAlias = tuple[int, int, int]
"""Items from the first to below the second, all in the attempt of this number."""


@dataclass(slots=True)
class ItemSlice:
    """Items of one map handed to one worker.

    Attributes:
        option: Their scheduling class.
        task: The map.
        outstanding: The items that have neither committed nor failed yet.
        suspects: If they are suspect, with how many they were lost together; else 0.
    """

    option: int
    task: int
    outstanding: Ranges
    suspects: int


class MapState:
    """Where the items of one map stand.

    Attributes:
        spec: What is mapped.
        catches: Whether the value of each item is a pair of result and exception.
        fresh: The first item that was never scheduled; none behind it was.
        requeued: Items to be scheduled again.
        suspects: Ranges of suspect items, with how many items were lost together.
        attempts: For items below ``fresh`` whose present attempt is not the first, its number.
        failures: For items that failed since the last resume, how often.
        failed: The errors of items that failed for good.
        delayed: Items whose next attempt is not due yet; with 1 if they are suspect, else 0.
        under_way: How many items are in slices.
        done: How many items have their value.
    """

    __slots__ = (
        "_chunk_payloads",
        "_chunk_starts",
        "_chunk_stops",
        "_stored_stops",
        "attempts",
        "catches",
        "delayed",
        "done",
        "failed",
        "failures",
        "fresh",
        "requeued",
        "spec",
        "suspects",
        "under_way",
    )

    def __init__(self, spec: MapSpec, catches: bool) -> None:
        self.spec: MapSpec = spec
        self.catches: bool = catches
        self.fresh: int = 0
        self.requeued: Ranges = Ranges()
        self.suspects: list[Run] = []
        self.attempts: dict[int, int] = {}
        self.failures: dict[int, int] = {}
        self.failed: dict[int, TaskError] = {}
        self.delayed: dict[int, int] = {}
        self.under_way: int = 0
        self.done: int = 0
        self._chunk_starts: array[int] = array("q")
        self._chunk_stops: array[int] = array("q")
        self._chunk_payloads: list[Payload] = []
        counts = spec.items.counts if isinstance(spec.items, ChunkItems) else ()
        self._stored_stops: array[int] = array("q", accumulate(counts))

    @property
    def width(self) -> int:
        """How many items there are."""
        return self.spec.width

    @property
    def pending(self) -> int:
        """How many items can be scheduled."""
        return self.width - self.done - self.under_way - len(self.failed) - len(self.delayed)

    def present_attempt(self, item: int) -> int:
        """Returns how many attempts of ``item`` were scheduled and not handed back."""
        return self.attempts.get(item, 1) if item < self.fresh else 0

    def is_pending(self, start: int, stop: int) -> bool:
        """Tells whether these items can be scheduled as one run; fresh ones only in order."""
        if start >= self.fresh:
            return start == self.fresh and stop <= self.width
        if self.requeued.covers(start, stop):
            return True
        return any(first <= start and stop <= last for first, last, _ in self.suspects)

    def list_runs(self, start: int, stop: int) -> Iterator[Run]:
        """Cuts pending items into runs of one next attempt each."""
        if start >= self.fresh or not self.attempts:
            yield start, stop, 1 + (start < self.fresh)
            return
        at = start
        while at < stop:
            first, attempt = at, self.present_attempt(at) + 1
            while at < stop and self.present_attempt(at) + 1 == attempt:
                at += 1
            yield first, at, attempt

    def take(self, start: int, stop: int, attempt: int) -> int:
        """Takes pending items out; returns with how many they were lost together, or 0."""
        self.under_way += stop - start
        suspects = 0
        if start == self.fresh:
            self.fresh = stop
        elif self.requeued.covers(start, stop):
            self.requeued.remove(start, stop)
        else:
            suspects = self._take_suspects(start, stop)
        if attempt != 1:
            self.attempts.update(dict.fromkeys(range(start, stop), attempt))
        elif self.attempts:
            self._forget(self.attempts, start, stop)
        return suspects

    def _take_suspects(self, start: int, stop: int) -> int:
        at = next(
            at
            for at, (first, last, _) in enumerate(self.suspects)
            if first <= start and stop <= last
        )
        first, last, together = self.suspects[at]
        kept = [(first, start, together), (stop, last, together)]
        self.suspects[at : at + 1] = [each for each in kept if each[0] < each[1]]
        return together

    def put_back(self, start: int, stop: int, suspects: int) -> None:
        """Lets items that were under way be scheduled again, as suspects if so many were lost."""
        self.under_way -= stop - start
        if suspects:
            self.suspects.append((start, stop, suspects))
        else:
            self.requeued.add(start, stop)

    def put_off(self, item: int, suspects: int) -> None:
        """Lets an item that was under way be scheduled again later."""
        self.under_way -= 1
        self.delayed[item] = suspects

    def take_due(self, item: int) -> None:
        """Lets an item that was put off be scheduled again."""
        self.under_way += 1
        self.put_back(item, item + 1, self.delayed.pop(item))

    def commit(self, start: int, stop: int, payload: Payload) -> None:
        """Gives items that were under way their values."""
        at = bisect_left(self._chunk_starts, start)
        self._chunk_starts.insert(at, start)
        self._chunk_stops.insert(at, stop)
        self._chunk_payloads.insert(at, payload)
        self.under_way -= stop - start
        self.done += stop - start
        for notes in (self.attempts, self.failures):
            if notes:
                self._forget(notes, start, stop)

    def _forget(self, notes: dict[int, int], start: int, stop: int) -> None:
        if len(notes) < stop - start:
            for item in [each for each in notes if start <= each < stop]:
                del notes[item]
        else:
            for item in range(start, stop):
                notes.pop(item, None)

    def revive(self) -> None:
        """Gives what failed for good a fresh start; attempt numbers go on."""
        for item in self.failed:
            self.requeued.add(item, item + 1)
        self.failed.clear()
        self.failures.clear()

    def chunks(self) -> Iterator[tuple[int, int, Payload]]:
        """Yields the committed ranges in order, each with the payload of its values."""
        return zip(self._chunk_starts, self._chunk_stops, self._chunk_payloads, strict=True)

    def find_chunks(self, start: int, stop: int) -> list[tuple[int, int, Payload]]:
        """Returns the committed ranges that hold some of these items, which all are committed."""
        first = bisect_left(self._chunk_stops, start + 1)
        last = bisect_left(self._chunk_starts, stop, first)
        rows = zip(
            self._chunk_starts[first:last],
            self._chunk_stops[first:last],
            self._chunk_payloads[first:last],
            strict=True,
        )
        return list(rows)

    def find_stored(self, low: int, high: int) -> list[tuple[int, int, Payload]]:
        """Returns the chunks that hold some of these values, of what the map is over."""
        assert isinstance(self.spec.items, ChunkItems), self.spec
        stops, counts = self._stored_stops, self.spec.items.counts
        first = bisect_right(stops, low)
        last = bisect_left(stops, high, first) + 1
        return [
            (stops[at] - counts[at], stops[at], self.spec.items.payloads[at])
            for at in range(first, min(last, len(stops)))
        ]


def pack_mapped(task: int, caught: bool) -> Payload:
    """Returns the value of the map ``task``, by reference; ``caught``: the pair of it and None."""
    content: bytes = msgpack.packb([task, caught])
    return inline(Encoding.MAPPED.value, content)


def unpack_mapped(payload: Payload) -> tuple[int, bool]:
    """Reads what :func:`pack_mapped` wrote."""
    task, caught = msgpack.unpackb(payload.data)
    return task, caught


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """The value of a map on its way to whoever reads it.

    Attributes:
        counts: How many values each chunk holds.
        payloads: The chunks.
        task: The map whose value it is, or None if it is no map's of the present workflow.
        caught: Whether the value is the pair of this and None.
    """

    counts: tuple[int, ...]
    payloads: tuple[Payload, ...]
    task: int | None = None
    caught: bool = False


def pack_chunks(chunks: Chunks) -> bytes:
    """Returns the content of a payload of encoding CHUNKED."""
    packed: bytes = msgpack.packb(
        [
            pack_integers(chunks.counts),
            [pack_payload(each) for each in chunks.payloads],
            chunks.task,
            chunks.caught,
        ],
        use_bin_type=True,
    )
    return packed


def unpack_chunks(data: bytes) -> Chunks:
    """Reads what :func:`pack_chunks` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    counts, payloads, task, caught = expect_fields(
        msgpack.unpackb(data, raw=False), object, list, object, bool
    )
    if task is not None and type(task) is not int:
        raise ValueError("a map is no number")
    chunks = Chunks(
        counts=unpack_integers(counts),
        payloads=tuple(map(expect_payload, payloads)),
        task=task,
        caught=caught,
    )
    if len(chunks.counts) != len(chunks.payloads) or min(chunks.counts, default=1) < 1:
        raise ValueError("the counts do not fit the chunks")
    return chunks


def unpack_listed(data: bytes) -> list[Payload]:
    """Reads a payload of encoding LISTED: the values of a chunk, one payload each.

    Raises:
        ValueError: If it is not such a value.
    """
    packed: Any = msgpack.unpackb(data, raw=False)
    if type(packed) is not list:
        raise ValueError("not a list of payloads")
    return [expect_payload(each) for each in packed]


def pack_listed(payloads: list[Payload]) -> bytes:
    """Returns the content of a payload of encoding LISTED."""
    packed: bytes = msgpack.packb([pack_payload(each) for each in payloads], use_bin_type=True)
    return packed
