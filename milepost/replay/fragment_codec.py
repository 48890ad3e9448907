"""Fragments as plain data and back: the bulk of a creation event.

The layout is normative in docs/format.md. Inputs are stored as distances from the node that takes
them, so that regular graphs (chains, fan-outs, layers) become runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, assert_never

from milepost.replay.columns import (
    expect_fields,
    expect_payload,
    expect_rows,
    pack_integers,
    pack_payload,
    unpack_integers,
    unpack_payload,
)
from milepost.replay.fragment import (
    AWAITED,
    LISTENED,
    Backoff,
    ChunkItems,
    Constant,
    Fragment,
    Function,
    Items,
    MapSpec,
    RangeItems,
    ResultItems,
    TaskOptions,
)
from milepost.replay.payload import Payload

_FRAGMENT_TYPES = (list,) * 5 + (object,) * 6


class _Kind(IntEnum):
    """Where the items of a map come from. The numbers are part of the journal format."""

    RANGE = 0
    CHUNKS = 1
    RESULT = 2


def pack_fragment(fragment: Fragment) -> list[Any]:
    """Returns ``fragment`` as plain data."""
    packed = [
        list(fragment.names),
        [[item.name, item.digest, pack_payload(item.code)] for item in fragment.functions],
        [
            [item.max_retries, pack_payload(item.retry_errors), pack_payload(item.ray)]
            for item in fragment.options
        ],
        list(fragment.templates),
        [[pack_payload(item.payload), pack_integers(item.nodes)] for item in fragment.constants],
        pack_integers(fragment.node_names),
        pack_integers(fragment.node_functions),
        pack_integers(fragment.node_options),
        pack_integers(fragment.node_templates),
        pack_integers(fragment.input_counts),
        pack_integers(_to_distances(fragment)),
    ]
    if fragment.node_metadata or not all(item.is_ordinary for item in fragment.options):
        packed.append(_pack_settings(fragment))
    if fragment.maps:
        packed += [None] * (len(_FRAGMENT_TYPES) + 1 - len(packed))
        packed.append([_pack_map(spec) for spec in fragment.maps])
    return packed


def _pack_settings(fragment: Fragment) -> list[Any]:
    """Returns what only few fragments have, as one more element."""
    return [
        [_pack_setting(item) for item in fragment.options],
        [pack_payload(item) for item in fragment.metadata],
        pack_integers(fragment.node_metadata),
    ]


def _pack_setting(options: TaskOptions) -> list[Any]:
    setting = [options.catch_exceptions, options.checkpoint, options.waits_for]
    limits = [_pack_backoff(options.backoff), options.timeout_us]
    if limits != [None, 0]:
        return [*setting, *limits]
    return setting if options.waits_for else setting[:2]


def _pack_backoff(backoff: Backoff | None) -> list[Any] | None:
    if backoff is None:
        return None
    return [backoff.delay_us, backoff.factor, backoff.jitter, backoff.delay_us_max]


def _pack_map(spec: MapSpec) -> list[Any]:
    return [spec.node, spec.length, spec.chunk_size, _pack_items(spec.items)]


def _pack_items(items: Items) -> list[Any]:
    match items:
        case RangeItems():
            return [_Kind.RANGE.value, items.first, items.step]
        case ChunkItems():
            payloads = [pack_payload(payload) for payload in items.payloads]
            return [_Kind.CHUNKS.value, pack_integers(items.counts), payloads]
        case ResultItems():
            return [_Kind.RESULT.value, items.task]
        case _:
            assert_never(items)


def unpack_fragment(packed: object) -> Fragment:
    """Reads what :func:`pack_fragment` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    settings, maps = None, None
    if type(packed) is list and len(packed) == len(_FRAGMENT_TYPES) + 2:
        *packed, maps = packed
    if type(packed) is list and len(packed) == len(_FRAGMENT_TYPES) + 1:
        *packed, settings = packed
    names, functions, options, templates, constants, *columns = expect_fields(
        packed, *_FRAGMENT_TYPES
    )
    rows, metadata, node_metadata = _unpack_settings(settings, len(options))
    node_names, node_functions, node_options, node_templates, counts, distances = map(
        unpack_integers, columns
    )
    return Fragment(
        names=tuple(expect_rows(names, str)),
        functions=tuple(map(_unpack_function, functions)),
        options=tuple(map(_unpack_options, options, rows)),
        templates=tuple(expect_rows(templates, bytes)),
        constants=tuple(map(_unpack_constant, constants)),
        node_names=node_names,
        node_functions=node_functions,
        node_options=node_options,
        node_templates=node_templates,
        input_counts=counts,
        inputs=_from_distances(counts, distances),
        metadata=metadata,
        node_metadata=node_metadata,
        maps=() if maps is None else tuple(map(_unpack_map, expect_rows(maps, list))),
    )


def _unpack_settings(
    packed: object, width: int
) -> tuple[list[object], tuple[Payload, ...], tuple[int, ...]]:
    if packed is None:
        return [[False, None]] * width, (), ()
    rows, metadata, node_metadata = expect_fields(packed, list, list, object)
    if len(rows) != width:
        raise ValueError("settings do not fit the options")
    return rows, tuple(map(expect_payload, metadata)), unpack_integers(node_metadata)


def _unpack_map(packed: object) -> MapSpec:
    node, length, chunk_size, items = expect_fields(packed, int, int, int, list)
    return MapSpec(node=node, length=length, chunk_size=chunk_size, items=_unpack_items(items))


def _unpack_items(packed: list[Any]) -> Items:
    kind = packed[0] if packed else None
    if type(kind) is not int or kind not in set(_Kind):
        raise ValueError("the items of a map are of no known kind")
    if kind == _Kind.RANGE:
        _, first, step = expect_fields(packed, int, int, int)
        return RangeItems(first=first, step=step)
    if kind == _Kind.CHUNKS:
        _, counts, payloads = expect_fields(packed, int, object, list)
        return ChunkItems(
            counts=unpack_integers(counts), payloads=tuple(map(expect_payload, payloads))
        )
    _, task = expect_fields(packed, int, int)
    return ResultItems(task=task)


def _unpack_function(packed: object) -> Function:
    name, digest, code = expect_fields(packed, str, bytes, object)
    return Function(name=name, digest=digest, code=unpack_payload(code))


def _unpack_options(packed: object, settings: object) -> TaskOptions:
    retries, errors, ray = expect_fields(packed, int, object, object)
    waits_for, backoff, timeout_us = "", None, 0
    if type(settings) is list and len(settings) == 5:
        *settings, backoff, timeout_us = settings
        if type(timeout_us) is not int or timeout_us < 0:
            raise ValueError("a time limit is no number")
    if type(settings) is list and len(settings) == 3:
        *settings, waits_for = settings
        if waits_for and waits_for not in AWAITED | LISTENED:
            raise ValueError(f"no task waits for {waits_for!r}")
    catch, checkpoint = expect_fields(settings, bool, object)
    if checkpoint not in (None, True, False):
        raise ValueError("checkpoint is neither a boolean nor nil")
    return TaskOptions(
        max_retries=retries,
        retry_errors=expect_payload(errors),
        ray=expect_payload(ray),
        catch_exceptions=catch,
        checkpoint=checkpoint,
        waits_for=waits_for,
        backoff=_unpack_backoff(backoff),
        timeout_us=timeout_us,
    )


def _unpack_backoff(packed: object) -> Backoff | None:
    if packed is None:
        return None
    delay_us, factor, jitter, most_us = expect_fields(packed, int, float, float, int)
    if delay_us < 0 or most_us < 0 or not 0 <= jitter <= 1 or not 1 <= factor < math.inf:
        raise ValueError("a delay is out of its range")
    return Backoff(delay_us=delay_us, factor=factor, jitter=jitter, delay_us_max=most_us)


def _unpack_constant(packed: object) -> Constant:
    payload, nodes = expect_fields(packed, object, object)
    return Constant(payload=expect_payload(payload), nodes=unpack_integers(nodes))


def _owners(counts: tuple[int, ...]) -> Iterator[int]:
    return (node for node, count in enumerate(counts) for _ in range(count))


def _to_distances(fragment: Fragment) -> list[int]:
    owners = _owners(fragment.input_counts)
    return [owner - source for owner, source in zip(owners, fragment.inputs, strict=True)]


def _from_distances(counts: tuple[int, ...], distances: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(owner - far for owner, far in zip(_owners(counts), distances, strict=True))
