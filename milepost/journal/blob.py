"""Blobs: large payloads outside the journal, named by the SHA-256 of their content.

A blob is written before the commit that names it is durable, and by its name it can be written
twice without harm. It has a head of 64 bytes, so that uncompressed content starts aligned in the
file and a mapped local blob can be used in place. The digest is checked whenever content is read.
A blob's content is opaque here and never unpickled. ``docs/format.md`` is normative.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from milepost.errors import CorruptBlobError, UnsupportedFormatError
from milepost.journal.compression import COMPRESS_BYTES_MIN, LEVEL, decompress
from milepost.journal.layout import blob_key
from milepost.journal.store import ObjectNotFoundError, Part, Store

MAGIC = b"\x89MPBLB\r\n"

FORMAT_VERSION = 1
"""The newest version of blobs that this code reads, and the one it writes."""

FLAG_ZSTD = 1

SAMPLE_BYTES = 64 * 2**10
"""What is compressed first, to see whether the rest is worth it."""

WINDOW_BYTES = 4 * 2**20
"""Held at once of a blob that is only checked."""

SAVING_MIN = 1 / 8
"""Compressed content cannot be used in place; it must save at least this share to pay."""

_HEAD = struct.Struct("<8sHHIQQ32s")

HEAD_BYTES = _HEAD.size
assert HEAD_BYTES == 64, f"blob head of {HEAD_BYTES} bytes breaks the alignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlobHead:
    flags: int
    raw_bytes: int
    stored_bytes: int
    digest: bytes


def put_blob(
    store: Store,
    workflow_id: str,
    incarnation: int,
    parts: Sequence[bytes | bytearray | memoryview[Any]],
    *,
    replace: bool = False,
) -> tuple[str, int]:
    """Store a blob durably, unless it is there already.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow it belongs to.
        incarnation: Which workflow of that id: the epoch of its journal's first frame.
        parts: Its content, in order; contiguous, with items of any size.
        replace: Write it even if it is there: the way to mend a damaged one.

    Returns:
        Its digest in hex, and the length of its content in bytes.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        ValueError: If the incarnation is malformed.
        UnsupportedFormatError: If a newer Milepost wrote this very blob.
        StorageUnavailableError: If the storage fails.
    """
    views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    raw_bytes = sum(map(len, views))
    digest = _digest(views)
    key = blob_key(workflow_id, incarnation, digest.hex())
    if replace or not _is_there(store, key, digest, raw_bytes):
        packed = _compress_if_it_pays(views, raw_bytes)
        stored = views if packed is None else [memoryview(packed)]
        flags = 0 if packed is None else FLAG_ZSTD
        stored_bytes = sum(map(len, stored))
        head = _HEAD.pack(MAGIC, FORMAT_VERSION, flags, 0, raw_bytes, stored_bytes, digest)
        store.put(key, [head, *stored])
    return digest.hex(), raw_bytes


def _digest(parts: Sequence[Part]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _is_there(store: Store, key: str, digest: bytes, raw_bytes: int) -> bool:
    """Tell whether a blob of the right length is durable; its content is not read."""
    try:
        size = store.settle(key)
        head = _parse_head(store.get(key, 0, HEAD_BYTES), key)
    except (ObjectNotFoundError, CorruptBlobError):
        return False
    whole = size == HEAD_BYTES + head.stored_bytes
    return whole and head.digest == digest and head.raw_bytes == raw_bytes


def _compress_if_it_pays(parts: Sequence[memoryview], raw_bytes: int) -> bytes | None:
    if raw_bytes < COMPRESS_BYTES_MIN:
        return None
    largest = max(parts, key=len)
    middle = max(0, (len(largest) - SAMPLE_BYTES) // 2)
    sample = largest[middle : middle + SAMPLE_BYTES]
    if raw_bytes > SAMPLE_BYTES and not _pays(_compress([sample], len(sample)), len(sample)):
        return None
    packed = _compress(parts, raw_bytes)
    return packed if _pays(packed, raw_bytes) else None


def _compress(parts: Sequence[memoryview], raw_bytes: int) -> bytes:
    stream = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=raw_bytes)
    return b"".join([*map(stream.compress, parts), stream.flush()])


def _pays(packed: bytes, raw_bytes: int) -> bool:
    return len(packed) <= raw_bytes * (1 - SAVING_MIN)


def get_blob(store: Store, workflow_id: str, incarnation: int, digest: str) -> bytes:
    """Read a blob's content into memory.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow it belongs to.
        incarnation: Which workflow of that id: the epoch of its journal's first frame.
        digest: Its digest in hex.

    Returns:
        The content.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        ValueError: If the digest or the incarnation is malformed.
        CorruptBlobError: If the blob is missing or its content is not what the digest says.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    key = blob_key(workflow_id, incarnation, digest)
    try:
        return bytes(_content(store.get(key), key, digest))
    except ObjectNotFoundError as error:
        raise CorruptBlobError(key, "it is missing") from error


def map_blob(store: Store, workflow_id: str, incarnation: int, digest: str) -> memoryview:
    """Give a view of a blob's content, without a copy if it is local and not compressed.

    An I/O error of the disk under a mapped file ends the process; content that must be read at any
    price is for :func:`get_blob`.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow it belongs to.
        incarnation: Which workflow of that id: the epoch of its journal's first frame.
        digest: Its digest in hex.

    Returns:
        A read-only view; mapped content starts at an address that 64 divides.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        ValueError: If the digest or the incarnation is malformed.
        CorruptBlobError: If the blob is missing or its content is not what the digest says.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    key = blob_key(workflow_id, incarnation, digest)
    try:
        return _content(store.map(key), key, digest)
    except ObjectNotFoundError as error:
        raise CorruptBlobError(key, "it is missing") from error


def check_blob(store: Store, key: str, digest: str) -> None:
    """Read a blob in windows and hash it, without ever holding the whole of it.

    Args:
        store: Where it is.
        key: Its key.
        digest: The digest that its content must have, in hex.

    Raises:
        CorruptBlobError: If the blob is missing or its content is not what the digest says.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    try:
        head = _parse_head(store.get(key, 0, HEAD_BYTES), key)
        windows = _Windows(store, key)
        source: Any = windows
        if head.flags & FLAG_ZSTD:
            stream: Any = windows  # a stream as far as it is asked to be one
            source = zstandard.ZstdDecompressor().stream_reader(stream, closefd=False)
        hashed, raw_bytes = hashlib.sha256(), 0
        while part := source.read(WINDOW_BYTES):
            hashed.update(part)
            raw_bytes += len(part)
            if raw_bytes > head.raw_bytes:
                break
        windows.drain()
    except ObjectNotFoundError as error:
        raise CorruptBlobError(key, "it is missing") from error
    except zstandard.ZstdError as error:
        raise CorruptBlobError(key, str(error)) from error
    if windows.read_bytes != head.stored_bytes:
        reason = f"it holds {windows.read_bytes} bytes of content, not {head.stored_bytes}"
        raise CorruptBlobError(key, reason)
    if raw_bytes != head.raw_bytes or not digest == hashed.hexdigest() == head.digest.hex():
        raise CorruptBlobError(key, "its content does not have the digest in its name")


class _Windows:
    """The content of a blob as a stream of ranges."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        length = WINDOW_BYTES if size < 0 else size
        part = self._store.get(self._key, HEAD_BYTES + self.read_bytes, length)
        self.read_bytes += len(part)
        return part

    def drain(self) -> None:
        """Read on to the end, of which a decompressor may have had no need."""
        while self.read():
            pass


def _content(buffer: Part, key: str, digest: str) -> memoryview:
    head = _parse_head(buffer, key)
    stored = memoryview(buffer)[HEAD_BYTES:]
    if len(stored) != head.stored_bytes:
        reason = f"it holds {len(stored)} bytes of content, not {head.stored_bytes}"
        raise CorruptBlobError(key, reason)
    raw = _unpacked(stored, head, key)
    if len(raw) != head.raw_bytes or not digest == _digest([raw]).hex() == head.digest.hex():
        raise CorruptBlobError(key, "its content does not have the digest in its name")
    return raw


def _parse_head(buffer: Part, key: str) -> _BlobHead:
    if len(buffer) < HEAD_BYTES or buffer[:8] != MAGIC:
        raise CorruptBlobError(key, "it does not start like a blob")
    _, version, flags, zero, raw_bytes, stored_bytes, digest = _HEAD.unpack_from(buffer)
    if version > FORMAT_VERSION:
        raise UnsupportedFormatError(key, version, FORMAT_VERSION)
    if version != FORMAT_VERSION or flags not in (0, FLAG_ZSTD) or zero:
        raise CorruptBlobError(key, "its head has flags that this version does not know")
    return _BlobHead(flags=flags, raw_bytes=raw_bytes, stored_bytes=stored_bytes, digest=digest)


def _unpacked(stored: memoryview, head: _BlobHead, key: str) -> memoryview:
    if not head.flags & FLAG_ZSTD:
        return stored.toreadonly()
    try:
        return memoryview(decompress(stored, head.raw_bytes))
    except (ValueError, MemoryError) as error:
        raise CorruptBlobError(key, str(error) or "it is too large to unpack") from error
