"""Compaction: the same journal in fewer objects, while it is written, read, lost and deleted."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import msgpack
import pytest

from milepost.errors import (
    CorruptBlobError,
    LostOwnershipError,
    MilepostError,
    StorageUnavailableError,
    WorkflowNotFoundError,
)
from milepost.journal import (
    Compactor,
    Frame,
    JournalWriter,
    MemoryStore,
    Store,
    delete_workflow,
    get_blob,
    put_blob,
    read_backward,
    read_journal,
    take_ownership,
)
from milepost.journal.compaction import LAST_BYTES_MIN, SEGMENTS_MAX
from milepost.journal.store import Part

COMPACTED, SEGMENTS = "workflows/w/compacted/", "workflows/w/segments/"


def own(store: Store) -> JournalWriter:
    return take_ownership(store, "w", owner="test")


def read(store: Store) -> list[Frame]:
    return list(read_journal(store, "w"))


def numbers(store: Store) -> list[int]:
    return [msgpack.unpackb(event) for frame in read(store) for event in frame.events()]


def flush(writer: JournalWriter, count: int) -> None:
    for _ in range(count):
        writer.flush([msgpack.packb(writer.next_seq)])


def content(frames: Sequence[Frame]) -> list[tuple[int, int, int, bytes, bytes]]:
    return [(each.epoch, each.first_seq, each.count, each.raw, each.chain) for each in frames]


def test_frames_and_chain_are_the_same_before_and_after(store: Store) -> None:
    for flushes in (3, 1, 4):
        writer = own(store)
        flush(writer, flushes)
        writer.flush([msgpack.packb(writer.next_seq + each) for each in range(5)])
    before = read(store)
    Compactor(writer).run(last=True)
    assert content(read(store)) == content(before)
    assert [len(store.list(each)) for each in (COMPACTED, SEGMENTS)] == [1, 0]
    heir = own(store)
    assert (heir.next_seq, heir.chain, heir.incarnation) == (23, writer.chain, 1)
    flush(heir, 2)
    assert numbers(store) == list(range(25))
    Compactor(heir).run(last=True)
    assert numbers(store) == list(range(25))
    assert len(store.list("workflows/w/")) == 4 + 1  # the claims, and one object


def test_the_end_can_be_read_alone(store: Store) -> None:
    writer = own(store)
    flush(writer, 5)
    Compactor(writer).run(last=True)
    flush(writer, 2)
    groups = list(read_backward(store, "w"))
    assert [frame.first_seq for group in groups[::-1] for frame in group] == list(range(7))
    assert groups[0][-1].first_seq == 6


def test_a_single_short_segment_stays_as_it_is_and_a_long_one_does_not(store: Store) -> None:
    writer = own(store)
    flush(writer, 1)
    compactor = Compactor(writer)
    assert not compactor.is_due(last=True)
    writer.flush([msgpack.packb(os.urandom(LAST_BYTES_MIN))])
    assert compactor.is_due(last=True)


def test_a_long_journal_is_compacted_while_it_is_written() -> None:
    store = MemoryStore(appendable=False)
    writer = own(store)
    compactor = Compactor(writer)
    most = 0
    for _ in range(3 * SEGMENTS_MAX):
        flush(writer, 1)
        compactor.run()
        most = max(most, len(store.list(SEGMENTS)))
    assert most == SEGMENTS_MAX
    assert numbers(store) == list(range(3 * SEGMENTS_MAX))


@pytest.mark.parametrize("appendable", [True, False])
def test_all_compactions_together_copy_no_more_than_a_multiple_of_the_journal(
    appendable: bool,
) -> None:
    class Counting(MemoryStore):
        compacted_bytes = 0

        def put(self, key: str, parts: Sequence[Part]) -> None:
            super().put(key, parts)
            if key.startswith(COMPACTED):
                self.compacted_bytes += sum(map(len, parts))

    store = Counting(appendable=appendable)
    writer = own(store)
    compactor = Compactor(writer, segments_max=4, segment_bytes_max=40_000)
    for _ in range(200):
        writer.flush([msgpack.packb(os.urandom(20_000))])
        compactor.run()
    assert 200 * 20_000 < store.compacted_bytes < 3 * 200 * 20_000


def test_a_compaction_that_fails_harms_nothing_and_is_tried_again() -> None:
    class Full(MemoryStore):
        full = True

        def put(self, key: str, parts: Sequence[Part]) -> None:
            if self.full and key.startswith(COMPACTED):
                raise StorageUnavailableError("write", key, "No space left on device")
            super().put(key, parts)

    store = Full(appendable=False)
    writer = own(store)
    compactor = Compactor(writer, segments_max=4)
    flush(writer, 5)
    with pytest.raises(StorageUnavailableError, match="No space"):
        compactor.run()
    assert not compactor.is_due()
    store.full = False
    flush(writer, 4)
    assert compactor.is_due()
    compactor.run()
    assert store.list(SEGMENTS) == []
    assert numbers(store) == list(range(9))


def test_nothing_is_compacted_before_the_first_own_flush(store: Store) -> None:
    flush(own(store), 3)
    compactor = Compactor(own(store))
    assert not compactor.is_due(last=True)
    compactor.run(last=True)
    assert store.list(COMPACTED) == []


def test_an_owner_that_was_succeeded_while_it_compacted_deletes_nothing() -> None:
    class Overtaken(MemoryStore):
        def put(self, key: str, parts: Sequence[Part]) -> None:
            super().put(key, parts)
            if key.startswith(COMPACTED):
                own(self)

    store = Overtaken(appendable=False)
    writer = own(store)
    flush(writer, 4)
    before = [each.key for each in store.list(SEGMENTS)]
    with pytest.raises(LostOwnershipError):
        Compactor(writer).run(last=True)
    assert [each.key for each in store.list(SEGMENTS)] == before
    with pytest.raises(LostOwnershipError):
        writer.flush([])
    assert numbers(store) == list(range(4))


def test_a_late_segment_of_an_old_owner_does_not_hide_what_was_compacted(store: Store) -> None:
    old = own(store)
    flush(old, 2)
    new = own(store)
    flush(new, 3)
    Compactor(new).run(last=True)
    with pytest.raises(LostOwnershipError):
        flush(old, 1)
    assert numbers(store) == list(range(5))
    heir = own(store)
    flush(heir, 1)
    Compactor(heir).run()
    assert len(store.list(SEGMENTS)) == 1
    assert numbers(store) == list(range(6))


def test_readers_beside_flushes_and_compactions_always_find_all_that_was_told(
    store: Store,
) -> None:
    writer = own(store)
    compactor = Compactor(writer, segments_max=3, segment_bytes_max=500)
    told = [0]
    over = threading.Event()
    faults: list[object] = []

    def look() -> None:
        while not over.is_set():
            known = told[0]
            try:
                found = numbers(store) if known else []
                ends = list(read_backward(store, "w")) if known else []
            except MilepostError as error:
                faults.append(error)
                return
            if found != list(range(len(found))) or len(found) < known:
                faults.append((known, found))
            if known and ends[0][-1].next_seq < known:
                faults.append((known, ends))

    def compact() -> None:
        while not over.is_set():
            compactor.run()

    threads = [threading.Thread(target=each) for each in (look, look, compact)]
    for thread in threads:
        thread.start()
    while writer.next_seq < 150 or (not store.list(COMPACTED) and writer.next_seq < 5000):
        flush(writer, 1)
        told[0] = writer.next_seq
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert store.list(COMPACTED)


def test_a_deleted_workflow_is_not_found_and_its_id_starts_anew(store: Store) -> None:
    writer = own(store)
    flush(writer, 3)
    digest, _ = put_blob(store, "w", writer.incarnation, [b"old"])
    delete_workflow(store, "w", owner="test")
    for missing in (lambda: read(store), lambda: list(read_backward(store, "w"))):
        with pytest.raises(WorkflowNotFoundError):
            missing()
    with pytest.raises(WorkflowNotFoundError):
        delete_workflow(store, "w", owner="test")
    with pytest.raises(LostOwnershipError):
        flush(writer, 1)
    assert [each.key.split("/")[2] for each in store.list("workflows/w/")][:1] == ["claims"]
    new = own(store)
    assert (new.next_seq, new.epoch, new.incarnation) == (0, 3, 3)
    flush(new, 2)
    assert numbers(store) == [0, 1]
    with pytest.raises(CorruptBlobError, match="missing"):
        get_blob(store, "w", new.incarnation, digest)
    Compactor(new).run()
    assert [each.key[-10:] for each in store.list(SEGMENTS) if "tombstone" in each.key] == []


def test_a_workflow_that_never_was_is_not_found_and_leaves_no_trace(store: Store) -> None:
    with pytest.raises(WorkflowNotFoundError):
        delete_workflow(store, "w", owner="test")
    assert store.list("") == []


def test_a_damaged_workflow_can_be_deleted(store: Store) -> None:
    flush(own(store), 3)
    for each in store.list(SEGMENTS):
        store.put(each.key, [b"damaged"])
    delete_workflow(store, "w", owner="test")
    assert own(store).next_seq == 0


def test_a_deletion_that_is_overtaken_fails_and_removes_nothing() -> None:
    class Overtaken(MemoryStore):
        def put(self, key: str, parts: Sequence[Part]) -> None:
            if key.endswith(".tombstone"):
                flush(own(self), 1)
            super().put(key, parts)

    store = Overtaken()
    flush(own(store), 2)
    with pytest.raises(LostOwnershipError):
        delete_workflow(store, "w", owner="test")
    assert numbers(store) == [0, 1, 2]
    heir = own(store)
    flush(heir, 1)
    Compactor(heir).run()
    assert numbers(store) == [0, 1, 2, 3]
    assert not [each for each in store.list(SEGMENTS) if "tombstone" in each.key]


def test_readers_beside_deletions_see_a_workflow_whole_or_not_at_all(store: Store) -> None:
    over = threading.Event()
    faults: list[object] = []
    seen: set[int] = set()

    def look() -> None:
        while not over.is_set():
            try:
                found = numbers(store)
            except WorkflowNotFoundError:
                found = []
            except StorageUnavailableError:
                continue  # it changed while it was read: read it again
            except MilepostError as error:
                faults.append(error)
                return
            seen.add(len(found))
            if found not in ([], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
                faults.append(found)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        writer = own(store)
        writer.flush([msgpack.packb(each) for each in range(4)])
        flush(writer, 1)
        Compactor(writer).run(last=True)
        delete_workflow(store, "w", owner="test")
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert seen


def test_whoever_builds_on_a_compacted_object_makes_it_durable_first() -> None:
    class Recording(MemoryStore):
        def __init__(self) -> None:
            super().__init__(appendable=False)
            self.settled: list[str] = []

        def settle(self, key: str) -> int:
            self.settled.append(key)
            return super().settle(key)

    store = Recording()
    writer = own(store)
    flush(writer, 3)
    Compactor(writer).run(last=True)
    (compacted,) = store.list(COMPACTED)
    own(store)
    assert store.settled == [compacted.key]
