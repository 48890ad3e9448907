"""Packs frames into blocks and blocks into a compacted object; the other half of reading one.

Blocks that exist are taken over as they are. Only what is smaller than half a block is packed
again, so that a journal that is compacted often does not become one of many small blocks.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import zstandard

from milepost.journal.compacted import (
    BLOCK_HEAD_BYTES,
    FRAMES_MAX,
    HEAD_BYTES,
    Block,
    CompactedHead,
    encode_block_head,
    encode_head,
    unpack_frames,
)
from milepost.journal.compression import LEVEL
from milepost.journal.frame import CHAIN_START, Frame
from milepost.journal.layout import CompactedName
from milepost.journal.store import Part

BLOCK_BYTES = 512 * 2**10
"""Uncompressed length from which a block is full: more gains little and costs readers memory."""


class Packer:
    """Collects blocks and frames, in order from a journal's first."""

    def __init__(self, journal_id: bytes, file: str) -> None:
        """Start with nothing.

        Args:
            journal_id: The journal's id.
            file: The key of the object that will be made, for errors.
        """
        self._journal_id = journal_id
        self._file = file
        self._parts: list[Part] = []
        self._count = 0
        self._end = HEAD_BYTES
        self._last_bytes = 0
        self._chain = CHAIN_START
        self._frames: list[Frame] = []
        self._raw_bytes = 0

    def add(self, frame: Frame) -> None:
        """Add a frame.

        Args:
            frame: The frame after the last one added.
        """
        full = self._raw_bytes + len(frame.raw) > BLOCK_BYTES or len(self._frames) == FRAMES_MAX
        if self._frames and full:
            self._pack()
        self._frames.append(frame)
        self._raw_bytes += len(frame.raw)

    def copy(self, block: Block) -> None:
        """Add the block of an earlier object, as it is if it is large enough.

        Args:
            block: The block after all that was added.

        Raises:
            CorruptJournalError: If it has to be unfolded and is damaged.
        """
        if self._frames or block.raw_bytes < BLOCK_BYTES // 2:
            for frame in unpack_frames(block, self._file):
                self.add(frame)
        else:
            self._append(replace(block, payload=bytes(block.payload)))

    def finish(self, name: CompactedName) -> list[Part]:
        """Give the whole object; nothing can be added any more.

        Args:
            name: Its name.

        Returns:
            Its parts, in order.
        """
        if self._frames:
            self._pack()
        assert self._chain == name.chain, f"frames end with another chain than {name}"
        head = CompactedHead(
            name=name,
            journal_id=self._journal_id,
            block_count=self._count,
            whole_bytes=self._end,
            last_offset=self._end - self._last_bytes,
        )
        return [encode_head(head), *self._parts]

    def _pack(self) -> None:
        frames, self._frames, self._raw_bytes = self._frames, [], 0
        count = len(frames)
        table = struct.pack(
            f"<{count}I{count}I{count}H",
            *(frame.epoch for frame in frames),
            *(len(frame.raw) for frame in frames),
            *(frame.count for frame in frames),
        )
        content = b"".join([table, *(frame.raw for frame in frames)])
        self._append(
            Block(
                offset=0,
                raw_bytes=len(content),
                frame_count=count,
                first_seq=frames[0].first_seq,
                before=self._chain,
                after=frames[-1].chain,
                previous_bytes=0,
                payload=zstandard.ZstdCompressor(level=LEVEL).compress(content),
            )
        )

    def _append(self, block: Block) -> None:
        block = replace(block, offset=self._end, previous_bytes=self._last_bytes)
        self._parts += [encode_block_head(block, self._journal_id), block.payload]
        self._count += 1
        self._end += block.size
        self._last_bytes = BLOCK_HEAD_BYTES + len(block.payload)
        self._chain = block.after
