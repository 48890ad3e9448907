"""From a user's DAG to a fragment, in one pass.

The DAG is walked depth first without recursion, inputs before the nodes that take them, in the
order of the arguments: that order numbers the nodes and their task ids. Functions, options,
templates and constants are stored once, constants by identity. Literal arguments are captured here,
when the workflow is submitted.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.dag import ClassMethodNode, ClassNode, DAGNode, FunctionNode, InputNode, MultiOutputNode
from ray.dag.input_node import DAGInputData, InputAttributeNode

from milepost.engine.arguments import (
    ARGUMENT_BYTES_MAX,
    CONSTANT,
    ITEM,
    REF,
    VALUE,
    NotPlainError,
    mark,
    mark_nodes,
    pack_template,
)
from milepost.engine.functions import describe_function, fingerprint_code, name_task
from milepost.engine.mapping import StaticMapNode
from milepost.engine.options import PackedOptions, pack_options
from milepost.engine.payloads import Sink, serialize, serialize_opaque
from milepost.errors import (
    InvalidGraphError,
    NotSerializableError,
    SignatureMismatchError,
)
from milepost.replay.fragment import NO_METADATA, Constant, Fragment, Function, MapSpec, TaskOptions
from milepost.replay.payload import Payload, pack_plain

_UNDER_WAY = -1


def compile_dag(
    dag: object,
    sink: Sink,
    arguments: Sequence[Any] = (),
    keywords: Mapping[str, Any] | None = None,
    fingerprints: dict[str, str] | None = None,
) -> Fragment:
    """Compiles the DAG whose root is ``dag``.

    Args:
        dag: A node made by ``f.bind(...)`` of a ``@ray.remote`` function.
        sink: Takes the blobs (large constants and functions); they must be durable before the
            fragment is.
        arguments: What ``InputNode`` stands for, by position.
        keywords: What ``InputNode`` stands for, by name.
        fingerprints: Gets a digest of each function's own code, by its name.

    Returns:
        The graph, its root last.

    Raises:
        InvalidGraphError: If ``dag`` is not a task node, or a node in it cannot be a task.
        SignatureMismatchError: If a function does not take the arguments bound to it.
        NotSerializableError: If a function, an argument or an option cannot be pickled.
        InvalidOptionError: If an option has a value that Milepost does not support.
    """
    root = _require_task_node(dag, "the workflow")
    compiler = _Compiler(
        sink, arguments, keywords or {}, {} if fingerprints is None else fingerprints
    )
    return compiler.compile(root)


def _require_task_node(node: object, where: str) -> FunctionNode:
    if isinstance(node, FunctionNode):
        return node
    kinds = {
        ClassNode: "an actor",
        ClassMethodNode: "an actor method",
        MultiOutputNode: "a MultiOutputNode",
        InputNode: "an InputNode",
    }
    found = next((text for kind, text in kinds.items() if isinstance(node, kind)), None)
    if isinstance(node, DAGNode):
        raise InvalidGraphError(
            f"{where} is {found or type(node).__name__}; only tasks made by f.bind(...) of a "
            f"@ray.remote function can be durable"
        )
    raise InvalidGraphError(
        f"{where} is of type {type(node).__name__}, not a DAG; pass f.bind(...) of a @ray.remote "
        f"function"
    )


class _UnseenNodesError(BaseException):
    """Nodes that Ray did not see at bind time, for instance put into a list afterwards.

    Not an ``Exception``: it has to get past whatever pickles the object it was found in.
    """

    def __init__(self, node: DAGNode) -> None:
        super().__init__(node)
        self.node = node


class _Compiler:
    def __init__(
        self,
        sink: Sink,
        arguments: Sequence[Any],
        keywords: Mapping[str, Any],
        fingerprints: dict[str, str],
    ) -> None:
        self._sink = sink
        self._fingerprints = fingerprints
        make_input: Any = DAGInputData
        self._input = make_input(*arguments, **keywords)
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []  # keeps objects alive while their id() is a key
        self._names: dict[str, int] = {}
        self._functions: dict[bytes, int] = {}
        self._function_rows: list[Function] = []
        self._function_numbers: dict[int, int] = {}
        self._options: dict[TaskOptions, int] = {}
        self._packed_options: dict[int, PackedOptions] = {}
        self._metadata: dict[Payload, int] = {}
        self._node_metadata: list[int] = []
        self._templates: dict[bytes, int] = {}
        self._constants: list[Constant] = []
        self._constant_positions: dict[int, int] = {}
        self._signatures: dict[int, inspect.Signature] = {}
        self._checked: set[tuple[int, int, tuple[str, ...]]] = set()
        self._rows: list[tuple[int, int, int, int]] = []
        self._counts: list[int] = []
        self._inputs: list[int] = []
        self._maps: list[MapSpec] = []

    def compile(self, root: FunctionNode) -> Fragment:
        self._walk(root)
        self._require_used()
        names, functions, options, templates = zip(*self._rows, strict=True)
        return Fragment(
            names=tuple(self._names),
            functions=tuple(self._function_rows),
            options=tuple(self._options),
            templates=tuple(self._templates),
            constants=tuple(self._constants),
            node_names=names,
            node_functions=functions,
            node_options=options,
            node_templates=templates,
            input_counts=tuple(self._counts),
            inputs=tuple(self._inputs),
            metadata=tuple(self._metadata),
            node_metadata=tuple(self._node_metadata) if self._metadata else (),
            maps=tuple(self._maps),
        )

    def _require_used(self) -> None:
        """Ray saw the arguments at bind time, this compiler sees them now."""
        unused = set(range(len(self._rows) - 1)).difference(self._inputs)
        if unused:
            name = list(self._names)[self._rows[min(unused)][0]]
            raise InvalidGraphError(
                f"a task {name} was taken out of an argument after bind(); bind that task again"
            )

    def _walk(self, root: FunctionNode) -> None:
        stack = [root]
        while stack:
            node = stack[-1]
            number = self._numbers.get(id(node))
            if number is not None and number != _UNDER_WAY:
                stack.pop()
                continue
            unseen = self._find_unseen(node, node._upstream_nodes)
            if unseen:
                self._numbers[id(node)] = _UNDER_WAY
                stack.extend(reversed(unseen))
                continue
            try:
                self._add(node)
            except _UnseenNodesError as found:
                self._numbers[id(node)] = _UNDER_WAY
                inputs = [found.node, *node._collect_upstream_nodes()]
                stack.extend(reversed(self._find_unseen(node, inputs)))
                continue
            stack.pop()

    def _find_unseen(self, node: FunctionNode, inputs: Sequence[DAGNode]) -> list[FunctionNode]:
        unseen = []
        for each in inputs:
            if isinstance(each, InputNode | InputAttributeNode):
                continue
            number = self._numbers.get(id(each))
            if number is None:
                unseen.append(_require_task_node(each, f"an argument of task {_name(node)}"))
            elif number == _UNDER_WAY:
                raise InvalidGraphError(f"task {_name(node)} depends on itself: not a DAG")
        return unseen

    def _add(self, node: FunctionNode) -> None:
        """Appends the row of a node whose inputs all have theirs."""
        positions: dict[int, int] = {}
        template = self._build_template(node, positions)
        number = len(self._rows)
        self._numbers[id(node)] = number
        if isinstance(node, StaticMapNode):
            spec = node.store(number, self._sink)
            if spec is None:
                self._kept.append(node)
                node, positions = node.without_items(), {}
                template = self._build_template(node, positions)
            else:
                self._maps.append(spec)
        function = node._body
        self._check_signature(function, node)
        options = self._pack_options(node._bound_options, function)  # get_options() copies
        row = (
            self._names.setdefault(options.task_id or name_task(function), len(self._names)),
            self._number_function(function),
            self._options.setdefault(options.how, len(self._options)),
            self._templates.setdefault(template, len(self._templates)),
        )
        self._rows.append(row)
        self._node_metadata.append(self._number_metadata(options.metadata))
        self._counts.append(len(positions))
        self._inputs.extend(positions)

    def _number_function(self, function: Any) -> int:
        number = self._function_numbers.get(id(function))
        if number is None:
            row = describe_function(function, self._sink)
            self._fingerprints[row.name] = fingerprint_code(function)
            number = self._functions.setdefault(row.digest, len(self._functions))
            if number == len(self._function_rows):
                self._function_rows.append(row)
            self._function_numbers[id(function)] = number
        return number

    def _pack_options(self, options: dict[str, Any], function: Any) -> PackedOptions:
        key = id(options) if options else 0  # nodes without options have a dict of their own each
        packed = self._packed_options.get(key)
        if packed is None:
            packed = pack_options(options, name_task(function), self._sink)
            self._packed_options[key] = packed
            self._kept.append(options)
        return packed

    def _number_metadata(self, metadata: Payload | None) -> int:
        if metadata is None:
            return NO_METADATA
        return self._metadata.setdefault(metadata, len(self._metadata))

    def _check_signature(self, function: Any, node: FunctionNode) -> None:
        """Checks each shape of call once per function; binding costs more than all the rest."""
        item = (None,) if isinstance(node, StaticMapNode) else ()
        positional, keyword = (*item, *node.get_args()), node.get_kwargs()
        shape = (id(function), len(positional), tuple(keyword))
        if shape in self._checked:
            return
        if id(function) not in self._signatures:
            self._signatures[id(function)] = inspect.signature(function)
        try:
            self._signatures[id(function)].bind(*positional, **keyword)
        except TypeError as error:
            raise SignatureMismatchError(
                f"task {name_task(function)} cannot be called as bound: {error}"
            ) from None
        self._checked.add(shape)

    def _build_template(self, node: FunctionNode, positions: dict[int, int]) -> bytes:
        def encode(where: object, value: Any) -> Any:
            try:
                return self._encode_argument(value, positions)
            except NotSerializableError as error:
                raise NotSerializableError(
                    f"argument {where!r} of task {_name(node)}: {error}"
                ) from error

        item = [mark(ITEM, 0)] if isinstance(node, StaticMapNode) else []
        positional = item + [encode(at, value) for at, value in enumerate(node.get_args())]
        keyword = {name: encode(name, value) for name, value in node.get_kwargs().items()}
        return pack_template(positional, keyword)

    def _encode_argument(self, value: Any, positions: dict[int, int]) -> Any:
        if isinstance(value, FunctionNode):
            return mark(VALUE, self._take_input(value, positions))
        if isinstance(value, InputNode | InputAttributeNode):
            value = self._read_input(value)
        if id(value) in self._constant_positions:  # before anything looks at all of it again
            return mark(CONSTANT, self._number_constant(value, positions))
        if pack_plain(value) is not None:
            return self._encode_part(value, positions)
        try:
            return mark_nodes(value, lambda part: self._encode_part(part, positions))
        except (NotPlainError, RecursionError):
            return mark(CONSTANT, self._number_constant(value, positions))

    def _encode_part(self, part: Any, positions: dict[int, int]) -> Any:
        """Returns what stands in a template for plain data, or for a node in a container."""
        if isinstance(part, InputNode | InputAttributeNode):
            part = self._read_input(part)
        elif isinstance(part, DAGNode):
            return mark(REF, self._take_input(part, positions))
        packed = pack_plain(part)
        if packed is not None and len(packed) <= ARGUMENT_BYTES_MAX:
            return part
        return mark(CONSTANT, self._number_constant(part, positions))

    def _take_input(self, node: DAGNode, positions: dict[int, int]) -> int:
        return positions.setdefault(self._number_of(node), len(positions))

    def _number_of(self, node: DAGNode) -> int:
        number = self._numbers.get(id(node))
        if number is None or number == _UNDER_WAY:
            raise _UnseenNodesError(node)
        return number

    def _number_constant(self, value: Any, positions: dict[int, int]) -> int:
        position = self._constant_positions.get(id(value))
        if position is None:
            constant = self._make_constant(value)
            position = len(self._constants)
            self._constants.append(constant)
            self._constant_positions[id(value)] = position
            self._kept.append(value)
        for number in self._constants[position].nodes:
            positions.setdefault(number, len(positions))
        return position

    def _make_constant(self, value: Any) -> Constant:
        if isinstance(value, ray.ObjectRef):
            return Constant(payload=self._sink.store_ref(value))
        if pack_plain(value) is not None:
            return Constant(payload=serialize(value, self._sink))
        nodes: dict[int, int] = {}

        def number(node: DAGNode) -> object:
            if isinstance(node, InputNode | InputAttributeNode):
                raise InvalidGraphError("an InputNode inside an object; pass it as an argument")
            return nodes.setdefault(self._number_of(node), len(nodes))

        payload = serialize_opaque(value, self._sink, number)
        return Constant(payload=payload, nodes=tuple(nodes))

    def _read_input(self, node: DAGNode) -> Any:
        """As in ``ray.workflow``: a bare ``InputNode`` is all the input, in one object."""
        if isinstance(node, InputNode):
            return self._input
        try:
            return self._input[node._key]
        except (KeyError, IndexError) as error:
            raise InvalidGraphError(
                f"the workflow takes input {node._key!r}, which run() was not given"
            ) from error


def _name(node: DAGNode) -> str:
    return name_task(node._body) if isinstance(node, FunctionNode) else str(node)
