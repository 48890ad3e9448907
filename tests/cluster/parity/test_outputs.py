"""Parity with ray.workflow: results of workflows and of single tasks, and how tasks are named."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from milepost import errors

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def echo(value: Any, *_: Any) -> Any:
    return value


@ray.remote
def wait_for(file: Path, value: Any, *_: Any) -> Any:
    while not file.exists():
        time.sleep(0.01)
    return value


@ray.remote
def fail_without(file: Path, ledger: Path, *_: Any) -> str:
    with ledger.open("a") as lines:
        lines.write("x")
    if not file.exists():
        raise ValueError("no file")
    return "done"


@ray.remote
def recursive(n: int) -> Any:
    return n if n == 0 else milepost.continuation(recursive.bind(n - 1))


def named(task_id: str, function: Any = echo) -> Any:
    return function.options(**milepost.options(task_id=task_id))


@pytest.mark.parity("test_basic_workflows_2.py::test_get_output_1")
def test_an_output_is_there_after_the_end(workflow_id: str) -> None:
    assert milepost.run(echo.bind(314), workflow_id=workflow_id) == 314
    assert milepost.get_output(workflow_id) == 314


@pytest.mark.parity("test_basic_workflows_2.py::test_get_output_2")
def test_an_output_can_be_asked_for_while_the_workflow_runs(
    workflow_id: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = milepost.run_async(wait_for.bind(go, 31), workflow_id=workflow_id)
    second = milepost.get_output_async(workflow_id)
    assert ray.wait([first, second], timeout=0.2)[0] == []
    go.touch()
    assert ray.get([first, second]) == [31, 31]


@pytest.mark.parity("test_basic_workflows_2.py::test_get_output_3")
def test_an_output_of_a_failed_workflow_raises_and_runs_nothing(
    workflow_id: str, tmp_path: Path, ledger: Path
) -> None:
    file = tmp_path / "file"
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(fail_without.bind(file, ledger), workflow_id=workflow_id)
    for _ in range(2):
        with pytest.raises(errors.WorkflowExecutionError) as caught:
            milepost.get_output(workflow_id)
        assert isinstance(caught.value.__cause__, ValueError)
    assert ledger.read_text() == "x"
    file.touch()
    assert milepost.resume(workflow_id) == "done"
    assert milepost.get_output(workflow_id) == "done"


@pytest.mark.parity("test_basic_workflows_2.py::test_get_output_4")
def test_every_task_of_a_chain_of_continuations_gives_the_final_value(workflow_id: str) -> None:
    @ray.remote
    def descend(n: int) -> Any:
        if n == 0:
            return 10
        deeper: Any = descend.options(**milepost.options(task_id=f"level {n - 1}"))
        return milepost.continuation(deeper.bind(n - 1))

    dag = descend.options(**milepost.options(task_id="level 4")).bind(4)
    ref = milepost.run_async(dag, workflow_id=workflow_id)
    early = [milepost.get_output_async(workflow_id, task_id=f"level {n}") for n in range(5)]
    assert ray.get([ref, *early]) == [10] * 6
    late = [milepost.get_output(workflow_id, task_id=f"level {n}") for n in range(5)]
    assert late == [10] * 5


@pytest.mark.parity("test_basic_workflows_2.py::test_get_output_5")
def test_an_output_can_be_asked_for_right_after_the_start(workflow_id: str) -> None:
    ids = [f"{workflow_id} {number}" for number in range(20)]
    for number, each in enumerate(ids):
        milepost.run_async(echo.bind(number), workflow_id=each)
    assert ray.get([milepost.get_output_async(each) for each in ids]) == list(range(20))


@pytest.mark.parity("test_basic_workflows_2.py::test_output_with_name")
def test_outputs_are_found_by_task_id_in_both_forms(workflow_id: str) -> None:
    @milepost.options(task_id="double")
    @ray.remote
    def double(value: int) -> int:
        return 2 * value

    inner = double.bind(1)
    outer = named("outer", double).bind(inner)
    last = double.bind(outer)
    assert milepost.run(last, workflow_id=workflow_id) == 8
    found = [
        milepost.get_output(workflow_id, task_id=each) for each in ("double", "outer", "double_1")
    ]
    assert found == [2, 4, 8]


@pytest.mark.parity("test_basic_workflows_2.py::test_get_non_exist_output")
def test_an_unknown_task_is_a_value_error_that_names_it_at_the_end(
    workflow_id: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    milepost.run_async(wait_for.bind(go, 1), workflow_id=workflow_id)
    early = milepost.get_output_async(workflow_id, task_id="nothing")
    assert ray.wait([early], timeout=0.2)[0] == []
    go.touch()
    with pytest.raises(ValueError, match="nothing"):
        ray.get(early)
    with pytest.raises(ValueError, match="nothing"):
        milepost.get_output(workflow_id, task_id="nothing")


@pytest.mark.parity("test_basic_workflows_2.py::test_get_named_task_output_finished")
def test_outputs_of_inner_and_outer_tasks_are_there_after_the_end(workflow_id: str) -> None:
    milepost.run(named("outer").bind(named("inner").bind(7)), workflow_id=workflow_id)
    assert milepost.get_output(workflow_id, task_id="inner") == 7
    assert milepost.get_output(workflow_id, task_id="outer") == 7


@pytest.mark.parity("test_basic_workflows_2.py::test_get_named_task_output_running")
def test_outputs_of_tasks_arrive_one_by_one_while_the_workflow_runs(
    workflow_id: str, tmp_path: Path
) -> None:
    inner = named("inner", wait_for).bind(tmp_path / "in", 1)
    outer = named("outer", wait_for).bind(tmp_path / "out", 2, inner)
    ref = milepost.run_async(outer, workflow_id=workflow_id)
    of_inner = milepost.get_output_async(workflow_id, task_id="inner")
    of_outer = milepost.get_output_async(workflow_id, task_id="outer")
    assert ray.wait([of_inner, of_outer], timeout=0.2)[0] == []
    (tmp_path / "in").touch()
    assert ray.get(of_inner) == 1
    assert ray.wait([of_outer], timeout=0.2)[0] == []
    (tmp_path / "out").touch()
    assert ray.get([ref, of_outer]) == [2, 2]


@pytest.mark.parity("test_basic_workflows_2.py::test_get_named_task_output_error")
def test_the_output_of_an_inner_task_outlives_the_failure_of_the_outer(
    workflow_id: str, tmp_path: Path, ledger: Path
) -> None:
    inner = named("inner").bind(7)
    outer = named("outer", fail_without).bind(tmp_path / "no", ledger, inner)
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(outer, workflow_id=workflow_id)
    assert milepost.get_output(workflow_id, task_id="inner") == 7
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.get_output(workflow_id, task_id="outer")


@pytest.mark.parity("test_basic_workflows_2.py::test_get_named_task_default")
def test_default_ids_of_a_recursion_are_numbered_and_all_give_the_end(workflow_id: str) -> None:
    assert milepost.run(recursive.bind(10), workflow_id=workflow_id) == 0
    name = f"{__name__}.recursive"
    ids = [name, *(f"{name}_{number}" for number in range(1, 11))]
    assert [milepost.get_output(workflow_id, task_id=each) for each in ids] == [0] * 11
    assert [each["task_id"] for each in milepost.list_tasks(workflow_id)] == ids


@pytest.mark.parity("test_basic_workflows_2.py::test_get_named_task_duplicate")
def test_of_two_tasks_of_one_id_the_inner_gets_it_and_the_outer_a_number(workflow_id: str) -> None:
    inner = named("f").bind(10)
    outer = named("f").bind(20, inner)
    assert milepost.run(outer, workflow_id=workflow_id) == 20
    assert milepost.get_output(workflow_id, task_id="f") == 10
    assert milepost.get_output(workflow_id, task_id="f_1") == 20


@pytest.mark.parity("test_basic_workflows_3.py::test_task_id_generation")
def test_twenty_tasks_of_one_id_are_numbered_and_found_while_they_run(
    workflow_id: str, tmp_path: Path
) -> None:
    node = named("simple").bind(0)
    for number in range(1, 20):
        node = named("simple").bind(number, node)
    go = tmp_path / "go"
    ref = milepost.run_async(named("end", wait_for).bind(go, "end", node), workflow_id=workflow_id)
    ids = ["simple", *(f"simple_{number}" for number in range(1, 20))]
    outputs = [milepost.get_output(workflow_id, task_id=each) for each in ids]
    assert outputs == list(range(20))
    go.touch()
    assert ray.get(ref) == "end"
