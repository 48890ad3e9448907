"""Frames: there and back, within limits, and refused when they lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import CorruptJournalError, UsageError
from milepost.journal import frame as frames
from milepost.journal.dictionary import DICTIONARY, NO_DICTIONARY
from milepost.journal.frame import (
    CHAIN_START,
    EVENTS_MAX,
    HEAD_BYTES,
    RAW_BYTES_MAX,
    SYNC_MARK,
    EncodedFrame,
    Frame,
    chain_frame,
    encode_frames,
    parse_frame_head,
    split_events,
    unpack_payload,
)

JOURNAL_ID = bytes(range(16))

plain = st.recursive(
    st.none() | st.integers(-(2**63), 2**63) | st.binary(max_size=300) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
events_strategy = st.lists(plain.map(msgpack.packb), min_size=1, max_size=30)


def encode(
    events: Sequence[bytes], first_seq: int = 0, dictionary: int = DICTIONARY
) -> list[EncodedFrame]:
    return encode_frames(
        events,
        journal_id=JOURNAL_ID,
        epoch=3,
        first_seq=first_seq,
        chain=CHAIN_START,
        dictionary=dictionary,
    )


def decode(encoded: EncodedFrame, dictionary: int = DICTIONARY) -> list[bytes]:
    buffer = encoded.head + encoded.payload
    head = parse_frame_head(buffer, 0, JOURNAL_ID)
    assert head is not None
    return split_events(unpack_payload(head, buffer[HEAD_BYTES:], dictionary), head.event_count)


@given(events_strategy, st.integers(0, 2**40), st.sampled_from([NO_DICTIONARY, DICTIONARY]))
def test_events_come_back_byte_for_byte(
    events: list[bytes], first_seq: int, dictionary: int
) -> None:
    (encoded,) = encode(events, first_seq, dictionary)
    assert decode(encoded, dictionary) == events
    assert encoded.next_seq == first_seq + len(events)
    assert encoded.size == HEAD_BYTES + len(encoded.payload)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_arbitrary_bytes_are_no_frame_head(buffer: bytes, offset: int) -> None:
    assert parse_frame_head(buffer, offset, JOURNAL_ID) is None


@given(events_strategy, st.integers(0, HEAD_BYTES * 8 - 1))
def test_a_head_with_a_flipped_bit_is_no_head(events: list[bytes], bit: int) -> None:
    (encoded,) = encode(events)
    head = bytearray(encoded.head)
    head[bit // 8] ^= 1 << bit % 8
    assert parse_frame_head(head, 0, JOURNAL_ID) is None


def test_a_head_of_another_journal_is_no_head_here() -> None:
    (encoded,) = encode([b"\x01"])
    assert parse_frame_head(encoded.head, 0, JOURNAL_ID) is not None
    assert parse_frame_head(encoded.head, 0, bytes(16)) is None


def test_the_layout_is_the_documented_one() -> None:
    (encoded,) = encode([b"\x01", b"\x02"], first_seq=7)
    chain = chain_frame(CHAIN_START, 3, 7, 2, b"\x01\x02")
    fields = struct.pack("<IIHHQ", 2, 3, 2, 0, 7) + chain
    head = bytes.fromhex("f34d509e") + fields + struct.pack("<I", zlib.crc32(b"\x01\x02"))
    assert encoded.head == head + struct.pack("<I", zlib.crc32(JOURNAL_ID + head))
    assert len(encoded.head) == HEAD_BYTES == 48
    assert encoded.payload == b"\x01\x02"


def test_large_repetitive_payloads_are_compressed_and_others_are_not() -> None:
    (repetitive,) = encode([msgpack.packb("x" * 10_000)])
    assert len(repetitive.payload) < 200
    (short,) = encode([msgpack.packb("x" * 90)], dictionary=NO_DICTIONARY)
    assert short.payload == msgpack.packb("x" * 90)
    noise = msgpack.packb(zlib.compress(bytes(range(256)) * 3)[:150])
    (incompressible,) = encode([noise])
    assert incompressible.payload == noise


def test_too_many_events_for_one_frame_go_into_several() -> None:
    encoded = encode([b"\x01"] * (EVENTS_MAX * 2 + 1))
    assert [frame.next_seq for frame in encoded] == [EVENTS_MAX, EVENTS_MAX * 2, EVENTS_MAX * 2 + 1]
    assert sum(len(decode(frame)) for frame in encoded) == EVENTS_MAX * 2 + 1


def test_too_many_bytes_for_one_frame_go_into_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BATCH_BYTES_MAX", 10)
    events = [msgpack.packb("abcd"), msgpack.packb("efgh"), msgpack.packb("123456789ab"), b"\x01"]
    encoded = encode(events)
    assert [decode(frame) for frame in encoded] == [events[:2], events[2:3], events[3:]]


def test_no_events_make_no_frame() -> None:
    assert encode([]) == []


@pytest.mark.parametrize("event", [b"", bytes(RAW_BYTES_MAX + 1)], ids=["empty", "too long"])
def test_an_event_that_fits_no_frame_is_refused_before_anything_is_encoded(event: bytes) -> None:
    with pytest.raises(UsageError, match="does not fit in a frame"):
        encode([b"\x01", event])


def test_an_event_of_the_largest_size_fits() -> None:
    event = msgpack.packb(bytes(RAW_BYTES_MAX - 5))
    assert len(event) == RAW_BYTES_MAX
    (encoded,) = encode([event])
    assert decode(encoded) == [event]


def forge(payload: bytes, flags: int, count: int = 1) -> tuple[bytes, bytes]:
    """A head with right CRCs for any payload."""
    fields = (SYNC_MARK, len(payload), 3, count, flags, 0, bytes(16), zlib.crc32(payload))
    head = struct.pack("<4sIIHHQ16sI", *fields)
    return head + struct.pack("<I", zlib.crc32(JOURNAL_ID + head)), payload


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(zstandard.compress(bytes(RAW_BYTES_MAX + 1)), id="bomb"),
        pytest.param(
            zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000)),
            id="unknown size",
        ),
        pytest.param(zstandard.compress(bytes(1000))[:-3], id="cut off"),
        pytest.param(zstandard.compress(bytes(1000)) + b"more", id="bytes after it"),
        pytest.param(b"not zstd at all", id="not zstd"),
        pytest.param(b"", id="nothing"),
        pytest.param(bytes.fromhex("28b52ffde0") + b"\xff" * 8 + b"\x01", id="16 exabytes"),
    ],
)
@pytest.mark.parametrize("dictionary", [NO_DICTIONARY, DICTIONARY])
def test_a_compressed_payload_that_lies_is_refused_without_unfolding_it(
    payload: bytes, dictionary: int
) -> None:
    payload = payload if dictionary == NO_DICTIONARY else payload[4:]  # no magic number
    head = parse_frame_head(forge(payload, flags=1)[0], 0, JOURNAL_ID)
    assert head is not None
    with pytest.raises(ValueError, match="compressed block"):
        unpack_payload(head, payload, dictionary)


def test_a_frame_with_flags_of_the_future_is_refused() -> None:
    head = parse_frame_head(forge(b"\x01", flags=2)[0], 0, JOURNAL_ID)
    assert head is not None
    with pytest.raises(ValueError, match="unknown flags"):
        unpack_payload(head, b"\x01", DICTIONARY)


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (b"\x01\x02", 1),
        (b"\x01\x02", 3),
        (b"\x92\x01", 1),
        (b"\xc1", 1),
        (b"\xdd\xff\xff\xff\xff", 1),
        (b"\xc6\xff\xff\xff\xff", 1),
        (b"\x91" * 5000 + b"\x01", 1),
        (b"", 1),
        (b"\x01", 0),
    ],
)
def test_a_payload_that_is_not_so_many_events_is_refused(raw: bytes, count: int) -> None:
    with pytest.raises(ValueError, match="frame"):
        split_events(raw, count)
    frame = Frame(
        epoch=1, first_seq=0, count=count, raw=raw, chain=b"", file="some/file", offset=9, end=0
    )
    with pytest.raises(CorruptJournalError) as caught:
        frame.events()
    assert (caught.value.file, caught.value.offset) == ("some/file", 9)


def test_the_chain_depends_on_every_one_of_its_inputs() -> None:
    chains = {
        chain_frame(CHAIN_START, 1, 2, 3, b"raw"),
        chain_frame(b"\x01" + bytes(15), 1, 2, 3, b"raw"),
        chain_frame(CHAIN_START, 2, 2, 3, b"raw"),
        chain_frame(CHAIN_START, 1, 3, 3, b"raw"),
        chain_frame(CHAIN_START, 1, 2, 4, b"raw"),
        chain_frame(CHAIN_START, 1, 2, 3, b"Raw"),
    }
    assert len(chains) == 6
    assert {len(chain) for chain in chains} == {16}
