"""Retries that wait, attempts that are ended by their time limit, and why a worker was lost."""

from __future__ import annotations

import itertools
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
from milepost.engine.workers import _find_kind
from milepost.journal import open_store, read_journal
from milepost.replay.codec import decode_all
from milepost.replay.events import AttemptFailed, Event

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class FlakyError(Exception):
    """One that is worth another attempt."""


class OtherError(Exception):
    """One that is not."""


@ray.remote
def stumble(ledger: Path, failures: int, error: type[Exception] = FlakyError) -> int:
    with ledger.open("a") as file:
        file.write(f"{time.time()}\n")
    attempt = len(ledger.read_text().split())
    if attempt <= failures:
        raise error(f"attempt {attempt}")
    return attempt


@ray.remote
def hang(folder: Path, times: int) -> int:
    """Never returns so many times, and has another task of Ray do the same."""
    attempt = milepost.current().attempt
    if attempt > times:
        return attempt
    (folder / f"{attempt} outer").write_text(str(os.getpid()))
    ray.get(hang_too.remote(folder, attempt))
    return 0


@ray.remote(num_cpus=0)
def hang_too(folder: Path, attempt: int) -> None:
    (folder / f"{attempt} inner").write_text(str(os.getpid()))
    time.sleep(1000)


def journal(storage: Path, workflow_id: str) -> list[Event]:
    store = open_store(str(storage), create=False)
    return [event for frame in read_journal(store, workflow_id) for event in decode_all(frame.raw)]


def failures(storage: Path, workflow_id: str) -> list[AttemptFailed]:
    return [each for each in journal(storage, workflow_id) if isinstance(each, AttemptFailed)]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_delays_grow_and_are_in_the_journal(workflow_id: str, storage: Path, ledger: Path) -> None:
    retry = milepost.Retry(max_attempts=4, delay_s=0.4, backoff=2, jitter=0)
    dag = stumble.options(**milepost.options(retry=retry)).bind(ledger, 3)
    assert milepost.run(dag, workflow_id=workflow_id) == 4
    told = failures(storage, workflow_id)
    assert [each.retry_us - each.at_us for each in told] == [400_000, 800_000, 1_600_000]
    times = [float(line) for line in ledger.read_text().split()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap > delay for gap, delay in zip(gaps, (0.39, 0.79, 1.59), strict=True)), gaps


def test_only_the_given_exceptions_are_worth_another_attempt(
    workflow_id: str, ledger: Path
) -> None:
    retry = milepost.options(retry=milepost.Retry(max_attempts=9, delay_s=0, on=[FlakyError]))
    assert milepost.run(stumble.options(**retry).bind(ledger, 2), workflow_id=workflow_id) == 3
    ledger.write_text("")
    dag = stumble.options(**retry).bind(ledger, 9, OtherError)
    with pytest.raises(errors.WorkflowExecutionError) as caught:
        milepost.run(dag, workflow_id=f"{workflow_id} other")
    assert isinstance(caught.value.__cause__, OtherError)
    assert len(ledger.read_text().split()) == 1


def test_a_delay_goes_on_when_the_dispatcher_dies(
    workflow_id: str, ledger: Path, kill_actor: Callable[[str], int]
) -> None:
    retry = milepost.Retry(delay_s=8, jitter=0)
    dag = stumble.options(**milepost.options(retry=retry)).bind(ledger, 1)
    ref = milepost.run_async(dag, workflow_id=workflow_id)
    wait_until(lambda: milepost.list_tasks(workflow_id)[0]["state"] == "DELAYED")
    assert kill_actor("Dispatcher")
    assert ray.get(ref) == 2
    first, second = map(float, ledger.read_text().split())
    assert 7.9 < second - first < 20


def test_what_runs_too_long_is_ended_with_what_it_started_and_tried_again(
    workflow_id: str, storage: Path, tmp_path: Path
) -> None:
    retry = milepost.Retry(max_attempts=2, delay_s=0)
    dag = hang.options(**milepost.options(timeout_s=4, retry=retry)).bind(tmp_path, 1)
    assert milepost.run(dag, workflow_id=workflow_id) == 2
    (failure,) = failures(storage, workflow_id)
    assert (failure.error.kind, failure.error.type) == ("timeout", "TaskTimeoutError")
    pids = [int((tmp_path / f"1 {which}").read_text()) for which in ("outer", "inner")]
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))


def test_a_time_out_is_an_error_of_its_own_and_can_be_caught(
    workflow_id: str, tmp_path: Path
) -> None:
    once = milepost.Retry(max_attempts=1)
    limited = hang.options(**milepost.options(timeout_s=1, retry=once))
    with pytest.raises(errors.WorkflowExecutionError, match="TaskTimeoutError") as caught:
        milepost.run(limited.bind(tmp_path, 9), workflow_id=workflow_id)
    assert isinstance(caught.value.__cause__, errors.TaskTimeoutError)
    assert isinstance(caught.value.__cause__, TimeoutError)
    options = milepost.options(timeout_s=1, retry=once, catch_exceptions=True)
    dag = hang.options(**options).bind(tmp_path, 9)
    value, error = milepost.run(dag, workflow_id=f"{workflow_id} caught")
    assert value is None
    assert isinstance(error, errors.TaskTimeoutError)
    assert "time limit of 1 s" in str(error)


def test_a_time_limit_says_so_in_the_metadata(workflow_id: str, ledger: Path) -> None:
    options = milepost.options(timeout_s=60, retry=milepost.Retry(delay_s=2))
    milepost.run(stumble.options(**options).bind(ledger, 0), workflow_id=workflow_id)
    told = milepost.get_metadata(workflow_id, f"{__name__}.stumble")["task_options"]
    assert told["timeout_s"] == 60
    assert told["retry_delays"]["delay_s"] == 2
    assert told["max_retries"] == 2


def test_errors_of_ray_say_why_a_worker_was_lost() -> None:
    from ray import exceptions

    assert _find_kind(exceptions.OutOfMemoryError("much")) == "memory"
    assert _find_kind(exceptions.NodeDiedError("gone")) == "node"
    assert _find_kind(exceptions.WorkerCrashedError()) == "crash"
    assert _find_kind(exceptions.ObjectLostError("00" * 28, None, "")) == "input"
