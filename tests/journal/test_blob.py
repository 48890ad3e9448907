"""Blobs: what the digest promises, or an error that names the file."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import CorruptBlobError, UnsupportedFormatError
from milepost.journal import LocalStore, MemoryStore, Store, get_blob, map_blob, put_blob
from milepost.journal.blob import HEAD_BYTES, MAGIC
from milepost.journal.layout import blob_key
from milepost.journal.store import Part

NOISE = random.Random(7).randbytes(200_000)


class Counting(MemoryStore):
    """Counts the puts."""

    puts = 0

    def put(self, key: str, parts: Sequence[Part]) -> None:
        self.puts += 1
        super().put(key, parts)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"small", b"ab" * 200_000, NOISE, NOISE + bytes(200_000)],
    ids=["empty", "one byte", "small", "repetitive", "noise", "half noise"],
)
def test_content_comes_back_by_its_digest(store: Store, content: bytes) -> None:
    third = len(content) // 3
    parts: list[bytes | bytearray] = [content[:third], bytearray(content[third:]), b""]
    digest, size = put_blob(store, "w", 1, parts)
    assert (digest, size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert get_blob(store, "w", 1, digest) == content
    view = map_blob(store, "w", 1, digest)
    assert view == content
    assert view.readonly


@given(st.lists(st.binary(max_size=400), max_size=5))
def test_any_content_comes_back(parts: list[bytes]) -> None:
    store = MemoryStore()
    digest, size = put_blob(store, "w", 1, parts)
    assert get_blob(store, "w", 1, digest) == b"".join(parts)
    assert size == sum(map(len, parts))


def test_parts_of_any_item_size_are_stored_as_bytes(store: Store) -> None:
    numbers = memoryview(struct.pack("<4d", 1, 2, 3, 4)).cast("d")
    nothing = numbers[:0]
    digest, size = put_blob(store, "w", 1, [numbers, nothing])
    assert size == 32
    assert get_blob(store, "w", 1, digest) == numbers.tobytes()


def test_content_that_shrinks_is_compressed_and_other_is_stored_in_place(store: Store) -> None:
    small, _ = put_blob(store, "w", 1, [b"ab" * 100_000])
    assert store.settle(blob_key("w", 1, small)) < 1000
    large, _ = put_blob(store, "w", 1, [NOISE])
    content = store.get(blob_key("w", 1, large))
    assert content[HEAD_BYTES:] == NOISE
    assert HEAD_BYTES % 64 == 0


def test_the_layout_is_the_documented_one() -> None:
    store = MemoryStore()
    digest, _ = put_blob(store, "w", 1, [b"payload"])
    head = b"\x89MPBLB\r\n" + struct.pack("<HHIQQ", 1, 0, 0, 7, 7) + bytes.fromhex(digest)
    assert store.get(blob_key("w", 1, digest)) == head + b"payload"


def test_a_mapped_local_blob_is_not_copied_and_is_aligned(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    digest, _ = put_blob(store, "w", 1, [NOISE])
    view = map_blob(store, "w", 1, digest)
    assert type(view.obj).__name__ == "mmap"
    assert len(view) == len(NOISE)


def test_the_same_content_is_written_once() -> None:
    store = Counting()
    for content in (NOISE, b"ab" * 1000):
        store.puts = 0
        first = put_blob(store, "w", 1, [content])
        assert put_blob(store, "w", 1, [content[:10], content[10:]]) == first
        assert store.puts == 1


def test_a_blob_belongs_to_one_workflow(store: Store) -> None:
    digest, _ = put_blob(store, "one", 1, [b"x"])
    with pytest.raises(CorruptBlobError, match="missing"):
        get_blob(store, "two", 1, digest)


def test_a_partial_blob_is_written_again() -> None:
    store = Counting()
    digest, _ = put_blob(store, "w", 1, [NOISE])
    key = blob_key("w", 1, digest)
    for partial in (b"", store.get(key)[:50], store.get(key)[:-1], bytes(64)):
        MemoryStore.put(store, key, [partial])
        put_blob(store, "w", 1, [NOISE])
        assert get_blob(store, "w", 1, digest) == NOISE


def test_a_damaged_blob_is_mended_by_replacing_it(store: Store) -> None:
    digest, _ = put_blob(store, "w", 1, [NOISE])
    key = blob_key("w", 1, digest)
    store.put(key, [store.get(key)[:-1], b"?"])
    put_blob(store, "w", 1, [NOISE], replace=True)
    assert get_blob(store, "w", 1, digest) == NOISE


@pytest.mark.parametrize("content", [b"short", b"compressible " * 20], ids=["raw", "zstd"])
def test_any_flipped_bit_and_any_cut_is_an_error_that_names_the_file(content: bytes) -> None:
    store = MemoryStore()
    digest, _ = put_blob(store, "w", 1, [content])
    key = blob_key("w", 1, digest)
    stored = store.get(key)
    damaged = [stored[:length] for length in range(len(stored))] + [stored + b"\0"]
    for bit in range(len(stored) * 8):
        flipped = bytearray(stored)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    wrong = 0
    for each in damaged:
        store.put(key, [each])
        for read in (get_blob, map_blob):
            try:
                assert bytes(read(store, "w", 1, digest)) == content
            except (CorruptBlobError, UnsupportedFormatError) as error:
                wrong += error.file == key
    # A few bits of a zstd head do not matter to the content, and then the content is right.
    assert wrong >= 2 * len(damaged) - 24


def test_a_bomb_in_a_blob_is_refused_and_not_unfolded() -> None:
    store = MemoryStore()
    bomb = zstandard.compress(bytes(2**28))
    digest = hashlib.sha256(b"expected").hexdigest()
    head = struct.pack("<8sHHIQQ32s", MAGIC, 1, 1, 0, 8, len(bomb), bytes.fromhex(digest))
    store.put(blob_key("w", 1, digest), [head, bomb])
    with pytest.raises(CorruptBlobError, match="at most 8 bytes"):
        get_blob(store, "w", 1, digest)


def test_a_blob_of_the_future_is_refused_by_its_version() -> None:
    store = MemoryStore()
    digest, _ = put_blob(store, "w", 1, [b"x"])
    key = blob_key("w", 1, digest)
    stored = store.get(key)
    store.put(key, [stored[:8], struct.pack("<H", 2), stored[10:]])
    with pytest.raises(UnsupportedFormatError):
        get_blob(store, "w", 1, digest)
