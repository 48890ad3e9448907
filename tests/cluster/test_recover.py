"""Recovery from a shell: a fresh cluster, a standby that watches, a cluster only paused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from local_cluster import LocalCluster
from milepost.journal import open_store, read_journal, read_status
from milepost.journal.lease import list_leases
from milepost.replay.codec import decode_all
from milepost.replay.events import OwnershipTaken, TasksCommitted
from milepost.replay.state import Status

LEASE_S = 3.0
IDS = ("one", "two", "three")
TASKS = 30

JOB = """
import os, sys, time, ray, milepost
from milepost import errors

ledger = sys.argv[1]
ray.init(log_to_driver=False)

@ray.remote
def work(name, number):
    with open(ledger, "a") as file:
        file.write(f"{name} {number}\\n")
    while number >= 10 and not os.path.exists(ledger + ".gate"):
        time.sleep(0.05)
    return number

@ray.remote
def add(*numbers):
    return sum(numbers)

refs = []
for name in sys.argv[2:]:
    dag = add.bind(*[work.bind(name, number) for number in range(30)])
    refs.append(milepost.run_async(dag, workflow_id=name))
open(ledger + ".started", "w").close()
print("started", flush=True)
for ref in refs:
    try:
        print(ray.get(ref), flush=True)
    except ray.exceptions.RayTaskError as error:
        print(type(error.cause).__name__, flush=True)
        open(ledger + ".lost", "w").close()
"""

RAYJOB = """
import os, sys, time, ray, milepost

ledger = sys.argv[1]

@ray.remote
def work(number):
    with open(ledger, "a") as file:
        file.write(f"{number}\\n")
    while number >= 10 and not os.path.exists(ledger + ".gate"):
        time.sleep(0.05)
    return number

@ray.remote
def add(*numbers):
    return sum(numbers)

ray.init(log_to_driver=False)
milepost.init(recover=True)
while os.path.exists(ledger + ".gate") and milepost.get_status("job") != "RUNNING":
    time.sleep(0.05)  # so that recovery is quicker than run
dag = add.bind(*[work.bind(number) for number in range(30)])
print(milepost.run(dag, workflow_id="job"))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the job, or the command line, with a cluster; they end with the test."""
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "ledger").touch()
    started: list[subprocess.Popen[str]] = []

    def start(cluster: LocalCluster, *arguments: str) -> subprocess.Popen[str]:
        command = ["job.py", str(tmp_path / "ledger")] if arguments[0] in IDS else ["-m"]
        process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=tmp_path,
            env=cluster.environment | {"MILEPOST_STORAGE": str(tmp_path / "store")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def make_cluster() -> LocalCluster:
    return LocalCluster(num_cpus=2, environment={"MILEPOST_LEASE_S": str(LEASE_S)})


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "ledger").read_text().splitlines()


def count_commits(tmp_path: Path, workflow_id: str) -> int:
    """Returns how many tasks committed, after checking that none did twice."""
    return len(read_commits(tmp_path, workflow_id))


def read_commits(tmp_path: Path, workflow_id: str) -> dict[int, int]:
    """Returns what each task returned, after checking that none committed twice."""
    store = open_store(str(tmp_path / "store"), create=False)
    events = [
        event for frame in read_journal(store, workflow_id) for event in decode_all(frame.raw)
    ]
    commits = [event for event in events if isinstance(event, TasksCommitted)]
    tasks = [task for event in commits for task in event.tasks]
    assert len(tasks) == len(set(tasks))
    values = [msgpack.unpackb(each.data) for event in commits for each in event.payloads]
    epochs = [event.epoch for event in events if isinstance(event, OwnershipTaken)]
    assert epochs == sorted(set(epochs))
    return dict(zip(tasks, values, strict=True))


def test_a_fresh_cluster_recovers_everything_from_a_shell(tmp_path: Path, start: Start) -> None:
    with make_cluster() as first:
        driver = start(first, *IDS)
        wait_until((tmp_path / "ledger.started").exists)
        wait_until(lambda: len(lines(tmp_path)) > 10)
        first.kill()
        driver.kill()
    (tmp_path / "ledger.gate").touch()
    with make_cluster() as second:
        told = start(second, "milepost", "recover").communicate(timeout=120)[0]
        assert {f"resumed  {each}" for each in IDS} <= set(told.splitlines()), told
        assert {f"successful {each}" for each in IDS} <= set(told.splitlines()), told
        again = start(second, "milepost", "recover").communicate(timeout=60)[0]
        assert "nothing to recover" in again
    assert [count_commits(tmp_path, each) for each in IDS] == [TASKS + 1] * len(IDS)


def test_a_job_that_is_tried_again_on_a_fresh_cluster_goes_on(tmp_path: Path) -> None:
    """One program, unchanged: it recovers in the background and runs its own workflow."""
    (tmp_path / "job.py").write_text(RAYJOB)
    (tmp_path / "ledger").touch()

    def start_job(cluster: LocalCluster) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "job.py", str(tmp_path / "ledger")],
            cwd=tmp_path,
            env=cluster.environment | {"MILEPOST_STORAGE": str(tmp_path / "store")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with make_cluster() as first:
        job = start_job(first)
        wait_until(lambda: len(lines(tmp_path)) > 4)
        wait_until(lambda: count_commits(tmp_path, "job") > 2)
        first.kill()
        job.kill()
        job.communicate()
    committed = read_commits(tmp_path, "job").values()
    (tmp_path / "ledger.gate").touch()
    with make_cluster() as second:
        told, faults = start_job(second).communicate(timeout=120)
        assert told == f"{sum(range(TASKS))}\n", faults
    assert count_commits(tmp_path, "job") == TASKS + 1
    ran = lines(tmp_path)
    again = [number for number in committed if ran.count(str(number)) != 1]
    assert again == [], "what was committed does not run again"


def test_a_standby_takes_over_from_a_cluster_that_was_only_paused_and_it_ends_cleanly(
    tmp_path: Path, start: Start
) -> None:
    """The paused one wakes up behind the takeover: it is fenced though none of its tasks end."""
    store = str(tmp_path / "store")
    with make_cluster() as first, make_cluster() as second:
        driver = start(first, "one")
        wait_until(lambda: len(lines(tmp_path)) > 4)
        standby = start(second, "milepost", "recover", "--watch")
        assert standby.stdout is not None
        assert standby.stdout.readline().startswith("owned")
        assert "1 owned" in standby.stdout.readline()
        paused = first.processes()
        for process in paused:
            process.suspend()
        wait_until(lambda: read_status(open_store(store), "one").epoch == 2)
        assert standby.stdout.readline().split() == ["resumed", "one"]
        for process in paused:
            process.resume()
        assert driver.communicate(timeout=60)[0].splitlines()[-1] == "LostOwnershipError"
        (tmp_path / "ledger.gate").touch()
        wait_until(lambda: read_status(open_store(store), "one").status is Status.SUCCESSFUL)
        assert first.folder is not None
        logs = [path.read_text(errors="replace") for path in first.folder.rglob("*.err")]
        told = [line for log in logs for line in log.splitlines() if "was taken over" in line]
        assert len([line for line in told if "'one'" in line]) == 1, told
        standby.send_signal(signal.SIGTERM)
        assert "stopped;" in standby.communicate(timeout=30)[0]
        assert standby.returncode == 0
    assert count_commits(tmp_path, "one") == TASKS + 1


def test_force_takes_one_workflow_from_a_live_cluster_and_leaves_the_others(
    tmp_path: Path, start: Start
) -> None:
    store = open_store(str(tmp_path / "store"))
    with make_cluster() as first, make_cluster() as second:
        driver = start(first, "one", "two")
        wait_until(lambda: len(lines(tmp_path)) > 8)
        assert len(list_leases(store)) == 1
        forced = start(second, "milepost", "recover", "--force", "one", "--no-wait")
        told = forced.communicate(timeout=120)[0]
        wait_until((tmp_path / "ledger.lost").exists)  # before any task ends
        (tmp_path / "ledger.gate").touch()
        assert "resumed  one" in told.splitlines(), told
        assert any(line.startswith("owned    two: ") for line in told.splitlines()), told
        assert driver.communicate(timeout=60)[0].splitlines()[-2:] == [
            "LostOwnershipError",
            str(sum(range(TASKS))),
        ]
    assert (read_status(store, "one").epoch, read_status(store, "two").epoch) == (2, 1)
    assert os.listdir(tmp_path / "store/leases")
