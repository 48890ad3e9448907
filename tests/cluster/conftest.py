"""One cluster and one store, shared by the tests that do not kill it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray

import milepost
from local_cluster import LocalCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(num_cpus=2) as started:
        yield started


@pytest.fixture(scope="session")
def storage(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the store this process uses; the process is connected to the cluster."""
    folder = tmp_path_factory.mktemp("store")
    ray.init(address=cluster.address, log_to_driver=False)
    milepost.init(storage=str(folder))
    yield folder
    ray.shutdown()


@pytest.fixture
def workflow_id(request: pytest.FixtureRequest, storage: Path) -> str:
    """An id of the test's own."""
    return str(request.node.name)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A file outside the engine, to which tasks write what they do."""
    path = tmp_path / "ledger"
    path.touch()
    return path


@pytest.fixture
def run_driver(cluster: LocalCluster, tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a driver of its own that runs a script, connected by address alone."""

    def start(script: str) -> subprocess.Popen[str]:
        file = tmp_path / "driver.py"
        file.write_text(textwrap.dedent(script))
        return subprocess.Popen(
            [sys.executable, str(file)],
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    return start


@pytest.fixture
def kill_actor(cluster: LocalCluster) -> Callable[[str], int]:
    """Kills the processes of an actor class with SIGKILL; returns how many there were."""

    def kill(name: str) -> int:
        found = [each for each in cluster.processes() if is_actor(each, name)]
        for process in found:
            process.kill()
        return len(found)

    return kill


def is_actor(process: psutil.Process, name: str) -> bool:
    """Tells whether ``process`` runs the actor class ``name``, as Ray titles it."""
    try:
        return process.cmdline()[:1] == [f"ray::{name}"] or process.cmdline()[0].startswith(
            f"ray::{name}."
        )
    except (psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
        return False
