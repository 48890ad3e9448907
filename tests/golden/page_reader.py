"""A second reader of journals, written from docs/format.md and docs/events.md alone.

It imports nothing of Milepost. What it cannot read without knowing more is missing on the pages.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgpack
import zstandard

SEGMENT_HEAD = struct.Struct("<8sHHI16sII8sQQII8sQ16sI")
FRAME_HEAD = struct.Struct("<4sIIHHQ16sII")
BLOB_HEAD = struct.Struct("<8sHHIQQ32s")

FRAGMENT = (
    *("names", "functions", "options", "templates", "constants", "node_names", "node_functions"),
    *("node_options", "node_templates", "input_counts", "inputs"),
)
KINDS: dict[int, tuple[str, ...]] = {
    1: (
        *("workflow_id", "at_us", "fragment:fragment", "metadata:payload", "environment:payload"),
        *("durability", "versions"),
    ),
    2: ("epoch", "owner", "reason", "at_us"),
    3: ("slice", "at_us", "tasks:column", "attempts:column"),
    4: (
        *("slice", "node", "tasks:column", "attempts:column", "payloads:payloads"),
        *("started_us:column", "durations_us:column"),
    ),
    5: ("slice", "task", "attempt", "error:error", "final", "at_us", "node", "retry_us"),
    6: ("slice", "tasks:column", "attempts:column", "reason", "at_us"),
    7: ("slice", "task", "attempt", "fragment:fragment", "started_us", "duration_us", "node"),
    8: ("status", "reason", "who", "at_us"),
    9: ("text", "who", "at_us"),
    10: ("slice", "at_us", "tasks:column", "attempts:column"),
    11: ("at_us", "tasks:column", "dues:column", "keys", "counts:column", "others:column"),
    12: ("at_us", "tasks:column"),
    13: ("key", "payload:payload", "who", "at_us"),
    14: ("slice", "at_us", "task", "starts:column", "stops:column", "attempts:column"),
    15: (
        *("slice", "node", "task", "starts:column", "stops:column", "payloads:payloads"),
        *("started_us", "duration_us"),
    ),
    16: ("slice", "task", "item", "attempt", "error:error", "final", "at_us", "node", "retry_us"),
    17: ("slice", "task", "reason", "at_us"),
    18: ("slice", "at_us", "task", "starts:column", "stops:column"),
    19: ("at_us",),
}


WAIT = {"due_us": 0, "key": "", "count": 0, "task": -1}


class PageReader:
    """Reads one workflow of a store on a local disk."""

    def __init__(self, root: Path, dictionaries: Path, workflow_id: str) -> None:
        plain = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
        text = "".join(chr(b) if b in plain else f"%{b:02X}" for b in workflow_id.encode())
        self.name = "%2E" + text[1:] if text.startswith(".") else text
        self.root = root
        self.segments = root / "workflows" / self.name / "segments"
        self.dictionaries = dictionaries

    def read_events(self) -> list[dict[str, Any]]:
        """Read all events, each as its kind and fields by name."""
        return [decode_event(event) for raw in self.read_frames() for event in raw]

    def read_frames(self) -> list[list[Any]]:
        """Read the MessagePack objects of all frames, from the first segment to the newest."""
        lineage: list[tuple[bytes, int | None, bytes]] = []
        name = max(path.name for path in self.segments.iterdir() if path.name[0] != ".")
        sealed, chain_due = None, b""
        while name:
            content = (self.segments / name).read_bytes()
            lineage.append((content, sealed, chain_due))
            name, sealed, chain_due = self.parent_of(content, name)
        found, seq, chain = [], 0, bytes(16)
        for content, length, due in reversed(lineage):
            frames, seq, chain = self.read_segment(content, length, seq, chain)
            found += frames
            assert length is None or chain == due
        return found

    def parent_of(self, content: bytes, name: str) -> tuple[str, int | None, bytes]:
        """Check a segment's head; give its parent's name, the sealed length and the chain there."""
        fields = SEGMENT_HEAD.unpack_from(content)
        magic, version, flags, _, _, epoch, index, nonce, *_, crc = fields
        assert (magic, version, flags) == (b"\x89MPSEG\r\n", 1, 0)
        assert crc == zlib.crc32(content[:104])
        assert name == f"{epoch:010d}.{index:010d}.{nonce.hex()}"
        if not any(content[64:104]):
            return "", None, b""
        parent_epoch, parent_index, parent_nonce, sealed, chain = fields[10:15]
        parent = f"{parent_epoch:010d}.{parent_index:010d}.{parent_nonce.hex()}"
        return parent, sealed, chain

    def read_segment(
        self, content: bytes, sealed: int | None, seq: int, chain: bytes
    ) -> tuple[list[list[Any]], int, bytes]:
        """Read the frames of a segment, as far as they count."""
        _, _, _, number, journal_id, epoch, _, _, first, whole, *_ = SEGMENT_HEAD.unpack_from(
            content
        )
        assert first == seq
        assert whole in (0, len(content))
        end, offset, found = len(content) if sealed is None else sealed, 108, []
        while offset < end:
            head = content[offset : offset + 48]
            good = (
                len(head) == 48
                and zlib.crc32(journal_id + head[:44]) == struct.unpack("<I", head[44:])[0]
            )
            length = FRAME_HEAD.unpack(head)[1] if good else 0
            payload = content[offset + 48 : offset + 48 + length]
            if not good or zlib.crc32(payload) != FRAME_HEAD.unpack(head)[7]:
                assert sealed is None, "damage in a parent"
                assert whole == 0, "damage in a whole segment"
                assert not self.has_later_frame(content, offset, journal_id, seq)
                break
            mark, _, own, count, flags, at, chained, _, _ = FRAME_HEAD.unpack(head)
            assert (mark, own, at, flags | 1) == (b"\xf3MP\x9e", epoch, seq, 1)
            raw = self.unfold(payload, number) if flags else payload
            chain = hashlib.sha256(chain + struct.pack("<IQI", own, at, count) + raw).digest()[:16]
            assert chained == chain
            unpacker = msgpack.Unpacker(strict_map_key=False)
            unpacker.feed(raw)
            events = list(unpacker)
            assert len(events) == count
            found.append(events)
            seq, offset = seq + count, offset + 48 + length
        return found, seq, chain

    @staticmethod
    def has_later_frame(content: bytes, offset: int, journal_id: bytes, seq: int) -> bool:
        """Tell whether a bad frame is damage: something was written after it."""
        for match in re.finditer(re.escape(b"\xf3MP\x9e"), content[offset + 1 :]):
            at = offset + 1 + match.start()
            head = content[at : at + 48]
            if len(head) == 48:
                crc, first = struct.unpack_from("<I", head, 44)[0], FRAME_HEAD.unpack(head)[5]
                if zlib.crc32(journal_id + head[:44]) == crc and first >= seq:
                    return True
        return False

    def unfold(self, payload: bytes, dictionary: int) -> bytes:
        """Undo the compression of a payload."""
        if dictionary == 0:
            return zstandard.ZstdDecompressor().decompress(payload)
        content = (self.dictionaries / f"{dictionary}.zstd").read_bytes()
        reader = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(content))
        return reader.decompress(b"\x28\xb5\x2f\xfd" + payload)

    def read_blob(self, digest: bytes) -> bytes:
        """Read a blob's content."""
        (path,) = (self.root / "blobs" / self.name).glob(f"*/{digest.hex()}")
        stored = path.read_bytes()
        magic, version, flags, zero, raw_bytes, stored_bytes, named = BLOB_HEAD.unpack_from(stored)
        assert (magic, version, zero) == (b"\x89MPBLB\r\n", 1, 0)
        assert (named, stored_bytes) == (digest, len(stored) - 64)
        content = zstandard.decompress(stored[64:]) if flags & 1 else stored[64:]
        assert (len(content), hashlib.sha256(content).digest()) == (raw_bytes, digest)
        return content


def decode_event(event: list[Any]) -> dict[str, Any]:
    """Read the fields of an event, by name."""
    kind, version, values = event
    assert version == 1
    found: dict[str, Any] = {"kind": kind}
    if kind in (5, 16) and len(values) < len(KINDS[kind]):
        values = [*values, 0]
    for field, value in zip(KINDS[kind], values, strict=True):
        name, _, form = field.partition(":")
        found[name] = FORMS[form](value) if form else value
    if kind == 11:
        columns = zip(("due_us", "key", "count", "task"), list(found)[3:], strict=True)
        given = [(name, found.pop(column)) for name, column in columns]
        found["waits"] = [
            {name: values[row] if values else WAIT[name] for name, values in given}
            for row in range(len(found["tasks"]))
        ]
    return found


def decode_column(packed: Any) -> list[int]:
    """Read a column of integers."""
    if isinstance(packed, int):
        return [packed]
    if not packed:
        return []
    form, first, *rest = packed
    if form == 0:
        step, count = rest
        return [first + step * row for row in range(count)]
    return list(accumulate([first, *rest]))


def decode_payload(packed: Any) -> dict[str, Any] | None:
    """Read a payload."""
    if packed is None:
        return None
    encoding, content = (0, packed) if isinstance(packed, bytes) else packed
    if isinstance(content, bytes):
        return {"encoding": encoding, "data": content, "digest": b"", "size": len(content)}
    digest, size = content
    return {"encoding": encoding, "data": b"", "digest": digest, "size": size}


def decode_error(packed: list[Any]) -> dict[str, Any]:
    """Read why an attempt failed."""
    found = dict(zip(("kind", "type", "message", "traceback"), packed, strict=False))
    return {**found, "exception": decode_payload(packed[4])}


def decode_fragment(packed: list[Any]) -> dict[str, Any]:
    """Read a piece of graph."""
    found = dict(zip(FRAGMENT, packed[: len(FRAGMENT)], strict=True))
    defaults = [[[False, None]] * len(found["options"]), [], []]
    settings, maps = (*packed[len(FRAGMENT) :], None, None)[:2]
    rows, metadata, described = settings or defaults
    found["maps"] = [decode_map(each) for each in maps or []]
    found["metadata"] = [decode_payload(each) for each in metadata]
    found["node_metadata"] = decode_column(described)
    for name in FRAGMENT[5:]:
        found[name] = decode_column(found[name])
    owners = [node for node, count in enumerate(found["input_counts"]) for _ in range(count)]
    found["inputs"] = [o - far for o, far in zip(owners, found["inputs"], strict=True)]
    found["functions"] = [
        {"name": name, "digest": digest, "code": decode_payload(code)}
        for name, digest, code in found["functions"]
    ]
    found["options"] = [
        {
            "max_retries": retries,
            "retry_errors": decode_payload(errors),
            "ray": decode_payload(ray),
            "catch_exceptions": catch,
            "checkpoint": checkpoint,
            "waits_for": more[0] if more else "",
            "backoff": decode_backoff(more[1]) if more[1:] else None,
            "timeout_us": more[2] if more[1:] else 0,
        }
        for (retries, errors, ray), (catch, checkpoint, *more) in zip(
            found["options"], rows, strict=True
        )
    ]
    found["constants"] = [
        {"payload": decode_payload(payload), "nodes": decode_column(nodes)}
        for payload, nodes in found["constants"]
    ]
    return found


def decode_backoff(packed: list[Any] | None) -> dict[str, Any] | None:
    """Read the delays between attempts."""
    names = ("delay_us", "factor", "jitter", "delay_us_max")
    return None if packed is None else dict(zip(names, packed, strict=True))


def decode_map(packed: list[Any]) -> dict[str, Any]:
    """Read what makes a node a map."""
    node, length, chunk_size, (kind, *source) = packed
    if kind == 0:
        items = dict(zip(("first", "step"), source, strict=True))
    elif kind == 1:
        counts, payloads = source
        items = {
            "counts": decode_column(counts),
            "payloads": [decode_payload(each) for each in payloads],
        }
    else:
        items = {"task": source[0]}
    return {"node": node, "length": length, "chunk_size": chunk_size, "items": items}


FORMS: dict[str, Any] = {
    "column": decode_column,
    "payload": decode_payload,
    "payloads": lambda packed: [decode_payload(each) for each in packed],
    "error": decode_error,
    "fragment": decode_fragment,
}
