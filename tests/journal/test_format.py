"""``docs/format.md`` suffices: a reader that was written from the page alone reads the journals."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from pathlib import Path

import msgpack
import pytest
import zstandard

from milepost.errors import LostOwnershipError
from milepost.journal import Compactor, Store, put_blob, read_journal, take_ownership
from milepost.journal.frame import CHAIN_START, encode_frames

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "format.md"
DICTIONARIES = ROOT / "milepost" / "journal" / "dictionaries"


class PageReader:
    """Reads a journal as the page says; knows nothing of the package but ``get`` and ``list``."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self.folder = folder

    def read(self) -> list[object]:
        names = sorted(each.key.rsplit("/", 1)[1] for each in self.store.list(self.folder))
        compacted = [each.key for each in self.store.list(self.folder[:-9] + "compacted/")]
        if not names:
            (only,) = compacted
            return self._events([], self._compacted_frames(only))
        bases = {(key[-64:-44], key[-32:]): key for key in compacted}
        base = None
        lineage: list[tuple[bytes, int | None, bytes]] = []
        name, sealed, chain_due = names[-1], None, b""
        while True:
            content = self.store.get(self.folder + name)
            lineage.append((content, sealed, chain_due))
            assert content[:10] == b"\x89MPSEG\r\n\x01\x00"
            assert zlib.crc32(content[:104]) == struct.unpack_from("<I", content, 104)[0]
            if not any(content[64:104]):
                break
            epoch, index, nonce, sealed, chain_due = struct.unpack_from("<II8sQ16s", content, 64)
            (first,) = struct.unpack_from("<Q", content, 48)
            base = bases.get((f"{first:020d}", chain_due.hex()))
            if base is not None:
                break
            name = f"{epoch:010d}.{index:010d}.{nonce.hex()}"
        frames = [] if base is None else self._compacted_frames(base)
        return self._events(lineage[::-1], frames)

    @staticmethod
    def unfold(payload: bytes, segment: bytes) -> bytes:
        (number,) = struct.unpack_from("<I", segment, 12)
        if number == 0:
            return zstandard.decompress(payload)
        dictionary = zstandard.ZstdCompressionDict((DICTIONARIES / f"{number}.zstd").read_bytes())
        reader = zstandard.ZstdDecompressor(dict_data=dictionary)
        return reader.decompress(b"\x28\xb5\x2f\xfd" + payload)

    def _compacted_frames(self, key: str) -> list[tuple[int, int, bytes]]:
        content = self.store.get(key)
        magic, version, epoch, blocks, next_seq, chain, whole, last = struct.unpack_from(
            "<8sH22xIIQ16sQQ", content
        )
        assert (magic, version, whole) == (b"\x89MPCMP\r\n", 1, len(content))
        assert key.rsplit("/", 1)[1] == f"{next_seq:020d}.{epoch:010d}.{chain.hex()}"
        assert zlib.crc32(content[:80]) == struct.unpack_from("<I", content, 80)[0]
        frames: list[tuple[int, int, bytes]] = []
        offset, previous = 84, 0
        for _ in range(blocks):
            mark, stored, size, n, _, _, _, before, crc, head_crc = struct.unpack_from(
                "<4sIIIQ16s16sIII", content, offset
            )
            payload = content[offset + 68 : offset + 68 + stored]
            assert (mark, before, crc) == (b"\xf3MB\x9e", previous, zlib.crc32(payload))
            assert head_crc == zlib.crc32(content[16:32] + content[offset : offset + 64])
            raw = zstandard.decompress(payload)
            assert len(raw) == size
            at = 10 * n
            for epoch, length, count in zip(
                struct.unpack_from(f"<{n}I", raw),
                struct.unpack_from(f"<{n}I", raw, 4 * n),
                struct.unpack_from(f"<{n}H", raw, 8 * n),
                strict=True,
            ):
                frames.append((epoch, count, raw[at : at + length]))
                at += length
            assert at == size
            last_offset, offset, previous = offset, offset + 68 + stored, 68 + stored
        assert (offset, last_offset) == (whole, last)
        return frames

    def _events(
        self,
        lineage: list[tuple[bytes, int | None, bytes]],
        compacted: list[tuple[int, int, bytes]],
    ) -> list[object]:
        seq, chain = 0, bytes(16)
        found: list[object] = []
        for epoch, count, raw in compacted:
            chain = hashlib.sha256(chain + struct.pack("<IQI", epoch, seq, count) + raw).digest()[
                :16
            ]
            unpacker = msgpack.Unpacker()
            unpacker.feed(raw)
            found += unpacker
            seq += count
        for content, sealed, chain_due in lineage:
            offset, end = 108, len(content) if sealed is None else sealed
            assert struct.unpack_from("<Q", content, 48)[0] == seq
            while offset < end:
                length, epoch, count, flags, first = struct.unpack_from(
                    "<IIHHQ", content, offset + 4
                )
                payload = content[offset + 48 : offset + 48 + length]
                raw = self.unfold(payload, content) if flags & 1 else payload
                assert (first, epoch) == (seq, struct.unpack_from("<I", content, 32)[0])
                chain = hashlib.sha256(
                    chain + struct.pack("<IQI", epoch, first, count) + raw
                ).digest()[:16]
                assert content[offset + 24 : offset + 40] == chain
                unpacker = msgpack.Unpacker()
                unpacker.feed(raw)
                events = list(unpacker)
                assert len(events) == count
                found += events
                seq, offset = seq + count, offset + 48 + length
            assert sealed is None or (offset, chain) == (sealed, chain_due)
        return found


@pytest.mark.parametrize("compact", [(), (0,), (1, 3), (3,)])
def test_a_reader_written_from_the_page_reads_what_the_library_reads(
    store: Store, compact: tuple[int, ...]
) -> None:
    value = 0
    old = None
    for owner in range(4):
        writer = take_ownership(store, "w", owner=str(owner))
        if old is not None:
            with pytest.raises(LostOwnershipError):
                old.flush([msgpack.packb("too late")])
        for size in (1, 3, 400):
            writer.flush([msgpack.packb([value + each, "text" * owner]) for each in range(size)])
            value += size
        if owner in compact:
            Compactor(writer, segment_bytes_max=1).run()
        old = writer
    ours = [
        msgpack.unpackb(event) for frame in read_journal(store, "w") for event in frame.events()
    ]
    assert PageReader(store, "workflows/w/segments/").read() == ours
    assert len(ours) == value


def test_the_example_on_the_page_is_what_the_library_writes() -> None:
    (frame,) = encode_frames(
        [msgpack.packb(42)],
        journal_id=bytes(range(16)),
        epoch=1,
        first_seq=0,
        chain=CHAIN_START,
    )
    (example,) = re.findall(r"```\n(f34d509e.*?)```", PAGE.read_text(), re.DOTALL)
    assert bytes.fromhex(example) == frame.head + frame.payload


def test_a_blob_can_be_read_with_the_table_on_the_page(store: Store) -> None:
    for content in (b"short", b"long and repetitive " * 100):
        digest, _ = put_blob(store, "w", 1, [content])
        stored = store.get(f"blobs/w/0000000001/{digest}")
        magic, version, flags, zero, raw_bytes, stored_bytes, inner = struct.unpack_from(
            "<8sHHIQQ32s", stored
        )
        assert (magic, version, zero, inner.hex()) == (b"\x89MPBLB\r\n", 1, 0, digest)
        assert (raw_bytes, stored_bytes) == (len(content), len(stored) - 64)
        assert (zstandard.decompress(stored[64:]) if flags & 1 else stored[64:]) == content
