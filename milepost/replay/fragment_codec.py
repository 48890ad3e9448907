"""Fragments as plain data and back: the bulk of a creation event.

The layout is normative in docs/format.md. Inputs are stored as distances from the node that takes
them, so that regular graphs (chains, fan-outs, layers) become runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from milepost.replay.columns import (
    expect_fields,
    expect_payload,
    expect_rows,
    pack_integers,
    pack_payload,
    unpack_integers,
    unpack_payload,
)
from milepost.replay.fragment import Constant, Fragment, Function, TaskOptions

_FRAGMENT_TYPES = (list,) * 5 + (object,) * 6


def pack_fragment(fragment: Fragment) -> list[Any]:
    """Returns ``fragment`` as plain data."""
    return [
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


def unpack_fragment(packed: object) -> Fragment:
    """Reads what :func:`pack_fragment` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    names, functions, options, templates, constants, *columns = expect_fields(
        packed, *_FRAGMENT_TYPES
    )
    node_names, node_functions, node_options, node_templates, counts, distances = map(
        unpack_integers, columns
    )
    return Fragment(
        names=tuple(expect_rows(names, str)),
        functions=tuple(map(_unpack_function, functions)),
        options=tuple(map(_unpack_options, options)),
        templates=tuple(expect_rows(templates, bytes)),
        constants=tuple(map(_unpack_constant, constants)),
        node_names=node_names,
        node_functions=node_functions,
        node_options=node_options,
        node_templates=node_templates,
        input_counts=counts,
        inputs=_from_distances(counts, distances),
    )


def _unpack_function(packed: object) -> Function:
    name, digest, code = expect_fields(packed, str, bytes, object)
    return Function(name=name, digest=digest, code=unpack_payload(code))


def _unpack_options(packed: object) -> TaskOptions:
    retries, errors, ray = expect_fields(packed, int, object, object)
    return TaskOptions(
        max_retries=retries, retry_errors=expect_payload(errors), ray=expect_payload(ray)
    )


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
