"""Parity with ray.workflow: what a driver is shown of its workflows, and how far they are."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_cluster import LocalCluster
from milepost.engine.progress import describe, is_watched

HEAD = """
import sys, time, ray, milepost
ray.init()
name = sys.argv[1]

@ray.remote(**milepost.options(task_id="f"))
def f(value=1):
    print(f"printed by {name} {value}")
    return value + 1

@ray.remote(**milepost.options(task_id="g"))
def g(value):
    return milepost.continuation(f.bind(value))

@ray.remote(**milepost.options(task_id="h"), max_retries=2, retry_exceptions=[ValueError])
def h():
    if milepost.current().attempt == 1:
        raise ValueError("no")
    raise KeyError("never")
"""
TAIL = "\ntime.sleep(3)  # so that the lines arrive\n"

Run = Callable[..., str]


@pytest.fixture(scope="module")
def talking() -> Iterator[LocalCluster]:
    """A cluster that shows drivers what their jobs write."""
    with LocalCluster(num_cpus=2, shows_logs=True) as started:
        yield started


@pytest.fixture
def run(talking: LocalCluster, tmp_path: Path) -> Run:
    """Runs a program in a driver of its own; returns what that shows."""

    def run(program: str, name: str, **environment: str) -> str:
        file = tmp_path / f"{name}.py"
        file.write_text(HEAD + textwrap.dedent(program) + TAIL)
        told = {"MILEPOST_STORAGE": str(tmp_path / "store"), **environment}
        done = subprocess.run(
            [sys.executable, str(file), name],
            env=talking.environment | told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def statuses(name: str, task: str) -> list[str]:
    return [f"Task status [{each}]\t[{name}@{task}]" for each in ("RUNNING", "SUCCESSFUL")]


@pytest.mark.parity("test_logging.py::test_basic_workflow_logs")
def test_a_driver_is_shown_its_workflow_and_what_its_tasks_print(run: Run) -> None:
    shown = run("milepost.run(f.bind(), workflow_id=name)", "basic")
    assert 'Workflow job created. [id="basic"' in shown
    for line in statuses("basic", "f"):
        assert line in shown
    assert "printed by basic 1" in shown
    assert "Workflow 'basic' completes successfully" in shown


@pytest.mark.parity("test_logging.py::test_chained_workflow_logs")
def test_each_task_of_a_chain_is_shown(run: Run) -> None:
    shown = run(
        "milepost.run(f.options(**milepost.options(task_id='e')).bind(f.bind()), workflow_id=name)",
        "chain",
    )
    for line in (*statuses("chain", "f"), *statuses("chain", "e")):
        assert line in shown


@pytest.mark.parity("test_logging.py::test_dynamic_workflow_logs")
def test_the_tasks_of_a_continuation_are_shown(run: Run) -> None:
    shown = run("milepost.run(g.bind(1), workflow_id=name)", "dynamic")
    for line in (*statuses("dynamic", "f"), *statuses("dynamic", "g")):
        assert line in shown


def test_failures_retries_and_resumes_are_shown(run: Run) -> None:
    program = """
    for act in (lambda: milepost.run(h.bind(), workflow_id=name), lambda: milepost.resume(name)):
        try:
            act()
        except milepost.WorkflowExecutionError:
            pass
    """
    shown = run(program, "failing")
    assert "due to an exception raised by the task (builtins.ValueError)" in shown
    assert "Retry [failing@h] (attempt 2)" in shown
    assert "Workflow 'failing' failed due to builtins.KeyError" in shown
    assert 'Resuming workflow [id="failing"]' in shown


def test_a_driver_is_not_shown_the_workflows_of_others(
    run: Run, talking: LocalCluster, tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.py"
    quiet.write_text(HEAD + "print('ready', flush=True)\nsys.stdin.readline()" + TAIL)
    with subprocess.Popen(
        [sys.executable, str(quiet), "quiet"],
        env=talking.environment | {"MILEPOST_STORAGE": str(tmp_path / "store")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as other:
        assert other.stdout is not None
        while "ready" not in other.stdout.readline():
            assert other.poll() is None
        run("milepost.run(f.bind(), workflow_id=name)", "loud")
        shown, _ = other.communicate("\n", timeout=60)
    assert "loud" not in shown


def test_a_bar_shows_how_far_a_workflow_is(run: Run) -> None:
    program = """
    @ray.remote(num_cpus=0)
    def nap(*_):
        time.sleep(4)
    milepost.run(nap.bind(f.bind()), workflow_id=name)
    """
    assert "1/2" in run(program, "watched", MILEPOST_PROGRESS="1")
    assert "1/2" not in run(program, "unwatched")


def test_a_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_watched()
    parent, child = pty.openpty()
    try:
        with os.fdopen(os.dup(child), "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            assert is_watched()
            monkeypatch.setenv("MILEPOST_PROGRESS", "0")
            assert not is_watched()
            monkeypatch.undo()
    finally:
        os.close(parent)
        os.close(child)


def test_a_bar_counts_what_is_done_and_names_the_rest() -> None:
    counts = {"COMMITTED": 3, "SCHEDULED": 2, "WAITING": 4, "DROPPED": 1, "FAILED": 0}
    assert describe({"status": "RUNNING", "tasks": counts}) == {
        "completed": 3,
        "total": 9,
        "state": "2 scheduled 4 waiting",
    }
    assert describe({"status": "PENDING", "tasks": {"READY": 1}})["state"] == "pending"
