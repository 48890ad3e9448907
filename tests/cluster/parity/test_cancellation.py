"""Parity with ray.workflow: cancels that really end what runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
import ray

import milepost
from milepost import errors

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return found


@ray.remote
def hang(folder: Path, name: str = "hang") -> None:
    """Writes down its process and never returns."""
    (folder / f"{name}.part").write_text(str(os.getpid()))
    (folder / f"{name}.part").rename(folder / name)
    while True:
        time.sleep(1)


@ray.remote
def hang_in_a_task_of_its_own(folder: Path) -> None:
    ray.get(hang.remote(folder))


@ray.remote
def hang_in_a_continuation(folder: Path) -> Any:
    return milepost.continuation(hang.bind(folder))


@ray.remote
def join(*parts: Any) -> None: ...


@ray.remote
def answer() -> int:
    return 42


def pids(folder: Path) -> list[int]:
    return [int(each.read_text()) for each in folder.iterdir() if not each.suffix]


def parallel(folder: Path) -> Any:
    return join.bind(*[hang.options(num_cpus=0.1).bind(folder, f"h{at}") for at in range(10)])


def cancel_and_see(workflow_id: str, dag: Any, folder: Path, count: int) -> None:
    """Cancels what hangs in ``count`` processes or more; sees them end and CPUs come free."""
    ref = milepost.run_async(dag, workflow_id=workflow_id)
    wait_until(lambda: len(pids(folder)) >= count)
    milepost.cancel(workflow_id)
    assert milepost.get_status(workflow_id) == "CANCELED"
    with pytest.raises(errors.WorkflowCancellationError):
        ray.get(ref)
    wait_until(lambda: not any(map(psutil.pid_exists, pids(folder))))
    everything = answer.options(num_cpus=2).bind()
    assert milepost.run(everything, workflow_id=f"{workflow_id} next") == 42


@pytest.mark.parity(
    "test_cancellation.py::test_cancellation",
    "test_workflow_manager.py(old)::test_workflow_cancel_simple",
)
def test_a_cancel_kills_the_running_task_and_frees_its_cpus(
    workflow_id: str, tmp_path: Path
) -> None:
    cancel_and_see(workflow_id, hang.options(num_cpus=2).bind(tmp_path), tmp_path, 1)


@pytest.mark.parity("test_workflow_manager.py(old)::test_workflow_cancel_nested")
def test_a_cancel_kills_the_task_of_a_continuation(workflow_id: str, tmp_path: Path) -> None:
    cancel_and_see(workflow_id, hang_in_a_continuation.bind(tmp_path), tmp_path, 1)


@pytest.mark.parity("test_workflow_manager.py(old)::test_workflow_cancel_parallel")
def test_a_cancel_kills_all_parallel_tasks(workflow_id: str, tmp_path: Path) -> None:
    cancel_and_see(workflow_id, parallel(tmp_path), tmp_path, 2)


def test_a_cancel_kills_what_a_task_started_in_ray(workflow_id: str, tmp_path: Path) -> None:
    cancel_and_see(workflow_id, hang_in_a_task_of_its_own.bind(tmp_path), tmp_path, 1)


@pytest.mark.parity("test_metadata.py::test_running_and_canceled_workflow")
def test_no_end_time_is_told_while_running_and_after_a_cancel(
    workflow_id: str, tmp_path: Path
) -> None:
    milepost.run_async(hang.bind(tmp_path), workflow_id=workflow_id, metadata={"a": 1})
    wait_until(lambda: pids(tmp_path))
    running = milepost.get_metadata(workflow_id)
    assert (running["status"], list(running["stats"])) == ("RUNNING", ["start_time"])
    milepost.cancel(workflow_id)
    canceled = milepost.get_metadata(workflow_id)
    assert (canceled["status"], canceled["user_metadata"]) == ("CANCELED", {"a": 1})
    assert canceled["stats"] == running["stats"]


def test_a_canceled_workflow_cannot_go_on(workflow_id: str, tmp_path: Path) -> None:
    milepost.run_async(hang.bind(tmp_path), workflow_id=workflow_id)
    milepost.cancel(workflow_id)
    milepost.cancel(workflow_id)
    with pytest.raises(errors.WorkflowNotResumableError, match="canceled"):
        milepost.resume(workflow_id)
    with pytest.raises(errors.WorkflowNotResumableError, match="canceled"):
        milepost.run(answer.bind(), workflow_id=workflow_id)
    with pytest.raises(errors.WorkflowCancellationError):
        milepost.get_output(workflow_id)
    assert (workflow_id, "CANCELED") in milepost.list_all("CANCELED")


def test_what_is_unknown_or_successful_is_not_canceled(workflow_id: str) -> None:
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.cancel(workflow_id)
    assert workflow_id not in dict(milepost.list_all())
    milepost.run(answer.bind(), workflow_id=workflow_id)
    with pytest.raises(errors.WorkflowEndedError, match="SUCCESSFUL"):
        milepost.cancel(workflow_id)
    assert milepost.get_output(workflow_id) == 42
    wrong: Any = 7
    with pytest.raises(errors.InvalidWorkflowIdError):
        milepost.cancel(wrong)
