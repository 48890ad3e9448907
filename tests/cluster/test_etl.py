"""The example with Ray Data loses its cluster in the middle, and goes on from the stored blocks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import local_cluster
from local_cluster import LocalCluster
from milepost.errors import WorkflowNotFoundError
from milepost.journal import load_state, open_store

EXAMPLE = Path(local_cluster.__file__).with_name("parquet_etl.py")
WORKFLOW_ID = "standard-library-to-parquet"


def start(folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    storage = {"MILEPOST_STORAGE": str(folder / "store")}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(folder / "parquet")],
        env=os.environ | environment | storage,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finished(folder: Path) -> set[str]:
    """The names of the tasks whose results are stored."""
    try:
        state = load_state(open_store(str(folder / "store")), WORKFLOW_ID)
    except WorkflowNotFoundError:
        return set()
    done = [task for task, result in enumerate(state.results) if result is not None]
    return {state.graph.task_id(task).rpartition(".")[2] for task in done}


def test_a_dataset_survives_the_cluster_that_made_it(tmp_path: Path) -> None:
    with LocalCluster(num_cpus=2) as first:
        driver = start(tmp_path, first.environment)
        deadline = time.monotonic() + 90
        while "combine" not in finished(tmp_path):
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.kill()
        driver.kill()
        driver.communicate()
    before = finished(tmp_path)
    assert {"combine"} <= before
    with LocalCluster(num_cpus=2) as second:
        driver = start(tmp_path, second.environment)
        told = driver.communicate(timeout=120)[0].split()
    counts = dict(zip(told[::2], (int(each.replace(",", "")) for each in told[1::2]), strict=True))
    assert counts["functions"] > counts["public"] > counts["long"] > 100
    assert 0 < counts["documented"] < counts["functions"]
    state = load_state(open_store(str(tmp_path / "store"), create=False), WORKFLOW_ID)
    assert state.epoch == 2
