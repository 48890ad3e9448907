"""Parity with ray.workflow: workers that die, resumes, and results that are not worth storing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from milepost import errors

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote(max_retries=0)
def die_without(file: Path, ledger: Path, value: str, *_: Any) -> str:
    with ledger.open("a") as lines:
        lines.write(f"{value}\n")
    if not file.exists():
        os._exit(1)
    return value


@ray.remote
def tell(ledger: Path, value: str, *_: Any) -> str:
    with ledger.open("a") as lines:
        lines.write(f"{value}\n")
    return value


@ray.remote
def go_on(file: Path, ledger: Path) -> Any:
    first = tell.bind(ledger, "before")
    return milepost.continuation(die_without.bind(file, ledger, "inside", first))


def crash_and_resume(workflow_id: str, dag: Any, file: Path, result: str) -> None:
    with pytest.raises(errors.WorkflowExecutionError) as caught:
        milepost.run(dag, workflow_id=workflow_id)
    assert isinstance(caught.value.__cause__, errors.TaskCrashedError)
    assert milepost.get_status(workflow_id) == "FAILED"
    file.touch()
    assert milepost.resume(workflow_id) == result
    assert milepost.get_status(workflow_id) == "SUCCESSFUL"
    assert milepost.resume(workflow_id) == result, "once more, from storage"


@pytest.mark.parity("test_recovery.py::test_recovery_simple_1")
def test_a_workflow_goes_on_after_its_worker_died(
    workflow_id: str, tmp_path: Path, ledger: Path
) -> None:
    file = tmp_path / "file"
    crash_and_resume(workflow_id, die_without.bind(file, ledger, "a"), file, "a")
    assert ledger.read_text().split() == ["a", "a"]


@pytest.mark.parity("test_recovery.py::test_recovery_simple_2")
def test_a_continuation_goes_on_after_its_worker_died(
    workflow_id: str, tmp_path: Path, ledger: Path
) -> None:
    file = tmp_path / "file"
    crash_and_resume(workflow_id, go_on.bind(file, ledger), file, "inside")
    assert ledger.read_text().split() == ["before", "inside", "inside"]


@pytest.mark.parity("test_recovery.py::test_recovery_simple_3")
def test_a_chain_goes_on_in_the_middle(workflow_id: str, tmp_path: Path, ledger: Path) -> None:
    file = tmp_path / "file"
    first = tell.bind(ledger, "first")
    dag = tell.bind(ledger, "last", die_without.bind(file, ledger, "middle", first))
    crash_and_resume(workflow_id, dag, file, "last")
    assert ledger.read_text().split() == ["first", "middle", "middle", "last"]


@pytest.mark.parity("test_recovery.py::test_recovery_complex")
def test_a_diamond_with_a_shared_input_goes_on(
    workflow_id: str, tmp_path: Path, ledger: Path
) -> None:
    file = tmp_path / "file"
    shared = tell.bind(ledger, "shared")
    left = tell.bind(ledger, "left", shared)
    right = die_without.bind(file, ledger, "right", left, shared)
    crash_and_resume(workflow_id, tell.bind(ledger, "end", left, right, shared), file, "end")
    assert ledger.read_text().split() == ["shared", "left", "right", "right", "end"]


@pytest.mark.parity("test_basic_workflows.py::test_dynamic_output")
def test_after_a_failure_in_a_chain_of_continuations_the_good_tasks_stay(
    workflow_id: str, tmp_path: Path, ledger: Path
) -> None:
    file = tmp_path / "file"

    @ray.remote
    def descend(n: int) -> Any:
        with ledger.open("a") as lines:
            lines.write(f"level{n}\n")
        deeper = descend.bind(n - 1) if n else die_without.bind(file, ledger, "end")
        return milepost.continuation(deeper)

    crash_and_resume(workflow_id, descend.bind(3), file, "end")
    levels = ["level3", "level2", "level1", "level0", "end", "end"]
    assert ledger.read_text().split() == levels


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        pytest.param(
            False,
            None,
            marks=pytest.mark.parity("test_checkpoint_2.py::test_checkpoint_dag_recovery_skip"),
        ),
        pytest.param(
            None,
            False,
            marks=pytest.mark.parity("test_checkpoint_2.py::test_checkpoint_dag_recovery_partial"),
        ),
        pytest.param(
            True,
            None,
            marks=pytest.mark.parity("test_checkpoint_2.py::test_checkpoint_dag_recovery_whole"),
        ),
    ],
)
def test_a_resume_is_right_whatever_is_worth_storing(
    workflow_id: str, tmp_path: Path, ledger: Path, outer: bool | None, inner: bool | None
) -> None:
    file = tmp_path / "file"

    @ray.remote
    def plan() -> Any:
        first = tell.options(**milepost.options(checkpoint=inner)).bind(ledger, "first")
        return milepost.continuation(die_without.bind(file, ledger, "end", first))

    dag = plan.options(**milepost.options(checkpoint=outer)).bind()
    crash_and_resume(workflow_id, dag, file, "end")
