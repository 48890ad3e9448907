"""What a compiler hands over: a piece of graph, as tables and columns.

A fragment is the graph of a new workflow, or what a continuation adds to it. Functions, options,
argument templates and constants stand once each in a table; a node is one row of columns that
point into the tables. Inputs come before the nodes that use them; the last node is the root, whose
value is the value of the fragment; every other node is an input of some node. Numbers are relative
to the fragment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from milepost.replay.payload import Payload

NO_METADATA = -1

AWAITED = frozenset({"time", "event", "tasks", "task"})
"""What a task can wait for that nobody runs: a time, an event of a key, some of its inputs, another
task of the workflow."""

LISTENED = frozenset({"poll", "notice"})
"""What an event listener does, which waits more than it runs: it polls, and is told afterwards that
its event is durable. Any number of such tasks is under way at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function that tasks run.

    Attributes:
        name: ``module.qualname``, for people.
        digest: SHA-256 of the serialized function; its identity within a workflow.
        code: The serialized function, or None if this journal holds it already.
    """

    name: str
    digest: bytes
    code: Payload | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a task that failed waits for its next attempt.

    Attributes:
        delay_us: After the first failure.
        factor: How much longer after each further one.
        jitter: By what part of itself the delay varies by chance, 0 to 1.
        delay_us_max: It never grows beyond this.
    """

    delay_us: int
    factor: float
    jitter: float
    delay_us_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How tasks are run; equal options make one scheduling class.

    Attributes:
        max_retries: How often a failed attempt is repeated; -1 repeats for ever.
        retry_errors: Which exceptions of user code are repeated: a bool, or pickled exception
            types.
        ray: The options for Ray (resources, runtime environment, ...), opaque to replay.
        catch_exceptions: Whether the value is a pair of result and error, so that no failure goes
            beyond the task.
        checkpoint: Whether the value is to be stored; None: as for the task that created it.
        waits_for: "" for a task that a worker runs, else one of ``AWAITED`` or ``LISTENED``.
        backoff: The delays between attempts, None for none.
        timeout_us: How long an attempt may run, 0 for any time.
    """

    max_retries: int
    retry_errors: Payload
    ray: Payload
    catch_exceptions: bool = False
    checkpoint: bool | None = None
    waits_for: str = ""
    backoff: Backoff | None = None
    timeout_us: int = 0

    @property
    def is_ordinary(self) -> bool:
        """Whether there is nothing but what the engine and Ray need to run it."""
        usual = self.checkpoint is None and self.backoff is None
        return usual and not (self.catch_exceptions or self.waits_for or self.timeout_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """An argument that is not plain data, stored once however many tasks take it.

    Attributes:
        payload: The serialized object.
        nodes: The nodes inside it, by the position with which the payload names them.
    """

    payload: Payload
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeItems:
    """The integers from ``first`` on, each by ``step`` greater than the one before."""

    first: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkItems:
    """Stored values, many in one payload.

    Attributes:
        counts: How many values each payload holds.
        payloads: What holds them: lists, or tables whose rows they are.
    """

    counts: tuple[int, ...]
    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultItems:
    """The values of the map ``task``, numbered in the whole graph, which has all of them."""

    task: int


Items: TypeAlias = RangeItems | ChunkItems | ResultItems


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """What makes a node a map: its function is called once per item.

    Attributes:
        node: The node.
        length: How many values there are to map.
        chunk_size: How many of them are one item, as a list; 0 if each value is an item itself.
        items: The values.
    """

    node: int
    length: int
    chunk_size: int
    items: Items

    @property
    def width(self) -> int:
        """How many items there are."""
        return -(-self.length // max(1, self.chunk_size))

    def find_values(self, start: int, stop: int) -> tuple[int, int]:
        """Returns which values make the items from ``start`` to below ``stop``."""
        size = max(1, self.chunk_size)
        return start * size, min(stop * size, self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A piece of graph of ``len(node_functions)`` nodes.

    Attributes:
        names: Task ids as asked for; nodes that share one are numbered ``name``, ``name_1``, ...
        functions: Distinct functions.
        options: Distinct options.
        templates: Distinct argument templates (layout: docs/format.md).
        constants: Constants that templates refer to by position.
        node_names: For each node, its position in ``names``; likewise the next three.
        input_counts: For each node, how many entries of ``inputs`` are its own.
        inputs: The nodes whose values each node takes, each smaller than the node itself.
        metadata: Distinct metadata of users, plain dicts.
        node_metadata: For each node its position in ``metadata``, or ``NO_METADATA``; empty if no
            node has any.
        maps: What makes some nodes maps, in the order of the nodes.
    """

    names: tuple[str, ...]
    functions: tuple[Function, ...]
    options: tuple[TaskOptions, ...]
    templates: tuple[bytes, ...]
    constants: tuple[Constant, ...] = ()
    node_names: tuple[int, ...]
    node_functions: tuple[int, ...]
    node_options: tuple[int, ...]
    node_templates: tuple[int, ...]
    input_counts: tuple[int, ...]
    inputs: tuple[int, ...]
    metadata: tuple[Payload, ...] = ()
    node_metadata: tuple[int, ...] = ()
    maps: tuple[MapSpec, ...] = ()


def find_fault(fragment: Fragment) -> str | None:
    """Returns why ``fragment`` is not well formed, or None if it is."""
    width = len(fragment.node_functions)
    columns = {
        "node_names": (fragment.node_names, len(fragment.names)),
        "node_functions": (fragment.node_functions, len(fragment.functions)),
        "node_options": (fragment.node_options, len(fragment.options)),
        "node_templates": (fragment.node_templates, len(fragment.templates)),
    }
    if width == 0:
        return "it has no node"
    for name, (column, limit) in columns.items():
        if len(column) != width:
            return f"column {name} has {len(column)} rows, not {width}"
        if min(column) < 0 or max(column) >= limit:
            return f"column {name} points outside its table of {limit}"
    described = fragment.node_metadata
    if described and (len(described) != width or min(described) < NO_METADATA):
        return "column node_metadata does not fit the nodes"
    if max(described, default=NO_METADATA) >= len(fragment.metadata):
        return f"column node_metadata points outside its table of {len(fragment.metadata)}"
    return (
        _find_input_fault(fragment, width)
        or _find_unused(fragment, width)
        or _find_map_fault(fragment.maps, width)
    )


def _find_input_fault(fragment: Fragment, width: int) -> str | None:
    if len(fragment.input_counts) != width or min(fragment.input_counts) < 0:
        return "column input_counts does not fit the nodes"
    if sum(fragment.input_counts) != len(fragment.inputs):
        return "columns input_counts and inputs do not fit each other"
    position = 0
    for node, count in enumerate(fragment.input_counts):
        for source in fragment.inputs[position : position + count]:
            if not 0 <= source < node:
                return f"node {node} takes node {source}, which does not come before it"
        position += count
    for constant in fragment.constants:
        if constant.nodes and not 0 <= min(constant.nodes) <= max(constant.nodes) < width:
            return "a constant names a node outside the fragment"
    return None


def _find_unused(fragment: Fragment, width: int) -> str | None:
    """When the root has its value nothing may be left to do, so the root needs every node."""
    unused = set(range(width - 1)).difference(fragment.inputs)
    return f"node {min(unused)} is not the root and no node takes it" if unused else None


def _find_map_fault(maps: Sequence[MapSpec], width: int) -> str | None:
    before = -1
    for spec in maps:
        if not before < spec.node < width:
            return f"a map is node {spec.node} of {width}, or not behind the one before"
        before = spec.node
        if spec.length < 1 or spec.chunk_size < 0:
            return f"map {spec.node} has no items"
        if isinstance(spec.items, ChunkItems):
            counts, payloads = spec.items.counts, spec.items.payloads
            fits = len(counts) == len(payloads) and sum(counts) == spec.length
            if not fits or min(counts) < 1:
                return f"the chunks of map {spec.node} do not fit its length"
    return None
