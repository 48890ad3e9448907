"""Parity with ray.workflow: after a crash a resume is right, whatever is to be stored."""

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

unstored = milepost.options(checkpoint=False)
stored = milepost.options(checkpoint=True)


@ray.remote
def make() -> list[int]:
    return list(range(1000))


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote(max_retries=0)
def average(values: list[int], gate: Path) -> float:
    if not gate.exists():
        os._exit(1)
    return sum(values) / len(values)


@ray.remote
def go_on(gate: Path, inner: dict[str, Any]) -> Any:
    given = same.options(**inner).bind(make.options(**inner).bind())
    return milepost.continuation(average.bind(same.bind(given), gate))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        pytest.param(unstored, {}, id="skip"),
        pytest.param({}, unstored, id="partial"),
        pytest.param(stored, stored, id="whole"),
    ],
)
@pytest.mark.parity(
    "test_checkpoint_2.py::test_checkpoint_dag_recovery_skip",
    "test_checkpoint_2.py::test_checkpoint_dag_recovery_partial",
    "test_checkpoint_2.py::test_checkpoint_dag_recovery_whole",
)
def test_a_resume_after_a_crash_is_right(
    workflow_id: str, tmp_path: Path, outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    gate = tmp_path / "gate"
    dag = go_on.options(**outer).bind(gate, dict(inner))
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(dag, workflow_id=workflow_id)
    gate.touch()
    assert milepost.resume(workflow_id) == 499.5
    assert milepost.get_output(workflow_id) == 499.5
