"""Serialized values, and the plain data that any reader can open without running stored code.

A :class:`Payload` is either inline (its bytes travel in the event) or a reference to a blob by
digest. Plain data are ``None``, ``bool``, ``int`` (64 bits), ``float``, ``str``, ``bytes``, and
lists and string-keyed dicts of these, by exact type and each container in one place only: msgpack
gives back an equal value of equal type. Everything else is pickled by the engine and stays opaque
here. This module never unpickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import msgpack

Plain: TypeAlias = "bool | int | float | str | bytes | list[Plain] | dict[str, Plain] | None"

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS = frozenset({list, dict})
_PLAIN_DEPTH_MAX = 100  # msgpack's own limit is 511; deeper values are pickled


class Encoding(IntEnum):
    """How the bytes of a payload are to be read. The numbers are part of the journal format."""

    PLAIN = 0
    """One msgpack object of plain data."""
    PICKLE = 1
    """A pickle stream without out-of-band buffers."""
    BUFFERS = 2
    """A pickle stream followed by its out-of-band buffers (layout: docs/format.md)."""
    CAUGHT = 3
    """One msgpack object that describes an exception; the value is the pair of None and that."""
    TUPLE = 4
    """One msgpack array of payloads; the value is the tuple of theirs."""
    SPLIT = 5
    """One msgpack array of payloads and of task ids: what had a value, and what had none yet."""
    LISTED = 6
    """One msgpack array of payloads; the value is the list of theirs."""
    MAPPED = 7
    """The number of a map whose value it is. Only states hold such payloads, no events."""
    CHUNKED = 8
    """One msgpack array that lists the chunks of a sequence (layout: docs/events.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A serialized value.

    Attributes:
        encoding: One of :class:`Encoding`, as a plain int.
        data: The serialized bytes if inline, else empty.
        digest: SHA-256 of the serialized bytes if they are stored as a blob, else empty.
        size: Length of the serialized bytes.
    """

    encoding: int
    data: bytes = b""
    digest: bytes = b""
    size: int


def inline(encoding: int, data: bytes) -> Payload:
    """Returns the payload that carries ``data`` in itself."""
    return Payload(encoding=encoding, data=data, size=len(data))


def is_plain(value: object) -> bool:
    """Tells whether ``value`` is plain data, by exact types all the way down."""
    return pack_plain(value) is not None


def pack_plain(value: object) -> bytes | None:
    """Serializes plain data; returns None if ``value`` is something else."""
    if not _has_plain_types(value, 0, set()):
        return None
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (OverflowError, ValueError):  # an int beyond 64 bits, a lone surrogate, 4 GiB of bytes
        return None
    return packed


def _has_plain_types(value: Any, depth: int, seen: set[int]) -> bool:
    """Checks types and shape. A container met twice is shared or cyclic: pickle keeps it one."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind not in _CONTAINERS or depth == _PLAIN_DEPTH_MAX or id(value) in seen:
        return False
    seen.add(id(value))
    if kind is dict and not set(map(type, value)) <= {str}:
        return False
    items = value if kind is list else value.values()
    if set(map(type, items)) <= _SCALARS:
        return True
    return all(_has_plain_types(item, depth + 1, seen) for item in items)


def unpack_plain(data: bytes) -> Plain:
    """Reads what :func:`pack_plain` wrote.

    Raises:
        ValueError: If ``data`` is not exactly one msgpack object.
    """
    value: Plain = msgpack.unpackb(data, raw=False, strict_map_key=True)
    return value
