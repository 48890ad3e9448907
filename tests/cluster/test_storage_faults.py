"""The storage is full, away or slow while real clusters work on it: nothing told is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cluster import LocalCluster
from milepost.journal import Store, open_store, read_journal, verify
from milepost.replay.codec import decode_all
from milepost.replay.events import TasksCommitted
from storage_servers import StorageServer
from tcp_proxy import TcpProxy

DISK = "4m"
AWAY_S = 5.0
DELAY_S = 2.0

ON_A_FULL_DISK = """
import json, os, sys, time, ray, milepost
from milepost import errors

folder, ledger = sys.argv[1:]
ballast = os.path.join(folder, "ballast")
ray.init(log_to_driver=False)
milepost.init(storage=os.path.join(folder, "store"))

@ray.remote
def step(number, *before):
    with open(ledger, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.1)
    return os.urandom(8_000).hex() if number < 29 else number

@ray.remote
def large():
    return os.urandom(500_000)

def fill():
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            told["disk"] = error.strerror

def count():
    return len(open(ledger).readlines())

told = {}
node = step.bind(0)
for number in range(1, 30):
    node = step.bind(number, node)
ref = milepost.run_async(node, workflow_id="chain")
waiting = milepost.get_output_async("chain")
first = milepost.get_output("chain", task_id="__main__.step")
while count() < 5:
    time.sleep(0.02)
fill()
try:
    milepost.run(step.bind(29), workflow_id="refused")
except errors.StorageUnavailableError as error:
    told["refused"] = str(error)
time.sleep(2)  # so that the workflow that runs has met the full disk for certain
told["steps while full"] = count()
time.sleep(1)
told["steps a second later"] = count()
os.remove(ballast)
told["result"] = ray.get([ref, waiting])
told["first is the same"] = milepost.get_output("chain", task_id="__main__.step") == first
told["refused later"] = milepost.run(step.bind(29), workflow_id="refused")

fill()
with open(ballast, "r+b") as file:
    file.truncate(os.path.getsize(ballast) - 200_000)
try:
    milepost.run(large.bind(), workflow_id="large")
except errors.WorkflowExecutionError as error:
    told["large"] = [type(error.__cause__).__name__, str(error.__cause__)]
os.remove(ballast)
told["large later"] = len(milepost.resume("large"))
told["statuses"] = {name: status.value for name, status in milepost.list_all()}
print(json.dumps(told))
"""

AWAY_AND_SLOW = """
import json, os, sys, time, ray, milepost

storage, ledger = sys.argv[1:]
ray.init(log_to_driver=False)
milepost.init(storage=storage)

@ray.remote
def work(number):
    with open(ledger, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.2)
    return number

@ray.remote
def add(*numbers):
    return sum(numbers)

def run(name, count):
    ref = milepost.run_async(add.bind(*map(work.bind, range(count))), workflow_id=name)
    waiting = milepost.get_output_async(name)
    first = milepost.get_output(name, task_id="__main__.work")
    results = ray.get([ref, waiting])
    return [*results, first, milepost.get_output(name, task_id="__main__.work")]

told = {"away": run("away", 40)}
open(ledger + ".slow", "w").close()
while not os.path.exists(ledger + ".go"):
    time.sleep(0.02)
began = time.monotonic()
told["slow"] = run("slow", 6)
told["seconds"] = time.monotonic() - began
print(json.dumps(told))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small file system can be made: {error}")
    if done.returncode:
        pytest.skip(f"no small file system can be made: {done.stderr.strip()}")
    yield folder
    # The dispatcher of its store lives on and has files open there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(cluster: LocalCluster, tmp_path: Path) -> Iterator[Start]:
    """Starts a driver that runs a script with arguments."""
    started: list[subprocess.Popen[str]] = []

    def begin(script: str, *arguments: object) -> subprocess.Popen[str]:
        (tmp_path / "driver.py").write_text(script)
        (tmp_path / "ledger").touch()
        driver = subprocess.Popen(
            [sys.executable, "driver.py", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(driver)
        return driver

    yield begin
    for driver in started:
        driver.kill()
        driver.communicate()


def await_told(driver: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = driver.communicate(timeout=150)
    assert driver.returncode == 0, errors[-3000:]
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def check(store: Store, workflow_id: str) -> None:
    """Looks for faults, and for tasks that committed twice."""
    assert verify(store, workflow_id, deep=True).faults == ()
    frames = read_journal(store, workflow_id)
    events = [event for frame in frames for event in decode_all(frame.raw)]
    commits = [t for event in events if isinstance(event, TasksCommitted) for t in event.tasks]
    assert len(commits) == len(set(commits))


def test_on_a_full_disk_workflows_stop_with_a_clear_error_and_go_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, start: Start
) -> None:
    told = await_told(start(ON_A_FULL_DISK, small_disk, tmp_path / "ledger"))
    assert told["disk"] == "No space left on device"
    assert "No space left on device" in told["refused"]
    assert "resume" in told["refused"], "what to do"
    assert told["steps while full"] == told["steps a second later"] < 30, "it did not stop"
    assert told["result"] == [29, 29]
    assert told["first is the same"]
    assert told["refused later"] == 29
    assert told["large"][0] == "StorageUnavailableError"
    assert "No space left on device" in told["large"][1]
    assert told["large later"] == 500_000
    assert set(told["statuses"].values()) == {"SUCCESSFUL"}
    store = open_store(str(small_disk / "store"), create=False)
    for name in told["statuses"]:
        check(store, name)


def test_a_storage_that_is_away_or_slow_costs_time_and_nothing_else(
    storage_server: Callable[[str], StorageServer], tmp_path: Path, start: Start
) -> None:
    server = storage_server("s3")
    port = re.search(r"127\.0\.0\.1%3A(\d+)", server.template)
    assert port is not None
    with TcpProxy(int(port[1])).serving() as proxy:
        uri = server.uri(f"faults/{os.urandom(4).hex()}")
        ledger = tmp_path / "ledger"
        driver = start(AWAY_AND_SLOW, uri.replace(port[0], f"127.0.0.1%3A{proxy.port}"), ledger)
        await_lines(driver, ledger, 8)
        with proxy.away():
            time.sleep(AWAY_S)
        while not ledger.with_suffix(".slow").exists():
            assert driver.poll() is None, driver.communicate()[1][-3000:]
            time.sleep(0.02)
        proxy.delay_s = DELAY_S
        before = proxy.requests
        ledger.with_suffix(".go").touch()
        told = await_told(driver)
        proxy.delay_s = 0
        print(f"\n{told['seconds']:.1f} s for {proxy.requests - before} requests of {DELAY_S} s")
        assert told["away"] == [sum(range(40))] * 2 + [0, 0]
        assert told["slow"] == [sum(range(6))] * 2 + [0, 0]
        assert told["seconds"] > 4 * DELAY_S, "it was not slow"
        store = open_store(uri, create=False)
        check(store, "away")
        check(store, "slow")
        assert len(ledger.read_text().split()) == 46, "a task ran twice"


def await_lines(driver: subprocess.Popen[str], ledger: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while len(ledger.read_text().split()) < count:
        alive = driver.poll() is None and time.monotonic() < deadline
        assert alive, driver.communicate(timeout=5)[1]
        time.sleep(0.02)
