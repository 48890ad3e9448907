"""The fields of events about waiting; their layout is normative in docs/events.md."""

from __future__ import annotations

from itertools import repeat
from typing import Any

from milepost.replay.columns import (
    expect_fields,
    expect_payload,
    expect_rows,
    pack_integers,
    pack_payload,
    unpack_integers,
)
from milepost.replay.events import EventReceived, Wait, WaitsBegan, WaitsEnded


def pack_begun(event: WaitsBegan) -> list[Any]:
    """Returns the fields of the event; a column in which nothing is said is empty."""
    waits = event.waits
    return [
        event.at_us,
        pack_integers(event.tasks),
        pack_integers([wait.due_us for wait in waits]) if any(w.due_us for w in waits) else [],
        [wait.key for wait in waits] if any(w.key for w in waits) else [],
        pack_integers([wait.count for wait in waits]) if any(w.count for w in waits) else [],
        pack_integers([wait.task for wait in waits]) if any(w.task >= 0 for w in waits) else [],
    ]


def unpack_begun(fields: list[Any]) -> WaitsBegan:
    """Reads what :func:`pack_begun` wrote.

    Raises:
        ValueError: If it is something else.
    """
    at_us, tasks, dues_us, keys, counts, targets = expect_fields(
        fields, int, object, object, list, object, object
    )
    numbers = unpack_integers(tasks)
    rows = zip(
        numbers,
        unpack_integers(dues_us) or repeat(0, len(numbers)),
        expect_rows(keys, str) or repeat("", len(numbers)),
        unpack_integers(counts) or repeat(0, len(numbers)),
        unpack_integers(targets) or repeat(-1, len(numbers)),
        strict=True,
    )
    waits = tuple(
        Wait(due_us=due, key=key, count=count, task=to) for _, due, key, count, to in rows
    )
    return WaitsBegan(tasks=numbers, waits=waits, at_us=at_us)


def pack_ended(event: WaitsEnded) -> list[Any]:
    """Returns the fields of the event."""
    return [event.at_us, pack_integers(event.tasks)]


def unpack_ended(fields: list[Any]) -> WaitsEnded:
    """Reads what :func:`pack_ended` wrote.

    Raises:
        ValueError: If it is something else.
    """
    at_us, tasks = expect_fields(fields, int, object)
    return WaitsEnded(tasks=unpack_integers(tasks), at_us=at_us)


def pack_received(event: EventReceived) -> list[Any]:
    """Returns the fields of the event."""
    return [event.key, pack_payload(event.payload), event.who, event.at_us]


def unpack_received(fields: list[Any]) -> EventReceived:
    """Reads what :func:`pack_received` wrote.

    Raises:
        ValueError: If it is something else.
    """
    key, payload, who, at_us = expect_fields(fields, str, object, str, int)
    return EventReceived(key=key, payload=expect_payload(payload), who=who, at_us=at_us)
