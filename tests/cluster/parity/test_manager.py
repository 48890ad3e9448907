"""Parity with ray.workflow: lists of workflows by status, and what happens to many at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from milepost import errors

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def run_long(gate: Path, fails: bool) -> int:
    """Waits for the gate; fails while it says so."""
    import time

    while not gate.exists():
        time.sleep(0.05)
    if fails and gate.read_text() != "go on":
        raise ValueError("not yet")
    return 42


@pytest.fixture
def alone(storage: Path) -> Iterator[None]:
    """A store in which there is no workflow, nor any when the test has ended."""
    for workflow_id, _ in milepost.list_all():
        milepost.delete(workflow_id)
    yield
    for workflow_id, _ in milepost.list_all():
        milepost.delete(workflow_id)


@pytest.mark.parity("test_workflow_manager.py::test_workflow_manager_simple")
@pytest.mark.usefixtures("alone")
def test_nothing_is_listed_where_nothing_is_and_an_unknown_status_is_an_error() -> None:
    assert milepost.list_all() == []
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.get_status("X")


@pytest.mark.parity(
    "test_recovery.py::test_recovery_non_exists_workflow",
    "test_recovery.py::test_no_side_effects_of_resuming",
)
@pytest.mark.usefixtures("alone")
def test_a_resume_of_an_unknown_workflow_leaves_no_trace() -> None:
    with pytest.raises(errors.WorkflowNotResumableError):
        milepost.resume("nobody")
    with pytest.raises(errors.WorkflowNotResumableError):
        ray.get(milepost.resume_async("nobody"))
    assert milepost.list_all() == []


@pytest.mark.parity("test_workflow_manager.py::test_workflow_manager")
@pytest.mark.usefixtures("alone")
def test_a_hundred_workflows_are_listed_by_status_resumed_and_canceled(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    refs = [
        milepost.run_async(
            run_long.options(num_cpus=0.01).bind(gate, number % 2 == 1), workflow_id=str(number)
        )
        for number in range(100)
    ]
    assert len(milepost.list_all("RUNNING")) == len(milepost.list_all()) == 100
    gate.touch()
    for number, ref in enumerate(refs):
        if number % 2:
            with pytest.raises(errors.WorkflowExecutionError):
                ray.get(ref)
        else:
            assert ray.get(ref) == 42
    failed, successful = milepost.list_all("FAILED"), milepost.list_all(milepost.SUCCESSFUL)
    assert {each for each, _ in failed} == {str(number) for number in range(1, 100, 2)}
    assert {each for each, _ in successful} == {str(number) for number in range(0, 100, 2)}
    both = milepost.list_all({milepost.FAILED, "SUCCESSFUL"})
    assert both == milepost.list_all()
    assert [item for item in both if item[1] == "FAILED"] == failed
    assert milepost.list_all({"RUNNING"}) == []

    gate.write_text("go on")
    assert milepost.resume("1") == 42
    milepost.cancel("3")
    assert milepost.get_status("3") == "CANCELED"
    resumed = milepost.resume_all(include_failed=True)
    assert {each for each, _ in resumed} == {str(number) for number in range(5, 100, 2)}
    assert ray.get([ref for _, ref in resumed]) == [42] * 48
    assert [each for each, _ in milepost.list_all(milepost.CANCELED)] == ["3"]
    assert len(milepost.list_all("SUCCESSFUL")) == 99


@pytest.mark.parity("test_storage.py::test_delete_1")
@pytest.mark.usefixtures("alone")
def test_a_finished_workflow_is_deleted_once(tmp_path: Path) -> None:
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.delete("never")
    (tmp_path / "gate").touch()
    milepost.run(run_long.bind(tmp_path / "gate", False), workflow_id="finished")
    milepost.delete("finished")
    with pytest.raises(ValueError, match="finished"):
        milepost.get_output("finished")
    assert milepost.list_all() == []
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.delete("finished")
    again: Any = milepost.run(run_long.bind(tmp_path / "gate", False), workflow_id="finished")
    assert again == 42
