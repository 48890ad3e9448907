"""How long it takes to read a journal of 100,000 events, before and after it is compacted.

Run: ``python benchmarks/journal_read.py``. Prints a table; each figure is the best of five.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack

from milepost.journal import (
    Compactor,
    JournalWriter,
    LocalStore,
    MemoryStore,
    Store,
    open_store,
    read_backward,
    read_journal,
    take_ownership,
)

ROUNDS = 5

SEGMENTS = 250


def write(store: Store, events: int, batch: int, segment_events: int) -> JournalWriter:
    """Write a journal in frames of ``batch`` and segments of ``segment_events`` events."""
    writer = take_ownership(store, "w", owner="benchmark")
    for first in range(0, events, batch):
        if first and first % segment_events == 0:
            writer.seal()
        writer.flush([make_event(number) for number in range(first, min(first + batch, events))])
    return writer


def make_event(number: int) -> bytes:
    """Make an event like the commit of a small result."""
    event: bytes = msgpack.packb([4, 1, [number, 1, number * 7, 1_700_000_000_000 + number, 250]])
    return event


def measure(action: Callable[[], int]) -> tuple[float, int]:
    """Give the best time of some rounds in seconds, and the last result."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = action()
        times.append(time.perf_counter() - start)
    return min(times), result


def report(label: str, store: Store) -> None:
    """Print one line of the table."""
    frames_s, frames = measure(lambda: sum(1 for _ in read_journal(store, "w")))
    events_s, events = measure(
        lambda: sum(len(frame.events()) for frame in read_journal(store, "w"))
    )
    end_s, _ = measure(lambda: len(next(read_backward(store, "w"))))
    objects = [*store.list("workflows/w/segments/"), *store.list("workflows/w/compacted/")]
    size = sum(each.size for each in objects)
    print(
        f"{label:<34}{len(objects):>8}{size / 1e6:>8.2f}{frames:>9}{frames_s:>10.3f}"
        f"{events:>9}{events_s:>10.3f}{end_s * 1e3:>10.1f}"
    )


@contextmanager
def on_disk(memory: MemoryStore) -> Iterator[LocalStore]:
    """Copy a store to a folder, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder) / "store")
        for each in memory.list(""):
            store.put(each.key, [memory.get(each.key)])
        yield store


@contextmanager
def in_storage(memory: MemoryStore, uri: str) -> Iterator[Store]:
    """Copy a store to a folder of its own in a storage, which stays."""
    store = open_store(f"{uri.partition('?')[0]}/{uuid.uuid4().hex}?{uri.partition('?')[2]}")
    for each in memory.list(""):
        store.put(each.key, [memory.get(each.key)])
    yield store


def report_remote(uri: str, total: int) -> None:
    """Measure in a storage: an object per flush of 1000 events, and all in one object."""
    memory = MemoryStore(appendable=False)
    writer = write(memory, total, 1000, total)
    with in_storage(memory, uri) as store:
        report("remote, an object per 1000", store)
    Compactor(writer).run(last=True)
    with in_storage(memory, uri) as store:
        report("  compacted", store)


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument(
        "--storage", help="measure in a bucket instead: a URI as milepost.init takes"
    )
    given = parser.parse_args()
    total = given.events
    print(
        f"{'journal':<34}{'objects':>8}{'MB':>8}{'frames':>9}{'read s':>10}"
        f"{'events':>9}{'split s':>10}{'end ms':>10}"
    )
    if given.storage:
        report_remote(given.storage, total)
        return
    for batch in (1, 10, 1000):
        memory = MemoryStore()  # written without a sync per frame, then copied
        writer = write(memory, total, batch, max(total // SEGMENTS, batch))
        with on_disk(memory) as store:
            report(f"local, frames of {batch}", store)
        start = time.perf_counter()
        Compactor(writer).run(last=True)
        spent = time.perf_counter() - start
        with on_disk(memory) as store:
            report(f"  compacted in {spent:.2f} s", store)


if __name__ == "__main__":
    main()
