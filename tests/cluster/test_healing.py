"""Parts of the engine die while it works; the cluster stays."""

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
from milepost.journal import load_state, open_store, read_journal, verify
from milepost.replay.codec import decode_all
from milepost.replay.events import OwnershipTaken, TasksCommitted

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TASKS = 120


@ray.remote
def work(ledger: Path, number: int) -> int:
    with ledger.open("a") as file:
        file.write(f"{number}\n")
    time.sleep(0.02)
    return number


@ray.remote
def add(*numbers: int) -> int:
    return sum(numbers)


def start(workflow_id: str, ledger: Path) -> Any:
    dag = add.bind(*[work.bind(ledger, number) for number in range(TASKS)])
    ref = milepost.run_async(dag, workflow_id=workflow_id)
    deadline = time.monotonic() + 60
    while len(ledger.read_text().split()) < TASKS // 3:
        assert time.monotonic() < deadline, ledger.read_text()
        time.sleep(0.02)
    return ref


def committed(storage: Path, workflow_id: str) -> set[int]:
    state = load_state(open_store(str(storage), create=False), workflow_id)
    return {task for task, result in enumerate(state.results) if result is not None}


@pytest.mark.parametrize("victims", [["Dispatcher"], ["Manager"], ["Manager", "Dispatcher"]])
def test_a_killed_actor_is_replaced_and_its_workflows_go_on(
    workflow_id: str,
    storage: Path,
    ledger: Path,
    kill_actor: Callable[[str], int],
    victims: list[str],
) -> None:
    ref = start(workflow_id, ledger)
    assert [kill_actor(victim) for victim in victims] == [1] * len(victims)
    done = committed(storage, workflow_id)
    runs_of_done = [ledger.read_text().split().count(str(number)) for number in done]
    assert ray.get(ref) == sum(range(TASKS))
    runs = ledger.read_text().split()
    if "Dispatcher" in victims:
        again = [runs.count(str(number)) for number in done]
        assert again == runs_of_done, "a committed task ran again"
    assert milepost.get_status(workflow_id) == milepost.SUCCESSFUL
    check_journal(storage, workflow_id, owners=2 if "Dispatcher" in victims else 1)


def check_journal(storage: Path, workflow_id: str, owners: int) -> None:
    store = open_store(str(storage), create=False)
    assert verify(store, workflow_id, deep=True).faults == ()
    events = [
        event for frame in read_journal(store, workflow_id) for event in decode_all(frame.raw)
    ]
    epochs = [event.epoch for event in events if isinstance(event, OwnershipTaken)]
    assert len(epochs) == owners
    assert epochs == sorted(set(epochs))
    commits = [t for event in events if isinstance(event, TasksCommitted) for t in event.tasks]
    assert len(commits) == len(set(commits)) == TASKS + 1


def test_a_killed_worker_costs_only_its_own_attempts(
    workflow_id: str, storage: Path, ledger: Path, kill_actor: Callable[[str], int]
) -> None:
    ref = start(workflow_id, ledger)
    deadline = time.monotonic() + 30
    while not kill_actor("run_slice"):
        assert time.monotonic() < deadline, "no worker was found"
    assert ray.get(ref) == sum(range(TASKS))
    check_journal(storage, workflow_id, owners=1)


def test_a_large_value_is_read_from_its_blob_when_its_owner_died(
    workflow_id: str, ledger: Path, kill_actor: Callable[[str], int]
) -> None:
    @ray.remote
    def make(path: Path) -> bytes:
        with path.open("a") as file:
            file.write("made\n")
        return bytes(1 << 20)

    @ray.remote
    def use(value: bytes, path: Path) -> int:
        with path.open("a") as file:
            file.write("using\n")
        while "go" not in path.read_text():
            time.sleep(0.02)
        return len(value)

    ref = milepost.run_async(use.bind(make.bind(ledger), ledger), workflow_id=workflow_id)
    while "using" not in ledger.read_text():
        time.sleep(0.02)
    assert kill_actor("Dispatcher") == 1
    with ledger.open("a") as file:
        file.write("go\n")
    assert ray.get(ref) == 1 << 20
    assert ledger.read_text().count("made") == 1
