"""A test cluster dies whole, alone, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

import local_cluster
from local_cluster import MARK, LocalCluster

DRIVER = """
import subprocess, sys, ray
ray.init(log_to_driver=False)

@ray.remote
def hide():
    # a process that leaves the session, as a user's own daemon would
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return child.pid

@ray.remote(num_cpus=0)
class Detached:
    def ready(self):
        return True

actor = Detached.options(name="kept", namespace="test", lifetime="detached").remote()
ray.get(actor.ready.remote())
print(ray.get(hide.remote()), flush=True)
sys.stdin.read()
"""


@contextmanager
def busy(cluster: LocalCluster) -> Iterator[int]:
    """Give a cluster a driver, an actor and a process that hides; yields that one's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env=os.environ | cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as driver:
        try:
            assert driver.stdout is not None
            yield int(driver.stdout.readline())
        finally:
            driver.kill()


def marked() -> set[int]:
    """Find every living process of any cluster that this test process started."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and MARK in process.environ():
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_killing_a_cluster_leaves_no_process_and_no_other_cluster_notices() -> None:
    with LocalCluster() as first, LocalCluster() as second, busy(first) as one, busy(second) as two:
        mine = {process.pid for process in first.processes()}
        others = {process.pid for process in second.processes()}
        assert one in mine
        assert two in others
        assert mine.isdisjoint(others)

        assert first.kill() >= len(mine)
        assert first.processes() == []
        assert marked().isdisjoint(mine)
        assert {process.pid for process in second.processes()} >= others

        assert first.kill() == 0
        with pytest.raises(RuntimeError, match="started before"):
            first.start()


def test_a_stopped_cluster_leaves_no_folder_and_can_start_again() -> None:
    cluster = LocalCluster(num_cpus=1)
    for _ in range(2):
        cluster.start()
        folder, processes = cluster.folder, {process.pid for process in cluster.processes()}
        assert folder is not None
        cluster.stop()
        assert not folder.exists()
        assert marked().isdisjoint(processes)


def test_a_cluster_that_cannot_start_says_what_ray_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_cluster, "START_ATTEMPTS_MAX", 1)
    cluster = LocalCluster(num_cpus=-1)
    with pytest.raises(RuntimeError, match="Resource quantities must be nonnegative"):
        cluster.start()
    assert cluster.folder is None
    assert cluster.processes() == []
