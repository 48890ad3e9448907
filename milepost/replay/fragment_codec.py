"""Fragments as plain data and back: the bulk of a creation event.

The layout is normative in docs/format.md. Inputs are stored as distances from the node that takes
them, so that regular graphs (chains, fan-outs, layers) become runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from milepost.replay.columns import (
    expect_payload,
    pack_integers,
    pack_payload,
    unpack_integers,
    unpack_payload,
)
from milepost.replay.fragment import Constant, Fragment, Function, TaskOptions


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


def unpack_fragment(fields: list[Any]) -> Fragment:
    """Reads what :func:`pack_fragment` wrote.

    Raises:
        ValueError: If it is not such a value (also TypeError, IndexError).
    """
    counts = unpack_integers(fields[9])
    return Fragment(
        names=tuple(fields[0]),
        functions=tuple(
            Function(name=name, digest=digest, code=unpack_payload(code))
            for name, digest, code in fields[1]
        ),
        options=tuple(
            TaskOptions(
                max_retries=retries, retry_errors=expect_payload(errors), ray=expect_payload(ray)
            )
            for retries, errors, ray in fields[2]
        ),
        templates=tuple(fields[3]),
        constants=tuple(
            Constant(payload=expect_payload(payload), nodes=unpack_integers(nodes))
            for payload, nodes in fields[4]
        ),
        node_names=unpack_integers(fields[5]),
        node_functions=unpack_integers(fields[6]),
        node_options=unpack_integers(fields[7]),
        node_templates=unpack_integers(fields[8]),
        input_counts=counts,
        inputs=_from_distances(counts, unpack_integers(fields[10])),
    )


def _owners(counts: tuple[int, ...]) -> Iterator[int]:
    return (node for node, count in enumerate(counts) for _ in range(count))


def _to_distances(fragment: Fragment) -> list[int]:
    owners = _owners(fragment.input_counts)
    return [owner - source for owner, source in zip(owners, fragment.inputs, strict=True)]


def _from_distances(counts: tuple[int, ...], distances: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(owner - far for owner, far in zip(_owners(counts), distances, strict=True))
