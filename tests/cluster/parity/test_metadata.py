"""Parity with ray.workflow: metadata of users, times, options and errors of unknown ids."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def wait_for(file: Path, text: str = "") -> str:
    while not file.exists():
        time.sleep(0.01)
    return text


@ray.remote
def echo(value: Any = 0) -> Any:
    return value


@ray.remote
def fail_without(file: Path) -> str:
    if not file.exists():
        raise ValueError("no file")
    return "done"


def named(task_id: str, function: Any = echo, **settings: Any) -> Any:
    return function.options(**milepost.options(task_id=task_id, **settings))


@pytest.mark.parity("test_metadata.py::test_user_metadata")
def test_metadata_of_the_user_is_kept_for_workflow_and_task(workflow_id: str) -> None:
    dag = named("t", metadata={"k1": "v1", "n": [1, {"x": None}]}).bind()
    milepost.run(dag, workflow_id=workflow_id, metadata={"k2": "v2"})
    assert milepost.get_metadata(workflow_id)["user_metadata"] == {"k2": "v2"}
    of_task = milepost.get_metadata(workflow_id, "t")["user_metadata"]
    assert of_task == {"k1": "v1", "n": [1, {"x": None}]}


@pytest.mark.parity("test_metadata.py::test_user_metadata_empty")
def test_metadata_that_was_not_given_is_empty(workflow_id: str) -> None:
    milepost.run(named("t").bind(), workflow_id=workflow_id)
    assert milepost.get_metadata(workflow_id)["user_metadata"] == {}
    assert milepost.get_metadata(workflow_id, "t")["user_metadata"] == {}


@pytest.mark.parity("test_metadata.py::test_user_metadata_not_dict")
def test_metadata_that_is_no_dict_is_a_value_error(workflow_id: str) -> None:
    wrong: Any = "x"
    with pytest.raises(ValueError, match="must be a dict"):
        echo.options(**milepost.options(metadata=wrong))
    with pytest.raises(ValueError, match="must be a dict"):
        milepost.run(echo.bind(), workflow_id=workflow_id, metadata=wrong)


@pytest.mark.parity("test_metadata.py::test_user_metadata_not_json_serializable")
def test_metadata_that_is_not_json_is_a_value_error(workflow_id: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        echo.options(**milepost.options(metadata={"x": object()}))
    with pytest.raises(ValueError, match="JSON"):
        milepost.run(echo.bind(), workflow_id=workflow_id, metadata={"x": object()})


@pytest.mark.parity("test_metadata.py::test_runtime_metadata")
def test_times_enclose_what_they_are_times_of(workflow_id: str) -> None:
    before = time.time()
    milepost.run(named("t").bind(), workflow_id=workflow_id)
    after = time.time()
    whole = milepost.get_metadata(workflow_id)["stats"]
    task = milepost.get_metadata(workflow_id, "t")["stats"]
    assert before <= whole["start_time"] <= task["start_time"]
    assert task["start_time"] <= task["end_time"] <= whole["end_time"] <= after


@pytest.mark.parity("test_metadata.py::test_successful_workflow")
def test_a_successful_workflow_tells_everything(workflow_id: str) -> None:
    inner = named("inner", metadata={"i": 1}).bind(2)
    outer = echo.options(num_cpus=0.5, max_retries=5, **milepost.options(task_id="outer"))
    milepost.run(outer.bind(inner), workflow_id=workflow_id, metadata={"a": 1})
    whole = milepost.get_metadata(workflow_id)
    assert whole["status"] == "SUCCESSFUL" == milepost.get_status(workflow_id)
    assert whole["user_metadata"] == {"a": 1}
    assert whole["tasks"]["COMMITTED"] == 2
    assert whole["progress"] == 1
    task = milepost.get_metadata(workflow_id, "outer")
    assert task["task_id"] == "outer"
    assert task["workflow_refs"] == ["inner"]
    assert (task["state"], task["attempts"]) == ("COMMITTED", 1)
    assert task["task_options"] == {
        "task_type": "FUNCTION",
        "max_retries": 5,
        "catch_exceptions": False,
        "retry_exceptions": False,
        "checkpoint": None,
        "ray_options": {"num_cpus": 0.5},
    }


def test_exception_types_are_named_and_not_loaded(workflow_id: str) -> None:
    function = echo.options(retry_exceptions=[ValueError], **milepost.options(task_id="t"))
    milepost.run(function.bind(), workflow_id=workflow_id)
    shown = milepost.get_metadata(workflow_id, "t")["task_options"]["retry_exceptions"]
    assert shown == "(pickled)"


def test_a_running_workflow_tells_how_far_it_is(workflow_id: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waiting = named("slow", wait_for).bind(go, "x")
    ref = milepost.run_async(named("last").bind(waiting), workflow_id=workflow_id)
    while milepost.get_metadata(workflow_id, "slow")["state"] != "SCHEDULED":
        time.sleep(0.01)
    whole = milepost.get_metadata(workflow_id)
    assert (whole["status"], whole["progress"]) == ("RUNNING", 0)
    assert (whole["tasks"]["SCHEDULED"], whole["tasks"]["WAITING"]) == (1, 1)
    assert list(whole["stats"]) == ["start_time"]
    slow, last = milepost.list_tasks(workflow_id)
    assert (slow["task_id"], slow["state"], list(slow["stats"])) == (
        "slow",
        "SCHEDULED",
        ["start_time"],
    )
    assert last == {"task_id": "last", "state": "WAITING", "attempts": 0, "stats": {}}
    go.touch()
    assert ray.get(ref) == "x"
    assert [each["state"] for each in milepost.list_tasks(workflow_id)] == ["COMMITTED"] * 2


@pytest.mark.parity("test_metadata.py::test_failed_and_resumed_workflow")
def test_a_resume_moves_both_times_forward(workflow_id: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(milepost.errors.WorkflowExecutionError):
        milepost.run(named("t", fail_without).bind(file), workflow_id=workflow_id)
    failed = milepost.get_metadata(workflow_id)
    assert failed["status"] == "FAILED"
    assert failed["stats"]["start_time"] <= failed["stats"]["end_time"]
    task = milepost.get_metadata(workflow_id, "t")
    assert (task["state"], list(task["stats"])) == ("FAILED", ["start_time"])
    file.touch()
    assert milepost.resume(workflow_id) == "done"
    resumed = milepost.get_metadata(workflow_id)
    assert resumed["status"] == "SUCCESSFUL"
    assert resumed["stats"]["start_time"] > failed["stats"]["end_time"]
    assert resumed["stats"]["end_time"] > failed["stats"]["end_time"]


@ray.remote
def go_on(value: str) -> Any:
    return milepost.continuation(named("inner", metadata={"depth": 2}).bind(value))


@pytest.mark.parity("test_metadata.py::test_nested_workflow")
def test_a_continuation_starts_after_the_task_that_returned_it(workflow_id: str) -> None:
    dag = named("outer", go_on, metadata={"depth": 1}).bind("x")
    assert milepost.run(dag, workflow_id=workflow_id) == "x"
    outer = milepost.get_metadata(workflow_id, "outer")
    inner = milepost.get_metadata(workflow_id, "inner")
    assert (outer["user_metadata"], inner["user_metadata"]) == ({"depth": 1}, {"depth": 2})
    assert outer["stats"]["start_time"] <= outer["stats"]["end_time"]
    assert outer["stats"]["end_time"] <= inner["stats"]["start_time"] <= inner["stats"]["end_time"]


@pytest.mark.parity("test_metadata.py::test_no_workflow_found")
def test_unknown_ids_are_value_errors_that_name_them(workflow_id: str) -> None:
    milepost.run(named("t").bind(), workflow_id=workflow_id)
    with pytest.raises(ValueError, match="No such workflow_id 'nowhere'"):
        milepost.get_metadata("nowhere")
    with pytest.raises(ValueError, match="No such workflow_id 'nowhere'"):
        milepost.get_metadata("nowhere", "t")
    with pytest.raises(ValueError, match=f"No such task_id 'u' in workflow '{workflow_id}'"):
        milepost.get_metadata(workflow_id, "u")
    with pytest.raises(ValueError, match="No such workflow_id 'nowhere'"):
        milepost.list_tasks("nowhere")
