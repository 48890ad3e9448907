"""What cannot be a durable workflow is refused with its own error, which says what and where."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import ray
from ray.dag import InputNode, MultiOutputNode

from milepost.engine.compiler import compile_dag
from milepost.engine.payloads import BlobCollector, RefMemo
from milepost.errors import (
    InvalidGraphError,
    InvalidOptionError,
    NotSerializableError,
    SignatureMismatchError,
    StorageUnavailableError,
    UsageError,
)


def _add(a: int, b: int = 0, *, scale: int = 1) -> int:
    return (a + b) * scale


def _rows() -> Any:
    yield 1


def _anything(*positional: object, **keyword: object) -> None:
    """Takes whatever it is given."""


class _Counter:
    def count(self, by: object = None) -> object:
        return by


class Unpicklable:
    """Ray can look into it when it is bound, and it cannot be stored later."""

    locked = False

    def __reduce__(self) -> Any:
        if Unpicklable.locked:
            raise RuntimeError("the door is locked")
        return Unpicklable, ()


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Binds first, then locks."""

    def bind(*arguments: object, **keywords: object) -> Any:
        node = anything.bind(*arguments, **keywords)
        monkeypatch.setattr(Unpicklable, "locked", True)
        return node

    return bind


add: Any = ray.remote(_add)
rows: Any = ray.remote(_rows)
anything: Any = ray.remote(_anything)
Counter: Any = ray.remote(_Counter)


def refuse(error: type[UsageError], dag: object, *arguments: object, **keywords: object) -> str:
    """Returns the text with which ``dag`` is refused; nothing was stored before that."""
    with pytest.raises(error) as caught:
        compile_dag(dag, BlobCollector(), arguments, keywords)
    return str(caught.value)


@pytest.mark.parametrize("thing", [None, 3, "f", [], _add, add, Counter])
def test_what_is_no_dag_is_refused_by_its_type(thing: object) -> None:
    text = refuse(InvalidGraphError, thing)
    assert type(thing).__name__ in text
    assert "bind" in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Counter.bind(), "an actor"),
        (lambda: Counter.bind().count.bind(), "an actor method"),
        (lambda: MultiOutputNode([add.bind(1)]), "a MultiOutputNode"),
        (lambda: InputNode(), "an InputNode"),
        (lambda: InputNode().x, "InputAttributeNode"),
    ],
)
def test_other_nodes_are_no_workflow_and_no_argument(make: Any, words: str) -> None:
    text = refuse(InvalidGraphError, make())
    assert text.startswith(f"the workflow is {words};")
    if "Input" in words:
        return
    for dag in (anything.bind(make()), anything.bind(k=make()), anything.bind([{"k": make()}])):
        text = refuse(InvalidGraphError, dag)
        assert f"is {words};" in text
        assert "an argument of task tests.engine" in text
        assert "_anything" in text


def test_an_actor_deep_inside_the_dag_is_found() -> None:
    node = anything.bind(Counter.bind())
    for _ in range(50):
        node = anything.bind(node)
    assert "an actor" in refuse(InvalidGraphError, node)


def test_a_cycle_is_refused() -> None:
    nodes: list[Any] = []
    first = anything.bind(nodes)
    nodes.append(anything.bind(anything.bind(first)))
    assert "depends on itself" in refuse(InvalidGraphError, first)
    assert "depends on itself" in refuse(InvalidGraphError, anything.bind(1, first))


def test_a_task_that_takes_itself_is_refused() -> None:
    nodes: list[Any] = []
    loop = anything.bind(nodes)
    nodes.append(loop)
    assert "depends on itself" in refuse(InvalidGraphError, loop)


def test_a_cycle_through_an_object_is_refused() -> None:
    held = {"an int key makes it no plain data": {1: None}}
    first = anything.bind(held)
    held["x"] = {2: anything.bind(first)}
    assert "depends on itself" in refuse(InvalidGraphError, first)


def test_a_task_taken_out_of_the_graph_after_bind_is_refused_with_what_to_do() -> None:
    nodes = [add.bind(1), anything.bind()]
    dag = anything.bind(nodes)
    nodes.pop(0)
    text = refuse(InvalidGraphError, dag)
    assert "_add was taken out of an argument after bind()" in text
    assert "bind that task again" in text


def test_a_generator_is_refused_with_what_to_do_instead() -> None:
    text = refuse(InvalidGraphError, anything.bind(rows.bind()))
    assert "_rows" in text
    assert "return a list" in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: add.bind(), "'a'"),
        (lambda: add.bind(1, 2, 3), "too many"),
        (lambda: add.bind(1, z=2), "'z'"),
        (lambda: add.bind(1, a=2), "'a'"),
        (lambda: anything.bind(add.bind(1, 2), add.bind()), "'a'"),
    ],
)
def test_a_call_that_the_function_does_not_take_is_refused(make: Any, words: str) -> None:
    text = refuse(SignatureMismatchError, make())
    assert "_add" in text
    assert words in text


def test_each_shape_of_a_call_is_checked_not_only_the_first() -> None:
    dag = anything.bind(add.bind(1, 2), add.bind(1, scale=2), add.bind(1, scala=2))
    assert "'scala'" in refuse(SignatureMismatchError, dag)


def test_an_input_that_was_not_given_is_named() -> None:
    with InputNode() as given:
        by_name, by_position = anything.bind(given.rows), anything.bind([given[1]])
    assert "'rows'" in refuse(InvalidGraphError, by_name, 1, lines=2)
    assert "input 1" in refuse(InvalidGraphError, by_position, 1)


def test_an_input_inside_an_object_is_refused_with_what_to_do_instead() -> None:
    with InputNode() as given:
        dag = anything.bind((given.x,))
    assert "pass it as an argument" in refuse(InvalidGraphError, dag, x=1)


@pytest.mark.parametrize("count", [0, 2])
def test_a_task_with_several_results_is_refused_with_what_to_do_instead(count: int) -> None:
    text = refuse(InvalidOptionError, add.options(num_returns=count).bind(1))
    assert "_add" in text
    assert f"num_returns={count}" in text
    assert "return a tuple" in text


def test_a_function_that_closes_over_a_lock_is_refused_by_name() -> None:
    lock = threading.Lock()

    def guarded() -> object:
        return lock

    text = refuse(NotSerializableError, anything.bind(ray.remote(guarded).bind()))
    assert "guarded" in text
    assert "lock" in text


def test_an_argument_that_cannot_be_stored_is_named_with_its_task_and_place(locked: Any) -> None:
    text = refuse(NotSerializableError, locked(1, Unpicklable()))
    assert "argument 1 of task" in text
    assert "_anything" in text
    assert "the door is locked" in text


def test_a_keyword_argument_that_cannot_be_stored_is_named(locked: Any) -> None:
    text = refuse(NotSerializableError, locked(k={"deep": [Unpicklable()]}))
    assert "argument 'k' of task" in text
    assert "the door is locked" in text


def test_an_input_that_cannot_be_stored_is_named_where_it_is_taken() -> None:
    with InputNode() as given:
        dag = anything.bind(given.lock)
    text = refuse(NotSerializableError, dag, lock=threading.Lock())
    assert "argument 0 of task" in text
    assert "lock" in text


def test_an_option_that_cannot_be_stored_is_named_with_its_task() -> None:
    class GuardedError(Exception):
        lock = threading.Lock()

    text = refuse(NotSerializableError, anything.options(retry_exceptions=[GuardedError]).bind())
    assert text.startswith("options of task ")
    assert "_anything" in text
    assert "lock" in text


def test_a_storage_that_fails_meanwhile_is_not_blamed_on_the_argument() -> None:
    class Full(RefMemo):
        def __call__(self, parts: object, /) -> tuple[bytes, int]:
            raise StorageUnavailableError("put", "blobs/x", "the disk is full")

    for value in ("x" * 100_000, ("x" * 100_000,)):
        with pytest.raises(StorageUnavailableError):
            compile_dag(anything.bind(value), Full())
