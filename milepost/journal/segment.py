"""A segment: a run of frames by one owner, as bytes and back.

A segment starts with a head of 108 bytes. It names the segment before it (its parent; after a
compaction perhaps the compacted object), how many
bytes of the parent count (the sealed length) and the chain at that point; so whatever an owner adds
to the parent after it was succeeded never happened. A segment is either appended to, and then its
end may be torn by a crash, or written whole, and then it may not.

Scanning tells a torn end from damage. At the first bad frame it looks for a later head of this
journal that is undamaged and goes on at or after the event that is missing: if there is one, data
were written after the hole, so the hole is damage, which is an error and is never repaired
silently; if there is none, the rest was never acknowledged and is dropped. ``docs/format.md`` is
normative.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from milepost.errors import AlteredJournalError, CorruptJournalError, UnsupportedFormatError
from milepost.journal.dictionary import DICTIONARY, is_known
from milepost.journal.frame import (
    CHAIN_START,
    SYNC_MARK,
    Frame,
    FrameHead,
    chain_frame,
    parse_frame_head,
    unpack_payload,
)
from milepost.journal.frame import HEAD_BYTES as FRAME_HEAD_BYTES
from milepost.journal.layout import SegmentName
from milepost.journal.store import Part

MAGIC = b"\x89MPSEG\r\n"
"""Not text, and changed by transfers that think it is."""

FORMAT_VERSION = 1
"""The newest version of segments that this code reads, and the one it writes."""

NO_SEGMENT = SegmentName(0, 0, bytes(8))
"""What a journal's first segment names as its parent."""

_HEAD = struct.Struct("<8sHHI16sII8sQQII8sQ16s")
_CRC = struct.Struct("<I")
_VERSION = struct.Struct("<8sH")
_JOURNAL_ID = slice(16, 32)
_SYNC = re.compile(re.escape(SYNC_MARK))

HEAD_BYTES = _HEAD.size + _CRC.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What a segment says about the one before it.

    Attributes:
        name: Its name; of a compacted object only the epoch is named.
        sealed_bytes: How many of its bytes count; 0 for a compacted object.
        chain: The chain of the last frame in those bytes.
    """

    name: SegmentName
    sealed_bytes: int
    chain: bytes

    @property
    def is_compacted(self) -> bool:
        """Whether it is a compacted object, named by the chain and the first seq after it."""
        return self.sealed_bytes == 0


def compacted_parent(epoch: int, chain: bytes) -> Parent:
    """Describe a compacted object as the parent of the next owner's first segment.

    Args:
        epoch: The epoch of its last frame.
        chain: The chain of its last frame.

    Returns:
        The parent.
    """
    return Parent(name=SegmentName(epoch, 0, NO_SEGMENT.nonce), sealed_bytes=0, chain=chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHead:
    """The fields of a segment's head.

    Attributes:
        name: The segment's own name.
        journal_id: The journal's id, 16 bytes, the same in all its segments.
        first_seq: The number of its first event.
        parent: The segment before it, or None for a journal's first.
        whole_bytes: Its length if it was written whole; 0 if it grew by appending, so that its end
            may be torn.
        dictionary: The number of the dictionary its frames are compressed with, 0 for none.
    """

    name: SegmentName
    journal_id: bytes
    first_seq: int
    parent: Parent | None
    whole_bytes: int
    dictionary: int = DICTIONARY

    @property
    def chain(self) -> bytes:
        """The chain before its first frame."""
        return self.parent.chain if self.parent else CHAIN_START


def encode_segment_head(head: SegmentHead) -> bytes:
    """Turn a head into its bytes.

    Args:
        head: The head.

    Returns:
        108 bytes.
    """
    parent = head.parent or Parent(name=NO_SEGMENT, sealed_bytes=0, chain=CHAIN_START)
    fields = _HEAD.pack(
        MAGIC,
        FORMAT_VERSION,
        0,  # no flags
        head.dictionary,
        head.journal_id,
        head.name.epoch,
        head.name.index,
        head.name.nonce,
        head.first_seq,
        head.whole_bytes,
        parent.name.epoch,
        parent.name.index,
        parent.name.nonce,
        parent.sealed_bytes,
        parent.chain,
    )
    return fields + _CRC.pack(zlib.crc32(fields))


def parse_segment_head(buffer: Part, name: SegmentName, file: str) -> SegmentHead | None:
    """Read a segment's head.

    Args:
        buffer: The segment's bytes, at least the first 108 if it has as many.
        name: The name the segment is stored under.
        file: Its key, for errors.

    Returns:
        The head, or None if there is no undamaged one.

    Raises:
        UnsupportedFormatError: If a newer Milepost wrote the segment, or with a newer dictionary.
        CorruptJournalError: If the head is whole but cannot be the one of this segment.
    """
    if len(buffer) < _VERSION.size or buffer[:8] != MAGIC:
        return None
    _, version = _VERSION.unpack_from(buffer)
    # Before the CRC: where a newer version has its CRC cannot be known here.
    if version > FORMAT_VERSION:
        raise UnsupportedFormatError(file, version, FORMAT_VERSION)
    if len(buffer) < HEAD_BYTES:
        return None
    if zlib.crc32(buffer[: _HEAD.size]) != _CRC.unpack_from(buffer, _HEAD.size)[0]:
        return None
    return _checked(_HEAD.unpack_from(buffer), name, file)


def _checked(fields: tuple[int | bytes, ...], name: SegmentName, file: str) -> SegmentHead:
    _, version, flags, dictionary, journal_id, epoch, index, nonce, *rest = fields
    first_seq, whole_bytes, parent_epoch, parent_index, parent_nonce, sealed_bytes, parent_chain = (
        rest
    )
    parent = Parent(
        name=SegmentName(int(parent_epoch), int(parent_index), bytes(parent_nonce)),
        sealed_bytes=int(sealed_bytes),
        chain=bytes(parent_chain),
    )
    first = parent.name == NO_SEGMENT and not any(parent.chain)
    if not is_known(int(dictionary)):
        raise UnsupportedFormatError(f"dictionary of {file}", int(dictionary), DICTIONARY)
    if version != FORMAT_VERSION or flags:
        raise CorruptJournalError(file, 0, "segment head has flags this version does not know")
    if _name(epoch, index, nonce) != name:
        raise AlteredJournalError(file, 0, "segment head is the one of another segment")
    if first and (first_seq or sealed_bytes or name.index):
        raise AlteredJournalError(file, 0, "segment head names no parent but is not the first")
    if not first and not _precedes(parent, name):
        raise AlteredJournalError(file, 0, f"segment head names {parent.name} as its parent")
    return SegmentHead(
        name=name,
        journal_id=bytes(journal_id),
        first_seq=int(first_seq),
        parent=None if first else parent,
        whole_bytes=int(whole_bytes),
        dictionary=int(dictionary),
    )


def _name(epoch: int | bytes, index: int | bytes, nonce: int | bytes) -> SegmentName:
    return SegmentName(int(epoch), int(index), bytes(nonce))


def _precedes(parent: Parent, name: SegmentName) -> bool:
    if parent.is_compacted:
        whole = parent == compacted_parent(parent.name.epoch, parent.chain)
        return whole and name.index == 0 and parent.name.epoch < name.epoch
    if parent.sealed_bytes < HEAD_BYTES:
        return False
    if name.index:
        return parent.name == SegmentName(name.epoch, name.index - 1, name.nonce)
    return parent.name.epoch < name.epoch


def require_torn_at_birth(buffer: Part, file: str, appendable: bool) -> None:
    """Refuse a segment without a head, unless its owner died while it wrote the head.

    Such a segment holds nothing acknowledged: head and first frame become durable together. But if
    any frame in it is undamaged, the head was lost later.

    Args:
        buffer: All of the segment's bytes.
        file: Its key, for the error.
        appendable: Whether the store appends; where it does not, segments are whole or not there.

    Raises:
        CorruptJournalError: If this is damage.
    """
    view = memoryview(buffer)
    journal_id = bytes(view[_JOURNAL_ID])
    found = any(_frame_at(view, match.start(), journal_id) for match in _SYNC.finditer(view))
    if found or not appendable:
        raise CorruptJournalError(file, 0, "segment head is damaged")


def _frame_at(view: memoryview, offset: int, journal_id: bytes) -> bool:
    """Tell whether a frame is here, though the journal's id may be unreadable."""
    if parse_frame_head(view, offset, journal_id) is not None:
        return True
    if len(view) < offset + FRAME_HEAD_BYTES:
        return False
    stored_bytes, crc = struct.unpack_from("<4xI32xI", view, offset)
    payload = view[offset + FRAME_HEAD_BYTES :][:stored_bytes]
    return 0 < stored_bytes == len(payload) and bool(zlib.crc32(payload) == crc)


def scan_frames(buffer: Part, head: SegmentHead, file: str, *, sealed: bool) -> Iterator[Frame]:
    """Verify a segment's frames and give them one by one.

    Args:
        buffer: The segment's bytes; for a parent, exactly the sealed length.
        head: Its head.
        file: Its key.
        sealed: Whether the bytes must be whole to the last one, as in a parent. Objects that were
            written whole always must.

    Yields:
        The frames, in order. What follows the last one is a torn end.

    Raises:
        CorruptJournalError: If anything is damaged, missing, doubled, or out of order.
    """
    view = memoryview(buffer)
    if head.whole_bytes and head.whole_bytes != len(view):
        reason = f"segment was written with {head.whole_bytes} bytes and has {len(view)}"
        raise CorruptJournalError(file, min(len(view), head.whole_bytes), reason)
    offset, seq, chain = HEAD_BYTES, head.first_seq, head.chain
    while offset < len(view):
        frame = _read_frame(view, offset, head, seq, chain, file)
        if frame is None:
            _require_torn(view, offset, head, seq, file, sealed or head.whole_bytes > 0)
            return
        yield frame
        offset, seq, chain = frame.end, frame.next_seq, frame.chain


def _read_frame(
    view: memoryview, offset: int, segment: SegmentHead, seq: int, chain: bytes, file: str
) -> Frame | None:
    """Read the frame that should be here; None if it is torn or damaged."""
    head = parse_frame_head(view, offset, segment.journal_id)
    if head is None:
        return None
    if head.first_seq != seq or head.epoch != segment.name.epoch or not head.event_count:
        reason = f"frame of events from {head.first_seq} in epoch {head.epoch} where {seq} is due"
        raise AlteredJournalError(file, offset, reason)
    start = offset + FRAME_HEAD_BYTES
    payload = view[start : start + head.stored_bytes]
    if len(payload) < head.stored_bytes or zlib.crc32(payload) != head.payload_crc:
        return None
    raw = _verified_payload(head, payload, chain, segment.dictionary, file, offset)
    end = start + head.stored_bytes
    return Frame(head.epoch, seq, head.event_count, raw, head.chain, file, offset, end)


def _verified_payload(
    head: FrameHead, payload: memoryview, chain: bytes, dictionary: int, file: str, offset: int
) -> bytes:
    try:
        raw = unpack_payload(head, payload, dictionary)
    except ValueError as error:
        raise AlteredJournalError(file, offset, str(error)) from error
    if chain_frame(chain, head.epoch, head.first_seq, head.event_count, raw) != head.chain:
        raise AlteredJournalError(file, offset, "chain is broken: events were changed or replaced")
    return raw


def _require_torn(
    view: memoryview, offset: int, segment: SegmentHead, seq: int, file: str, whole: bool
) -> None:
    if whole:
        raise CorruptJournalError(file, offset, f"frame of event {seq} is damaged or cut off")
    # From the next byte on: the bad frame's own head may well be undamaged.
    for match in _SYNC.finditer(view, offset + 1):
        later = parse_frame_head(view, match.start(), segment.journal_id)
        if later is not None and later.first_seq >= seq:
            reason = f"frame of event {seq} is damaged; event {later.first_seq} is stored after it"
            raise CorruptJournalError(file, offset, reason)
