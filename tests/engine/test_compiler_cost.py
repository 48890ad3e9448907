"""Compiling is linear: twice the nodes take about twice the work, whatever the DAG looks like.

Work is counted in executed lines of the engine and of the replayer, and in calls of built-in
functions from there, not in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import ray

import milepost
from milepost.engine import compiler
from milepost.engine.compiler import compile_dag
from milepost.engine.payloads import BlobCollector

PACKAGE = str(Path(milepost.__file__).parent)


@ray.remote
def f(*positional: object, **keyword: object) -> None:
    """Takes whatever it is given."""


task: Any = f


class Opaque:
    def __init__(self, content: object = None) -> None:
        self.content = content


def chain(width: int) -> Any:
    node = task.bind()
    for _ in range(width - 1):
        node = task.bind(node)
    return node


def fan_in(width: int) -> Any:
    return task.bind(*[task.bind(number) for number in range(width)])


def fan_in_through_a_list(width: int) -> Any:
    return task.bind([task.bind(number) for number in range(width)])


def fan_in_through_an_object(width: int) -> Any:
    return task.bind(Opaque([task.bind(number) for number in range(width)]))


def list_filled_after_bind(width: int) -> Any:
    nodes: list[Any] = []
    root = task.bind(nodes)
    nodes.extend(task.bind(number) for number in range(width))
    return root


def object_filled_after_bind(width: int) -> Any:
    held = Opaque()
    root = task.bind(held)
    held.content = [task.bind(number) for number in range(width)]
    return root


def one_source_for_all(width: int) -> Any:
    source = task.bind()
    return task.bind(*[task.bind(source, number) for number in range(width)])


def layers(width: int) -> Any:
    layer = [task.bind(number) for number in range(4)]
    for _ in range(width // 4):
        layer = [task.bind(*layer) for _ in range(4)]
    return task.bind(*layer)


def constants(width: int) -> Any:
    return task.bind(*[task.bind(Opaque(number)) for number in range(width)])


def options(width: int) -> Any:
    return task.bind(*[task.options(num_cpus=number % 7).bind() for number in range(width)])


def functions(width: int) -> Any:
    def make(number: int) -> Any:
        return ray.remote(lambda: number)

    return task.bind(*[make(number).bind() for number in range(width)])


def shared_list(width: int) -> Any:
    """Every task takes the same large list."""
    rows = list(range(2000))
    return task.bind(*[task.bind(rows) for _ in range(width)])


SHAPES: list[Callable[[int], Any]] = [
    chain,
    fan_in,
    fan_in_through_a_list,
    fan_in_through_an_object,
    list_filled_after_bind,
    object_filled_after_bind,
    one_source_for_all,
    layers,
    constants,
    options,
    functions,
    shared_list,
]


def count_work(run: Callable[[], object]) -> int:
    """Returns how many lines of the package ``run`` executes, and how many built-ins it calls."""
    work = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal work
        work += event == "line"
        return trace if frame.f_code.co_filename.startswith(PACKAGE) else None

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal work
        work += event == "c_call"

    before = sys.gettrace()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
        sys.settrace(before)
    return work


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_twice_the_nodes_are_twice_the_work(shape: Callable[[int], Any]) -> None:
    work = {}
    for width in (100, 200, 400):
        dag = shape(width)
        work[width] = count_work(lambda dag=dag: compile_dag(dag, BlobCollector()))  # type: ignore[misc]
    step, next_step = work[200] - work[100], work[400] - work[200]
    assert next_step <= 2.2 * step, work


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Returns a list that gets the first argument of every call of a function of the compiler."""
    original = getattr(compiler, name)
    calls: list[Any] = []

    def note(first: Any, *rest: Any) -> Any:
        calls.append(first)
        return original(first, *rest)

    monkeypatch.setattr(compiler, name, note)
    return calls


def test_options_are_packed_once_not_once_per_node(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, "pack_options")
    larger = task.options(num_cpus=2)
    compile_dag(task.bind(*[larger.bind() for _ in range(50)], task.bind()), BlobCollector())
    assert len(calls) == 2


def test_a_large_argument_is_looked_at_once_however_many_tasks_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = count_calls(monkeypatch, "pack_plain")
    rows = list(range(2000))
    compile_dag(task.bind(*[task.bind(rows, number) for number in range(50)]), BlobCollector())
    assert sum(value is rows for value in calls) <= 3
