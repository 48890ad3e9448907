"""Parity with ray.workflow: workflows outlive their drivers, and others find them by address."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import milepost

JOB = """
import os, sys, time, ray, milepost
ray.init()

@ray.remote
def slow(told):
    while not os.path.exists({gate!r}):
        time.sleep(0.02)
    return told

@ray.remote
def later(told, more):
    return [told, more]

milepost.run_async(later.bind(slow.bind({{"a": 1}}), {{"b": [2]}}), workflow_id={name!r})
print("started", flush=True)
{end}
"""
Start = Callable[[str], "subprocess.Popen[str]"]


def run(start: Start, name: str, gate: Path, end: str) -> subprocess.Popen[str]:
    process = start(JOB.format(gate=str(gate), name=name, end=end))
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parity(
    "test_lifetime.py::test_workflow_lifetime_1",
    "test_basic_workflows_4.py::test_object_valid",
    "test_storage.py::test_cluster_storage_init",
)
def test_a_workflow_goes_on_when_its_driver_exits_and_its_arguments_stay(
    workflow_id: str, run_driver: Start, tmp_path: Path
) -> None:
    """The driver names no storage: it finds that of the cluster by its address."""
    with run(run_driver, workflow_id, tmp_path / "gate", "") as process:
        process.communicate(timeout=60)
    (tmp_path / "gate").touch()
    assert milepost.get_output(workflow_id) == [{"a": 1}, {"b": [2]}]


@pytest.mark.parity("test_lifetime.py::test_workflow_lifetime_2")
def test_a_workflow_goes_on_when_its_driver_is_killed(
    workflow_id: str, run_driver: Start, tmp_path: Path
) -> None:
    with run(run_driver, workflow_id, tmp_path / "gate", "time.sleep(600)") as process:
        process.kill()
        process.communicate(timeout=60)
    assert milepost.get_status(workflow_id) == "RUNNING"
    (tmp_path / "gate").touch()
    assert milepost.get_output(workflow_id) == [{"a": 1}, {"b": [2]}]
