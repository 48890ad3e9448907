"""Serialized values, and the plain data that any reader can open without running stored code.

A :class:`Payload` is either inline (its bytes travel in the event) or a reference to a blob by
digest. Plain data are ``None``, ``bool``, ``int`` (64 bits), ``float``, ``str``, ``bytes``, and
lists and string-keyed dicts of these, by exact type: msgpack gives back an equal value of equal
type. Everything else is pickled by the engine and stays opaque here. This module never unpickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import msgpack

Plain: TypeAlias = "None | bool | int | float | str | bytes | list[Plain] | dict[str, Plain]"

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN_DEPTH_MAX = 100  # msgpack's own limit is 511; deeper values are pickled


class Encoding(IntEnum):
    """How the bytes of a payload are to be read. The numbers are part of the journal format."""

    PLAIN = 0
    """One msgpack object of plain data."""
    PICKLE = 1
    """A pickle stream without out-of-band buffers."""
    BUFFERS = 2
    """A pickle stream followed by its out-of-band buffers (layout: docs/format.md)."""
    PLAIN_TUPLE = 3
    """One msgpack array of plain data that was a tuple."""


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


def is_plain(value: object, depth: int = 0) -> bool:
    """Tells whether ``value`` is plain data, by exact types all the way down."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth >= _PLAIN_DEPTH_MAX:
        return False
    if kind is list:
        return _all_plain(value, depth)  # type: ignore[arg-type]
    if kind is dict:
        keys_are_text = set(map(type, value)) <= {str}  # type: ignore[call-overload]
        return keys_are_text and _all_plain(list(value.values()), depth)  # type: ignore[attr-defined]
    return False


def _all_plain(values: list[object], depth: int) -> bool:
    kinds = set(map(type, values))
    if kinds <= _SCALARS:
        return True
    if not kinds <= _SCALARS | {list, dict}:
        return False
    return all(is_plain(value, depth + 1) for value in values)


def pack_plain(value: object) -> bytes | None:
    """Serializes plain data; returns None if ``value`` is not plain (or an int beyond 64 bits)."""
    if not is_plain(value):
        return None
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (OverflowError, UnicodeEncodeError):
        return None
    return packed


def unpack_plain(data: bytes) -> Plain:
    """Reads what :func:`pack_plain` wrote.

    Raises:
        ValueError: If ``data`` is not exactly one msgpack object.
    """
    value: Plain = msgpack.unpackb(data, raw=False, strict_map_key=True)
    return value
