"""The whole engine but Ray: a DAG is compiled, hosted, run by real executors, and read back.

Orders and values go through pickle on their way to the worker and back, as between processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

if TYPE_CHECKING:
    from local_engine import Engine


def task(function: Callable[..., Any]) -> Any:
    return ray.remote(function)


add = task(lambda a, b: a + b)


def test_a_sum_of_sums(engine: Engine) -> None:
    assert engine.run(add.bind(add.bind(1, 2), add.bind(3, b=4))) == 10


def test_a_task_that_two_take_runs_once(engine: Engine, tmp_path: Any) -> None:
    ledger = tmp_path / "ledger"

    def note(name: str, *given: object) -> str:
        with ledger.open("a") as file:
            file.write(name)
        return name

    noted = task(note)
    shared = noted.bind("s")
    engine.run(noted.bind("e", noted.bind("l", shared), noted.bind("r", shared), [shared]))
    assert sorted(ledger.read_text()) == ["e", "l", "r", "s"]


def test_values_and_refs_of_every_kind_arrive(engine: Engine) -> None:
    def take(whole: Any, pair: Any, table: Any, *, given: Any) -> Any:
        return [whole, ray.get(pair[0]), ray.get(table["k"][0]), given]

    one, two = task(lambda: (1, "opaque")).bind(), task(lambda: 2).bind()
    with ray.dag.InputNode() as inputs:
        dag = task(take).bind(one, (two, 9), {"k": [one]}, given=inputs.x)
    assert engine.run(dag, x={"in": "put"}) == [(1, "opaque"), 2, (1, "opaque"), {"in": "put"}]


def test_a_chain_travels_in_few_slices_and_each_link_gets_a_value_of_its_own(
    engine: Engine,
) -> None:
    def begin() -> list[int]:
        return []

    def add(items: list[int]) -> list[int]:
        items.append(len(items))
        return items

    node = task(begin).bind()
    for _ in range(200):
        node = task(add).bind(node)
    assert engine.run(node) == list(range(200))
    state = engine.stored()
    assert list(state.attempts) == [1] * 201
    assert state.next_slice < 201, "nothing rode"


def test_large_values_ride_as_objects(engine: Engine) -> None:
    grow = task(lambda array: np.concatenate([array, array]))
    node = task(lambda: np.arange(20_000)).bind()
    for _ in range(3):
        node = grow.bind(node)
    assert engine.run(task(lambda array: int(array.sum())).bind(node)) == 8 * sum(range(20_000))


def test_large_values_flow_as_objects_and_end_in_one_blob_each(engine: Engine) -> None:
    engine.workers.riders_max = 0
    grow = task(lambda array: np.concatenate([array, array]))
    node = task(lambda: np.arange(20_000)).bind()
    for _ in range(3):
        node = grow.bind(node)
    total = engine.run(task(lambda array: int(array.sum())).bind(node))
    assert total == 8 * sum(range(20_000))
    assert engine.workers.taken == 4
    blobs = [each for each in engine.disk.store.list("") if each.key.startswith("blobs/")]
    assert len(blobs) == 4


def test_a_deep_recursion_stores_its_code_once(engine: Engine) -> None:
    @ray.remote
    def count(left: int, total: int) -> Any:
        if left == 0:
            return total
        bound: Any = count
        return bound.bind(left - 1, total + left)

    bound: Any = count
    assert engine.run(bound.bind(200, 0)) == 20_100
    state = engine.stored()
    assert len(state.tasks) == 201
    assert len(state.graph.functions) == 1
    assert state.graph.task_id(200).endswith("_200")


def test_a_continuation_can_fan_out_and_its_value_goes_on(engine: Engine) -> None:
    square = task(lambda number: number * number)
    total = task(lambda *parts: sum(parts))
    spread = task(lambda width: total.bind(*[square.bind(each) for each in range(width)]))
    assert engine.run(add.bind(spread.bind(10), 1)) == 286


def test_the_fib_that_every_workflow_library_shows(engine: Engine) -> None:
    @ray.remote
    def fib(number: int) -> Any:
        if number < 2:
            return number
        bound: Any = fib
        return add.bind(bound.bind(number - 1), bound.bind(number - 2))

    bound: Any = fib
    assert engine.run(bound.bind(10)) == 55


def test_an_error_that_is_retried_is_forgotten_when_the_task_returns(
    engine: Engine, tmp_path: Any
) -> None:
    ledger = tmp_path / "ledger"

    def flaky() -> str:
        with ledger.open("a+") as file:
            file.write("x")
        if len(ledger.read_text()) < 3:
            raise ValueError("not yet")
        return "now"

    dag = task(flaky).options(retry_exceptions=[ValueError]).bind()
    assert engine.run(dag) == "now"
    assert list(engine.stored().attempts) == [3]


def test_many_small_tasks_travel_together(engine: Engine) -> None:
    width = 300
    nodes = [task(lambda: 1).bind()] + [add.bind(number, number) for number in range(width)]
    assert engine.run(task(lambda *given: sum(given)).bind(*nodes)) == 1 + 2 * sum(range(width))
    assert engine.stored().next_slice < width / 3, "every task had a slice of its own"
