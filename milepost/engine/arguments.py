"""Argument templates: how a task's arguments are put together from stored parts.

A template is one msgpack object ``[positional, keyword]`` of plain data in which extension types
stand for what is only known later: the value of an input, a ref to the value of an input (for nodes
inside containers, which arrive as ``ObjectRef``), or a constant. Inputs are named by position, so
that thousands of tasks of the same shape share one template.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
from ray.dag import DAGNode

from milepost.replay.payload import pack_plain

VALUE = 1
"""Extension type: the value of the input at this position."""
REF = 2
"""Extension type: a ref to the value of the input at this position."""
CONSTANT = 3
"""Extension type: the constant at this position of the fragment."""
ITEM = 4
"""Extension type: the item, in the template of a map."""


ARGUMENT_BYTES_MAX = 1024
"""Of a plain argument in a template; a larger one becomes a constant, stored once."""


class NotPlainError(Exception):
    """The argument is not plain data with nodes in it; it must become a constant."""


def mark(kind: int, position: int) -> msgpack.ExtType:
    """Returns what stands in a template for the thing of this kind and position."""
    return msgpack.ExtType(kind, msgpack.packb(position))


def pack_template(positional: list[Any], keyword: dict[str, Any]) -> bytes:
    """Returns the template of arguments in which marks stand for nodes and constants."""
    packed: bytes = msgpack.packb([positional, keyword], use_bin_type=True)
    return packed


def mark_nodes(value: Any, encode: Callable[[Any], Any]) -> Any:
    """Returns a copy of containers with ``encode(part)`` for each node and plain value in them.

    Raises:
        NotPlainError: If something in ``value`` is neither plain data nor a node, or if one
            container stands in two places: pickle keeps it one.
    """
    if _has_shared_container(value):
        raise NotPlainError("a container in two places")
    return _mark_nodes(value, encode)


def _has_shared_container(value: object) -> bool:
    seen: set[int] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if not isinstance(item, list | dict):
            continue
        if id(item) in seen:
            return True
        seen.add(id(item))
        stack.extend(item if isinstance(item, list) else item.values())
    return False


def _mark_nodes(value: Any, encode: Callable[[Any], Any]) -> Any:
    if isinstance(value, DAGNode) or pack_plain(value) is not None:
        return encode(value)
    if type(value) is list:
        return [_mark_nodes(item, encode) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _mark_nodes(item, encode) for key, item in value.items()}
    raise NotPlainError(type(value).__name__)


def unpack_template(
    template: bytes, resolve: Callable[[int, int], Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments; ``resolve(kind, position)`` gives what the marks stand for."""

    def replace(kind: int, position: bytes) -> Any:
        return resolve(kind, msgpack.unpackb(position))

    positional, keyword = msgpack.unpackb(template, ext_hook=replace, strict_map_key=False)
    return positional, keyword


def constant_positions(template: bytes) -> list[int]:
    """Returns the positions of the constants that ``template`` takes."""
    positions: list[int] = []

    def note(kind: int, position: int) -> None:
        if kind == CONSTANT:
            positions.append(position)

    unpack_template(template, note)
    return positions
