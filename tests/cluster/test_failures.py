"""When tasks fail: errors, retries, and going on afterwards."""

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
from milepost.journal import load_state, open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class CustomError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def note(ledger: Path, text: str) -> int:
    """Writes a line; returns how often that line has been written."""
    with ledger.open("a") as file:
        file.write(f"{text}\n")
    return ledger.read_text().split("\n").count(text)


@ray.remote
def succeed(ledger: Path, text: str, *inputs: Any) -> str:
    note(ledger, text)
    return text


@ray.remote
def fail_until(ledger: Path, text: str, times: int, how: str = "raise", *inputs: Any) -> int:
    count = note(ledger, text)
    if count <= times:
        if how == "raise":
            raise CustomError(count)
        os._exit(1)
    return count


def test_the_users_exception_is_the_cause(workflow_id: str, ledger: Path) -> None:
    with pytest.raises(errors.WorkflowExecutionError) as from_run:
        milepost.run(fail_until.bind(ledger, "a", 9), workflow_id=workflow_id)
    with pytest.raises(errors.WorkflowExecutionError) as from_output:
        milepost.get_output(workflow_id)
    for caught in (from_run.value, from_output.value):
        cause = caught.__cause__
        assert type(cause).__name__ == "CustomError"
        assert getattr(cause, "code", None) == 1
        assert "in fail_until" in "".join(getattr(cause, "__notes__", []))
        assert caught.task_id == f"{__name__}.fail_until"
    assert milepost.get_status(workflow_id) == milepost.FAILED


def test_errors_arrive_through_the_ref_as_well(workflow_id: str, ledger: Path) -> None:
    ref = milepost.run_async(fail_until.bind(ledger, "a", 9), workflow_id=workflow_id)
    with pytest.raises(errors.WorkflowExecutionError):
        ray.get(ref)


def test_exceptions_are_not_retried_unless_asked(workflow_id: str, ledger: Path) -> None:
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(fail_until.bind(ledger, "a", 1), workflow_id=workflow_id)
    assert ledger.read_text() == "a\n"


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({"retry_exceptions": True, "max_retries": 2}, 3),
        ({"retry_exceptions": [ValueError], "max_retries": 2}, 1),
        ({"retry_exceptions": [ValueError, Exception], "max_retries": 1}, 2),
        ({"retry_exceptions": True, "max_retries": 0}, 1),
    ],
)
def test_exceptions_are_retried_as_asked(
    workflow_id: str, ledger: Path, options: dict[str, Any], runs: int
) -> None:
    dag = fail_until.options(**options).bind(ledger, "a", 9)
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(dag, workflow_id=workflow_id)
    assert ledger.read_text() == "a\n" * runs


def test_minus_one_retries_for_ever(workflow_id: str, ledger: Path) -> None:
    dag = fail_until.options(max_retries=-1, retry_exceptions=True).bind(ledger, "a", 7)
    assert milepost.run(dag, workflow_id=workflow_id) == 8


def test_a_dead_worker_costs_an_attempt(workflow_id: str, ledger: Path) -> None:
    assert milepost.run(fail_until.bind(ledger, "a", 2, "die"), workflow_id=workflow_id) == 3


def test_a_task_whose_worker_keeps_dying_fails_alone(workflow_id: str, ledger: Path) -> None:
    """Its companions are not blamed: they commit, however often it takes its worker along."""
    companions = [succeed.options(max_retries=0).bind(ledger, f"c{i}") for i in range(30)]
    dying = fail_until.options(max_retries=1).bind(ledger, "d", 9, "die")
    dag = succeed.bind(ledger, "end", *companions, dying)
    with pytest.raises(errors.WorkflowExecutionError) as caught:
        milepost.run(dag, workflow_id=workflow_id)
    assert isinstance(caught.value.__cause__, errors.TaskCrashedError)
    assert ledger.read_text().count("d\n") == 2


def test_resume_goes_on_from_the_failed_task(workflow_id: str, ledger: Path) -> None:
    first = succeed.bind(ledger, "first")
    dag = succeed.bind(ledger, "last", fail_until.bind(ledger, "middle", 1, "raise", first))
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(dag, workflow_id=workflow_id)
    assert milepost.resume(workflow_id) == "last"
    assert ledger.read_text().split() == ["first", "middle", "middle", "last"]
    assert milepost.get_status(workflow_id) == milepost.SUCCESSFUL
    assert milepost.resume(workflow_id) == "last"


def test_running_siblings_of_a_failed_task_commit(workflow_id: str, ledger: Path) -> None:
    @ray.remote
    def slow(path: Path) -> str:
        import time

        note(path, "begun")
        while "failed" not in path.read_text():
            time.sleep(0.01)
        return "slow"

    @ray.remote
    def fail(path: Path) -> None:
        import time

        while "begun" not in path.read_text():
            time.sleep(0.01)
        raise CustomError(1)

    dag = succeed.bind(ledger, "end", slow.bind(ledger), fail.bind(ledger))
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(dag, workflow_id=workflow_id)
    note(ledger, "failed")
    task = f"{__name__}.test_running_siblings_of_a_failed_task_commit.locals.slow"
    assert milepost.get_output(workflow_id, task_id=task) == "slow"
    assert "end" not in ledger.read_text()


def test_every_attempt_is_in_the_journal(workflow_id: str, ledger: Path, storage: Path) -> None:
    dag = fail_until.options(retry_exceptions=True).bind(ledger, "a", 2)
    milepost.run(dag, workflow_id=workflow_id)
    state = load_state(open_store(str(storage), create=False), workflow_id)
    assert list(state.attempts) == [3]
    assert state.failures == {0: 2}


def test_a_result_that_cannot_be_pickled_fails_its_task(workflow_id: str) -> None:
    @ray.remote
    def make_lock() -> Any:
        import threading

        return threading.Lock()

    with pytest.raises(errors.WorkflowExecutionError, match="cannot be stored"):
        milepost.run(make_lock.bind(), workflow_id=workflow_id)


def test_a_list_of_nodes_is_no_result(workflow_id: str, ledger: Path) -> None:
    @ray.remote
    def return_nodes(path: Path) -> Any:
        return [succeed.bind(path, "x")]

    with pytest.raises(errors.WorkflowExecutionError, match="continuation"):
        milepost.run(return_nodes.bind(ledger), workflow_id=workflow_id)


def test_resume_all_reports_each_workflow(workflow_id: str, ledger: Path) -> None:
    for name, times in (("good", 1), ("bad", 9)):
        dag = fail_until.bind(ledger, name, times)
        with pytest.raises(errors.WorkflowExecutionError):
            milepost.run(dag, workflow_id=f"{workflow_id} {name}")
    resumed = dict(milepost.resume_all(include_failed=True))
    assert ray.get(resumed[f"{workflow_id} good"]) == 2
    with pytest.raises(errors.WorkflowExecutionError):
        ray.get(resumed[f"{workflow_id} bad"])
    assert workflow_id not in dict(milepost.resume_all())


def test_unknown_ids_are_named(storage: Path) -> None:
    with pytest.raises(errors.WorkflowNotFoundError, match="nobody"):
        milepost.get_status("nobody")
    with pytest.raises(errors.WorkflowNotFoundError, match="nobody"):
        milepost.get_output("nobody")
    with pytest.raises(errors.WorkflowNotResumableError, match="nobody"):
        milepost.resume("nobody")
    assert "nobody" not in dict(milepost.list_all())


def test_an_unknown_task_is_named(workflow_id: str, ledger: Path) -> None:
    milepost.run(succeed.bind(ledger, "a"), workflow_id=workflow_id)
    with pytest.raises(errors.TaskNotFoundError, match="'nothing'"):
        milepost.get_output(workflow_id, task_id="nothing")
