"""Cut, flipped, dropped, doubled, edited: never a wrong event, never a silent loss of old ones."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib

import msgpack
import pytest
import zstandard

from milepost.errors import CorruptJournalError, MilepostError, UnsupportedFormatError
from milepost.journal import Frame, MemoryStore, read_backward, read_journal, take_ownership
from milepost.journal.frame import CHAIN_START, SYNC_MARK, chain_frame, encode_frames
from milepost.journal.frame import HEAD_BYTES as FRAME_HEAD_BYTES
from milepost.journal.layout import SegmentName, parse_segment_name
from milepost.journal.segment import HEAD_BYTES as SEGMENT_HEAD_BYTES
from milepost.journal.segment import (
    Parent,
    SegmentHead,
    encode_segment_head,
    parse_segment_head,
)
from tallies import Tallies

FIRST = [[msgpack.packb({"n": n}) for n in range(3)], [msgpack.packb("b" * 150)], [b"\x07"]]
SECOND = [[msgpack.packb(["s", n]) for n in range(2)], [msgpack.packb("y" * 30), b"\x09"]]
ALL = [event for flush in FIRST + SECOND for event in flush]
DAMAGE = "damage to a journal"


def build(store: MemoryStore) -> list[str]:
    """A journal by two owners; returns its segments' keys, oldest first."""
    for number, flushes in enumerate((FIRST, SECOND)):
        writer = take_ownership(store, "w", owner=str(number))
        for events in flushes:
            writer.flush(events)
        writer.close()
    return [each.key for each in store.list("workflows/w/segments/")]


def read(store: MemoryStore) -> list[Frame]:
    return list(read_journal(store, "w"))


def read_events(store: MemoryStore) -> list[bytes]:
    return [event for frame in read(store) for event in frame.events()]


def flip(content: bytes, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_the_journal_of_these_tests_is_whole(memory_store: MemoryStore) -> None:
    build(memory_store)
    assert read_events(memory_store) == ALL


def test_a_journal_cut_at_any_byte_of_its_end_is_a_prefix_and_the_next_owner_goes_on(
    tallies: Tallies,
) -> None:
    store = MemoryStore()
    newest = build(store)[-1]
    content = store.get(newest)
    ends = {frame.end: frame.next_seq for frame in read(store) if frame.file == newest}
    seen = set()
    for length in range(len(content)):
        store.put(newest, [content[:length]])
        kept = max((seq for end, seq in ends.items() if end <= length), default=5)
        assert read_events(store) == ALL[:kept]
        seen.add(kept)
        if length % 7 == 0:
            copy = copy_of(store)
            heir = take_ownership(copy, "w", owner="heir")
            heir.flush([b"\x2a"])
            assert read_events(copy) == [*ALL[:kept], b"\x2a"]
    assert seen == {5, 7}
    tallies.add(
        DAMAGE, "newest segment cut at any byte, appends", torn_tail_dropped=len(content), wrong=0
    )


def copy_of(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore(appendable=store.appendable)
    for each in store.list(""):
        copy.put(each.key, [store.get(each.key)])
    return copy


def test_an_old_segment_cut_at_any_byte_is_damage(tallies: Tallies) -> None:
    store = MemoryStore()
    oldest = build(store)[0]
    content = store.get(oldest)
    for length in range(len(content)):
        store.put(oldest, [content[:length]])
        reason = "end is missing" if length >= SEGMENT_HEAD_BYTES else "head is damaged"
        with pytest.raises(CorruptJournalError, match=reason) as caught:
            read(store)
        assert caught.value.file == oldest
        assert caught.value.offset <= length
    tallies.add(
        DAMAGE, "old segment cut at any byte, appends", refused_with_place=len(content), wrong=0
    )


def test_an_object_cut_at_any_byte_is_damage(tallies: Tallies) -> None:
    store = MemoryStore(appendable=False)
    for key in build(store):
        content = store.get(key)
        for length in range(len(content)):
            store.put(key, [content[:length]])
            with pytest.raises(CorruptJournalError) as caught:
                read(store)
            assert caught.value.file == key
        store.put(key, [content])
        tallies.add(
            DAMAGE, "any segment cut at any byte, objects", refused_with_place=len(content), wrong=0
        )
    assert read_events(store) == ALL


def test_an_object_with_bytes_after_its_end_is_damage() -> None:
    store = MemoryStore(appendable=False)
    newest = build(store)[-1]
    store.put(newest, [store.get(newest), b"\0"])
    with pytest.raises(CorruptJournalError):
        read(store)


def test_any_flipped_bit_is_an_error_or_costs_at_most_the_last_frame(
    memory_store: MemoryStore, tallies: Tallies
) -> None:
    store = memory_store
    segments = build(store)
    last = read(store)[-1]
    bits = torn = 0
    for key in segments:
        content = store.get(key)
        for bit in range(len(content) * 8):
            store.put(key, [flip(content, bit)])
            bits += 1
            try:
                events = read_events(store)
            except (CorruptJournalError, UnsupportedFormatError) as error:
                assert error.file == key  # noqa: PT017  it may also not be raised
                continue
            assert store.appendable, f"bit {bit} of {key} was overlooked"
            assert (key, events) == (segments[-1], ALL[: last.first_seq])
            assert bit // 8 >= last.offset
            torn += 1
        store.put(key, [content])
    assert (torn > 0) == store.appendable
    tallies.add(
        DAMAGE,
        f"any bit flipped, {'appends' if store.appendable else 'objects'}",
        refused_with_place=bits - torn,
        torn_tail_dropped=torn,
        wrong=0,
    )


def test_any_damage_shows_when_only_the_newest_segment_is_read() -> None:
    store = MemoryStore()
    newest = build(store)[-1]
    content = store.get(newest)
    last = next(read_backward(store, "w"))[-1]
    for bit in range(last.offset * 8):
        store.put(newest, [flip(content, bit)])
        with pytest.raises((CorruptJournalError, UnsupportedFormatError)):
            next(read_backward(store, "w"))


@pytest.mark.parametrize("length", [1, 47, 48, 500, 5000])
@pytest.mark.parametrize("kind", ["zeros", "noise", "marks", "old frames"])
def test_a_tail_of_anything_but_later_frames_is_dropped(kind: str, length: int) -> None:
    store = MemoryStore()
    newest = build(store)[-1]
    content = store.get(newest)
    tails = {
        "zeros": bytes(length),
        "noise": random.Random(length).randbytes(length),
        "marks": (SYNC_MARK * length)[:length],
        # In its place a frame of the past would be damage; behind a torn head it proves nothing.
        "old frames": b"\xff" + (content[SEGMENT_HEAD_BYTES:] * length)[:length],
    }
    store.put(newest, [content, tails[kind]])
    assert read_events(store) == ALL


def test_a_frame_lost_from_the_middle_is_damage(memory_store: MemoryStore) -> None:
    store = memory_store
    build(store)
    for frame in read(store)[:-1]:
        copy = copy_of(store)
        content = copy.get(frame.file)
        copy.put(frame.file, [content[: frame.offset], content[frame.end :]])
        with pytest.raises(CorruptJournalError) as caught:
            read(copy)
        assert caught.value.file == frame.file


def test_a_doubled_frame_is_damage_unless_it_lies_behind_the_sealed_length() -> None:
    store = MemoryStore()
    oldest = build(store)[0]
    frames = read(store)
    for frame in frames:
        copy = copy_of(store)
        content = copy.get(frame.file)
        copy.put(frame.file, [content[: frame.end], content[frame.offset :]])
        if frame.file == oldest and frame.end == len(content):
            assert read_events(copy) == ALL
        else:
            with pytest.raises(CorruptJournalError):
                read(copy)


def test_two_frames_that_changed_places_are_damage() -> None:
    store = MemoryStore()
    newest = build(store)[-1]
    one, two = (frame for frame in read(store) if frame.file == newest)
    content = store.get(newest)
    swapped = content[two.offset : two.end] + content[one.offset : one.end]
    store.put(newest, [content[: one.offset], swapped])
    with pytest.raises(CorruptJournalError):
        read(store)


def test_an_edited_event_with_mended_checksums_breaks_the_chain(memory_store: MemoryStore) -> None:
    store = memory_store
    build(store)
    uncompressed = [frame for frame in read(store) if is_plain(frame)]
    assert len(uncompressed) == 3
    for frame in uncompressed:
        copy = copy_of(store)
        edit_first_byte(copy, frame)
        with pytest.raises(CorruptJournalError, match="chain is broken") as caught:
            read(copy)
        assert (caught.value.file, caught.value.offset) == (frame.file, frame.offset)


def is_plain(frame: Frame) -> bool:
    return frame.end - frame.offset == FRAME_HEAD_BYTES + len(frame.raw)


def edit_first_byte(store: MemoryStore, frame: Frame, *, mend_chain: bool = False) -> None:
    """Change an uncompressed frame's first event, and mend both CRCs."""
    assert is_plain(frame)
    content = store.get(frame.file)
    raw = bytes([frame.raw[0] ^ 1]) + frame.raw[1:]
    head = bytearray(content[frame.offset : frame.offset + FRAME_HEAD_BYTES])
    struct.pack_into("<I", head, 40, zlib.crc32(raw))
    if mend_chain:
        chain = hashlib.sha256(CHAIN_START + struct.pack("<IQI", frame.epoch, 0, frame.count) + raw)
        head[24:40] = chain.digest()[:16]
    struct.pack_into("<I", head, 44, zlib.crc32(content[16:32] + head[:44]))
    store.put(frame.file, [content[: frame.offset], head, raw, content[frame.end :]])


def test_an_edit_with_mended_chain_is_caught_by_what_follows(memory_store: MemoryStore) -> None:
    store = memory_store
    build(store)
    edit_first_byte(store, read(store)[0], mend_chain=True)
    with pytest.raises(CorruptJournalError):
        read(store)


def test_hostile_payloads_do_not_confuse_the_reader() -> None:
    store = MemoryStore()
    build(store)
    frames = read(store)
    stolen = b"".join(store.get(frame.file)[frame.offset : frame.end] for frame in frames)
    noise = random.Random(1).randbytes(40)
    hostile = [
        msgpack.packb(SYNC_MARK * 9 + noise),
        msgpack.packb(stolen[:90]),
        msgpack.packb(stolen),
    ]
    writer = take_ownership(store, "w", owner="hostile")
    for event in hostile:
        writer.flush([event])
    assert read_events(store) == ALL + hostile
    newest = store.list("workflows/w/segments/")[-1].key
    content = store.get(newest)
    offset = read(store)[-1].offset
    for length in range(offset, len(content)):
        store.put(newest, [content[:length]])
        assert read_events(store) == ALL + hostile[:2]


def test_a_bomb_in_a_frame_is_damage_and_is_not_unfolded() -> None:
    store = MemoryStore()
    build(store)
    frame = read(store)[-1]
    bomb = zstandard.compress(bytes(2**28))[4:]  # the magic number is not stored
    content = store.get(frame.file)
    head = bytearray(content[frame.offset : frame.offset + FRAME_HEAD_BYTES])
    struct.pack_into("<I", head, 4, len(bomb))
    struct.pack_into("<H", head, 14, 1)
    struct.pack_into("<I", head, 40, zlib.crc32(bomb))
    struct.pack_into("<I", head, 44, zlib.crc32(content[16:32] + head[:44]))
    store.put(frame.file, [content[: frame.offset], head, bomb])
    with pytest.raises(CorruptJournalError, match="compressed block does not promise") as caught:
        read(store)
    assert (caught.value.file, caught.value.offset) == (frame.file, frame.offset)


def test_a_missing_segment_is_named(memory_store: MemoryStore) -> None:
    store = memory_store
    segments = build(store)
    for key in segments[:-1]:
        copy = copy_of(store)
        copy.delete([key])
        with pytest.raises(CorruptJournalError, match="missing") as caught:
            read(copy)
        assert caught.value.file == key


def test_a_segment_under_the_name_of_another_is_refused(memory_store: MemoryStore) -> None:
    store = memory_store
    segments = build(store)
    store.put(segments[-1], [store.get(segments[0])])
    with pytest.raises(CorruptJournalError, match="another segment"):
        read(store)


def test_a_segment_of_another_journal_is_refused() -> None:
    store, other = MemoryStore(), MemoryStore()
    segments = build(store)
    build(other)
    folder = "workflows/w/segments/"
    theirs = other.list(folder)[0].key
    # Give their first segment our name: nonce in the head, and its CRC.
    name = parse_segment_name(segments[0][len(folder) :])
    assert name is not None
    content = bytearray(other.get(theirs))
    content[40:48] = name.nonce
    struct.pack_into("<I", content, 104, zlib.crc32(content[:104]))
    store.put(segments[0], [content])
    with pytest.raises(CorruptJournalError, match="another journal"):
        read(store)


def test_two_segments_in_one_place_are_refused(memory_store: MemoryStore) -> None:
    store = memory_store
    newest = build(store)[-1]
    store.put(newest[:-16] + "0" * 16, [store.get(newest)])
    with pytest.raises(CorruptJournalError, match="same place"):
        read(store)


def test_a_newer_format_is_refused_by_its_version(memory_store: MemoryStore) -> None:
    store = memory_store
    newest = build(store)[-1]
    content = store.get(newest)
    store.put(newest, [content[:8], struct.pack("<H", 2), b"nobody knows what follows"])
    with pytest.raises(UnsupportedFormatError) as caught:
        read(store)
    assert (caught.value.file, caught.value.found, caught.value.supported) == (newest, 2, 1)


def test_a_later_frame_in_the_same_file_makes_a_hole_damage() -> None:
    """The classification itself: the same bad bytes, without and with something after them."""
    store = MemoryStore()
    writer = take_ownership(store, "w", owner="one")
    for number in range(4):
        writer.flush([msgpack.packb(number)])
    frames = read(store)
    key = frames[0].file
    content = store.get(key)
    bad = bytes(frames[2].end - frames[2].offset)
    store.put(key, [content[: frames[2].offset], bad])
    assert len(read(store)) == 2
    store.put(key, [content[: frames[2].offset], bad, content[frames[3].offset :]])
    with pytest.raises(CorruptJournalError, match="event 3 is stored after it") as caught:
        read(store)
    assert caught.value.offset == frames[2].offset


def test_the_missing_frame_itself_further_on_is_damage() -> None:
    store = MemoryStore()
    newest = build(store)[-1]
    last = read(store)[-1]
    content = store.get(newest)
    store.put(newest, [content[: last.offset], b"?", content[last.offset :]])
    with pytest.raises(CorruptJournalError, match="stored after it") as caught:
        read(store)
    assert caught.value.offset == last.offset


@pytest.mark.parametrize(("epoch", "skip", "count"), [(9, 0, 1), (2, 1, 1), (2, 0, 0)])
def test_a_frame_with_all_checksums_right_must_still_be_the_one_that_is_due(
    epoch: int, skip: int, count: int
) -> None:
    store = MemoryStore()
    newest = build(store)[-1]
    last = read(store)[-1]
    content = store.get(newest)
    raw = b"\x01" * count
    seq = last.next_seq + skip
    chain = chain_frame(last.chain, epoch, seq, count, raw)
    head = SYNC_MARK + struct.pack(
        "<IIHHQ16sI", count, epoch, count, 0, seq, chain, zlib.crc32(raw)
    )
    head += struct.pack("<I", zlib.crc32(content[16:32] + head))
    store.put(newest, [content, head, raw])
    with pytest.raises(CorruptJournalError, match="is due"):
        read(store)


ONE, TWO = SegmentName(1, 0, b"one____1"), SegmentName(2, 0, b"two____2")


def parent(name: SegmentName, sealed_bytes: int = 200) -> Parent:
    return Parent(name=name, sealed_bytes=sealed_bytes, chain=b"c" * 16)


@pytest.mark.parametrize(
    ("name", "first_seq", "of"),
    [
        pytest.param(TWO, 0, parent(TWO), id="itself"),
        pytest.param(ONE, 0, parent(TWO), id="a later one"),
        pytest.param(TWO, 0, parent(ONE, 107), id="less than a head"),
        pytest.param(SegmentName(2, 2, b"two____2"), 0, parent(ONE), id="skipping an index"),
        pytest.param(SegmentName(1, 1, b"two____2"), 0, parent(ONE), id="of another owner"),
        pytest.param(TWO, 5, None, id="none, though events come before"),
        pytest.param(SegmentName(2, 1, b"two____2"), 0, None, id="none, though not the first"),
    ],
)
def test_a_head_that_names_an_impossible_parent_is_damage(
    name: SegmentName, first_seq: int, of: Parent | None
) -> None:
    head = SegmentHead(
        name=name, journal_id=bytes(16), first_seq=first_seq, parent=of, whole_bytes=0
    )
    with pytest.raises(CorruptJournalError, match="parent"):
        parse_segment_head(encode_segment_head(head), name, "file")


def test_a_possible_head_comes_back() -> None:
    for name, of in ((ONE, None), (TWO, parent(ONE)), (SegmentName(1, 1, ONE.nonce), parent(ONE))):
        head = SegmentHead(name=name, journal_id=b"j" * 16, first_seq=0, parent=of, whole_bytes=9)
        encoded = encode_segment_head(head)
        assert len(encoded) == SEGMENT_HEAD_BYTES == 108
        assert parse_segment_head(encoded, name, "file") == head


def test_a_segment_that_died_with_its_head_unwritten_never_was() -> None:
    store = MemoryStore()
    build(store)
    for content in (b"", b"\x89MP", bytes(107), bytes(4096), SYNC_MARK * 100):
        store.put("workflows/w/segments/0000000003.0000000000.00000000000000aa", [content])
        assert read_events(store) == ALL
        assert [frame.epoch for frame in next(read_backward(store, "w"))] == [2, 2]


def test_an_object_without_a_head_is_damage() -> None:
    store = MemoryStore(appendable=False)
    build(store)
    for content in (b"", b"\x89MP", bytes(107), bytes(4096)):
        store.put("workflows/w/segments/0000000003.0000000000.00000000000000aa", [content])
        with pytest.raises(CorruptJournalError, match="head is damaged"):
            read(store)


def test_random_damage_never_makes_a_wrong_event() -> None:
    source = random.Random(20261121)
    store = MemoryStore()
    segments = build(store)
    clean = {key: store.get(key) for key in segments}
    for _ in range(1500):
        key = source.choice(segments)
        content = bytearray(clean[key])
        start = source.randrange(len(content))
        end = min(len(content), start + source.randrange(1, 80))
        content[start:end] = source.randbytes(source.randrange(80))
        store.put(key, [content])
        try:
            events = read_events(store)
        except MilepostError:
            events = []
        assert events == ALL[: len(events)]
        store.put(key, [clean[key]])


def test_encoding_the_same_events_twice_gives_the_same_bytes() -> None:
    def once() -> list[bytes]:
        encoded = encode_frames(ALL, journal_id=bytes(16), epoch=1, first_seq=0, chain=CHAIN_START)
        return [frame.head + frame.payload for frame in encoded]

    assert once() == once()
