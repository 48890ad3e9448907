"""Events about the items of maps as plain data and back; docs/events.md has the layout."""

from __future__ import annotations

from typing import Any, TypeAlias

from milepost.replay.columns import (
    expect_fields,
    expect_node,
    expect_payload,
    pack_error,
    pack_integers,
    pack_payload,
    split_retry,
    unpack_error,
    unpack_integers,
)
from milepost.replay.events import (
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
)

Fields: TypeAlias = list[Any]


def pack_scheduled(event: ItemsScheduled) -> Fields:
    """Returns the fields of the event."""
    return [
        event.slice,
        event.at_us,
        event.task,
        pack_integers(event.starts),
        pack_integers(event.stops),
        pack_integers(event.attempts),
    ]


def unpack_scheduled(fields: Fields) -> ItemsScheduled:
    """Reads the fields of the event; raises ValueError if they are something else."""
    number, at_us, task, starts, stops, attempts = expect_fields(
        fields, int, int, int, object, object, object
    )
    return ItemsScheduled(
        slice=number,
        at_us=at_us,
        task=task,
        starts=unpack_integers(starts),
        stops=unpack_integers(stops),
        attempts=unpack_integers(attempts),
    )


def pack_committed(event: ItemsCommitted) -> Fields:
    """Returns the fields of the event."""
    return [
        event.slice,
        event.node,
        event.task,
        pack_integers(event.starts),
        pack_integers(event.stops),
        [pack_payload(payload) for payload in event.payloads],
        event.started_us,
        event.duration_us,
    ]


def unpack_committed(fields: Fields) -> ItemsCommitted:
    """Reads the fields of the event; raises ValueError if they are something else."""
    number, node, task, starts, stops, payloads, started_us, duration_us = expect_fields(
        fields, int, object, int, object, object, list, int, int
    )
    return ItemsCommitted(
        slice=number,
        node=expect_node(node),
        task=task,
        starts=unpack_integers(starts),
        stops=unpack_integers(stops),
        payloads=tuple(map(expect_payload, payloads)),
        started_us=started_us,
        duration_us=duration_us,
    )


def pack_failed(event: ItemFailed) -> Fields:
    """Returns the fields of the event."""
    fields = [event.slice, event.task, event.item, event.attempt, pack_error(event.error)]
    fields += [event.final, event.at_us, event.node]
    return [*fields, event.retry_us] if event.retry_us else fields


def unpack_failed(fields: Fields) -> ItemFailed:
    """Reads the fields of the event; raises ValueError if they are something else."""
    fields, retry_us = split_retry(fields, 8)
    number, task, item, attempt, error, final, at_us, node = expect_fields(
        fields, int, int, int, int, list, bool, int, object
    )
    return ItemFailed(
        slice=number,
        task=task,
        item=item,
        attempt=attempt,
        error=unpack_error(error),
        final=final,
        at_us=at_us,
        node=expect_node(node),
        retry_us=retry_us,
    )


def pack_lost(event: ItemsLost) -> Fields:
    """Returns the fields of the event."""
    return [event.slice, event.task, event.reason, event.at_us]


def unpack_lost(fields: Fields) -> ItemsLost:
    """Reads the fields of the event; raises ValueError if they are something else."""
    number, task, reason, at_us = expect_fields(fields, int, int, str, int)
    return ItemsLost(slice=number, task=task, reason=reason, at_us=at_us)


def pack_handed_back(event: ItemsHandedBack) -> Fields:
    """Returns the fields of the event."""
    starts, stops = pack_integers(event.starts), pack_integers(event.stops)
    return [event.slice, event.at_us, event.task, starts, stops]


def unpack_handed_back(fields: Fields) -> ItemsHandedBack:
    """Reads the fields of the event; raises ValueError if they are something else."""
    number, at_us, task, starts, stops = expect_fields(fields, int, int, int, object, object)
    return ItemsHandedBack(
        slice=number,
        at_us=at_us,
        task=task,
        starts=unpack_integers(starts),
        stops=unpack_integers(stops),
    )
