"""Zstandard where it pays, and never more memory than was agreed before.

The size a stored block unfolds to is taken from its own head and checked before anything is
allocated, so that a small hostile file cannot fill the memory.
"""

from __future__ import annotations

import threading

import zstandard

from milepost.journal.store import Part

LEVEL = 3
"""Higher levels gain a few percent on journals and cost several times as much."""

COMPRESS_BYTES_MIN = 100
"""Shorter content hardly shrinks: a zstd frame's own head eats what is won."""


class _Contexts(threading.local):
    """Contexts are costly to make and not safe to share between threads."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress_if_smaller(raw: Part) -> bytes | None:
    """Compress a block, unless that does not make it smaller.

    Args:
        raw: The block.

    Returns:
        One zstd frame that tells its content's size, or None.
    """
    if len(raw) < COMPRESS_BYTES_MIN:
        return None
    packed = _contexts.compressor.compress(raw)
    return packed if len(packed) < len(raw) else None


def decompress(packed: Part, raw_bytes_max: int) -> bytes:
    """Unfold one zstd frame.

    Args:
        packed: The frame, and nothing after it.
        raw_bytes_max: What it may unfold to, in bytes.

    Returns:
        The content.

    Raises:
        ValueError: If this is not one whole frame, or it would unfold to more.
    """
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN or size > raw_bytes_max:
            raise ValueError(f"compressed block does not promise at most {raw_bytes_max} bytes")
        return _contexts.decompressor.decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"compressed block cannot be read: {error}") from error
