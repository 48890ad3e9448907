"""The catalog as bytes and back. ``docs/format.md`` describes them.

What is read here may be damaged or forged, so every field is checked. An entry for a workflow that
was claimed and never created holds no summary.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack

from milepost.journal.compression import compress_if_smaller, decompress
from milepost.journal.summary import WorkflowSummary
from milepost.replay.state import Status

CATALOG_KEY = "catalog/workflows"

MAGIC = b"\x89MPCAT\r\n"

FORMAT_VERSION = 2
"""The version that is written, and the only one that is read: others are rebuilt."""

RAW_BYTES_MAX = 512 * 2**20
"""Some five million entries."""

FINGERPRINT_BYTES = 16

_HEAD = struct.Struct("<8sHHI")
_STORED = (Status.RUNNING, Status.PENDING, Status.SUCCESSFUL, Status.FAILED, Status.CANCELED)
_BY_NAME = {status.value: status for status in _STORED}
_NOTHING_TYPES = [str, bytes]
_ROW_TYPES = [str, bytes, str, str, int, int, int, int, bool]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalog holds about one workflow.

    Attributes:
        fingerprint: The workflow's when the summary was read.
        summary: What it said, or None if there was no journal.
    """

    fingerprint: bytes
    summary: WorkflowSummary | None


Entries: TypeAlias = dict[str, Entry]


def pack_catalog(entries: Entries) -> bytes:
    """Turn a catalog into its bytes.

    Args:
        entries: Its entries by workflow id.

    Returns:
        The content of the object.
    """
    rows = [_pack_row(workflow_id, entry) for workflow_id, entry in entries.items()]
    packed: bytes = msgpack.packb(rows)
    body = compress_if_smaller(packed)
    flags = 0 if body is None else 1
    body = packed if body is None else body
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, flags, zlib.crc32(body))
    return head + body


def _pack_row(workflow_id: str, entry: Entry) -> list[object]:
    each = entry.summary
    if each is None:
        return [workflow_id, entry.fingerprint]
    times = [each.created_us, each.started_us, each.ended_us]
    ownership = [each.owner, each.epoch]
    return [workflow_id, entry.fingerprint, each.status.value, *ownership, *times, each.settled]


def unpack_catalog(content: bytes) -> Entries:
    """Read what :func:`pack_catalog` wrote.

    Args:
        content: The content of the object.

    Returns:
        The entries by workflow id.

    Raises:
        ValueError: If it is damaged, or of another version.
    """
    if len(content) < _HEAD.size:
        raise ValueError("it has no head")
    magic, version, flags, crc = _HEAD.unpack_from(content)
    body = memoryview(content)[_HEAD.size :]
    if magic != MAGIC or version != FORMAT_VERSION or flags not in (0, 1):
        raise ValueError("its head is damaged, or of another version")
    if zlib.crc32(body) != crc:
        raise ValueError("its checksum is wrong")
    raw = decompress(body, RAW_BYTES_MAX) if flags else bytes(body)
    try:
        rows = msgpack.unpackb(raw)
        return {row[0]: _unpack_row(row) for row in rows}
    except (TypeError, IndexError, KeyError, msgpack.UnpackException) as error:
        raise ValueError(f"its entries are malformed: {error!r}") from error


def _unpack_row(row: list[Any]) -> Entry:
    types = list(map(type, row))
    if types not in (_NOTHING_TYPES, _ROW_TYPES) or len(row[1]) != FINGERPRINT_BYTES:
        raise ValueError(f"an entry of types {types}")
    if len(row) == len(_NOTHING_TYPES):
        return Entry(row[1], None)
    workflow_id, fingerprint, status, owner, epoch, *times, settled = row
    created_us, started_us, ended_us = times
    return Entry(
        fingerprint,
        WorkflowSummary(
            workflow_id=workflow_id,
            status=_BY_NAME[status],
            owner=owner,
            epoch=epoch,
            created_us=created_us,
            started_us=started_us,
            ended_us=ended_us,
            settled=settled,
        ),
    )
