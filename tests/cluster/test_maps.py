"""Maps on real clusters: killed in the middle and resumed; poison, slow items, time limits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from local_cluster import LocalCluster
from milepost.journal import load_state, open_store, read_journal, verify
from milepost.replay.codec import decode_all
from milepost.replay.events import ItemFailed, ItemsCommitted

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ITEMS = 20_000

JOB = """
import os, sys, ray, milepost

storage, ledger, what = sys.argv[1:]
ray.init(log_to_driver=False)
milepost.init(storage=storage)

@ray.remote(max_retries=0)
def work(number):
    with open(f"{ledger}/{os.getpid()}", "a") as file:
        file.write(f"{number}\\n")
    return 3 * number

@ray.remote
def add(values):
    return sum(values)

if what == "run":
    total = milepost.map(work, range(20_000)).reduce(add, arity=5000)
    print(milepost.run(total, workflow_id="map"))
else:
    print(milepost.resume("map"))
"""


def start(folder: Path, cluster: LocalCluster, what: str) -> subprocess.Popen[str]:
    (folder / "job.py").write_text(JOB)
    return subprocess.Popen(
        [sys.executable, "job.py", str(folder / "store"), str(folder / "ledger"), what],
        cwd=folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read_ledger(folder: Path) -> Counter[int]:
    """Returns how often each item ran, as the items themselves wrote it down."""
    files = (folder / "ledger").iterdir()
    return Counter(int(line) for file in files for line in file.read_text().splitlines())


def list_committed(store: Any, workflow_id: str) -> set[int]:
    """Returns the items of the first map that the journal holds."""
    return {
        item
        for frame in read_journal(store, workflow_id)
        for event in decode_all(frame.raw)
        if isinstance(event, ItemsCommitted) and event.task == 0
        for start, stop in zip(event.starts, event.stops, strict=True)
        for item in range(start, stop)
    }


def test_a_map_goes_on_on_a_fresh_cluster_and_no_committed_item_runs_again(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    with LocalCluster(num_cpus=2) as cluster:
        driver = start(tmp_path, cluster, "run")
        deadline = time.monotonic() + 90
        while read_ledger(tmp_path).total() < ITEMS // 4:
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(0.01)
        cluster.kill()
        driver.kill()
        driver.communicate()
    ran_before = read_ledger(tmp_path)
    store = open_store(tmp_path / "store", create=False)
    committed = list_committed(store, "map")
    assert 0 < len(committed) < ITEMS, "it was killed in the middle"
    with LocalCluster(num_cpus=2) as cluster:
        told = start(tmp_path, cluster, "resume").communicate(timeout=120)[0]
    assert told == f"{3 * sum(range(ITEMS))}\n"
    ran = read_ledger(tmp_path)
    assert set(ran) == set(range(ITEMS))
    again = [item for item in committed if ran[item] != ran_before[item]]
    assert again == [], "committed items ran again"
    assert verify(store, "map", deep=True).is_clean


@ray.remote(max_retries=1)
def die(number: int, poison: int) -> int:
    if number == poison:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_an_item_that_kills_its_worker_is_blamed_alone(storage: Path, workflow_id: str) -> None:
    poison = random.Random(workflow_id).randrange(500, 3000)
    deadly = die.options(**milepost.options(catch_exceptions=True))
    result = milepost.run(milepost.map(deadly, range(3000), poison=poison), workflow_id=workflow_id)
    wrong = [at for at, (value, error) in enumerate(result) if error or value != at]
    assert wrong == [poison]
    assert isinstance(result[poison][1], milepost.errors.TaskCrashedError)
    events = [
        event
        for frame in read_journal(open_store(storage, create=False), workflow_id)
        for event in decode_all(frame.raw)
        if isinstance(event, ItemFailed)
    ]
    assert [(event.item, event.final) for event in events] == [(poison, False), (poison, True)]


@ray.remote
def work(number: int, slow: int) -> float:
    if number == slow:
        time.sleep(5)
    return time.time()


def test_nothing_waits_for_a_slow_item(storage: Path, workflow_id: str) -> None:
    slow = random.Random(workflow_id).randrange(2000, 19_000)
    result = milepost.run(milepost.map(work, range(ITEMS), slow=slow), workflow_id=workflow_id)
    others = [ended for item, ended in enumerate(result) if item != slow]
    assert max(others) < result[slow] - 3, "others waited until the slow one had ended"
    state = load_state(open_store(storage, create=False), workflow_id)
    assert state.maps[0].attempts == {}, "what was handed back costs no attempt"


@ray.remote(max_retries=1, **milepost.options(timeout_s=1.0, catch_exceptions=True))
def hang(number: int) -> int:
    if number == 2:
        time.sleep(60)
    return number


def test_each_item_has_the_time_limit_of_the_function(storage: Path, workflow_id: str) -> None:
    result = milepost.run(milepost.map(hang, range(4)), workflow_id=workflow_id)
    assert [value for value, _ in result] == [0, 1, None, 3]
    assert "time limit" in str(result[2][1])


@ray.remote
def square(number: int) -> int:
    return number * number


def test_values_outlive_the_program_that_asked_for_them(storage: Path, workflow_id: str) -> None:
    milepost.run(milepost.map(square, range(1000)), workflow_id=workflow_id)
    again = milepost.get_output(workflow_id)
    assert again == [number * number for number in range(1000)]
    assert ray.get(ray.put(again)) == again
    one, two = (milepost.get_output(workflow_id, task_id=each) for each in _ids(workflow_id))
    assert one == two == again


def _ids(workflow_id: str) -> list[str]:
    (task,) = milepost.list_tasks(workflow_id)
    return [task["task_id"]] * 2


def test_items_behind_a_ref_are_those_of_now(storage: Path, workflow_id: str) -> None:
    ref = ray.put([3, 1, 2])
    assert milepost.run(milepost.map(square, ref), workflow_id=workflow_id) == [9, 1, 4]


def test_outside_of_a_workflow_a_map_is_plain_ray(storage: Path) -> None:
    @ray.remote
    def both(count: int) -> Any:
        return milepost.continuation(milepost.map(square, range(count)))

    assert ray.get(both.remote(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("durability", ["pipelined", "strict"])
def test_a_map_of_both_durabilities(storage: Path, workflow_id: str, durability: str) -> None:
    node = milepost.map(square, milepost.map(square, [1, 2, 3]))
    assert milepost.run(node, workflow_id=workflow_id, durability=durability) == [1, 16, 81]
