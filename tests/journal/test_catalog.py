"""The catalog: fast, and never believed when it is wrong. The journals are the truth."""

from __future__ import annotations

import logging
import random
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgpack
import pytest

from milepost.errors import StorageUnavailableError
from milepost.journal import (
    LocalStore,
    MemoryStore,
    Store,
    StoredObject,
    WorkflowSummary,
    list_summaries,
    put_blob,
    read_status,
    summarize,
    take_ownership,
)
from milepost.journal.catalog_codec import (
    CATALOG_KEY,
    Entries,
    Entry,
    pack_catalog,
    unpack_catalog,
)
from milepost.journal.claim import claim_epoch
from milepost.journal.states import load_state
from milepost.replay.state import Status
from rehearsal import START_US, Rehearsal
from shapes import chain, fan, make_environment, single


class CountingStore(MemoryStore):
    """Counts what a listing asks of the storage."""

    def __init__(self, name: str = "", *, appendable: bool = True) -> None:
        super().__init__(name, appendable=appendable)
        self.gets: list[str] = []
        self.lists: list[str] = []
        self.puts: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.gets.append(key)
        return super().get(key, start, length)

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        self.lists.append(prefix)
        return super().list(prefix, after)

    def put(self, key: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self.puts.append(key)
        super().put(key, parts)

    def forget(self) -> None:
        """Start counting anew."""
        self.gets, self.lists, self.puts = [], [], []


def start(
    store: Store, workflow_id: str, *, reports_max: int = 10**9, failure: float = 0.0
) -> Rehearsal:
    told = Rehearsal(store, workflow_id, seed=1)
    rng = random.Random(workflow_id)
    told.create(rng.choice((single, lambda rng: chain(rng, 4)))(rng), make_environment(rng))
    told.run(reports_max=reports_max, tasks_per_slice=1, failure=failure)
    return told


def fill(store: Store) -> list[str]:
    """Make workflows of every stored status but CANCELED, and one that was never created."""
    for number in range(8):
        start(store, f"done {number}").close()
    start(store, "failed", failure=1.0).close()
    start(store, "stopped", reports_max=0).close()
    again = start(store, "taken over", reports_max=0)
    again.take_over()
    again.close()
    claim_epoch(store, "only claimed", "nobody")
    return sorted([*(f"done {n}" for n in range(8)), "failed", "stopped", "taken over"])


def told_by_journals(store: Store, ids: Sequence[str]) -> dict[str, tuple[object, ...]]:
    """What folding each whole journal gives."""
    states = {each: load_state(store, each) for each in ids}
    return {
        each: (s.status, s.owner, s.epoch, s.created_us, s.started_us, s.ended_us)
        for each, s in states.items()
    }


def told_by_listing(store: Store, stale_max: int = 0) -> dict[str, tuple[object, ...]]:
    return {
        each.workflow_id: (
            each.status,
            each.owner,
            each.epoch,
            each.created_us,
            each.started_us,
            each.ended_us,
        )
        for each in list_summaries(store, stale_max=stale_max)
    }


def test_a_listing_says_what_the_journals_say(store: Store) -> None:
    ids = fill(store)
    expected = told_by_journals(store, ids)
    for _ in ("without a catalog", "with one"):
        assert told_by_listing(store) == expected
    assert {status for status, *_ in expected.values()} == {"SUCCESSFUL", "FAILED", "RUNNING"}
    assert [each.workflow_id for each in list_summaries(store)] == ids


def test_a_status_is_found_however_many_segments_lie_behind_it() -> None:
    """Where every flush is an object, the newest segment says nothing of the status."""
    store = MemoryStore(appendable=False)
    told = Rehearsal(store, "w", seed=1)
    rng = random.Random(1)
    told.create(fan(rng, 9), make_environment(rng))
    told.run(reports_max=7, tasks_per_slice=1)
    found = read_status(store, "w")
    assert (found.status, found.owner) == (told.state.status, told.state.owner)
    assert summarize(store, "w").created_us == told.state.created_us
    assert told_by_listing(store) == told_by_journals(store, ["w"])


def damages(store: Store) -> list[Callable[[], object]]:
    """Everything that may happen to the catalog."""
    whole = store.get(CATALOG_KEY)
    flips = [bytes([*whole[:at], whole[at] ^ 0x10, *whole[at + 1 :]]) for at in range(len(whole))]
    cuts = [whole[:length] for length in range(0, len(whole), 7)]
    entries = unpack_catalog(whole)
    wrong = {each: Entry(bytes(16), entry.summary) for each, entry in entries.items()}
    swapped = dict(zip(entries, reversed(entries.values()), strict=True))
    ghost = WorkflowSummary(workflow_id="ghost", status=Status.RUNNING)
    others: list[Entries] = [
        {},
        wrong,
        swapped,
        {**entries, "ghost": Entry(bytes(16), ghost)},
        dict(list(entries.items())[::2]),
    ]
    bodies = [*flips, *cuts, *map(pack_catalog, others), b"", b"nonsense" * 99, whole + b"\0"]
    return [
        partial(store.delete, [CATALOG_KEY]),
        *(partial(store.put, CATALOG_KEY, [body]) for body in bodies),
    ]


def test_whatever_happens_to_the_catalog_the_listing_stays_true(
    memory_store: MemoryStore,
) -> None:
    store = memory_store
    expected = told_by_journals(store, fill(store))
    assert told_by_listing(store) == expected
    for damage in damages(store):
        damage()
        assert told_by_listing(store) == expected


def test_an_old_catalog_is_seen_through(store: Store) -> None:
    """The catalog of yesterday comes back from a copy after every step that a workflow makes."""
    told = start(store, "moving", reports_max=0)
    ids = [*fill(store), "moving"]
    steps: list[Callable[[], object]] = [
        lambda: told.run(reports_max=1, tasks_per_slice=1),
        told.take_over,
        lambda: told.run(failure=1.0),
        told.resume,
        told.run,
    ]
    catalogs = []
    for step in steps:
        told_by_listing(store)
        catalogs.append(store.get(CATALOG_KEY))
        step()
        expected = told_by_journals(store, ids)
        for catalog in catalogs:
            store.put(CATALOG_KEY, [catalog])
            assert told_by_listing(store) == expected
    assert load_state(store, "moving").status is Status.SUCCESSFUL


def test_a_workflow_that_was_made_again_is_another_though_its_sizes_are_the_same() -> None:
    store, seen = MemoryStore(), []
    for at_us in (START_US, START_US + 1):
        store.delete([each.key for each in store.list("workflows/")])
        told = Rehearsal(store, "w", seed=1)
        told.at_us = at_us
        told.create(single(random.Random(1)), make_environment(random.Random(1)))
        sizes = [each.size for each in store.list("workflows/")]
        (listed,) = list_summaries(store, stale_max=0)
        assert listed.created_us == at_us
        seen.append(sizes)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "rows",
    [
        7,
        [[]],
        [7],
        [["w"]],
        [["w", b"short"]],
        [["w", bytes(16), "NO STATUS", "o", 1, 2, 3, 4]],
        [["w", bytes(16), "RESUMABLE", "o", 1, 2, 3, 4]],
        [["w", bytes(16), "RUNNING", "o", True, 2, 3, 4]],
        [[["w"], bytes(16), "RUNNING", "o", 1, 2, 3, 4]],
    ],
)
def test_entries_of_another_shape_are_refused(rows: object) -> None:
    whole = pack_catalog({})
    body: bytes = msgpack.packb(rows)
    forged = bytearray(whole[:16])
    struct.pack_into("<HI", forged, 10, 0, zlib.crc32(body))
    with pytest.raises(ValueError, match="entr"):
        unpack_catalog(bytes(forged) + body)


def test_a_listing_takes_one_list_and_one_get_and_reads_what_changed() -> None:
    store = CountingStore()
    fill(store)
    list_summaries(store, stale_max=0)
    store.forget()
    list_summaries(store)
    assert (store.lists, store.gets, store.puts) == (["workflows/"], [CATALOG_KEY], [])
    start(store, "done 3 again").close()
    store.forget()
    list_summaries(store)
    read = {key.split("/")[1] for key in store.gets}
    assert read == {"workflows", "done%203%20again"}


def test_the_catalog_is_written_when_enough_has_changed() -> None:
    store = CountingStore()
    fill(store)
    store.forget()
    list_summaries(store, stale_max=12)
    assert store.puts == []
    list_summaries(store, stale_max=11)
    assert store.puts == [CATALOG_KEY]
    store.forget()
    list_summaries(store, stale_max=0)
    assert store.puts == []


def test_blobs_are_not_listed_with_the_workflows() -> None:
    store = MemoryStore()
    start(store, "w").close()
    before = store.list("workflows/")
    put_blob(store, "w", 1, [b"content"])
    assert store.list("workflows/") == before


def test_deleted_workflows_leave_the_catalog(store: Store) -> None:
    fill(store)
    list_summaries(store, stale_max=0)
    store.delete([each.key for each in store.list("workflows/done%203/")])
    assert "done 3" not in told_by_listing(store)
    assert "done 3" not in unpack_catalog(store.get(CATALOG_KEY))


def damage_journal(store: Store, workflow_id: str) -> None:
    key = store.list(f"workflows/{workflow_id}/segments/")[-1].key
    content = bytearray(store.get(key))
    content[60] ^= 1
    store.put(key, [content])


def test_a_damaged_workflow_is_listed_with_the_reason_and_hides_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ids = fill(store)
    damage_journal(store, "failed")
    with caplog.at_level(logging.WARNING):
        found = {each.workflow_id: each for each in list_summaries(store, stale_max=0)}
    assert sorted(found) == ids
    assert found["failed"].status is Status.RESUMABLE
    assert "workflows/failed/segments/" in found["failed"].error
    assert [each for each in ids if found[each].error] == ["failed"]
    assert "'failed' cannot be read" in caplog.text


def test_a_workflow_that_was_mended_is_read_again(store: Store) -> None:
    """Restored from a copy, its files have the names and sizes they had."""
    fill(store)
    damage_journal(store, "failed")
    assert list_summaries(store, stale_max=0)[8].error
    damage_journal(store, "failed")
    assert list_summaries(store, stale_max=0)[8].status is Status.FAILED


def test_who_may_only_read_can_list() -> None:
    class ReadOnly(MemoryStore):
        def put(self, key: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
            if key == CATALOG_KEY:
                raise StorageUnavailableError("write", key, "no permission")
            super().put(key, parts)

    store = ReadOnly()
    ids = fill(store)
    assert sorted(told_by_listing(store)) == ids


def test_filters_and_order() -> None:
    store = MemoryStore()
    fill(store)
    everything = list_summaries(store)
    times = sorted(each.created_us for each in everything)
    assert [each.created_us for each in list_summaries(store, newest_first=True)] == times[::-1]
    failed = list_summaries(store, statuses={Status.FAILED})
    assert [each.workflow_id for each in failed] == ["failed"]
    middle = (times[2], times[5])
    within = list_summaries(store, created_us=middle, newest_first=True)
    assert [each.created_us for each in within] == times[2:5][::-1]
    assert list_summaries(store, created_us=(0, 1)) == []
    ended = list_summaries(store, ended_us=(1, 2**62))
    assert {each.status for each in ended} == {Status.SUCCESSFUL, Status.FAILED}
    assert len(ended) == 9
    assert list_summaries(store, statuses=[]) == []


def test_two_who_list_and_write_at_once_both_get_the_truth() -> None:
    store = MemoryStore()
    expected = told_by_journals(store, fill(store))
    wrong: list[object] = []

    def list_often() -> None:
        for _ in range(30):
            store.delete([CATALOG_KEY])
            found = told_by_listing(store)
            if found != expected:
                wrong.append(found)

    threads = [threading.Thread(target=list_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_workflow_that_grows_while_it_is_listed_is_read_again() -> None:
    """What is read after the listing may be newer than the fingerprint: it must not stick."""
    store = MemoryStore()
    told = start(store, "w", reports_max=0)

    class Growing(MemoryStore):
        def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
            found = store.list(prefix, after)
            if prefix == "workflows/" and told.state.status is Status.RUNNING:
                told.run()
            return found

    seen = Growing()
    seen._objects = store._objects
    list_summaries(seen, stale_max=0)
    assert told.state.status is Status.SUCCESSFUL
    assert list_summaries(store)[0].status is Status.SUCCESSFUL


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert list_summaries(store) == []


def test_a_local_listing_keeps_names_apart_that_sort_oddly(tmp_path: Path) -> None:
    """Names around the slash in the alphabet must not tear a workflow's listing apart."""
    store = LocalStore(tmp_path)
    ids = ["a", "a-b", "a/b", "a.b", "a0", "a b", "A"]
    for each in ids:
        writer = take_ownership(store, each, owner="x")
        writer.close()
        start(store, each).close()
    assert [each.workflow_id for each in list_summaries(store)] == sorted(ids)
