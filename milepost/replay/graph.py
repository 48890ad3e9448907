"""The graph of a workflow in arrays: no object per node, every step linear.

Nodes are numbered in the order in which fragments add them. Functions, options and templates stand
once each in tables; edges are stored in both directions, per fragment, since a node only takes
nodes of its own fragment.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import accumulate, islice
from typing import TypeVar

from milepost.replay.fragment import NO_METADATA, Constant, Fragment, Function, TaskOptions
from milepost.replay.payload import Payload

_NUMBERED = re.compile(r"(.*)_([1-9][0-9]{0,15})", re.DOTALL)
NO_NODE = -1
Item = TypeVar("Item", bytes, TaskOptions)


def integers(values: Iterable[int] = ()) -> array[int]:
    """Returns an array of 64-bit signed integers."""
    return array("q", values)


def name_node(name: str, ordinal: int) -> str:
    """Returns the id of the node that is number ``ordinal`` (from 0) of those called ``name``."""
    return f"{name}_{ordinal}" if ordinal else name


class Graph:
    """Nodes, their inputs and dependents, and the tables they point into.

    Attributes:
        functions: Distinct functions, each with its code.
        options: Distinct options; the position of one is its scheduling class.
        templates: Distinct argument templates.
        constants: Constants of all fragments, with nodes numbered in the whole graph.
        node_functions: For each node its position in ``functions``; likewise ``node_options`` and
            ``node_templates``.
        fragment_starts: The first node of each fragment.
        node_constants: For each node the position of its fragment's first constant.
        node_names: For each node its position in ``names``.
        node_ordinals: For each node its number among those of the same name.
        metadata: The users' metadata of the nodes that have some.
    """

    __slots__ = (
        "_contested",
        "_function_numbers",
        "_input_starts",
        "_inputs",
        "_name_numbers",
        "_name_tasks",
        "_option_numbers",
        "_output_starts",
        "_outputs",
        "_template_numbers",
        "constants",
        "fragment_starts",
        "functions",
        "metadata",
        "names",
        "node_constants",
        "node_functions",
        "node_names",
        "node_options",
        "node_ordinals",
        "node_templates",
        "options",
        "templates",
    )

    def __init__(self) -> None:
        self.names: list[str] = []
        self.functions: list[Function] = []
        self.options: list[TaskOptions] = []
        self.templates: list[bytes] = []
        self.constants: list[Constant] = []
        self.node_names: array[int] = integers()
        self.node_ordinals: array[int] = integers()
        self.node_functions: array[int] = integers()
        self.node_options: array[int] = integers()
        self.node_templates: array[int] = integers()
        self.node_constants: array[int] = integers()
        self.fragment_starts: array[int] = integers()
        self.metadata: dict[int, Payload] = {}
        self._contested: set[str] = set()
        self._name_numbers: dict[str, int] = {}
        self._name_tasks: list[array[int]] = []
        self._function_numbers: dict[bytes, int] = {}
        self._option_numbers: dict[TaskOptions, int] = {}
        self._template_numbers: dict[bytes, int] = {}
        self._input_starts = integers([0])
        self._inputs = integers()
        self._output_starts = integers([0])
        self._outputs = integers()

    def __len__(self) -> int:
        return len(self.node_functions)

    def inputs(self, node: int) -> Sequence[int]:
        """Returns the nodes whose values ``node`` takes, in the order its template names them."""
        return self._inputs[self._input_starts[node] : self._input_starts[node + 1]]

    def input_count(self, node: int) -> int:
        """Returns how many entries :meth:`inputs` has."""
        return self._input_starts[node + 1] - self._input_starts[node]

    def outputs(self, node: int) -> Sequence[int]:
        """Returns the nodes that take the value of ``node``, once per use."""
        return self._outputs[self._output_starts[node] : self._output_starts[node + 1]]

    def fragment_of(self, node: int) -> tuple[int, int]:
        """Returns the first and the last node of the fragment that ``node`` came with."""
        at = bisect_right(self.fragment_starts, node)
        last = at == len(self.fragment_starts)
        root = len(self) - 1 if last else self.fragment_starts[at] - 1
        return self.fragment_starts[at - 1], root

    def task_id(self, node: int) -> str:
        """Returns the id of ``node``, unique in its workflow."""
        return name_node(self.names[self.node_names[node]], self.node_ordinals[node])

    def find(self, task_id: str) -> int | None:
        """Returns the node of this id, or None."""
        node = self._find_numbered(task_id, 0)
        if node is not None:
            return node
        match = _NUMBERED.fullmatch(task_id)
        return self._find_numbered(match[1], int(match[2])) if match else None

    def find_near(self, task_id: str) -> tuple[str, ...]:
        """Returns a few names of tasks that look like ``task_id``, the most alike first."""
        last = task_id.rpartition(".")[2]
        alike = [name for name in self.names if last in name]
        return tuple(dict.fromkeys([*get_close_matches(task_id, self.names), *alike]))[:3]

    def _find_numbered(self, name: str, ordinal: int) -> int | None:
        number = self._name_numbers.get(name)
        if number is None or ordinal >= len(self._name_tasks[number]):
            return None
        node = self._name_tasks[number][ordinal]
        return None if node == NO_NODE else node

    def knows_function(self, digest: bytes) -> bool:
        """Tells whether the function of this digest stands in the table."""
        return digest in self._function_numbers

    def extend(self, fragment: Fragment) -> int:
        """Adds a well-formed fragment; returns the number of its first node. Linear in its size."""
        first = len(self)
        self.fragment_starts.append(first)
        functions = [self._add_function(function) for function in fragment.functions]
        options = [_number(self.options, self._option_numbers, item) for item in fragment.options]
        templates = [
            _number(self.templates, self._template_numbers, item) for item in fragment.templates
        ]
        self.node_functions.extend(map(functions.__getitem__, fragment.node_functions))
        self.node_options.extend(map(options.__getitem__, fragment.node_options))
        self.node_templates.extend(map(templates.__getitem__, fragment.node_templates))
        self.node_constants.extend([len(self.constants)] * len(fragment.node_functions))
        self.constants.extend(_shift(constant, first) for constant in fragment.constants)
        self._add_names(fragment, first)
        self._add_edges(fragment, first)
        for offset, at in enumerate(fragment.node_metadata):
            if at != NO_METADATA:
                self.metadata[first + offset] = fragment.metadata[at]
        return first

    def _add_function(self, function: Function) -> int:
        number = self._function_numbers.get(function.digest)
        if number is None:
            number = self._function_numbers[function.digest] = len(self.functions)
            self.functions.append(function)
        return number

    def _add_names(self, fragment: Fragment, first: int) -> None:
        for name in fragment.names:
            if name not in self._name_numbers:
                self._name_numbers[name] = len(self.names)
                self.names.append(name)
                self._name_tasks.append(integers())
                match = _NUMBERED.fullmatch(name)
                if match:
                    self._contested.add(match[1])
        numbers = [self._name_numbers[name] for name in fragment.names]
        self.node_names.extend(map(numbers.__getitem__, fragment.node_names))
        contested = [name in self._contested for name in fragment.names]
        for node, at in enumerate(fragment.node_names, first):
            tasks = self._name_tasks[numbers[at]]
            ordinal = len(tasks)
            if ordinal and not contested[at]:  # nobody asked for an id that is a number of it
                tasks.append(node)
            else:
                ordinal = self._claim_ordinal(fragment.names[at], numbers[at], node)
            self.node_ordinals.append(ordinal)

    def _claim_ordinal(self, name: str, number: int, node: int) -> int:
        """Gives ``node`` the next free number of its name.

        ``a_1`` can be the second ``a`` or a task that asked for the id ``a_1``; whoever comes
        second takes the next number. A text has at most these two readings, so two look-ups do.
        """
        tasks = self._name_tasks[number]
        while True:
            ordinal = len(tasks)
            if self.find(name_node(name, ordinal)) is None:
                tasks.append(node)
                return ordinal
            tasks.append(NO_NODE)

    def _add_edges(self, fragment: Fragment, first: int) -> None:
        """Appends inputs as they come and outputs by a counting sort over the fragment."""
        width = len(fragment.input_counts)
        starts = accumulate(fragment.input_counts, initial=len(self._inputs))
        self._input_starts.extend(islice(starts, 1, None))
        self._inputs.extend(map(first.__add__, fragment.inputs))
        uses = [0] * width
        for source in fragment.inputs:
            uses[source] += 1
        slots = list(accumulate(uses, initial=len(self._outputs)))
        self._output_starts.extend(slots[1:])
        self._outputs.extend([0] * len(fragment.inputs))
        at = 0
        for node, count in enumerate(fragment.input_counts, first):
            for source in fragment.inputs[at : at + count] if count else ():
                self._outputs[slots[source]] = node
                slots[source] += 1
            at += count


def _number(table: list[Item], numbers: dict[Item, int], item: Item) -> int:
    number = numbers.get(item)
    if number is None:
        number = numbers[item] = len(table)
        table.append(item)
    return number


def _shift(constant: Constant, first: int) -> Constant:
    if not constant.nodes:
        return constant
    nodes = tuple(first + node for node in constant.nodes)
    return Constant(payload=constant.payload, nodes=nodes)
