"""``map``: one node of a workflow that calls a function once per item.

Where the items are known when the workflow is compiled, the node is a map of the graph. Where a
task has yet to return them, it is a small task that takes them and goes on with the map as its
continuation; so is a reduction of what a map came to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.dag import DAGNode, FunctionNode

from milepost.engine.functions import name_task
from milepost.engine.items import require_iterable, store_items
from milepost.engine.options import make_label, read_label
from milepost.engine.payloads import Sink
from milepost.errors import InvalidGraphError, InvalidOptionError, SignatureMismatchError
from milepost.replay.fragment import MapSpec

ARITY_DEFAULT = 16


class MapNode(FunctionNode):
    """A node whose value is a :class:`~milepost.MapResult`; see :func:`map`."""

    def reduce(self, function: Any, arity: int = ARITY_DEFAULT) -> FunctionNode:
        """Returns a node that puts the values together, some at a time, as a tree.

        ``function`` is called with lists of up to ``arity`` neighbouring values, then with lists of
        what it returned, until one is left: that is the node's value. All calls of one level run
        side by side; each is as durable as any item of a map.

        Args:
            function: A ``@ray.remote`` function of one list, perhaps with ``.options(...)``. It
                should not matter how the values are grouped, as with ``sum`` and ``max``.
            arity: How many values it is given at most, 2 or more.

        Raises:
            InvalidGraphError: If ``function`` is not a ``@ray.remote`` function.
            InvalidOptionError: If ``arity`` is not an int of 2 or more.
            SignatureMismatchError: If it does not take one argument.
        """
        callee = _describe(function, "reduce()", {})
        if type(arity) is not int or arity < 2:
            raise InvalidOptionError(f"arity must be an int of 2 or more, not {arity!r}")
        return _bind_ours(_reduce, callee, "reduce", self, callee, arity)


class StaticMapNode(MapNode):
    """A map whose items are known.

    Attributes:
        items: What it is over.
        chunk_size: How many values make an item, 0 if each is one.
    """

    def __init__(self, callee: Callee, items: Any, chunk_size: int, shared: dict[str, Any]) -> None:
        initialize: Any = super().__init__  # Ray ships it untyped
        initialize(callee.body, (), shared, callee.options)
        self.items: Any = items
        self.chunk_size = chunk_size
        self._callee = callee
        self._shared = shared

    def take_items(self) -> Any:
        """Returns what the map is over; an iterator can be taken once.

        Raises:
            InvalidGraphError: If it was taken before.
        """
        items = self.items
        if items is _DRAINED:
            raise InvalidGraphError(
                f"the items of map {name_task(self._body)} came from an iterator, which was "
                f"drained when the node was first run; pass a list, or call map() again"
            )
        if isinstance(items, Iterator):
            self.items = _DRAINED
        return items

    def store(self, number: int, sink: Sink) -> MapSpec | None:
        """Returns what makes node ``number`` this map, its items stored; None if there are none.

        Raises:
            InvalidGraphError: If its items were taken before.
            NotSerializableError: If one of them cannot be pickled.
        """
        length, items = store_items(self.take_items(), self.chunk_size, sink)
        if not length:
            return None
        return MapSpec(node=number, length=length, chunk_size=self.chunk_size, items=items)

    def without_items(self) -> MapNode:
        """Returns the node that stands for this one if there is nothing to map."""
        return _bind_ours(_take_none, self._callee, "none", **self._shared)


_DRAINED = object()
"""Stands where an iterator was."""


@dataclass(frozen=True, slots=True)
class Callee:
    """A ``@ray.remote`` function with its options, as plain parts."""

    body: Callable[..., Any]
    options: dict[str, Any]

    def bind(self, *positional: Any, **keyword: Any) -> FunctionNode:
        """Returns a task of it."""
        make_node: Any = FunctionNode
        node: FunctionNode = make_node(self.body, positional, keyword, self.options)
        return node


def map(function: Any, items: Any, /, *, chunk_size: int | None = None, **shared: Any) -> MapNode:
    """Makes a node that calls a function once per item; its value is the list of what it returned.

    The node is as durable as a task, item by item: what has returned is not called again, on any
    cluster. Options of the function (``max_retries``, ``catch_exceptions``, resources and so on)
    apply to each item. Any number of items can be mapped: a few are sent to workers at a time, in
    slices of about 15 milliseconds of work.

    Args:
        function: A ``@ray.remote`` function, perhaps with ``.options(...)``. It is called with the
            item as its first argument, and cannot return a continuation.
        items: A ``range`` (which takes no space), a list, any iterable (drained now, chunk by
            chunk), an Arrow table or record batch (an item is a row, as a dict), a ref to one of
            these, or a task or map that returns one.
        chunk_size: Calls the function with lists of so many values instead of one value (with
            tables of so many rows, if ``items`` is a table).
        **shared: Further arguments, the same for all items. A task arrives as its value. Items
            that run in one worker share them: do not change them.

    Returns:
        A node for :func:`run`, :func:`continuation`, or the arguments of other tasks. Its value is
        a :class:`MapResult`, a sequence that loads its values when they are looked at;
        ``node.reduce(f)`` puts them together as a tree, ``map(f, node, chunk_size=1000)`` takes
        them by chunk.

    Raises:
        InvalidGraphError: If ``function`` is not a ``@ray.remote`` function, or ``items`` is
            nothing to iterate over.
        InvalidOptionError: If ``chunk_size`` is not a positive int.
        SignatureMismatchError: If the function does not take an item and ``shared``.

    Example:
        >>> @ray.remote
        ... def square(number):
        ...     return number * number
        >>> milepost.run(milepost.map(square, range(4)))
        <MapResult of 4: [0, 1, 4, 9]>
    """
    callee = _describe(function, "map()", shared)
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise InvalidOptionError(f"chunk_size must be an int of 1 or more, not {chunk_size!r}")
    if isinstance(items, DAGNode):
        return _bind_ours(_spread, callee, "items", items, callee, chunk_size, **shared)
    if not isinstance(items, range | ray.ObjectRef):
        require_iterable(items)
    return StaticMapNode(callee, items, chunk_size or 0, shared)


def _describe(function: Any, where: str, shared: Mapping[str, Any]) -> Callee:
    """Takes a ``@ray.remote`` function apart, or says what is wrong with it."""
    bound = function.bind() if hasattr(function, "bind") else None
    if not isinstance(bound, FunctionNode):
        raise InvalidGraphError(
            f"{where} takes a @ray.remote function, perhaps with .options(...), not an object of "
            f"type {type(function).__name__}"
        )
    try:
        inspect.signature(bound._body).bind(None, **shared)
    except TypeError as error:
        raise SignatureMismatchError(
            f"{where} calls {name_task(bound._body)} with one value and {sorted(shared)}, which "
            f"it does not take: {error}"
        ) from None
    return Callee(bound._body, dict(bound._bound_options))


def _bind_ours(
    body: Callable[..., Any], callee: Callee, what: str, *positional: Any, **keyword: Any
) -> MapNode:
    """Binds a task of ours that prepares calls of ``callee``, in the environment of those."""
    name = read_label(callee.options).get("task_id") or name_task(callee.body)
    options = make_label({"task_id": f"{name}.{what}"})
    if callee.options.get("runtime_env"):
        options["runtime_env"] = callee.options["runtime_env"]
    make_node: Any = MapNode
    node: MapNode = make_node(body, positional, keyword, options)
    return node


# Journals name these functions: they keep their names and arguments for ever.


def _spread(items: Any, callee: Callee, chunk_size: int | None, /, **shared: Any) -> Any:
    """Goes on with the map over ``items``, now that they are known."""
    return _go_on(map(cast(Any, callee), items, chunk_size=chunk_size, **shared))


def _reduce(values: Sequence[Any], callee: Callee, arity: int, /) -> Any:
    """Goes on with one level of a tree, or with its root."""
    if len(values) <= arity:
        return _go_on(callee.bind(list(values)))
    return _go_on(map(cast(Any, callee), values, chunk_size=arity).reduce(callee, arity))


def _take_none(**shared: Any) -> list[Any]:
    """What a map over nothing comes to."""
    return []


def _go_on(node: FunctionNode) -> Any:
    from milepost.engine.api import continuation  # it imports this module

    return continuation(node)
