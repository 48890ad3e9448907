"""A compacted journal that is flipped, cut or edited anywhere is refused, with file and offset."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import msgpack
import pytest
import zstandard

from milepost.errors import CorruptJournalError, UnsupportedFormatError
from milepost.journal import (
    Compactor,
    MemoryStore,
    read_backward,
    read_journal,
    take_ownership,
)
from milepost.journal import packing as packing_module
from milepost.journal.compacted import BLOCK_HEAD_BYTES, HEAD_BYTES, read_blocks
from milepost.journal.layout import parse_compacted_name
from tallies import Tallies

FLUSHES = [[msgpack.packb([number, "a" * 20]), msgpack.packb(number)] for number in range(6)]
LATER = [[b"\x07"], [msgpack.packb("z" * 150)]]
ALL = [event for flush in FLUSHES + LATER for event in flush]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_module, "BLOCK_BYTES", 60)


def build(*, appendable: bool = True, later: bool = True) -> MemoryStore:
    """A compacted object of several blocks, and two segments after it."""
    store = MemoryStore(appendable=appendable)
    writer = take_ownership(store, "w", owner="one")
    for events in FLUSHES:
        writer.flush(events)
    Compactor(writer).run(last=True)
    if appendable:  # a single short segment stays as it is
        Compactor(writer, segment_bytes_max=1).run()
    if later:
        writer.flush(LATER[0])
        take_ownership(store, "w", owner="two").flush(LATER[1])
    return store


def key_of(store: MemoryStore) -> str:
    (compacted,) = store.list("workflows/w/compacted/")
    return compacted.key


def read_events(store: MemoryStore) -> list[bytes]:
    return [event for frame in read_journal(store, "w") for event in frame.events()]


def read_backward_events(store: MemoryStore) -> list[bytes]:
    groups = list(read_backward(store, "w"))
    return [event for frames in groups[::-1] for frame in frames for event in frame.events()]


READERS = [read_events, read_backward_events]


@pytest.mark.parametrize("appendable", [True, False])
def test_the_journal_of_these_tests_is_whole(appendable: bool) -> None:
    store = build(appendable=appendable)
    content = store.get(key_of(store))
    assert content.count(b"\xf3MB\x9e") >= 3
    assert len(store.list("workflows/w/segments/")) == 2
    assert [read(store) for read in READERS] == [ALL, ALL]


def flips(content: bytes) -> Iterator[bytes]:
    for bit in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def cuts(content: bytes) -> Iterator[bytes]:
    return (content[:length] for length in range(len(content)))


def tails(content: bytes) -> Iterator[bytes]:
    return (content + tail for tail in (b"\0", bytes(84), content[HEAD_BYTES:], content))


def lost_blocks(content: bytes) -> Iterator[bytes]:
    starts = block_starts(content)
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        yield content[:start] + content[end:]


def doubled_blocks(content: bytes) -> Iterator[bytes]:
    starts = block_starts(content)
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        yield content[:end] + content[start:]


def block_starts(content: bytes) -> list[int]:
    starts, offset = [], HEAD_BYTES
    while offset < len(content):
        starts.append(offset)
        offset += BLOCK_HEAD_BYTES + struct.unpack_from("<I", content, offset + 4)[0]
    return starts


KINDS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "a bit flipped": flips,
    "cut off": cuts,
    "bytes added": tails,
    "a block lost": lost_blocks,
    "a block doubled": doubled_blocks,
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("later", [True, False], ids=["with segments after it", "alone"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_is_refused_with_its_place(
    kind: str, later: bool, read: Callable[[MemoryStore], list[bytes]], tallies: Tallies
) -> None:
    store = build(later=later)
    key = key_of(store)
    content = store.get(key)
    outcomes: Counter[str] = Counter()
    for damaged in KINDS[kind](content):
        store.put(key, [damaged])
        with pytest.raises((CorruptJournalError, UnsupportedFormatError)) as caught:
            read(store)
        error = caught.value
        assert isinstance(error, CorruptJournalError | UnsupportedFormatError)
        assert error.file == key
        if isinstance(error, CorruptJournalError):
            assert error.offset <= max(len(damaged), len(content))
        outcomes[type(error).__name__] += 1
    assert outcomes
    place = "with more after it" if later else "alone"
    tallies.add(
        "damage to a compacted journal",
        f"{kind}, {place}, {read.__name__}",
        refused_with_place=outcomes.total(),
        overlooked=0,
        wrong=0,
    )


@pytest.mark.parametrize("where", ["first block", "last block"])
def test_an_edited_event_with_mended_checksums_breaks_the_chain(where: str) -> None:
    store = build()
    key = key_of(store)
    content = store.get(key)
    start = block_starts(content)[0 if where == "first block" else -1]
    stored = struct.unpack_from("<I", content, start + 4)[0]
    payload_at = start + BLOCK_HEAD_BYTES
    raw = bytearray(zstandard.decompress(content[payload_at : payload_at + stored]))
    raw[-1] ^= 1
    replace_block(store, start, bytes(raw))
    for read in READERS:
        with pytest.raises(CorruptJournalError, match="chain is broken") as caught:
            read(store)
        assert (caught.value.file, caught.value.offset) == (key, start)


def replace_block(store: MemoryStore, start: int, raw: bytes | None, payload: bytes = b"") -> None:
    """Give a block another payload; mend all lengths and CRCs."""
    key = key_of(store)
    content = store.get(key)
    stored = struct.unpack_from("<I", content, start + 4)[0]
    end = start + BLOCK_HEAD_BYTES + stored
    payload = payload or zstandard.compress(raw or b"")
    head = bytearray(content[start : start + BLOCK_HEAD_BYTES])
    struct.pack_into("<I", head, 4, len(payload))
    struct.pack_into("<I", head, 60, zlib.crc32(payload))
    journal_id = content[16:32]
    struct.pack_into("<I", head, 64, zlib.crc32(journal_id + head[:64]))
    rest = bytearray(content[end:])
    if rest:
        struct.pack_into("<I", rest, 56, len(head) + len(payload))
        struct.pack_into("<I", rest, 64, zlib.crc32(journal_id + rest[:64]))
    grown = len(head) + len(payload) - (end - start)
    front = bytearray(content[:start])
    whole, last = struct.unpack_from("<QQ", front, 64)
    struct.pack_into("<QQ", front, 64, whole + grown, last + (grown if rest else 0))
    struct.pack_into("<I", front, 80, zlib.crc32(front[:80]))
    store.put(key, [front, head, payload, rest])


FITTING = {"first event": (16, "<Q"), "chain before it": (24, "<I"), "length before it": (56, "<I")}
"""Fields of a block's head that must fit the block before it: where, and how they are packed."""


@pytest.mark.parametrize(
    ("field", "which"),
    [
        *(("first event", which) for which in (1, -1)),  # no number is lower than the first one's
        *(("chain before it", which) for which in (0, 1, -1)),
        *(("length before it", which) for which in (0, 1, -1)),
    ],
)
def test_blocks_that_are_whole_but_do_not_fit_each_other_are_refused(
    field: str, which: int
) -> None:
    """Also by who copies blocks without a look at their frames, as a compaction does."""
    store = build()
    key = key_of(store)
    content = bytearray(store.get(key))
    start = block_starts(bytes(content))[which]
    at, form = FITTING[field]
    (value,) = struct.unpack_from(form, content, start + at)
    struct.pack_into(form, content, start + at, 0 if field == "first event" else value ^ 1)
    mended = zlib.crc32(content[16:32] + content[start : start + 64])
    struct.pack_into("<I", content, start + 64, mended)
    store.put(key, [content])
    name = parse_compacted_name(key.rpartition("/")[2])
    assert name is not None
    with pytest.raises(CorruptJournalError, match="does not fit the one before it") as caught:
        list(read_blocks(store, name, key))
    assert (caught.value.file, caught.value.offset) == (key, start)
    with pytest.raises(CorruptJournalError):
        read_events(store)


def test_a_bomb_in_a_block_is_damage_and_is_not_unfolded() -> None:
    store = build()
    start = block_starts(store.get(key_of(store)))[0]
    replace_block(store, start, None, zstandard.compress(bytes(2**28)))
    with pytest.raises(CorruptJournalError, match="compressed block does not promise") as caught:
        read_events(store)
    assert (caught.value.file, caught.value.offset) == (key_of(store), start)


@pytest.mark.parametrize("raw", [b"", bytes(9), bytes(200)])
def test_a_block_without_room_for_its_frames_is_damage(raw: bytes) -> None:
    store = build()
    replace_block(store, block_starts(store.get(key_of(store)))[0], raw)
    with pytest.raises(CorruptJournalError, match="length"):
        read_events(store)


def test_an_object_under_the_name_of_another_is_refused() -> None:
    one, other = build(later=False), build(later=False)
    one.put(key_of(one), [other.get(key_of(other))])  # same events, so the same name
    assert read_events(one) == [event for flush in FLUSHES for event in flush]
    name = key_of(one).replace("00000000000000000012", "00000000000000000013")
    one.put(name, [one.get(key_of(one))])
    with pytest.raises(CorruptJournalError, match="another compacted object"):
        read_events(one)


def test_an_object_of_another_journal_is_refused() -> None:
    store, other = build(), build()
    store.put(key_of(store), [other.get(key_of(other))])
    with pytest.raises(CorruptJournalError, match="another journal"):
        read_events(store)


def test_a_newer_format_is_refused_by_its_version() -> None:
    store = build()
    key = key_of(store)
    store.put(key, [store.get(key)[:8], struct.pack("<H", 2), b"nobody knows what follows"])
    for read in READERS:
        with pytest.raises(UnsupportedFormatError) as caught:
            read(store)
        assert (caught.value.file, caught.value.found, caught.value.supported) == (key, 2, 1)


def test_a_missing_object_is_named() -> None:
    for later in (True, False):
        store = build(later=later)
        take_ownership(store, "w", owner="heir").flush([b"\x2a"])
        key = key_of(store)
        store.delete([key])
        for read in READERS:
            with pytest.raises(CorruptJournalError, match="missing"):
                read(store)


def test_damage_is_not_compacted_away() -> None:
    store = build()
    heir = take_ownership(store, "w", owner="heir")
    heir.flush([b"\x2a"])
    before = {each.key for each in store.list("")}
    key = key_of(store)
    content = bytearray(store.get(key))
    content[HEAD_BYTES + BLOCK_HEAD_BYTES + 2] ^= 1
    store.put(key, [content])
    with pytest.raises(CorruptJournalError) as caught:
        Compactor(heir).run(last=True)
    assert caught.value.file == key
    assert {each.key for each in store.list("")} == before
