"""How long it takes to resume on a fresh cluster, by committed tasks: ``make bench-resume``.

A workflow of many finished tasks has one task left. Its cluster is killed with -9 and another one
started; what is measured is the time from the first call of Milepost there to the moment when the
last task runs. Ray's own start-up (the cluster, the driver's connection, a first worker) comes
before that and is shown beside. The row of one task is the fixed price: Milepost's actors.

Journals of up to ``--real-max`` tasks come from a workflow that really ran and was really killed,
and are measured a second time as made-up ones; larger journals are made up only, by the real
``decide``, ``apply`` and writer out of the same functions and options.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack
import psutil

from curve import draw_curve
from local_cluster import LocalCluster
from milepost.journal import LocalStore, MemoryStore, load_state, open_store, read_journal
from milepost.journal.layout import segments_folder
from milepost.replay.codec import decode_all
from milepost.replay.events import WorkflowCreated
from milepost.replay.fragment import Fragment
from milepost.replay.state import TaskState
from rehearsal import Rehearsal

WORKFLOW = "resumed"
SLICE_TASKS = 500
WAIT_S_MAX = 300
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: seconds, and bytes of memory of the process that folds the journal."""

    tasks: int
    how: str
    whole_s: float
    ray_s: float
    resume_s: float
    peak_bytes: int
    journal_bytes: int


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", type=int, help="by default 1 and 1e3 to 1e6")
    parser.add_argument("--real-max", type=int, default=10_000)
    parser.add_argument("--curve", type=Path, help="where to draw the curve, an SVG file")
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        _drive(given.drive[0], Path(given.drive[1]), int(given.drive[2]))
        return
    print(f"{'tasks':>9} {'how':<8}{'whole s':>9}{'Ray s':>8}{'resume s':>10}", end="")
    print(f"{'peak MB':>9}{'journal kB':>12}")
    rows = []
    for tasks in given.tasks or (1, 1_000, 10_000, 100_000, 1_000_000):
        for real in (True, False) if tasks <= given.real_max else (False,):
            rows.append(_measure(tasks, real=real))
            _show(rows[-1])
    if given.curve:
        points = [(row.tasks, row.resume_s) for row in rows if row.how == "made up"]
        given.curve.write_text(draw_curve(points, "committed tasks", "seconds to the next task"))


def _show(row: Row) -> None:
    print(
        f"{row.tasks:>9} {row.how:<8}{row.whole_s:>9.2f}{row.ray_s:>8.2f}{row.resume_s:>10.2f}"
        f"{row.peak_bytes / 1e6:>9.0f}{row.journal_bytes / 1e3:>12.1f}",
        flush=True,
    )


def _measure(tasks: int, *, real: bool) -> Row:
    folder = Path(tempfile.mkdtemp(prefix="milepost-bench-"))
    try:
        with LocalCluster(num_cpus=2) as cluster:
            _run_until_one_is_left(cluster, folder, tasks if real else 1)
            killed = time.time()
            cluster.kill()
        if not real:
            _make_up(folder, tasks)
            killed = time.time()
        (folder / "began").unlink()
        return _resume(folder, tasks, killed, "real" if real else "made up")
    finally:
        shutil.rmtree(folder)


def _run_until_one_is_left(cluster: LocalCluster, folder: Path, tasks: int) -> None:
    driver = _start_driver(cluster, "run", folder, tasks)
    try:
        _wait_for(folder / "began", driver)
        deadline = time.monotonic() + WAIT_S_MAX
        store = open_store(str(folder / "store"))
        while load_state(store, WORKFLOW).counts[TaskState.COMMITTED] < tasks:
            if time.monotonic() > deadline:
                raise TimeoutError("the tasks before the last one did not finish")
            time.sleep(0.2)
    finally:
        driver.kill()
        driver.wait()


def _make_up(folder: Path, tasks: int) -> None:
    """Replaces the workflow by one of the same functions with many finished tasks."""
    small = LocalStore(folder / "store")
    created = next(decode_all(next(iter(read_journal(small, WORKFLOW))).raw))
    assert isinstance(created, WorkflowCreated)
    memory = MemoryStore()
    told = Rehearsal(memory, WORKFLOW, seed=tasks)
    told.create(_widen(created.fragment, tasks), created.environment)
    told.run(tasks_per_slice=SLICE_TASKS, reports_max=-(-tasks // SLICE_TASKS))
    told.close()
    assert told.state.counts[TaskState.COMMITTED] == tasks, told.state.counts
    shutil.rmtree(folder / "store" / "workflows")
    for each in memory.list(""):
        small.put(each.key, [memory.get(each.key)])


def _widen(fragment: Fragment, tasks: int) -> Fragment:
    """Repeats the first of the three nodes (work, gate, join)."""
    inputs = [msgpack.ExtType(1, msgpack.packb(at)) for at in range(tasks + 1)]
    join = msgpack.packb([inputs, {}])

    def widened(column: tuple[int, ...]) -> tuple[int, ...]:
        return column[:1] * tasks + column[1:]

    return replace(
        fragment,
        templates=(*fragment.templates, join),
        node_names=widened(fragment.node_names),
        node_functions=widened(fragment.node_functions),
        node_options=widened(fragment.node_options),
        node_templates=(*widened(fragment.node_templates)[:-1], len(fragment.templates)),
        input_counts=(*[0] * (tasks + 1), tasks + 1),
        inputs=tuple(range(tasks + 1)),
    )


def _resume(folder: Path, tasks: int, killed: float, how: str) -> Row:
    listed = LocalStore(folder / "store").list(segments_folder(WORKFLOW))
    journal_bytes = sum(each.size for each in listed)
    with LocalCluster(num_cpus=2) as cluster:
        driver = _start_driver(cluster, "resume", folder, tasks)
        began = _wait_for(folder / "began", driver)
        peak_bytes = max(map(_peak_bytes, cluster.processes()))
        driver.kill()
        driver.wait()
        cluster.kill()
    called = float((folder / "called").read_text())
    return Row(
        tasks, how, began - killed, called - killed, began - called, peak_bytes, journal_bytes
    )


def _peak_bytes(process: psutil.Process) -> int:
    """Gives the largest memory that a dispatcher ever had; 0 for other processes."""
    with suppress(psutil.Error, OSError, IndexError):
        if process.cmdline()[0].startswith("ray::Dispatcher"):
            status = Path(f"/proc/{process.pid}/status").read_text()
            return 1024 * int(status.split("VmHWM:")[1].split()[0])
    return 0


def _wait_for(file: Path, driver: subprocess.Popen[bytes]) -> float:
    deadline = time.monotonic() + WAIT_S_MAX
    while not (file.exists() and (text := file.read_text()).endswith("\n")):
        if driver.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the last task did not start")
        time.sleep(POLL_S)
    return float(text.splitlines()[0])


def _start_driver(
    cluster: LocalCluster, what: str, folder: Path, tasks: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--drive", what, str(folder), str(tasks)]
    return subprocess.Popen(command, env={**os.environ, **cluster.environment})


def _drive(what: str, folder: Path, tasks: int) -> None:
    """Runs in a driver of its own, which is killed in the end."""
    import ray

    import milepost

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    tasks_of: Any = ray.remote
    work, gate, join = map(tasks_of, (_work, _gate, _join))
    ray.get(work.remote(0))  # the first worker is part of Ray's start-up
    if what == "resume":
        (folder / "called").write_text(str(time.time()))
    milepost.init(storage=str(folder / "store"), dispatchers=1)
    output: Any
    if what == "resume":
        output = milepost.resume_async(WORKFLOW)
    else:
        nodes = [work.bind(number) for number in range(tasks)]
        dag = join.bind(*nodes, gate.bind(str(folder)))
        output = milepost.run_async(dag, workflow_id=WORKFLOW)
    ray.get(output)


def _work(number: int) -> int:
    return number


def _gate(folder: str) -> None:
    """Says when it began, and stays until its cluster is killed."""
    import time
    from pathlib import Path

    with (Path(folder) / "began").open("a") as file:
        file.write(f"{time.time()}\n")
    time.sleep(3600)


def _join(*values: Any) -> int:
    return len(values)


if __name__ == "__main__":
    main()
