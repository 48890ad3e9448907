"""Columns of integers and payloads as compact msgpack values.

Integers are stored as an arithmetic run or as differences, whichever is shorter; neighbours in a
column are near each other (task numbers, times), so most entries take one byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

from milepost.replay.payload import Encoding, Payload

Packed: TypeAlias = list[object]

_RUN = 0
_DIFFERENCES = 1
COLUMN_ROWS_MAX = 1 << 24
"""A run of more rows than this is refused: it is damage or malice, not a journal of ours."""


def pack_integers(column: Sequence[int]) -> Packed:
    """Packs a column as ``[0, first, step, count]`` or ``[1, first, difference, ...]``."""
    if not column:
        return []
    differences = [after - before for before, after in pairwise(column)]
    if len(column) > 1 and differences.count(differences[0]) == len(differences):
        return [_RUN, column[0], differences[0], len(column)]
    return [_DIFFERENCES, column[0], *differences]


def unpack_integers(packed: Sequence[int]) -> tuple[int, ...]:
    """Reads what :func:`pack_integers` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    if not packed:
        return ()
    if set(map(type, packed)) != {int}:
        raise ValueError("not a column of integers: it holds something else")
    if packed[0] == _DIFFERENCES:
        return tuple(accumulate(packed[1:]))
    if packed[0] != _RUN or len(packed) != 4 or not 0 < packed[3] <= COLUMN_ROWS_MAX:
        raise ValueError(f"not a column of integers: {packed[:4]}")
    _, first, step, count = packed
    if step == 0:
        return (first,) * count
    return tuple(range(first, first + step * count, step))


def pack_payload(payload: Payload | None) -> object:
    """Packs a payload: inline plain data as bytes, else ``[encoding, bytes or [digest, size]]``."""
    if payload is None:
        return None
    if payload.digest:
        return [payload.encoding, [payload.digest, payload.size]]
    if payload.encoding == Encoding.PLAIN:
        return payload.data
    return [payload.encoding, payload.data]


def unpack_payload(packed: object) -> Payload | None:
    """Reads what :func:`pack_payload` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    match packed:
        case None:
            return None
        case bytes():
            return Payload(encoding=Encoding.PLAIN.value, data=packed, size=len(packed))
        case [int() as encoding, bytes() as data]:
            return Payload(encoding=encoding, data=data, size=len(data))
        case [int() as encoding, [bytes() as digest, int() as size]] if digest:
            return Payload(encoding=encoding, digest=digest, size=size)
        case _:
            raise ValueError("not a payload")


def expect_payload(packed: object) -> Payload:
    """Reads a payload that must be there.

    Raises:
        ValueError: If it is not.
    """
    payload = unpack_payload(packed)
    if payload is None:
        raise ValueError("a payload is missing")
    return payload
