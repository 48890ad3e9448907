"""A compacted object: all frames of a journal up to some event, as bytes and back.

It holds frames in *blocks*: many frames side by side, compressed together. Of a frame only the
epoch, the number of events and the length are kept; its number and its chain follow from the frames
before. So frame boundaries and the chain are the same as in the segments it stands for, and a
reader recomputes and checks every one. An object is written whole; anything wrong in it is damage.
``docs/format.md`` is normative.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from milepost.errors import AlteredJournalError, CorruptJournalError, UnsupportedFormatError
from milepost.journal.compression import decompress
from milepost.journal.frame import CHAIN_START, RAW_BYTES_MAX, Frame, chain_frame
from milepost.journal.layout import CompactedName
from milepost.journal.store import Part, Store

MAGIC = b"\x89MPCMP\r\n"

FORMAT_VERSION = 1
"""The newest version of compacted objects that this code reads, and the one it writes."""

BLOCK_MARK = b"\xf3MB\x9e"

FRAMES_MAX = 2**16
"""Frames per block."""

BLOCK_RAW_BYTES_MAX = RAW_BYTES_MAX + 10 * FRAMES_MAX
"""What a reader must be ready to hold of one block; only a single huge frame comes near."""

WINDOW_BYTES = 8 * 2**20
"""Read at once: most objects need one request, and none has to fit in memory."""

GLANCE_BYTES = 64 * 2**10
"""Read first by who wants only the end: most finished workflows are shorter."""

_HEAD = struct.Struct("<8sHHI16sIIQ16sQQ")
_BLOCK = struct.Struct("<4sIIIQ16s16sII")
_CRC = struct.Struct("<I")
_VERSION = struct.Struct("<8sH")

HEAD_BYTES = _HEAD.size + _CRC.size
BLOCK_HEAD_BYTES = _BLOCK.size + _CRC.size


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactedHead:
    """The fields of a compacted object's head.

    Attributes:
        name: The object's own name.
        journal_id: The journal's id, 16 bytes.
        block_count: How many blocks it has, at least one.
        whole_bytes: Its length.
        last_offset: Where its last block starts.
    """

    name: CompactedName
    journal_id: bytes
    block_count: int
    whole_bytes: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block whose CRCs are right; what is in it has not been looked at.

    Attributes:
        offset: Where in the object its head starts.
        raw_bytes: Length of its payload, uncompressed.
        frame_count: How many frames it holds.
        first_seq: The number of its first event.
        before: The chain before its first frame.
        after: The chain of its last frame.
        previous_bytes: Length of the block before it, head included; 0 for the first.
        payload: Its payload, compressed.
    """

    offset: int
    raw_bytes: int
    frame_count: int
    first_seq: int
    before: bytes
    after: bytes
    previous_bytes: int
    payload: Part

    @property
    def size(self) -> int:
        """Its length in bytes, head included."""
        return BLOCK_HEAD_BYTES + len(self.payload)

    @property
    def end(self) -> int:
        """Where in the object it ends."""
        return self.offset + self.size


def encode_head(head: CompactedHead) -> bytes:
    """Turn a head into its bytes.

    Args:
        head: The head.

    Returns:
        84 bytes.
    """
    name = head.name
    fields = _HEAD.pack(
        MAGIC,
        FORMAT_VERSION,
        0,  # no flags
        0,  # no dictionary
        head.journal_id,
        name.epoch,
        head.block_count,
        name.next_seq,
        name.chain,
        head.whole_bytes,
        head.last_offset,
    )
    return fields + _CRC.pack(zlib.crc32(fields))


def encode_block_head(block: Block, journal_id: bytes) -> bytes:
    """Turn a block's head into its bytes.

    Args:
        block: The block.
        journal_id: The journal's id.

    Returns:
        68 bytes.
    """
    fields = _BLOCK.pack(
        BLOCK_MARK,
        len(block.payload),
        block.raw_bytes,
        block.frame_count,
        block.first_seq,
        block.before,
        block.after,
        block.previous_bytes,
        zlib.crc32(block.payload),
    )
    return fields + _CRC.pack(zlib.crc32(journal_id + fields))


def parse_head(buffer: Part, name: CompactedName, file: str) -> CompactedHead:
    """Read a compacted object's head.

    Args:
        buffer: The object's bytes, at least the first 84 if it has as many.
        name: The name it is stored under.
        file: Its key, for errors.

    Returns:
        The head.

    Raises:
        UnsupportedFormatError: If a newer Milepost wrote the object.
        CorruptJournalError: If the head is damaged or cannot be the one of this object.
    """
    if len(buffer) < _VERSION.size or buffer[:8] != MAGIC:
        raise CorruptJournalError(file, 0, "it does not start like a compacted object")
    _, version = _VERSION.unpack_from(buffer)
    # Before the CRC: where a newer version has its CRC cannot be known here.
    if version > FORMAT_VERSION:
        raise UnsupportedFormatError(file, version, FORMAT_VERSION)
    crc_is_right = len(buffer) >= HEAD_BYTES and (
        zlib.crc32(buffer[: _HEAD.size]) == _CRC.unpack_from(buffer, _HEAD.size)[0]
    )
    if not crc_is_right:
        raise CorruptJournalError(file, 0, "head of the compacted object is damaged")
    _, version, flags, dictionary, journal_id, epoch, blocks, next_seq, chain, whole, last = (
        _HEAD.unpack_from(buffer)
    )
    if version != FORMAT_VERSION or flags or dictionary:
        raise CorruptJournalError(file, 0, "its head has flags that this version does not know")
    if CompactedName(next_seq, epoch, chain) != name:
        raise AlteredJournalError(file, 0, "head is the one of another compacted object")
    if not blocks or not HEAD_BYTES <= last < whole:
        raise AlteredJournalError(file, 0, "its head contradicts itself")
    return CompactedHead(
        name=name, journal_id=journal_id, block_count=blocks, whole_bytes=whole, last_offset=last
    )


def read_head(store: Store, name: CompactedName, file: str) -> CompactedHead:
    """Read only the head of a compacted object.

    Args:
        store: Where it is.
        name: Its name.
        file: Its key.

    Returns:
        The head.

    Raises:
        ObjectNotFoundError: If the object is gone.
        UnsupportedFormatError: If a newer Milepost wrote the object.
        CorruptJournalError: If the head is damaged.
        StorageUnavailableError: If the storage fails.
    """
    return parse_head(store.get(file, 0, HEAD_BYTES), name, file)


def read_blocks(
    store: Store, name: CompactedName, file: str, journal_id: bytes | None = None
) -> Iterator[Block]:
    """Read a compacted object block by block, and check that they fit together.

    Args:
        store: Where it is.
        name: Its name.
        file: Its key.
        journal_id: The journal it must belong to, if that is known.

    Yields:
        The blocks, in order.

    Raises:
        ObjectNotFoundError: If the object is gone.
        UnsupportedFormatError: If a newer Milepost wrote the object.
        CorruptJournalError: If anything in it is damaged or missing; frames are not looked at.
        StorageUnavailableError: If the storage fails.
    """
    window = _Window(store, file, WINDOW_BYTES)
    head = parse_head(window.at(0, HEAD_BYTES), name, file)
    if journal_id not in (None, head.journal_id):
        raise AlteredJournalError(file, 0, "the next segment goes on from another journal")
    offset, previous_bytes, seq, chain = HEAD_BYTES, 0, 0, CHAIN_START
    for _ in range(head.block_count):
        block = _read_block(window, offset, head)
        if (block.previous_bytes, block.before) != (previous_bytes, chain) or block.first_seq < seq:
            raise AlteredJournalError(file, offset, "block does not fit the one before it")
        yield block
        offset, previous_bytes, seq, chain = block.end, block.size, block.first_seq + 1, block.after
    if (offset, offset - previous_bytes) != (head.whole_bytes, head.last_offset):
        raise CorruptJournalError(file, offset, "its head promises another length")
    if len(window.at(offset, 1)):
        raise CorruptJournalError(file, offset, "there are bytes after its end")
    if chain != name.chain:
        raise AlteredJournalError(file, offset - previous_bytes, "its end does not have its chain")


def read_blocks_backward(store: Store, name: CompactedName, file: str) -> Iterator[Block]:
    """Read a compacted object block by block, the last one first.

    Args:
        store: Where it is.
        name: Its name.
        file: Its key.

    Yields:
        The blocks, last first.

    Raises:
        ObjectNotFoundError: If the object is gone.
        UnsupportedFormatError: If a newer Milepost wrote the object.
        CorruptJournalError: If a block is damaged; only the blocks that were read are checked.
        StorageUnavailableError: If the storage fails.
    """
    window = _Window(store, file, GLANCE_BYTES)
    head = parse_head(window.at(0, HEAD_BYTES), name, file)
    offset, end, chain = head.last_offset, head.whole_bytes, name.chain
    if len(window.at(offset, end - offset + 1)) > end - offset:
        raise CorruptJournalError(file, end, "there are bytes after its end")
    while True:
        block = _read_block(window, offset, head)
        if (block.end, block.after) != (end, chain):
            raise AlteredJournalError(file, offset, "block does not fit the one after it")
        yield block
        if offset == HEAD_BYTES:
            return
        end, offset, chain = offset, offset - block.previous_bytes, block.before
        if not HEAD_BYTES <= offset < end:
            raise AlteredJournalError(file, end, "block before this one cannot be where it says")


class _Window:
    """A part of an object in memory, moved along as needed."""

    def __init__(self, store: Store, file: str, first_bytes: int) -> None:
        self._store = store
        self.file = file
        self._start = 0
        self._content = memoryview(store.get(file, 0, first_bytes))
        self._is_all = len(self._content) < first_bytes

    def at(self, offset: int, length: int) -> memoryview:
        """Give a range of the object, or what there is of it."""
        inside = self._start <= offset and offset + length <= self._start + len(self._content)
        if not inside and not self._is_all:
            # Backward, half of the window lies before, so that not every block needs a request.
            back = WINDOW_BYTES // 2 if offset < self._start else 0
            self._start = max(0, offset - back)
            wanted = max(offset - self._start + length, WINDOW_BYTES)
            self._content = memoryview(self._store.get(self.file, self._start, wanted))
        start = offset - self._start
        return self._content[start : start + length]


def _read_block(window: _Window, offset: int, head: CompactedHead) -> Block:
    file = window.file
    fields = window.at(offset, BLOCK_HEAD_BYTES)
    if (
        len(fields) < BLOCK_HEAD_BYTES
        or fields[:4] != BLOCK_MARK
        or zlib.crc32(head.journal_id + bytes(fields[: _BLOCK.size]))
        != _CRC.unpack_from(fields, _BLOCK.size)[0]
    ):
        raise CorruptJournalError(file, offset, "head of a block is damaged or cut off")
    _, stored, raw, frames, seq, before, after, previous, crc = _BLOCK.unpack_from(fields)
    payload = window.at(offset + BLOCK_HEAD_BYTES, stored)
    if len(payload) < stored or zlib.crc32(payload) != crc:
        raise CorruptJournalError(file, offset, f"block of event {seq} is damaged or cut off")
    return Block(
        offset=offset,
        raw_bytes=raw,
        frame_count=frames,
        first_seq=seq,
        before=before,
        after=after,
        previous_bytes=previous,
        payload=payload,
    )


def unpack_frames(block: Block, file: str) -> Iterator[Frame]:
    """Unfold a block and verify its frames.

    Args:
        block: The block.
        file: The key of its object.

    Yields:
        The frames, in order. The place they name is that of the block.

    Raises:
        CorruptJournalError: If the block does not hold what its head says.
    """
    columns, raw = _unfold(block, file)
    epochs, counts, lengths = columns
    if sum(lengths) != len(raw):
        raise AlteredJournalError(file, block.offset, "frames of the block do not fill it")
    start, seq, chain = 0, block.first_seq, block.before
    offset, stop = block.offset, block.end
    for epoch, count, length in zip(epochs, counts, lengths, strict=True):
        end = start + length
        piece = raw[start:end]
        chain = chain_frame(chain, epoch, seq, count, piece)
        yield Frame(epoch, seq, count, piece, chain, file, offset, stop)
        start, seq = end, seq + count
    if chain != block.after:
        raise AlteredJournalError(file, offset, "chain is broken: events were changed or replaced")


def _unfold(block: Block, file: str) -> tuple[list[tuple[int, ...]], bytes]:
    count = block.frame_count
    table = struct.Struct(f"<{count}I{count}I{count}H" if 0 < count <= FRAMES_MAX else "<")
    try:
        if not table.size:
            raise ValueError(f"block of {count} frames")
        content = decompress(block.payload, BLOCK_RAW_BYTES_MAX)
    except MemoryError as error:
        raise CorruptJournalError(file, block.offset, "it is too large to unpack") from error
    except ValueError as error:
        raise AlteredJournalError(file, block.offset, str(error)) from error
    if len(content) != block.raw_bytes or len(content) < table.size:
        raise AlteredJournalError(file, block.offset, "block has another length than it says")
    fields = table.unpack_from(content)
    columns = [fields[:count], fields[2 * count :], fields[count : 2 * count]]
    return columns, content[table.size :]
