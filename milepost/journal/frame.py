"""A frame: events that became durable together, as bytes and back.

A frame is a head of 48 bytes and a payload. The payload is the events' bytes, one after the other,
compressed if that makes them smaller. Head and payload carry a CRC each, against accidents; the
chain in the head is a hash over everything in the journal up to here, against edits. The CRC of the
head also covers the journal's id, so that a frame copied from another journal is no frame here; it
does not cover the place in the file, so that a dropped or doubled frame can be told from a torn
one.

An event is opaque here: some bytes that hold one msgpack object. ``docs/format.md`` is normative.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import msgpack

from milepost.errors import CorruptJournalError, UsageError
from milepost.journal.compression import compress_if_smaller, decompress
from milepost.journal.dictionary import DICTIONARY
from milepost.journal.store import Part

SYNC_MARK = b"\xf3MP\x9e"
"""Starts every head; a reader that lost its way looks for it."""

CHAIN_START = bytes(16)
"""What comes before the first frame of a journal."""

RAW_BYTES_MAX = 128 * 2**20
"""Bytes of events per frame: what a reader must be ready to hold. Only the creation of a workflow
of millions of tasks comes near."""

BATCH_BYTES_MAX = 16 * 2**20
"""Where a writer starts another frame; an event that is longer alone gets a frame of its own."""

EVENTS_MAX = 2**16 - 1
"""Events per frame: the count has 16 bits."""

COPIED_BYTES_MAX = 4096
"""Up to here, one call on a copy is faster than two calls; journals are read a frame at a time."""

FLAG_ZSTD = 1

SKIMMED_BYTES_MAX = 512
"""Up to here, a single event is decoded to see that it is one: quicker than to set out to skip."""

_HEAD = struct.Struct("<4sIIHHQ16sI")
_WHOLE_HEAD = struct.Struct("<4sIIHHQ16sII")
_CRC = struct.Struct("<I")
_CHAINED = struct.Struct("<16sIQI")

HEAD_BYTES = _HEAD.size + _CRC.size


class FrameHead(NamedTuple):  # made for every frame of a journal, and three times as quickly
    """The fields of a head whose CRC is right, in the order they are stored in.

    Attributes:
        stored_bytes: Length of the payload as stored.
        epoch: The epoch of the owner that wrote the frame.
        event_count: How many events it holds.
        flags: Bit 0: the payload is compressed.
        first_seq: The number of its first event.
        chain: The hash over the journal up to and including this frame.
        payload_crc: CRC-32 of the payload as stored.
    """

    stored_bytes: int
    epoch: int
    event_count: int
    flags: int
    first_seq: int
    chain: bytes
    payload_crc: int


@dataclass(frozen=True, slots=True)  # by position: a journal may hold hundreds of thousands
class Frame:
    """A frame that was read and verified.

    Attributes:
        epoch: The epoch of the owner that wrote it.
        first_seq: The number of its first event.
        count: How many events it holds.
        raw: The events' bytes, one after the other.
        chain: The hash over the journal up to and including this frame.
        file: The key of the object it was read from.
        offset: Where in a segment its head starts; in a compacted object, where its block does.
        end: Where in a segment its payload ends; in a compacted object, where its block does.
    """

    epoch: int
    first_seq: int
    count: int
    raw: bytes
    chain: bytes
    file: str
    offset: int
    end: int

    @property
    def next_seq(self) -> int:
        """The number of the event after this frame's last one."""
        return self.first_seq + self.count

    def events(self) -> Sequence[bytes]:
        """Cut the payload into its events.

        Returns:
            The bytes of each event, :attr:`count` of them.

        Raises:
            CorruptJournalError: If the payload is not that many msgpack objects.
        """
        try:
            return split_events(self.raw, self.count)
        except ValueError as error:
            raise CorruptJournalError(self.file, self.offset, str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrame:
    """A frame ready to be written.

    Attributes:
        head: Its first 48 bytes.
        payload: The rest.
        next_seq: The number of the event after its last one.
        chain: The hash over the journal up to and including this frame.
    """

    head: bytes
    payload: bytes
    next_seq: int
    chain: bytes

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.head) + len(self.payload)


def chain_frame(chain: bytes, epoch: int, first_seq: int, count: int, raw: Part) -> bytes:
    """Hash one more frame into a journal's chain.

    Args:
        chain: The chain of the frame before, or :data:`CHAIN_START`.
        epoch: The epoch of the frame's owner.
        first_seq: The number of its first event.
        count: How many events it holds.
        raw: The events' bytes, uncompressed.

    Returns:
        The frame's chain, 16 bytes.
    """
    head = _CHAINED.pack(chain, epoch, first_seq, count)
    if len(raw) <= COPIED_BYTES_MAX:
        return hashlib.sha256(head + raw).digest()[:16]
    digest = hashlib.sha256(head)
    digest.update(raw)
    return digest.digest()[:16]


def encode_frames(
    events: Sequence[bytes],
    *,
    journal_id: bytes,
    epoch: int,
    first_seq: int,
    chain: bytes,
    dictionary: int = DICTIONARY,
) -> list[EncodedFrame]:
    """Pack events into as few frames as the limits allow.

    Args:
        events: The events' bytes, each one msgpack object.
        journal_id: The journal's id.
        epoch: The epoch of the owner.
        first_seq: The number of the first event.
        chain: The chain of the frame before.
        dictionary: The number of the dictionary that the segment's head names.

    Returns:
        The frames, in order; none if there are no events.

    Raises:
        UsageError: If an event is empty or longer than a frame may be.
        CorruptJournalError: If the installed dictionary is damaged.
    """
    frames = []
    for batch in _batches(events):
        frame = _encode_frame(batch, journal_id, epoch, first_seq, chain, dictionary)
        first_seq, chain = frame.next_seq, frame.chain
        frames.append(frame)
    return frames


def _batches(events: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    start = size = 0
    for position, event in enumerate(events):
        if not 0 < len(event) <= RAW_BYTES_MAX:
            raise UsageError(
                f"an event of {len(event)} bytes does not fit in a frame (1 to {RAW_BYTES_MAX}); "
                f"large values are stored as blobs"
            )
        full = size + len(event) > BATCH_BYTES_MAX or position - start == EVENTS_MAX
        if full and position > start:
            yield events[start:position]
            start, size = position, 0
        size += len(event)
    if start < len(events):
        yield events[start:]


def _encode_frame(
    events: Sequence[bytes],
    journal_id: bytes,
    epoch: int,
    first_seq: int,
    chain: bytes,
    dictionary: int,
) -> EncodedFrame:
    raw = b"".join(events)
    chain = chain_frame(chain, epoch, first_seq, len(events), raw)
    packed = compress_if_smaller(raw, dictionary)
    payload = raw if packed is None else packed
    flags = 0 if packed is None else FLAG_ZSTD
    fields = (len(payload), epoch, len(events), flags, first_seq, chain, zlib.crc32(payload))
    head = _HEAD.pack(SYNC_MARK, *fields)
    return EncodedFrame(
        head=head + _CRC.pack(zlib.crc32(journal_id + head)),
        payload=payload,
        next_seq=first_seq + len(events),
        chain=chain,
    )


def parse_frame_head(buffer: Part, offset: int, journal_id: bytes) -> FrameHead | None:
    """Read a frame's head.

    Args:
        buffer: A segment's bytes.
        offset: Where the head should start.
        journal_id: The journal's id.

    Returns:
        The head, or None if no undamaged head of this journal starts there.
    """
    if len(buffer) < offset + HEAD_BYTES:
        return None
    mark, *fields, crc = _WHOLE_HEAD.unpack_from(buffer, offset)
    if mark != SYNC_MARK:
        return None
    if zlib.crc32(buffer[offset : offset + _HEAD.size], zlib.crc32(journal_id)) != crc:
        return None
    return FrameHead(*fields)


def unpack_payload(head: FrameHead, payload: Part, dictionary: int) -> bytes:
    """Undo the compression of a payload whose CRC is right.

    Args:
        head: The frame's head.
        payload: The payload as stored.
        dictionary: The number of the dictionary that the segment's head names.

    Returns:
        The events' bytes.

    Raises:
        ValueError: If the flags are unknown, or the payload is no zstd frame or too large.
        CorruptJournalError: If the installed dictionary is damaged.
    """
    if head.flags not in (0, FLAG_ZSTD):
        raise ValueError(f"frame has unknown flags {head.flags:#06x}")
    if head.flags & FLAG_ZSTD:
        return decompress(payload, RAW_BYTES_MAX, dictionary)
    if len(payload) > RAW_BYTES_MAX:
        raise ValueError(f"frame of {len(payload)} bytes is longer than {RAW_BYTES_MAX}")
    return bytes(payload)


def split_events(raw: bytes, count: int) -> list[bytes]:
    """Cut the bytes of several events into one piece per event, without decoding them.

    Args:
        raw: The events' bytes, one after the other.
        count: How many there are.

    Returns:
        The pieces.

    Raises:
        ValueError: If ``raw`` is not exactly ``count`` msgpack objects.
    """
    if count == 1 and len(raw) <= SKIMMED_BYTES_MAX and _is_one_object(raw):
        return [raw]
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(raw), 1))
    unpacker.feed(raw)
    ends = [0]
    try:
        for _ in range(count):
            unpacker.skip()
            ends.append(unpacker.tell())
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ValueError(f"event {len(ends) - 1} of the frame is not msgpack: {error!r}") from error
    if ends[-1] != len(raw):
        raise ValueError(f"frame of {count} events has {len(raw) - ends[-1]} bytes too many")
    return [raw[start:end] for start, end in pairwise(ends)]


def _is_one_object(raw: bytes) -> bool:
    """Tell whether this is one msgpack object for sure; there are odd ones that cannot be built."""
    try:
        msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return False
    return True
