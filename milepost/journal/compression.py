"""Zstandard where it pays, and never more memory than was agreed before.

The size a stored block unfolds to is taken from its own head and checked before anything is
allocated, so that a small hostile file cannot fill the memory.

A block that is compressed with a dictionary is a zstd frame without its magic number and without
the dictionary's id: neither says anything that a reader does not know already, and together they
would be a fifth of a small frame.
"""

from __future__ import annotations

import threading

import zstandard

from milepost.journal.dictionary import NO_DICTIONARY, load_dictionary
from milepost.journal.store import Part

LEVEL = 3
"""Higher levels gain a few percent on journals and cost several times as much."""

SMALL_LEVEL = 19
SMALL_BYTES_MAX = 256
"""Up to here, with a dictionary, the highest level takes some ten microseconds and saves bytes."""

COMPRESS_BYTES_MIN = 100
"""Without a dictionary shorter content hardly shrinks: zstd's own head eats what is won."""

_MAGIC = zstandard.FRAME_HEADER


class _Contexts(threading.local):
    """Contexts are costly to make and not safe to share between threads."""

    def __init__(self) -> None:
        self._compressors: dict[tuple[int, int], zstandard.ZstdCompressor] = {}
        self._decompressors: dict[int, zstandard.ZstdDecompressor] = {}

    def compressor(self, dictionary: int, level: int) -> zstandard.ZstdCompressor:
        """Give this thread's compressor; the first call for a dictionary loads it."""
        found = self._compressors.get((dictionary, level))
        if found is None:
            found = self._compressors[dictionary, level] = _make_compressor(dictionary, level)
        return found

    def decompressor(self, dictionary: int) -> zstandard.ZstdDecompressor:
        """Give this thread's decompressor; the first call for a dictionary loads it."""
        found = self._decompressors.get(dictionary)
        if found is None:
            found = self._decompressors[dictionary] = _make_decompressor(dictionary)
        return found


_contexts = _Contexts()


def _make_compressor(dictionary: int, level: int) -> zstandard.ZstdCompressor:
    if dictionary == NO_DICTIONARY:
        return zstandard.ZstdCompressor(level=level)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_dict_id=False, write_content_size=True
    )
    return zstandard.ZstdCompressor(
        dict_data=load_dictionary(dictionary), compression_params=parameters
    )


def _make_decompressor(dictionary: int) -> zstandard.ZstdDecompressor:
    if dictionary == NO_DICTIONARY:
        return zstandard.ZstdDecompressor()
    return zstandard.ZstdDecompressor(dict_data=load_dictionary(dictionary))


def compress_if_smaller(raw: Part, dictionary: int = NO_DICTIONARY) -> bytes | None:
    """Compress a block, unless that does not make it smaller.

    Args:
        raw: The block.
        dictionary: The number of the dictionary to use.

    Returns:
        One zstd frame that tells its content's size, or None.

    Raises:
        CorruptJournalError: If the installed dictionary is damaged.
    """
    if len(raw) < COMPRESS_BYTES_MIN and dictionary == NO_DICTIONARY:
        return None
    small = dictionary != NO_DICTIONARY and len(raw) <= SMALL_BYTES_MAX
    level = SMALL_LEVEL if small else LEVEL
    packed = _contexts.compressor(dictionary, level).compress(raw)
    return packed if len(packed) < len(raw) else None


def decompress(packed: Part, raw_bytes_max: int, dictionary: int = NO_DICTIONARY) -> bytes:
    """Unfold one zstd frame.

    Args:
        packed: The frame, and nothing after it.
        raw_bytes_max: What it may unfold to, in bytes.
        dictionary: The number of the dictionary it was compressed with.

    Returns:
        The content.

    Raises:
        ValueError: If this is not one whole frame, or it would unfold to more.
        CorruptJournalError: If the installed dictionary is damaged.
    """
    if dictionary != NO_DICTIONARY:
        packed = b"".join((_MAGIC, packed))
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN or size > raw_bytes_max:
            raise ValueError(f"compressed block does not promise at most {raw_bytes_max} bytes")
        return _contexts.decompressor(dictionary).decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"compressed block cannot be read: {error}") from error
