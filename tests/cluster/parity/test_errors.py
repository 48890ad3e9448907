"""Parity with ray.workflow: retries, and exceptions that are caught, which stay caught."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import ray

import milepost
from milepost import errors

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def count(ledger: Path) -> int:
    """Writes a line; returns how many there are."""
    with ledger.open("a") as file:
        file.write("x\n")
    return len(ledger.read_text().split())


@ray.remote
def stumble(ledger: Path, failures: int, how: str = "raise") -> int:
    """Fails as often as told: raises, crashes, or first the one and then the other."""
    attempt = count(ledger)
    if attempt > failures:
        return attempt
    if how == "raise" or (how == "mixed" and attempt > 1):
        raise ValueError(f"attempt {attempt}")
    os._exit(1)


@ray.remote
def echo(value: Any, *_: Any) -> Any:
    return value


@ray.remote
def describe(pair: Any) -> list[Any]:
    value, error = pair
    return [value, type(error).__name__, str(error), isinstance(error, ValueError)]


@ray.remote
def go_on_with(node: Any) -> Any:
    return milepost.continuation(node())


catching = milepost.options(catch_exceptions=True)


@pytest.mark.parity(
    "test_error_handling.py::test_task_failure",
    "test_basic_workflows.py(old)::test_step_failure",
    "test_basic_workflows.py(old)::test_step_failure_decorator",
)
@pytest.mark.parametrize("how", ["raise", "crash", "mixed"])
def test_retries_are_counted_together_for_exceptions_and_crashes(
    workflow_id: str, ledger: Path, how: str
) -> None:
    patient = stumble.options(max_retries=2, retry_exceptions=True)
    assert milepost.run(patient.bind(ledger, 2, how), workflow_id=workflow_id) == 3
    ledger.write_text("")
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(patient.bind(ledger, 3, how), workflow_id=f"{workflow_id} fails")
    assert len(ledger.read_text().split()) == 3


@pytest.mark.parity("test_error_handling.py::test_task_failure")
def test_exceptions_are_caught_after_retries_and_the_result_is_a_pair(
    workflow_id: str, ledger: Path
) -> None:
    patient = stumble.options(max_retries=2, retry_exceptions=True, **catching)
    value, error = milepost.run(patient.bind(ledger, 2), workflow_id=workflow_id)
    assert (value, error) == (3, None)
    ledger.write_text("")
    value, error = milepost.run(patient.bind(ledger, 9), workflow_id=f"{workflow_id} fails")
    assert value is None
    assert isinstance(error, ValueError)
    assert str(error) == "attempt 3"
    assert "in stumble" in "".join(error.__notes__)


@pytest.mark.parity("test_error_handling.py::test_task_failure")
def test_exceptions_are_not_retried_unless_asked_and_counts_are_checked(
    workflow_id: str, ledger: Path
) -> None:
    once = stumble.options(max_retries=2, retry_exceptions=False, **catching)
    _, error = milepost.run(once.bind(ledger, 1), workflow_id=workflow_id)
    assert isinstance(error, ValueError)
    assert len(ledger.read_text().split()) == 1
    with pytest.raises(ValueError, match="max_retries"):
        stumble.options(max_retries=-2)


def test_a_crash_is_caught_like_an_exception(workflow_id: str, ledger: Path) -> None:
    mortal = stumble.options(max_retries=1, **catching)
    value, error = milepost.run(mortal.bind(ledger, 9, "crash"), workflow_id=workflow_id)
    assert value is None
    assert isinstance(error, errors.TaskCrashedError)
    assert len(ledger.read_text().split()) == 2


def test_a_caught_exception_is_a_commit_like_any_other(workflow_id: str, ledger: Path) -> None:
    """The workflow fails later, and goes on: the task whose failure was caught runs once."""
    gate = ledger.with_suffix(".gate")

    @ray.remote
    def need_gate(told: Any) -> Any:
        if not gate.exists():
            raise RuntimeError("closed")
        return told

    caught = stumble.options(**catching, max_retries=0).bind(ledger, 9)
    dag = need_gate.bind(describe.bind(caught))
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(dag, workflow_id=workflow_id)
    gate.touch()
    assert milepost.resume(workflow_id) == [None, "ValueError", "attempt 1", True]
    assert len(ledger.read_text().split()) == 1
    task_id = f"{__name__}.stumble"
    value, error = milepost.get_output(workflow_id, task_id=task_id)
    assert (value, str(error)) == (None, "attempt 1")
    assert milepost.get_metadata(workflow_id, task_id)["task_options"]["catch_exceptions"]


def test_a_caught_exception_can_be_passed_on_in_every_way(workflow_id: str, ledger: Path) -> None:
    caught = stumble.options(**catching).bind(ledger, 9)

    @ray.remote
    def look(direct: Any, inside: dict[str, Any]) -> list[str]:
        return [repr(direct[1]), repr(ray.get(inside["ref"])[1])]

    dag = look.bind(caught, {"ref": caught})
    assert milepost.run(dag, workflow_id=workflow_id) == ["ValueError('attempt 1')"] * 2


def test_a_large_result_comes_in_its_pair(workflow_id: str) -> None:
    make = echo.options(**catching).bind(np.arange(100_000))
    value, error = milepost.run(echo.bind(make), workflow_id=workflow_id)
    assert error is None
    assert value.sum() == 4_999_950_000


@pytest.mark.parity("test_error_handling.py::test_nested_catch_exception")
def test_the_value_of_a_continuation_comes_in_one_pair(workflow_id: str) -> None:
    dag = go_on_with.options(**catching).bind(lambda: echo.options(**catching).bind(10))
    assert milepost.run(dag, workflow_id=workflow_id) == (10, None)
    inner = milepost.get_output(workflow_id, task_id=f"{__name__}.echo")
    assert inner == (10, None), "every task of a chain has the value of the chain"


@ray.remote
def dive(ledger: Path, depth: int) -> Any:
    if depth == 0:
        return milepost.continuation(stumble.bind(ledger, 9))
    return milepost.continuation(dive.bind(ledger, depth - 1))


@pytest.mark.parity("test_error_handling.py::test_nested_catch_exception_2")
def test_an_exception_deep_in_continuations_is_caught_at_the_top(
    workflow_id: str, ledger: Path
) -> None:
    dag = dive.options(**catching).bind(ledger, 5)
    value, error = milepost.run(dag, workflow_id=workflow_id)
    assert (value, str(error), type(error)) == (None, "attempt 1", ValueError)


@ray.remote
def linger(folder: Path) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


@ray.remote
def fail_when(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
    raise ValueError("the other one runs")


@pytest.mark.parity("test_error_handling.py::test_nested_catch_exception_3")
def test_an_exception_beside_the_way_to_the_result_is_caught_and_others_end(
    workflow_id: str, tmp_path: Path
) -> None:
    """A continuation takes two tasks; one fails while the other would run for ten minutes."""

    def fork() -> Any:
        others = [linger.bind(tmp_path), fail_when.bind(tmp_path / "pid")]
        return echo.bind("never", *others)

    dag = describe.bind(go_on_with.options(**catching).bind(fork))
    told = milepost.run(dag, workflow_id=workflow_id)
    assert told == [None, "ValueError", "the other one runs", True]
    states = {each["task_id"]: each["state"] for each in milepost.list_tasks(workflow_id)}
    assert states[f"{__name__}.linger"] == "DROPPED"
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
