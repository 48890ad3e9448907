"""The commands that act, in processes of their own on a real cluster, and what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cluster import LocalCluster
from milepost.journal import open_history, open_store, read_status
from milepost.replay.events import OwnershipTaken, StatusChanged, WorkflowCreated
from milepost.replay.payload import unpack_plain

JOB = """
import os, time
import ray

@ray.remote
def add(a, b):
    return a + b

@ray.remote
def fragile(gate):
    if not os.path.exists(gate):
        raise ValueError("the gate is shut")
    return "through"

@ray.remote
def slow():
    time.sleep(3600)

dag = add.bind(add.bind(1, 2), 4)
stuck = slow.bind()

def make(gate):
    return fragile.options(max_retries=0).bind(gate)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acting")
    (folder / "job.py").write_text(JOB)
    open_store(folder / "store")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Iterator[Run]:
    with LocalCluster(num_cpus=2) as cluster:

        def start(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "milepost", "--storage", str(place / "store"), *arguments],
                env=cluster.environment,
                cwd=place,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=120,
            )

        yield start


def events(place: Path, workflow_id: str, kind: type) -> list[Any]:
    history = open_history(place / "store", workflow_id)
    return [entry.event for entry in history if isinstance(entry.event, kind)]


def test_a_dag_runs_and_its_output_can_be_asked_for_again(run: Run, place: Path) -> None:
    done = run("run", "job:dag", "--id", "sum", "--meta", "team=blue", "--why", "a test")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
    (created,) = events(place, "sum", WorkflowCreated)
    metadata: Any = unpack_plain(created.metadata.data)
    assert metadata | {"submitted_by": "x"} == {
        "team": "blue",
        "why": "a test",
        "submitted_by": "x",
    }
    assert "@" in metadata["submitted_by"]
    told = json.loads(run("output", "sum", "--json").stdout)
    assert told == {"workflow_id": "sum", "status": "SUCCESSFUL", "output": 7}
    assert run("status", "sum").stdout == "SUCCESSFUL\n"
    near = run("status", "sun")
    assert (near.returncode, "did you mean sum?" in near.stderr) == (4, True)


def test_a_failure_is_told_and_resumed_with_a_reason(run: Run, place: Path) -> None:
    gate = place / "gate"
    failed = run("run", "job:make", "--id", "gated", "--arg", json.dumps(str(gate)))
    assert failed.returncode == 1
    assert "the gate is shut" in failed.stderr
    assert run("status", "gated").stdout == "FAILED\n"
    gate.touch()
    resumed = run("resume", "gated", "--why", "the gate is open")
    assert (resumed.returncode, resumed.stdout) == (0, '"through"\n'), resumed.stderr
    reasons = [each.reason for each in events(place, "gated", OwnershipTaken)]
    asked = [each.who for each in events(place, "gated", StatusChanged)]
    assert any("the gate is open" in each for each in (*reasons, *asked))
    all_ = run("resume-all", "--json")
    assert (all_.returncode, all_.stdout) == (0, "")


def test_a_running_workflow_is_canceled_with_a_reason_and_deleted(run: Run, place: Path) -> None:
    started = json.loads(run("run", "job:stuck", "--id", "slow", "--no-wait", "--json").stdout)
    assert started["workflow_id"] == "slow"
    refused = run("delete", "slow", "--yes")
    assert refused.returncode == 2, "it runs"
    canceled = run("cancel", "slow", "--why", "it takes too long")
    assert canceled.returncode == 0, canceled.stderr
    last = events(place, "slow", StatusChanged)[-1]
    assert (last.status, "it takes too long" in last.who) == ("CANCELED", True)
    kept = run("delete", "slow", stdin="n\n")
    assert kept.returncode == 1
    assert read_status(open_store(place / "store"), "slow").status == "CANCELED"
    assert json.loads(run("delete", "slow", "--yes", "--json").stdout)["deleted"] is True
    assert run("status", "slow").returncode == 4


def test_what_cannot_be_run_is_said_in_words(run: Run) -> None:
    for target in ("job", "job:nothing", "nowhere:dag"):
        done = run("run", target)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
    assert run("run", "job:dag", "--arg", "{").returncode == 2
    assert run("run", "job:add", "--arg", "1", "--arg", "2").stdout == "3\n"
