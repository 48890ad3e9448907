"""Events as bytes and back.

An event is one msgpack array ``[kind, version, fields]``. A kind is a small integer from the one
table below and means the same for ever; no Python name is stored. When the fields of a kind change,
its version rises and ``_UPCASTS`` gains the step from the old fields to the new, so that the fold
knows only the newest shape. The layout of the fields is normative in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgpack

from milepost.errors import UnsupportedFormatError
from milepost.replay import item_codec
from milepost.replay.bombs import require_modest
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
    AttemptFailed,
    AttemptsLost,
    Event,
    EventReceived,
    GraphExtended,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
    Noted,
    OwnershipTaken,
    RetriesDue,
    StatusChanged,
    TasksCommitted,
    TasksHandedBack,
    TasksScheduled,
    WaitsBegan,
    WaitsEnded,
    WorkflowCreated,
)
from milepost.replay.fragment_codec import pack_fragment, unpack_fragment
from milepost.replay.waiting_codec import (
    pack_begun,
    pack_ended,
    pack_received,
    unpack_begun,
    unpack_ended,
    unpack_received,
)

Fields: TypeAlias = list[Any]

_UPCASTS: dict[tuple[int, int], Callable[[Fields], Fields]] = {}
"""(kind, old version) -> from its fields to those of the next version."""

_MALFORMED = (ValueError, TypeError, msgpack.UnpackException)
"""What msgpack raises on bytes that are not one of its objects."""


class EventFormatError(ValueError):
    """Bytes that are not an event."""


def encode(event: Event) -> bytes:
    """Returns ``event`` as one msgpack object."""
    kind, version, pack, _ = _CODECS[type(event)]
    packed: bytes = msgpack.packb([kind, version, pack(event)], use_bin_type=True)
    return packed


def decode(data: bytes) -> Event:
    """Reads what :func:`encode` wrote, in this version or an earlier one.

    Raises:
        EventFormatError: If ``data`` is not one event.
        UnsupportedFormatError: If a newer Milepost wrote it.
    """
    try:
        require_modest(data)
        item = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except _MALFORMED as error:
        raise EventFormatError(f"not an event: {error}") from error
    return _decode(item)


def decode_all(raw: bytes) -> Iterator[Event]:
    """Yields the events of a frame: msgpack objects one behind the other.

    Raises:
        EventFormatError: If something in ``raw`` is not an event.
        UnsupportedFormatError: If a newer Milepost wrote it.
    """
    try:
        require_modest(raw)
    except _MALFORMED as error:
        raise EventFormatError(f"not events: {error}") from error
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=len(raw))
    unpacker.feed(raw)
    end = 0  # asked after each event: an incomplete one moves the unpacker, too
    while end < len(raw):
        try:
            item = unpacker.unpack()
        except _MALFORMED as error:
            raise EventFormatError(f"not an event at byte {end}: {error}") from error
        end = unpacker.tell()
        yield _decode(item)


def decode_only(raw: bytes, *wanted: type[Event]) -> Iterator[Event]:
    """Yields the events of a frame that are of these types; of others only the kind is read.

    For whoever looks for a few events among those of many tasks. What is skipped may be malformed.

    Raises:
        EventFormatError: If ``raw`` is not events, as far as it was read.
        UnsupportedFormatError: If a newer Milepost wrote a wanted event.
    """
    kinds = {_CODECS[type_][0] for type_ in wanted}
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=len(raw))
    unpacker.feed(raw)
    start = 0
    while start < len(raw):
        try:
            unpacker.skip()
        except _MALFORMED as error:
            raise EventFormatError(f"not an event at byte {start}: {error}") from error
        end = unpacker.tell()
        # Every kind so far is one byte behind that of the array; what looks otherwise is decoded.
        if end - start < 2 or raw[start + 1] in kinds or raw[start + 1] not in _KINDS:
            yield decode(raw[start:end])
        start = end


def _decode(item: object) -> Event:
    try:
        kind, version, fields = expect_fields(item, int, int, list)
    except ValueError as error:
        raise EventFormatError(f"not an event: {error}") from error
    if kind not in _KINDS:
        raise UnsupportedFormatError(f"event kind {kind}", kind, max(_KINDS))
    current, unpack = _KINDS[kind]
    if version > current:
        raise UnsupportedFormatError(f"event kind {kind}", version, current)
    try:
        for old in range(version, current):
            fields = _UPCASTS[kind, old](fields)
        return unpack(fields)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise EventFormatError(f"event of kind {kind} is malformed: {error}") from error


def _pack_created(event: WorkflowCreated) -> Fields:
    return [
        event.workflow_id,
        event.at_us,
        pack_fragment(event.fragment),
        pack_payload(event.metadata),
        pack_payload(event.environment),
        event.durability,
        event.versions,
    ]


def _unpack_created(fields: Fields) -> WorkflowCreated:
    workflow_id, at_us, fragment, metadata, environment, durability, versions = expect_fields(
        fields, str, int, list, object, object, str, str
    )
    return WorkflowCreated(
        workflow_id=workflow_id,
        at_us=at_us,
        fragment=unpack_fragment(fragment),
        metadata=expect_payload(metadata),
        environment=expect_payload(environment),
        durability=durability,
        versions=versions,
    )


def _pack_taken(event: OwnershipTaken) -> Fields:
    return [event.epoch, event.owner, event.reason, event.at_us]


def _unpack_taken(fields: Fields) -> OwnershipTaken:
    epoch, owner, reason, at_us = expect_fields(fields, int, str, str, int)
    return OwnershipTaken(epoch=epoch, owner=owner, reason=reason, at_us=at_us)


def _pack_scheduled(event: TasksScheduled) -> Fields:
    return [event.slice, event.at_us, pack_integers(event.tasks), pack_integers(event.attempts)]


def _unpack_scheduled(fields: Fields) -> TasksScheduled:
    number, at_us, tasks, attempts = expect_fields(fields, int, int, object, object)
    return TasksScheduled(
        slice=number,
        at_us=at_us,
        tasks=unpack_integers(tasks),
        attempts=unpack_integers(attempts),
    )


def _pack_committed(event: TasksCommitted) -> Fields:
    return [
        event.slice,
        event.node,
        pack_integers(event.tasks),
        pack_integers(event.attempts),
        [pack_payload(payload) for payload in event.payloads],
        pack_integers(event.started_us),
        pack_integers(event.durations_us),
    ]


def _unpack_committed(fields: Fields) -> TasksCommitted:
    number, node, tasks, attempts, payloads, started_us, durations_us = expect_fields(
        fields, int, object, object, object, list, object, object
    )
    return TasksCommitted(
        slice=number,
        node=expect_node(node),
        tasks=unpack_integers(tasks),
        attempts=unpack_integers(attempts),
        payloads=tuple(map(expect_payload, payloads)),
        started_us=unpack_integers(started_us),
        durations_us=unpack_integers(durations_us),
    )


def _pack_failed(event: AttemptFailed) -> Fields:
    fields = [event.slice, event.task, event.attempt, pack_error(event.error)]
    fields += [event.final, event.at_us, event.node]
    return [*fields, event.retry_us] if event.retry_us else fields


def _unpack_failed(fields: Fields) -> AttemptFailed:
    fields, retry_us = split_retry(fields, 7)
    number, task, attempt, error, final, at_us, node = expect_fields(
        fields, int, int, int, list, bool, int, object
    )
    return AttemptFailed(
        slice=number,
        task=task,
        attempt=attempt,
        error=unpack_error(error),
        final=final,
        at_us=at_us,
        node=expect_node(node),
        retry_us=retry_us,
    )


def _pack_lost(event: AttemptsLost) -> Fields:
    tasks, attempts = pack_integers(event.tasks), pack_integers(event.attempts)
    return [event.slice, tasks, attempts, event.reason, event.at_us]


def _unpack_lost(fields: Fields) -> AttemptsLost:
    number, tasks, attempts, reason, at_us = expect_fields(fields, int, object, object, str, int)
    return AttemptsLost(
        slice=number,
        tasks=unpack_integers(tasks),
        attempts=unpack_integers(attempts),
        reason=reason,
        at_us=at_us,
    )


def _pack_handed_back(event: TasksHandedBack) -> Fields:
    return [event.slice, event.at_us, pack_integers(event.tasks), pack_integers(event.attempts)]


def _unpack_handed_back(fields: Fields) -> TasksHandedBack:
    number, at_us, tasks, attempts = expect_fields(fields, int, int, object, object)
    return TasksHandedBack(
        slice=number,
        at_us=at_us,
        tasks=unpack_integers(tasks),
        attempts=unpack_integers(attempts),
    )


def _pack_extended(event: GraphExtended) -> Fields:
    return [
        event.slice,
        event.task,
        event.attempt,
        pack_fragment(event.fragment),
        event.started_us,
        event.duration_us,
        event.node,
    ]


def _unpack_extended(fields: Fields) -> GraphExtended:
    number, task, attempt, fragment, started_us, duration_us, node = expect_fields(
        fields, int, int, int, list, int, int, object
    )
    return GraphExtended(
        slice=number,
        task=task,
        attempt=attempt,
        fragment=unpack_fragment(fragment),
        started_us=started_us,
        duration_us=duration_us,
        node=expect_node(node),
    )


def _pack_status(event: StatusChanged) -> Fields:
    return [event.status, event.reason, event.who, event.at_us]


def _unpack_status(fields: Fields) -> StatusChanged:
    status, reason, who, at_us = expect_fields(fields, str, str, str, int)
    return StatusChanged(status=status, reason=reason, who=who, at_us=at_us)


def _pack_noted(event: Noted) -> Fields:
    return [event.text, event.who, event.at_us]


def _unpack_noted(fields: Fields) -> Noted:
    text, who, at_us = expect_fields(fields, str, str, int)
    return Noted(text=text, who=who, at_us=at_us)


def _pack_due(event: RetriesDue) -> Fields:
    return [event.at_us]


def _unpack_due(fields: Fields) -> RetriesDue:
    (at_us,) = expect_fields(fields, int)
    return RetriesDue(at_us=at_us)


_CODECS: dict[type, tuple[int, int, Callable[[Any], Fields], Callable[[Fields], Event]]] = {
    WorkflowCreated: (1, 1, _pack_created, _unpack_created),
    OwnershipTaken: (2, 1, _pack_taken, _unpack_taken),
    TasksScheduled: (3, 1, _pack_scheduled, _unpack_scheduled),
    TasksCommitted: (4, 1, _pack_committed, _unpack_committed),
    AttemptFailed: (5, 1, _pack_failed, _unpack_failed),
    AttemptsLost: (6, 1, _pack_lost, _unpack_lost),
    GraphExtended: (7, 1, _pack_extended, _unpack_extended),
    StatusChanged: (8, 1, _pack_status, _unpack_status),
    Noted: (9, 1, _pack_noted, _unpack_noted),
    TasksHandedBack: (10, 1, _pack_handed_back, _unpack_handed_back),
    WaitsBegan: (11, 1, pack_begun, unpack_begun),
    WaitsEnded: (12, 1, pack_ended, unpack_ended),
    EventReceived: (13, 1, pack_received, unpack_received),
    ItemsScheduled: (14, 1, item_codec.pack_scheduled, item_codec.unpack_scheduled),
    ItemsCommitted: (15, 1, item_codec.pack_committed, item_codec.unpack_committed),
    ItemFailed: (16, 1, item_codec.pack_failed, item_codec.unpack_failed),
    ItemsLost: (17, 1, item_codec.pack_lost, item_codec.unpack_lost),
    ItemsHandedBack: (18, 1, item_codec.pack_handed_back, item_codec.unpack_handed_back),
    RetriesDue: (19, 1, _pack_due, _unpack_due),
}
"""The one table of kinds: event -> kind, version, to fields, from fields."""

_KINDS = {kind: (version, unpack) for kind, version, _, unpack in _CODECS.values()}
