"""Values that are made of other values by rule, and not by a worker.

No event holds such a payload: a journal says what happened, and the fold puts them together. They
name the payloads inside them, so nothing is unpickled here, and nothing large is copied.
"""

from __future__ import annotations

from typing import Any

import msgpack

from milepost.replay.columns import expect_fields, expect_payload, expect_rows, pack_payload
from milepost.replay.payload import Encoding, Payload, inline, pack_plain
from milepost.replay.state import State

NOTHING = inline(Encoding.PLAIN.value, b"\xc0")
"""The value None."""


def make_value(state: State, task: int) -> Payload:
    """Returns the value that an AWAITING task gets when its wait ends now."""
    wait = state.awaited[task]
    if wait.key:
        key = inline(Encoding.PLAIN.value, pack_plain(wait.key) or b"")
        value = pack_tuple(key, state.received[wait.key])
    elif wait.task >= 0:
        followed = state.results[wait.task]
        assert followed is not None, (task, wait)
        value = followed
    elif wait.count:
        value = _split(state, task, wait.count)
    else:
        value = NOTHING
    return pack_tuple(value, NOTHING) if task in state.catchers else value


def _split(state: State, task: int, count: int) -> Payload:
    """Returns the values of the first ``count`` inputs that have one, and the ids of the rest."""
    ready: list[Payload] = []
    left: list[str] = []
    for source in state.graph.inputs(task):
        result = state.results[source]
        if result is not None and len(ready) < count:
            ready.append(result)
        else:
            left.append(state.graph.task_id(source))
    return pack_split(ready, left)


def pack_split(ready: list[Payload], left: list[str]) -> Payload:
    """Returns the payload of some values, and of the ids of tasks that have none yet."""
    return inline(Encoding.SPLIT.value, _pack([list(map(pack_payload, ready)), left]))


def unpack_split(data: bytes) -> tuple[list[Payload], list[str]]:
    """Reads what a task that waited for others was worth: their values, the ids of the rest.

    Raises:
        ValueError: If it is something else.
    """
    ready, left = expect_fields(msgpack.unpackb(data), list, list)
    return list(map(expect_payload, ready)), expect_rows(left, str)


def pack_tuple(*items: Payload) -> Payload:
    """Returns the payload of a tuple."""
    return inline(Encoding.TUPLE.value, _pack([pack_payload(each) for each in items]))


def unpack_tuple(data: bytes) -> list[Payload]:
    """Reads what :func:`pack_tuple` wrote.

    Raises:
        ValueError: If it is something else.
    """
    packed = msgpack.unpackb(data)
    if type(packed) is not list:
        raise ValueError("not a tuple")
    return list(map(expect_payload, packed))


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content, use_bin_type=True)
    return packed
