"""Waiting takes no worker, no CPU, no process and no Ray call, and outlives who waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from local_cluster import LocalCluster
from milepost.errors import InvalidOptionError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SLEEPERS = 300


@ray.remote
def double(seconds: float) -> float:
    return 2 * seconds


@ray.remote
def after(_: Any, value: str) -> str:
    return value


def test_a_sleep_is_worth_none_and_can_be_the_whole_workflow(workflow_id: str) -> None:
    assert milepost.run(milepost.sleep(0), workflow_id=workflow_id) is None
    (task,) = milepost.list_tasks(workflow_id)
    assert (task["task_id"], task["state"], task["attempts"]) == ("milepost.sleep", "COMMITTED", 0)


def test_how_long_to_sleep_may_be_the_result_of_a_task(workflow_id: str) -> None:
    began = time.monotonic()
    milepost.run(milepost.sleep(double.bind(0.6)), workflow_id=workflow_id)
    assert time.monotonic() - began >= 1.2


@pytest.mark.parametrize("duration", [-1, float("nan"), "1", None, True])
def test_what_is_no_duration_is_refused(duration: Any) -> None:
    with pytest.raises(InvalidOptionError, match="number of seconds"):
        milepost.sleep(duration)


def test_a_task_that_returns_no_duration_fails(workflow_id: str) -> None:
    node = milepost.sleep(after.bind(None, "soon"))
    with pytest.raises(milepost.WorkflowExecutionError, match="number of seconds") as caught:
        milepost.run(node, workflow_id=workflow_id)
    assert isinstance(caught.value.__cause__, InvalidOptionError)


def test_outside_of_a_workflow_a_sleep_is_a_plain_one(storage: Path) -> None:
    began = time.monotonic()
    assert milepost.continuation(after.bind(milepost.sleep(0.3), "x")) == "x"
    assert time.monotonic() - began >= 0.3


def test_hundreds_of_sleepers_hold_no_worker_no_cpu_and_no_process(
    cluster: LocalCluster, workflow_id: str
) -> None:
    milepost.run(milepost.sleep(0), workflow_id=workflow_id)  # what is started once is started now
    processes = len(cluster.processes())
    refs = [
        milepost.run_async(milepost.sleep(3600), workflow_id=f"{workflow_id} {number}")
        for number in range(SLEEPERS)
    ]
    assert len(cluster.processes()) <= processes
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    assert ray.wait(refs, num_returns=1, timeout=0)[0] == []
    for number in range(SLEEPERS):
        (task,) = milepost.list_tasks(f"{workflow_id} {number}")
        assert (task["state"], task["attempts"]) == ("AWAITING", 0)
        milepost.cancel(f"{workflow_id} {number}")


def test_a_sleep_goes_on_under_the_dispatcher_that_takes_over(
    workflow_id: str, kill_actor: Callable[[str], int]
) -> None:
    began = time.time()
    ref = milepost.run_async(after.bind(milepost.sleep(4), "awake"), workflow_id=workflow_id)
    assert kill_actor("Dispatcher")  # other stores of this cluster may have some, too
    assert ray.get(ref, timeout=30) == "awake"
    (asleep, _) = milepost.list_tasks(workflow_id)
    assert 4.0 <= asleep["stats"]["end_time"] - began < 6.5
    assert asleep["stats"]["start_time"] - began < 2.0
