"""Two clusters, one store: the second takes over, the first one cannot harm it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local_cluster import LocalCluster
from milepost.journal import load_state, open_store, read_journal, verify
from milepost.replay.codec import decode_all
from milepost.replay.events import OwnershipTaken, TasksCommitted

TASKS = 60

JOB = """
import sys, time, ray, milepost
from milepost import errors

storage, ledger, what = sys.argv[1:]
ray.init(log_to_driver=False)
milepost.init(storage=storage)

@ray.remote
def work(number):
    with open(ledger, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.25)
    return number

@ray.remote
def add(*numbers):
    return sum(numbers)

try:
    if what == "run":
        dag = add.bind(*[work.bind(number) for number in range(60)])
        print(milepost.run(dag, workflow_id="contested"))
    else:
        print(milepost.resume("contested"))
except errors.LostOwnershipError as error:
    print("lost", error.own_epoch, error.newer_epoch)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[LocalCluster, str], subprocess.Popen[str]]:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "ledger").touch()

    def start(cluster: LocalCluster, what: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "job.py", str(tmp_path / "store"), str(tmp_path / "ledger"), what],
            cwd=tmp_path,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    return start


def test_of_two_clusters_that_run_a_workflow_only_the_later_commits(
    tmp_path: Path, start: Callable[[LocalCluster, str], subprocess.Popen[str]]
) -> None:
    ledger = tmp_path / "ledger"
    with LocalCluster(num_cpus=1) as first, LocalCluster(num_cpus=1) as second:
        loser = start(first, "run")
        deadline = time.monotonic() + 60
        while len(ledger.read_text().split()) < TASKS // 4:
            assert time.monotonic() < deadline, "the first cluster does nothing"
            time.sleep(0.02)
        winner = start(second, "resume")
        assert winner.communicate(timeout=90)[0] == f"{sum(range(TASKS))}\n"
        assert loser.communicate(timeout=90)[0] == "lost 1 2\n"
    store = open_store(str(tmp_path / "store"), create=False)
    assert verify(store, "contested", deep=True).faults == ()
    events = [
        event for frame in read_journal(store, "contested") for event in decode_all(frame.raw)
    ]
    assert [event.epoch for event in events if isinstance(event, OwnershipTaken)] == [1, 2]
    commits = [t for event in events if isinstance(event, TasksCommitted) for t in event.tasks]
    assert len(commits) == len(set(commits)) == TASKS + 1
    assert load_state(store, "contested").status == "SUCCESSFUL"
