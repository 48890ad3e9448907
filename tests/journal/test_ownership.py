"""Handing a workflow from owner to owner: one writer, nothing acknowledged lost."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence

import msgpack
import pytest

from milepost.errors import (
    CorruptJournalError,
    InvalidWorkflowIdError,
    LostOwnershipError,
    StorageUnavailableError,
    UsageError,
    WorkflowNotFoundError,
)
from milepost.journal import (
    Frame,
    JournalWriter,
    LocalStore,
    MemoryStore,
    ObjectNotFoundError,
    Store,
    StoredObject,
    list_workflows,
    read_backward,
    read_journal,
    take_ownership,
)
from milepost.journal import claim as claims
from milepost.journal.claim import claim_epoch
from milepost.journal.layout import parse_claim_name, parse_segment_name
from milepost.journal.reader import LISTINGS_MAX, JournalWalk
from milepost.journal.store import Part


def events(store: Store) -> list[bytes]:
    return [event for frame in read_journal(store, "w") for event in frame.events()]


def take(store: Store, owner: str = "test") -> JournalWriter:
    return take_ownership(store, "w", owner=owner)


class Interfering(MemoryStore):
    """Runs something just before or after the next call of a method for a key."""

    def __init__(self, *, appendable: bool = True) -> None:
        super().__init__(appendable=appendable)
        self.before: list[tuple[str, str, Callable[[], object]]] = []
        self.after: list[tuple[str, str, Callable[[], object]]] = []

    def _run(self, plans: list[tuple[str, str, Callable[[], object]]], call: str, key: str) -> None:
        for plan in list(plans):
            if plan[0] == call and plan[1] in key and plan in plans:
                plans.remove(plan)
                plan[2]()

    def put(self, key: str, parts: Sequence[Part]) -> None:
        self._run(self.before, "put", key)
        super().put(key, parts)
        self._run(self.after, "put", key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._run(self.before, "get", key)
        return super().get(key, start, length)

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        self._run(self.before, "list", prefix)
        listed = super().list(prefix, after)
        self._run(self.after, "list", prefix)
        return listed


def raiser(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_what_was_flushed_is_read_in_order_with_dense_numbers(store: Store) -> None:
    writer = take(store)
    assert (writer.epoch, writer.next_seq) == (1, 0)
    writer.flush([b"\x01", b"\x02"])
    writer.flush([b"\x03"])
    assert writer.next_seq == 3
    frames = list(read_journal(store, "w"))
    assert [(frame.epoch, frame.first_seq, frame.count) for frame in frames] == [
        (1, 0, 2),
        (1, 2, 1),
    ]
    assert events(store) == [b"\x01", b"\x02", b"\x03"]
    assert frames[-1].chain == writer.chain
    writer.close()


def test_an_owner_gets_every_frame_and_goes_on_after_the_last(store: Store) -> None:
    first = take(store)
    first.flush([b"\x01"])
    first.flush([b"\x02", b"\x03"])
    seen: list[Frame] = []
    second = take_ownership(store, "w", owner="two", on_frame=seen.append)
    assert [event for frame in seen for event in frame.events()] == [b"\x01", b"\x02", b"\x03"]
    assert (second.epoch, second.next_seq, second.chain) == (2, 3, first.chain)
    second.flush([b"\x04"])
    assert events(store) == [b"\x01", b"\x02", b"\x03", b"\x04"]


def test_the_newest_segment_can_be_read_alone(store: Store) -> None:
    for number in range(3):
        take(store).flush([msgpack.packb(number)])
    (frame,) = next(read_backward(store, "w"))
    assert (frame.epoch, frame.first_seq, frame.events()) == (3, 2, [b"\x02"])


def test_an_owner_that_never_wrote_leaves_no_trace_in_the_journal(store: Store) -> None:
    take(store).flush([b"\x01"])
    take(store)
    take(store).flush([b"\x02"])
    frames = list(read_journal(store, "w"))
    assert [(frame.epoch, frame.raw) for frame in frames] == [(1, b"\x01"), (3, b"\x02")]


@pytest.mark.parametrize("taken", [False, True])
def test_a_workflow_without_events_is_not_found(store: Store, taken: bool) -> None:
    if taken:
        take(store)
    with pytest.raises(WorkflowNotFoundError):
        list(read_journal(store, "w"))
    with pytest.raises(WorkflowNotFoundError):
        next(read_backward(store, "w"))


def test_a_flush_after_a_new_claim_is_refused_and_its_bytes_never_happened(store: Store) -> None:
    old = take(store)
    old.flush([b"\x01"])
    new = take(store)
    with pytest.raises(LostOwnershipError) as caught:
        old.flush([b"\x02"])
    assert (caught.value.own_epoch, caught.value.newer_epoch) == (1, 2)
    new.flush([b"\x03"])
    assert events(store) == [b"\x01", b"\x03"]


def test_late_bytes_of_an_old_owner_are_ignored_also_after_the_new_one_wrote(store: Store) -> None:
    old = take(store)
    old.flush([b"\x01"])
    new = take(store)
    new.flush([b"\x03"])
    with pytest.raises(LostOwnershipError):
        old.flush([b"\x02"])
    new.flush([b"\x04"])
    assert events(store) == [b"\x01", b"\x03", b"\x04"]
    assert take(store).next_seq == 3


def test_late_first_bytes_of_an_owner_that_had_not_written_are_ignored(store: Store) -> None:
    take(store).flush([b"\x01"])
    old = take(store)
    new = take(store)
    new.flush([b"\x03"])
    with pytest.raises(LostOwnershipError):
        old.flush([b"\x02"])
    assert events(store) == [b"\x01", b"\x03"]


def test_a_writer_that_lost_ownership_stays_dead_though_the_claim_disappears(store: Store) -> None:
    old = take(store)
    take(store)
    with pytest.raises(LostOwnershipError):
        old.flush([b"\x01"])
    store.delete([store.list("workflows/w/claims/")[-1].key])
    for _ in range(2):
        with pytest.raises(LostOwnershipError):
            old.flush([b"\x02"])
        with pytest.raises(LostOwnershipError):
            old.flush([])


def test_a_writer_of_a_deleted_workflow_has_lost_it(store: Store) -> None:
    writer = take(store)
    writer.flush([b"\x01"])
    store.delete([each.key for each in store.list("workflows/w/")])
    with pytest.raises(LostOwnershipError):
        writer.flush([b"\x02"])


def test_a_flush_of_nothing_only_checks_ownership(store: Store) -> None:
    writer = take(store)
    writer.flush([])
    assert store.list("workflows/w/segments/") == []
    take(store)
    with pytest.raises(LostOwnershipError):
        writer.flush([])


def test_a_refused_event_leaves_the_writer_alive_and_the_journal_untouched(store: Store) -> None:
    writer = take(store)
    with pytest.raises(UsageError):
        writer.flush([b"\x01", b""])
    writer.flush([b"\x02"])
    assert events(store) == [b"\x02"]


def test_a_closed_writer_writes_no_more(store: Store) -> None:
    writer = take(store)
    writer.flush([b"\x01"])
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.flush([b"\x02"])
    assert events(store) == [b"\x01"]


@pytest.mark.parametrize("appendable", [True, False])
def test_a_claim_between_write_and_check_stops_the_acknowledgement(appendable: bool) -> None:
    store = Interfering(appendable=appendable)
    writer = take(store)
    heirs: list[JournalWriter] = []
    store.before.append(("list", "/claims/", lambda: heirs.append(take(store))))
    with pytest.raises(LostOwnershipError):
        writer.flush([b"\x01"])
    # The heir read after the write, so it has the event, though nobody was told of it.
    assert heirs[0].next_seq == 1
    heirs[0].flush([b"\x02"])
    assert events(store) == [b"\x01", b"\x02"]


def test_a_writer_that_could_not_check_is_dead() -> None:
    store = Interfering()
    writer = take(store)
    store.before.append(("list", "/claims/", raiser(StorageUnavailableError("list", "k", "gone"))))
    with pytest.raises(StorageUnavailableError, match="gone"):
        writer.flush([b"\x01"])
    with pytest.raises(StorageUnavailableError, match="gone"):
        writer.flush([b"\x02"])


def test_a_writer_that_was_interrupted_is_dead() -> None:
    store = Interfering()
    writer = take(store)

    def interrupt() -> object:
        raise KeyboardInterrupt

    store.before.append(("list", "/claims/", interrupt))
    with pytest.raises(KeyboardInterrupt):
        writer.flush([b"\x01"])
    with pytest.raises(StorageUnavailableError, match="interrupted"):
        writer.flush([b"\x02"])


def test_of_two_takers_at_once_at_most_one_keeps_an_epoch() -> None:
    store = Interfering()
    rivals: list[JournalWriter] = []
    # The rival claims between our first listing and our claim: both ask for epoch 1.
    store.before.append(("put", "/claims/0000000001", lambda: rivals.append(take(store))))
    writer = take(store)
    assert (rivals[0].epoch, writer.epoch) == (1, 2)
    with pytest.raises(LostOwnershipError):
        rivals[0].flush([b"\x01"])
    writer.flush([b"\x02"])


def test_a_taker_stops_when_it_sees_a_higher_claim() -> None:
    store = Interfering()

    def overtake() -> None:
        take(store)

    store.after.append(("put", "/claims/0000000001", overtake))
    with pytest.raises(LostOwnershipError) as caught:
        take(store)
    assert (caught.value.own_epoch, caught.value.newer_epoch) == (1, 2)


def test_endless_ties_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "PAUSE_MS_MAX", 0)

    class Mirror(MemoryStore):
        puts = 0

        def put(self, key: str, parts: Sequence[Part]) -> None:
            super().put(key, parts)
            super().put(key[:-16] + f"{self.puts:016x}", parts)
            self.puts += 1

    store = Mirror()
    with pytest.raises(LostOwnershipError):
        take(store)
    assert store.puts == claims.CLAIM_TRIES_MAX


def test_a_store_that_does_not_list_what_was_put_is_refused() -> None:
    class Forgetful(MemoryStore):
        def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
            return []

    with pytest.raises(StorageUnavailableError, match="must list what was put"):
        take(Forgetful())


def test_a_taker_overtaken_while_it_reads_has_lost() -> None:
    store = Interfering()

    def overtake() -> None:
        take(store).flush([b"\x01"])

    store.before.append(("list", "/segments/", overtake))
    with pytest.raises(LostOwnershipError):
        take(store)
    assert events(store) == [b"\x01"]


def test_segments_without_their_claims_are_not_built_upon(store: Store) -> None:
    for number in range(3):
        take(store).flush([msgpack.packb(number)])
    store.delete([each.key for each in store.list("workflows/w/claims/")])
    with pytest.raises(CorruptJournalError, match="claims were deleted"):
        take(store)


def test_strange_names_among_claims_and_segments_are_passed_over(store: Store) -> None:
    take(store).flush([b"\x01"])
    for name in ("claims/readme", "claims/0000000009.xyz", "claims/9999999999.0123456789abcdef"):
        store.put("workflows/w/" + name, [b""])
    for name in (
        "notes.txt",
        "0000000009.0000000000",
        "deep/0000000009.0000000000.0123456789abcdef",
    ):
        store.put("workflows/w/segments/" + name, [b""])
    writer = take(store)
    writer.flush([b"\x02"])
    assert writer.epoch == 2
    assert events(store) == [b"\x01", b"\x02"]


def test_many_takers_at_once_leave_one_owner_and_every_acknowledged_event(store: Store) -> None:
    acknowledged: list[int] = []
    lock = threading.Lock()

    def compete(number: int) -> None:
        for step in range(6):
            try:
                writer = take(store, str(number))
                for part in range(3):
                    value = number * 1000 + step * 10 + part
                    writer.flush([msgpack.packb(value)])
                    with lock:
                        acknowledged.append(value)
            except LostOwnershipError:
                continue

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = [msgpack.unpackb(event) for event in events(store)]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert acknowledged
    for number in range(4):
        own = [value for value in stored if value // 1000 == number]
        assert own == sorted(own)
    epochs = [frame.epoch for frame in read_journal(store, "w")]
    assert epochs == sorted(epochs)


def test_a_full_segment_is_followed_by_another_of_the_same_owner(store: Store) -> None:
    claim = claim_epoch(store, "w", "test")
    walk = JournalWalk(store, "w")
    assert list(walk) == []
    assert walk.tip is not None
    writer = JournalWriter(store, "w", claim, walk.tip, segment_bytes_max=300)
    values = [msgpack.packb(hashlib.sha512(b"%d" % each).digest()) for each in range(20)]
    for value in values:
        writer.flush([value])
    names = [each.key.rsplit("/", 1)[1] for each in store.list("workflows/w/segments/")]
    parsed = [parse_segment_name(name) for name in names]
    assert [name and (name.epoch, name.index) for name in parsed] == [
        (1, index) for index in range(len(names))
    ]
    assert len(names) == (10 if store.appendable else 20)
    assert events(store) == values
    heir = take(store)
    heir.flush([b"\x01"])
    assert events(store) == [*values, b"\x01"]


def test_a_flush_of_many_frames_is_whole_or_a_prefix(store: Store) -> None:
    writer = take(store)
    writer.flush([b"\x01"] * 70_000)
    assert [frame.count for frame in read_journal(store, "w")] == [65_535, 4_465]
    assert writer.next_seq == 70_000


def test_a_reader_lists_again_when_a_segment_vanishes(memory_store: MemoryStore) -> None:
    store = Interfering(appendable=memory_store.appendable)
    for number in range(3):
        take(store).flush([msgpack.packb(number)])
    middle = store.list("workflows/w/segments/")[1].key
    content = store.get(middle)
    reader = read_journal(store, "w")
    seen = [next(reader).raw]
    # Gone when the reader comes to it, back when it looks again.
    store.before.append(("get", middle, lambda: store.delete([middle])))
    store.before.append(("list", "/segments/", lambda: store.put(middle, [content])))
    seen += [frame.raw for frame in reader]
    assert seen == [b"\x00", b"\x01", b"\x02"]


def test_a_reader_gives_up_on_a_segment_that_stays_away() -> None:
    class Counting(MemoryStore):
        listings = 0

        def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
            self.listings += 1
            return super().list(prefix, after)

    store = Counting()
    for number in range(2):
        take(store).flush([msgpack.packb(number)])
    store.delete([store.list("workflows/w/segments/")[0].key])
    store.listings = 0
    with pytest.raises(CorruptJournalError, match="missing"):
        list(read_journal(store, "w"))
    assert store.listings == 2 * LISTINGS_MAX


def test_a_reader_does_not_join_two_histories() -> None:
    """An old owner's late frame was read; a second listing finds the new owner's in its place."""
    store = Interfering()
    take(store).flush([b"\x01"])
    old, new = take(store), take(store)
    with pytest.raises(LostOwnershipError):
        old.flush([b"\x02"])
    reader = iter(LateFailure(store, "w"))
    assert [next(reader).raw, next(reader).raw] == [b"\x01", b"\x02"]
    new.flush([b"\x03"])
    with pytest.raises(StorageUnavailableError, match="new owner"):
        next(reader)


def test_a_reader_does_not_end_before_what_it_has_given() -> None:
    """As above, but the new owner has written nothing when the listing is repeated."""
    store = Interfering()
    take(store).flush([b"\x01"])
    take(store).flush([b"\x02"])
    reader = iter(LateFailure(store, "w"))
    assert [next(reader).raw, next(reader).raw] == [b"\x01", b"\x02"]
    store.delete([store.list("workflows/w/segments/")[-1].key])
    with pytest.raises(StorageUnavailableError, match="new owner"):
        next(reader)


def test_a_head_that_is_written_while_it_is_read_is_seen() -> None:
    class Slow(MemoryStore):
        early = True

        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            if "/segments/" in key and self.early:
                self.early = False
                return b""
            return super().get(key, start, length)

    store = Slow()
    take(store).flush([b"\x01"])
    store.early = True
    assert events(store) == [b"\x01"]


def test_flushes_from_several_threads_wait_for_each_other(store: Store) -> None:
    writer = take(store)
    barrier = threading.Barrier(4)

    def flush(number: int) -> None:
        barrier.wait()
        for step in range(25):
            writer.flush([msgpack.packb(number * 100 + step)] * 3)

    threads = [threading.Thread(target=flush, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events(store)) == writer.next_seq == 300
    writer.close()


class LateFailure(JournalWalk):
    """A reading whose first listing turns out to be outdated at its very end."""

    listings = 0

    def _read(self) -> Iterator[Frame]:
        yield from super()._read()
        self.listings += 1
        if self.listings == 1:
            raise ObjectNotFoundError("a segment")


@pytest.mark.parametrize(
    "workflow_id", ["a/b", "..", ".hidden", "ünï/código", "🚀" * 16, "x" * 200, "%2F"]
)
def test_any_name_can_be_a_workflow(store: Store, workflow_id: str) -> None:
    take_ownership(store, workflow_id, owner="test").flush([b"\x01"])
    assert [frame.raw for frame in read_journal(store, workflow_id)] == [b"\x01"]
    assert list_workflows(store) == [workflow_id]


@pytest.mark.parametrize("workflow_id", ["", "x" * 201, "🚀" * 17, "\ud800"])
def test_an_id_that_cannot_be_stored_is_refused_before_anything_is_written(
    store: Store, workflow_id: str
) -> None:
    with pytest.raises(InvalidWorkflowIdError):
        take_ownership(store, workflow_id, owner="test")
    with pytest.raises(InvalidWorkflowIdError):
        list(read_journal(store, workflow_id))
    assert store.list("") == []


def test_workflows_are_listed_by_id_and_strangers_are_not(store: Store) -> None:
    for workflow_id in ("b", "a/1", "C"):
        take_ownership(store, workflow_id, owner="test").flush([b"\x01"])
    for stranger in ("workflows/a b/x", "workflows/%zz/x", "workflows/%41/x", "other/b/x"):
        store.put(stranger, [b""])
    store.put("workflows/a-file", [b""])
    assert list_workflows(store) == ["C", "a/1", "b"]


def test_a_claim_tells_a_human_who_and_when(store: Store) -> None:
    take_ownership(store, "w", owner="node-7, pid 12")
    (claim,) = store.list("workflows/w/claims/")
    told = msgpack.unpackb(store.get(claim.key))
    assert told["owner"] == "node-7, pid 12"
    assert told["time"] > 1.7e9
    assert parse_claim_name(claim.key.rsplit("/", 1)[1]) is not None


def test_a_journal_survives_its_processes(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("durable")
    take(LocalStore(root)).flush([b"\x01"])
    take(LocalStore(root)).flush([b"\x02"])
    assert events(LocalStore(root)) == [b"\x01", b"\x02"]
