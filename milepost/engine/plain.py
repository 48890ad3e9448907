"""Runs a DAG with plain Ray tasks: what a continuation does outside of a workflow."""

from __future__ import annotations

from collections import deque
from typing import Any

import ray
from ray.dag import DAGNode, FunctionNode

from milepost.engine.items import iterate_items
from milepost.engine.mapping import StaticMapNode
from milepost.errors import InvalidGraphError

RUNNING_MAX = 1000
"""Items of a map that are with Ray at once."""


def execute(root: DAGNode) -> Any:
    """Returns the value of ``root``; nothing is stored.

    Raises:
        InvalidGraphError: If a node in it is not a task.
    """
    refs: dict[int, ray.ObjectRef[Any]] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if not isinstance(node, FunctionNode):
            raise InvalidGraphError(f"{node} is not a task node")
        missing = [each for each in node._upstream_nodes if id(each) not in refs]
        if missing:
            stack.extend(reversed(missing))
            continue
        stack.pop()
        if id(node) not in refs:
            refs[id(node)] = _start(node, refs)
    return ray.get(refs[id(root)])


def _start(node: FunctionNode, refs: dict[int, ray.ObjectRef[Any]]) -> ray.ObjectRef[Any]:
    positional = [_replace(value, refs) for value in node.get_args()]
    keyword = {name: _replace(value, refs) for name, value in node.get_kwargs().items()}
    options = {name: value for name, value in node.get_options().items() if name != "max_calls"}
    remote: Any = ray.remote(node._body).options(**options)
    if isinstance(node, StaticMapNode):
        return ray.put(_map(node, remote, keyword))
    ref: ray.ObjectRef[Any] = remote.remote(*positional, **keyword)
    return ref


def _map(node: StaticMapNode, remote: Any, shared: dict[str, Any]) -> list[Any]:
    """Calls a function once per item, some at a time."""
    values: list[Any] = []
    running: deque[ray.ObjectRef[Any]] = deque()
    for item in iterate_items(node.take_items(), node.chunk_size):
        running.append(remote.remote(item, **shared))
        if len(running) >= RUNNING_MAX:
            values.append(ray.get(running.popleft()))
    return values + ray.get(list(running))


def _replace(value: Any, refs: dict[int, ray.ObjectRef[Any]]) -> Any:
    """Returns ``value`` with a ref in place of each node in its containers."""
    if isinstance(value, DAGNode):
        return refs[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_replace(item, refs) for item in value)
    if type(value) is dict:
        return {key: _replace(item, refs) for key, item in value.items()}
    return value
