"""Fields, columns of integers and payloads as compact msgpack values.

Whatever msgpack can hold may stand in damaged or forged bytes, so everything read here is checked
by exact type: what is behind this module can rely on it. Integers are stored as an arithmetic run
or as differences, whichever is shorter; neighbours in a column are near each other (task numbers,
times), so most entries take one byte. A column of one row, as most are where a task travels alone,
is that integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

from milepost.replay.events import TaskError
from milepost.replay.payload import Encoding, Payload

Packed: TypeAlias = list[object]

_PLAIN = Encoding.PLAIN.value
_RUN = 0
_DIFFERENCES = 1
COLUMN_ROWS_MAX = 1 << 24
"""A run of more rows than this is refused: it is damage or malice, not a journal of ours."""


def expect_fields(packed: object, *types: type) -> list[Any]:
    """Reads a list of values of exactly these types; ``object`` stands for any.

    Raises:
        ValueError: If it is something else.
    """
    if type(packed) is not list or len(packed) != len(types):
        raise ValueError(f"not a list of {len(types)} fields")
    for position, (value, expected) in enumerate(zip(packed, types, strict=True)):
        if type(value) is not expected and expected is not object:
            raise ValueError(f"field {position} is of type {type(value).__name__}")
    return packed


def expect_rows(packed: object, row: type) -> list[Any]:
    """Reads a list of any length of values of exactly this type.

    Raises:
        ValueError: If it is something else.
    """
    if type(packed) is not list or not set(map(type, packed)) <= {row}:
        raise ValueError(f"not a list of {row.__name__}")
    return packed


def pack_integers(column: Sequence[int]) -> Packed | int:
    """Packs a column: one row as itself, else a run ``[0, ...]`` or differences ``[1, ...]``."""
    if not column:
        return []
    if len(column) == 1:
        return column[0]
    differences = [after - before for before, after in pairwise(column)]
    if differences.count(differences[0]) == len(differences):
        return [_RUN, column[0], differences[0], len(column)]
    return [_DIFFERENCES, column[0], *differences]


def unpack_integers(packed: object) -> tuple[int, ...]:
    """Reads what :func:`pack_integers` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    if type(packed) is int:
        return (packed,)
    rows: list[int] = expect_rows(packed, int)
    if not rows:
        return ()
    if rows[0] == _DIFFERENCES:
        return tuple(accumulate(rows[1:]))
    if rows[0] != _RUN or len(rows) != 4 or not 0 < rows[3] <= COLUMN_ROWS_MAX:
        raise ValueError(f"not a column of integers: {rows[:4]}")
    _, first, step, count = rows
    if step == 0:
        return (first,) * count
    return tuple(range(first, first + step * count, step))


def pack_payload(payload: Payload | None) -> object:
    """Packs a payload: inline plain data as bytes, else ``[encoding, bytes or [digest, size]]``."""
    if payload is None:
        return None
    if payload.digest:
        return [payload.encoding, [payload.digest, payload.size]]
    if payload.encoding == _PLAIN:
        return payload.data
    return [payload.encoding, payload.data]


def unpack_payload(packed: object) -> Payload | None:
    """Reads what :func:`pack_payload` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    return None if packed is None else expect_payload(packed)


def expect_payload(packed: object) -> Payload:
    """Reads a payload that must be there.

    Raises:
        ValueError: If it is not.
    """
    if type(packed) is bytes:
        return Payload(encoding=_PLAIN, data=packed, size=len(packed))
    encoding, content = expect_fields(packed, int, object)
    if type(content) is bytes:
        return Payload(encoding=encoding, data=content, size=len(content))
    digest, size = expect_fields(content, bytes, int)
    if not digest or size < 0:
        raise ValueError("not a payload")
    return Payload(encoding=encoding, digest=digest, size=size)


def expect_node(node: object) -> str | int:
    """Reads who ran a task.

    Raises:
        ValueError: If it is neither a name nor a number.
    """
    if type(node) is str or type(node) is int:
        return node
    raise ValueError(f"a node is of type {type(node).__name__}")


def split_retry(fields: list[Any], width: int) -> tuple[list[Any], int]:
    """Splits off the time of the next attempt, which stands behind ``width`` fields if at all.

    Raises:
        ValueError: If it is no time.
    """
    if len(fields) != width + 1:
        return fields, 0
    *fields, retry_us = fields
    if type(retry_us) is not int or retry_us <= 0:
        raise ValueError("the time of a retry is no number")
    return fields, retry_us


def pack_error(error: TaskError) -> Packed:
    """Packs why an attempt failed."""
    return [error.kind, error.type, error.message, error.traceback, pack_payload(error.exception)]


def unpack_error(packed: object) -> TaskError:
    """Reads what :func:`pack_error` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    kind, type_, message, traceback, exception = expect_fields(packed, str, str, str, str, object)
    return TaskError(
        kind=kind,
        type=type_,
        message=message,
        traceback=traceback,
        exception=unpack_payload(exception),
    )
