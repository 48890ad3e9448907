"""A long run under load, with an eye on what must not grow: ``make soak MINUTES=10``.

Thousands of small workflows run, fail, are resumed, canceled and deleted, and their ids are used
again, on one real cluster. Every few seconds the memory, file handles, threads and Python objects
of Milepost's processes are looked at. The table at the end gives what each of them grows by per
1,000 workflows: the slope of a line through what was seen after a third of the time. Afterwards the
storage must hold exactly what the program knows. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from local_cluster import LocalCluster

if TYPE_CHECKING:  # Ray is imported when its cluster is known
    from soak_turns import Lane

LANES = 6
SAMPLE_S = 3.0
COUNT_EVERY = 5
JUDGED_MIN = 3_000
"""Workflows after the first third; over fewer, pools that fill up look like leaks."""

WARM_UP = 1 / 3
IDLE_S_MAX = 60.0
FAULTS_SHOWN = 20

LIMITS = {"USS MB": 1.0, "handles": 1.0, "threads": 1.0, "objects": 500.0}
"""What a process may grow by per 1,000 workflows. A leak of one handle, thread or small object per
workflow is a thousand times (of an object, twice) as much; noise of a short run is not."""

SHOWN = ("RSS MB", *LIMITS)
OURS = {"ray::Manager": "manager", "ray::Dispatcher": "dispatcher"}
RAYS = {"raylet": "Ray's raylet", "gcs_server": "Ray's GCS"}


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        workflows: How many had been run by then.
        seen: Numbers by process and measure.
    """

    workflows: int
    seen: dict[tuple[str, str], float]


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--trace", action="store_true", help="show where a dispatcher's memory went"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="milepost-soak-") as folder, LocalCluster() as cluster:
        os.environ.update(cluster.environment)
        import ray

        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        try:
            return _soak(cluster, Path(folder), given.minutes * 60, given.seed, trace=given.trace)
        finally:
            ray.shutdown()


def _soak(cluster: LocalCluster, folder: Path, seconds: float, seed: int, *, trace: bool) -> int:
    import milepost
    from milepost.engine.session import connect
    from soak_turns import Lane

    milepost.init(storage=str(folder / "store"))
    session = connect()
    actors = {"manager": session.manager}
    actors |= {f"dispatcher {at}": each for at, each in enumerate(session.dispatchers)}
    lanes = [Lane(number, seed, folder) for number in range(LANES)]
    watch = _Watch(cluster, actors, lanes)
    faults = _run(lanes, watch, seconds, session.dispatchers[0] if trace else None)
    _print_turns(lanes, seconds)
    faults += [*_judge(watch.samples), *_check_storage(folder / "store", lanes, session)]
    print("\n".join(faults[:FAULTS_SHOWN]) if faults else "nothing is wrong")
    return 1 if faults else 0


def _run(lanes: Sequence[Lane], watch: _Watch, seconds: float, traced: Any) -> list[str]:
    """Keeps all lanes busy; returns what went wrong."""
    import ray

    faults: list[str] = []
    over = time.monotonic() + seconds

    def follow(lane: Lane) -> None:
        try:
            while time.monotonic() < over and not faults:
                lane.take_turn()
        except Exception as error:  # noqa: BLE001  whatever it is, the run is over
            faults.append(f"a turn failed: {error!r}")

    threads = [threading.Thread(target=follow, args=[lane]) for lane in lanes]
    for thread in threads:
        thread.start()
    tracing = False
    while any(thread.is_alive() for thread in threads):
        if traced is not None and not tracing and time.monotonic() > over - (1 - WARM_UP) * seconds:
            tracing = bool(ray.get(traced.__ray_call__.remote(_start_trace)))
        watch.look()
        time.sleep(SAMPLE_S)
    if tracing:
        print("\n".join(ray.get(traced.__ray_call__.remote(_end_trace))))
    return faults


def _start_trace(actor: object) -> bool:
    tracemalloc.start(8)
    return True


def _end_trace(actor: object) -> list[str]:
    gc.collect()
    taken = tracemalloc.take_snapshot()
    return [
        f"{each.size / 1e6:.2f} MB in {each.count}: " + " < ".join(each.traceback.format()[::-2])
        for each in taken.statistics("traceback")[:12]
    ]


class _Watch:
    """Looks at Milepost's processes, and at Ray's, from time to time."""

    def __init__(
        self, cluster: LocalCluster, actors: dict[str, Any], lanes: Sequence[Lane]
    ) -> None:
        self.samples: list[Sample] = []
        self._actors = actors
        self._lanes = lanes
        self._processes = dict(_find_processes(cluster, len(actors) - 1))

    def look(self) -> None:
        """Takes a sample; one in five counts Python's objects, too, without garbage."""
        import ray

        seen: dict[tuple[str, str], float] = {}
        for name, process in self._processes.items():
            memory = process.memory_full_info()
            seen[name, "RSS MB"], seen[name, "USS MB"] = memory.rss / 1e6, memory.uss / 1e6
            seen[name, "handles"] = process.num_fds()
            seen[name, "threads"] = process.num_threads()
        if len(self.samples) % COUNT_EVERY == 0:
            for name, actor in self._actors.items():
                seen[name, "objects"] = ray.get(actor.__ray_call__.remote(_count_objects))
            seen["driver", "objects"] = _count_objects()
        self.samples.append(Sample(_count_workflows(self._lanes), seen))


def _find_processes(
    cluster: LocalCluster, dispatchers: int
) -> Iterator[tuple[str, psutil.Process]]:
    yield "driver", psutil.Process()
    seen: Counter[str] = Counter()
    for process in sorted(cluster.processes(), key=lambda each: each.pid):
        with suppress(psutil.Error, IndexError):
            title = process.cmdline()[0]
            ours = OURS.get(title.split(".")[0])
            if ours:
                yield f"{ours} {seen[ours]}" if ours == "dispatcher" else ours, process
                seen[ours] += 1
            elif Path(title).name in RAYS:
                yield RAYS[Path(title).name], process
    if seen != {"manager": 1, "dispatcher": dispatchers}:
        raise RuntimeError(f"these processes were found: {dict(seen)}")


def _count_objects(actor: object = None) -> int:
    gc.collect()
    return len(gc.get_objects())


def _count_workflows(lanes: Sequence[Lane]) -> int:
    return sum(lane.turns.total() - lane.turns["delete"] for lane in lanes)


def _print_turns(lanes: Sequence[Lane], seconds: float) -> None:
    turns = sum((lane.turns for lane in lanes), Counter[str]())
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs; {_count_workflows(lanes):,} workflows",
        end="",
    )
    print(
        f" in {seconds:.0f} s: " + ", ".join(f"{n:,} {turn}" for turn, n in sorted(turns.items()))
    )


def _judge(samples: Sequence[Sample]) -> Iterator[str]:
    """Prints the table; gives what grows."""
    late = samples[int(len(samples) * WARM_UP) :]
    across = late[-1].workflows - late[0].workflows if late else 0
    if len(late) < 3 * COUNT_EVERY or not across:
        yield "NOT SEEN: it was too short for a line"
        return
    if across < JUDGED_MIN:
        print(f"too short to judge: {across} workflows in the last two thirds, not {JUDGED_MIN}")
    print("| process | measure | at first | after a third | at the end | per 1,000 workflows |")
    print("|---|---|---:|---:|---:|---:|")
    for name in dict.fromkeys(name for name, _ in samples[0].seen):
        for measure in SHOWN:
            if (name, measure) not in samples[0].seen:
                continue
            seen = [each for each in late if (name, measure) in each.seen]
            values = [sample.seen[name, measure] for sample in seen]
            slope = 1000 * _slope([sample.workflows for sample in seen], values)
            first, unit = samples[0].seen[name, measure], ".1f" if measure[-2:] == "MB" else ",.0f"
            row = " | ".join(format(value, unit) for value in (first, values[0], values[-1]))
            print(f"| {name} | {measure} | {row} | {slope:+.3f} |")
            judged = name not in RAYS.values() and across >= JUDGED_MIN
            if judged and slope > LIMITS.get(measure, float("inf")):
                yield f"NOT FLAT: {measure} of the {name} grows by {slope:.2f} per 1,000 workflows"


def _slope(across: Sequence[float], up: Sequence[float]) -> float:
    return statistics.linear_regression(across, up).slope


def _check_storage(store_folder: Path, lanes: Sequence[Lane], session: Any) -> Iterator[str]:
    """Compares what is stored with what the lanes know; gives what differs."""
    import milepost
    from milepost.journal import open_store, verify_all

    known: dict[str, str] = {}
    for lane in lanes:
        known |= {workflow_id: status.value for workflow_id, status in lane.known.items()}
    yield from _await_idle(session)
    listed = {workflow_id: status.value for workflow_id, status in milepost.list_all()}
    yield from _compare("list_all", listed, known)
    yield from _compare("milepost ls", dict(_list_by_command(store_folder)), known)
    store = open_store(str(store_folder), create=False)
    for verification in verify_all(store, deep=True):
        for each in verification.findings:
            if not each.key.endswith(".tombstone"):  # those of used ids stay, by design
                yield f"{each.kind}: {each.key}: {each.reason}"
    left = Counter(each.key.split("/")[1] for each in store.list("workflows/"))
    yield from _check_deleted(left, {each for lane in lanes for each in lane.deleted})
    print(f"{len(known)} workflows are stored, {left.total()} objects in all", end="")
    print(f"; {sum(len(lane.deleted) for lane in lanes)} ids were used once and deleted")


def _await_idle(session: Any) -> Iterator[str]:
    """Returns when no dispatcher hosts anything and Ray holds no value of ours."""
    import ray

    deadline = time.monotonic() + IDLE_S_MAX
    while True:
        live = [each for actor in session.dispatchers for each in ray.get(actor.live.remote())]
        if not live:
            return
        if time.monotonic() > deadline:
            yield f"still hosted: {live}"
            return
        time.sleep(0.2)


def _compare(who: str, told: dict[str, str], known: dict[str, str]) -> Iterator[str]:
    for workflow_id in sorted(told.keys() | known.keys()):
        if told.get(workflow_id) != known.get(workflow_id):
            told_status, status = told.get(workflow_id), known.get(workflow_id)
            yield f"{who} tells {told_status} of {workflow_id!r}, which is {status}"


def _list_by_command(store_folder: Path) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "milepost", "--storage", str(store_folder), "ls", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        yield row["workflow_id"], row["status"]


def _check_deleted(left: Counter[str], deleted: set[str]) -> Iterator[str]:
    """Of a deleted workflow its newest claim and its tombstone stay, by design."""
    from milepost.journal.layout import encode_workflow_id

    for workflow_id in sorted(deleted):
        objects = left[encode_workflow_id(workflow_id)]
        if objects != 2:
            yield f"{objects} objects are left of {workflow_id!r}, which was deleted"


if __name__ == "__main__":
    sys.exit(main())
