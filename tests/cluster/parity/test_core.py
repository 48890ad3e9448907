"""Parity with ray.workflow: shapes of workflows, arguments, references, and one run per id."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import ray
from ray.dag import InputNode

import milepost

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def source() -> str:
    return "[source]"


@ray.remote
def append(text: str, *more: str) -> str:
    return "".join([text, *more, "[append]"])


@ray.remote
def nested(text: str) -> Any:
    return milepost.continuation(append.bind(append.bind(text), "[nested]"))


@ray.remote
def repeat(text: str, times: int) -> Any:
    node: Any = append.bind(text)
    for _ in range(times - 1):
        node = append.bind(node)
    return milepost.continuation(node)


@ray.remote
def factorial(n: int) -> Any:
    return 1 if n == 1 else milepost.continuation(multiply.bind(n, factorial.bind(n - 1)))


@ray.remote
def multiply(a: int, b: int) -> int:
    return a * b


@ray.remote
def tell(ledger: Path, value: Any = None, *_: Any) -> Any:
    with ledger.open("a") as file:
        file.write("x")
    return value


@ray.remote
def wait_for(file: Path) -> int:
    while not file.exists():
        time.sleep(0.01)
    return 314


@ray.remote
def collect(*values: Any) -> list[Any]:
    return list(values)


@pytest.mark.parity("test_basic_workflows.py::test_basic_workflows")
@pytest.mark.parametrize(
    ("make", "result"),
    [
        (lambda: append.bind(append.bind(source.bind())), "[source][append][append]"),
        (lambda: nested.bind(source.bind()), "[source][append][nested][append]"),
        (lambda: repeat.bind("", 3), "[append]" * 3),
        (
            lambda: append.bind(append.bind("a"), append.bind("b")),
            "a[append]b[append][append]",
        ),
        (lambda: factorial.bind(10), 3_628_800),
    ],
    ids=["sequence", "nested", "loop", "fork and join", "recursion"],
)
def test_every_shape_of_workflow_gives_its_value(workflow_id: str, make: Any, result: Any) -> None:
    assert milepost.run(make(), workflow_id=workflow_id) == result


@pytest.mark.parity(
    "test_basic_workflows.py::test_async_execution",
    "test_basic_workflows.py::test_run_or_resume_during_running",
)
def test_a_start_returns_at_once_and_another_one_is_a_runtime_error(
    workflow_id: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    ref = milepost.run_async(wait_for.bind(go), workflow_id=workflow_id)
    with pytest.raises(RuntimeError):
        milepost.run_async(source.bind(), workflow_id=workflow_id)
    with pytest.raises(RuntimeError):
        milepost.resume_async(workflow_id)
    assert ray.wait([ref], timeout=0.1)[0] == []
    go.touch()
    assert ray.get(ref) == 314


@pytest.mark.parity("test_basic_workflows_2.py::test_task_resources")
def test_cpus_of_a_task_are_taken_from_others(workflow_id: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waiting = wait_for.options(num_cpus=2).bind(go)
    ref = milepost.run_async(waiting, workflow_id=workflow_id)
    while ray.available_resources().get("CPU", 0.0):
        time.sleep(0.01)
    other = source.remote()
    assert ray.wait([other], timeout=0.5)[0] == []
    go.touch()
    assert ray.get([ref, other]) == [314, "[source]"]


@pytest.mark.parity(
    "test_basic_workflows_3.py::test_wf_run",
    "test_dynamic_workflow_ref.py::test_dynamic_workflow_ref",
)
def test_the_same_id_runs_once(workflow_id: str, ledger: Path) -> None:
    for _ in range(3):
        assert milepost.run(tell.bind(ledger, 7), workflow_id=workflow_id) == 7
    assert ledger.read_text() == "x"


@pytest.mark.parity("test_basic_workflows_3.py::test_dedupe_indirect")
def test_a_shared_task_runs_once_in_each_run(workflow_id: str, ledger: Path) -> None:
    shared = tell.bind(ledger, 1)
    left, right = collect.bind(shared), collect.bind(shared, [shared])
    dag = collect.bind(shared, left, right, shared, shared, shared)
    for run in (1, 2):
        milepost.run(dag, workflow_id=f"{workflow_id} {run}")
        assert ledger.read_text() == "x" * run


@pytest.mark.parity("test_basic_workflows_3.py::test_run_off_main_thread")
def test_a_workflow_runs_from_any_thread(workflow_id: str) -> None:
    results: list[Any] = []

    def run() -> None:
        results.append(milepost.run(source.bind(), workflow_id=workflow_id))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert results == ["[source]"]
    assert milepost.get_status(workflow_id) == "SUCCESSFUL"


@pytest.mark.parity("test_basic_workflows_4.py::test_options_update")
def test_later_options_replace_earlier_ones_and_none_of_ray(workflow_id: str) -> None:
    @milepost.options(task_id="old", metadata={"k": "v"})
    @ray.remote(num_cpus=2, max_retries=1)
    def decorated() -> str:
        return "done"

    function: Any = decorated
    renamed = function.options(
        num_cpus=1, **milepost.options(task_id="new", metadata={"more": "v2"})
    )
    assert milepost.run(renamed.bind(), workflow_id=workflow_id) == "done"
    told = milepost.get_metadata(workflow_id, "new")
    assert told["user_metadata"] == {"more": "v2"}
    assert told["task_options"]["max_retries"] == 1
    assert told["task_options"]["ray_options"] == {"num_cpus": 1}
    with pytest.raises(ValueError, match="max_retries"):
        milepost.options(max_retries=1)


def layers(chance: random.Random) -> Any:
    nodes: list[Any] = [source.bind() for _ in range(3)]
    for _ in range(3):
        nodes = [append.bind(*chance.sample(nodes, 2)) for _ in range(3)]
    return append.bind(*nodes)


def chain() -> Any:
    node = source.bind()
    for _ in range(10):
        node = append.bind(node)
    return node


@pytest.mark.parity("test_complex_workflow.py::test_workflow_with_pressure")
def test_forty_workflows_at_once_equal_plain_execution(workflow_id: str) -> None:
    chance = random.Random(7)
    dags = [
        chance.choice([chain, lambda: factorial.bind(8), lambda: layers(chance)])()
        for _ in range(40)
    ]
    plain = [milepost.continuation(dag) for dag in dags]  # outside of a workflow: Ray alone
    refs = [
        milepost.run_async(dag, workflow_id=f"{workflow_id} {at}") for at, dag in enumerate(dags)
    ]
    assert ray.get(refs) == plain


@pytest.mark.parity("test_large_intermediate.py::test_simple_large_intermediate")
def test_a_large_array_passes_through_tasks(workflow_id: str) -> None:
    @ray.remote
    def make() -> Any:
        return np.arange(2**24, dtype=np.int64)

    @ray.remote
    def mean(array: Any) -> float:
        return float(np.mean(array))

    assert milepost.run(mean.bind(make.bind()), workflow_id=workflow_id) == 8388607.5


@ray.remote
def three(a: int, b: int = 1, *, c: int = 2) -> int:
    return a + b + c


@pytest.mark.parity("test_signature_check.py::test_signature_check")
@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"d": 1})],
    ids=["too few", "too many", "twice", "unknown"],
)
def test_arguments_that_do_not_fit_are_a_type_error(
    workflow_id: str, arguments: Any, keywords: Any
) -> None:
    function: Any = three
    with pytest.raises(TypeError):
        milepost.run(function.bind(*arguments, **keywords), workflow_id=workflow_id)
    assert milepost.run(function.bind(1, 2, c=3), workflow_id=workflow_id) == 6


@pytest.mark.parity("test_dag_to_workflow.py::test_dag_to_workflow_execution")
def test_input_nodes_are_read_by_position_and_by_name(workflow_id: str) -> None:
    with InputNode() as given:
        left = append.bind(given[0], given.text)
        dag = append.bind(left, given["text"])
    told = milepost.run(dag, "a", workflow_id=workflow_id, text="b")
    assert told == "ab[append]b[append]"
    wrong: Any = ray.put(1)
    with pytest.raises(TypeError):
        milepost.run_async(wrong)


@pytest.mark.parity(
    "test_dag_to_workflow.py::test_same_object_many_dags",
    "test_serialization*.py::test_same_object_many_workflows",
)
def test_one_ref_serves_many_workflows(workflow_id: str) -> None:
    @ray.remote
    def read(direct: Any, inside: list[Any]) -> int:
        return int(direct.sum() + ray.get(inside[0]).sum())

    ref = ray.put(np.ones(100_000))
    with InputNode() as given:
        through_input = read.bind(given[0], [ref])
    for number in range(3):
        run_id = f"{workflow_id} {number}"
        assert milepost.run(read.bind(ref, [ref]), workflow_id=run_id) == 200_000
    assert milepost.run(through_input, ref, workflow_id=f"{workflow_id} in") == 200_000


@pytest.mark.parity(
    "test_dag_to_workflow.py::test_dereference_object_refs",
    "test_object_deref.py::test_objectref_inputs",
)
def test_refs_and_tasks_arrive_as_values_at_the_top_and_as_refs_inside(workflow_id: str) -> None:
    @ray.remote
    def look(ref: Any, node: Any, refs: list[Any], nodes: dict[str, Any]) -> list[Any]:
        inside = [*refs, nodes["k"]]
        assert all(isinstance(each, ray.ObjectRef) for each in inside)
        return [ref, node, *ray.get(inside)]

    node = multiply.bind(2, 3)
    dag = look.bind(ray.put("r"), node, [ray.put("s"), node], {"k": nested.bind("t")})
    expected = ["r", 6, "s", 6, "t[append][nested][append]"]
    assert milepost.run(dag, workflow_id=workflow_id) == expected


@pytest.mark.parity(
    "test_dag_to_workflow.py::test_dereference_dags",
    "test_object_deref.py::test_objectref_outputs",
)
def test_exactly_one_level_is_resolved(workflow_id: str) -> None:
    @ray.remote
    def value() -> int:
        return 42

    @ray.remote
    def returned_ref() -> Any:
        return ray.put(42)

    @ray.remote
    def go_on(node: Any) -> Any:
        return milepost.continuation(node())

    @ray.remote
    def look(a: Any, b: Any, c: Any, d: Any, inside: list[Any]) -> list[Any]:
        assert ray.get(b) == ray.get(d) == 42
        first = ray.get(inside)
        return [a, c, first[0], ray.get(first[1]), first[2], ray.get(first[3])]

    def nodes() -> list[Any]:
        return [
            value.bind(),
            returned_ref.bind(),
            go_on.bind(lambda: value.bind()),
            go_on.bind(lambda: returned_ref.bind()),
        ]

    dag = look.bind(*nodes(), nodes())
    assert milepost.run(dag, workflow_id=workflow_id) == [42] * 6
    out = milepost.run(returned_ref.bind(), workflow_id=f"{workflow_id} ref")
    assert ray.get(out) == ray.get(milepost.get_output(f"{workflow_id} ref")) == 42


@pytest.mark.parity("test_dag_to_workflow.py::test_workflow_continuation")
def test_a_continuation_works_in_workflows_and_outside(workflow_id: str) -> None:
    @ray.remote
    def go_on() -> Any:
        return milepost.continuation(multiply.bind(6, 7))

    dag = go_on.bind()
    assert milepost.run(dag, workflow_id=workflow_id) == 42
    assert milepost.continuation(dag) == 42
    with pytest.raises(TypeError):
        milepost.continuation(ray.put(1))
    with pytest.raises(TypeError):
        milepost.continuation(None)
