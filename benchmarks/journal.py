"""Measures the journal, without Ray: ``make bench-journal``.

Three tables: how long a flush takes until its events are durable, how many bytes a task takes, and
how long it takes to list many workflows. Everything is written by the real writer into a scratch
folder (``--folder`` names another disk than that of temporary files).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from milepost.journal import (
    LocalStore,
    MemoryStore,
    Store,
    list_summaries,
    open_store,
    read_journal,
)
from milepost.journal.catalog_codec import CATALOG_KEY
from milepost.replay.state import Status
from rehearsal import Rehearsal
from shapes import fan, make_environment, single

ROUNDS = 5
FLUSHES = 300
WRITERS = 4
REMOTE_WRITERS = 16


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="flush, bytes, list; all by default")
    parser.add_argument("--folder", help="where to make the scratch folder")
    parser.add_argument("--workflows", type=int, default=10_000)
    parser.add_argument("--storage", help="a URI: list there instead; what is made there stays")
    given = parser.parse_args()
    wanted = given.tables or ["flush", "bytes", "list"]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    if "flush" in wanted:
        print_flush_latency(given.folder)
    if "bytes" in wanted:
        print_bytes_per_task()
    if "list" in wanted and given.storage:
        print_remote_listing(given.storage, given.workflows)
    elif "list" in wanted:
        print_listing(given.folder, given.workflows)


@contextmanager
def scratch(folder: str | None) -> Iterator[LocalStore]:
    """Makes a store that is gone afterwards."""
    path = tempfile.mkdtemp(prefix="milepost-bench-", dir=folder)
    try:
        yield LocalStore(path)
    finally:
        shutil.rmtree(path)


def print_flush_latency(folder: str | None) -> None:
    """Prints how long a flush takes: encode, append, sync, look for newer claims."""
    print(f"{'tasks per flush':>15} {'median ms':>9} {'90 % ms':>9} {'tasks/s':>9}   local")
    for tasks in (1, 10, 100, 1000):
        with scratch(folder) as store:
            took = sorted(_time_flushes(store, tasks))
        middle = statistics.median(took)
        print(
            f"{tasks:15} {middle * 1000:9.2f} {took[len(took) * 9 // 10] * 1000:9.2f} "
            f"{tasks / middle:9.0f}"
        )
    print()


def _time_flushes(store: Store, tasks: int) -> list[float]:
    """Measures the flush alone; what it writes is made up before."""
    flushes = FLUSHES if tasks < 1000 else FLUSHES // 10
    told = _Timed(store, "flush", seed=1, workers=1)
    rng = random.Random(1)
    told.create(fan(rng, tasks * flushes), make_environment(rng))
    told.took.clear()
    told.run(tasks_per_slice=min(tasks, 500), reports_per_flush=max(1, tasks // 500))
    told.close()
    return told.took


class _Timed(Rehearsal):
    """Notes how long each flush takes."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they are
        self.took: list[float] = []

    def flush(self) -> None:
        """Makes the events so far durable, in one frame."""
        before = time.perf_counter()
        super().flush()
        self.took.append(time.perf_counter() - before)


def print_bytes_per_task() -> None:
    """Prints what a no-op task takes, scheduled and committed, the heads of frames included."""
    print(f"{'how tasks travel':>34} {'bytes per task':>14}")
    for name, tasks, reports_per_flush, tasks_per_slice in (
        ("alone, a flush each", 1500, 1, 1),
        ("10 slices of one in a flush", 1500, 10, 1),
        ("100 slices of one in a flush", 1500, 100, 1),
        ("a slice of 10 in a flush", 1500, 1, 10),
        ("a slice of 100 in a flush", 3000, 1, 100),
        ("two slices of 500 in a flush", 20_000, 2, 500),
    ):
        store, rng = MemoryStore(), random.Random(1)
        told = Rehearsal(store, "bytes", seed=1, workers=1)
        told.create(fan(rng, tasks), make_environment(rng))
        told.run(reports_per_flush=reports_per_flush, tasks_per_slice=tasks_per_slice)
        told.close()
        frames = list(read_journal(store, "bytes"))[3:-2]
        stored = sum(frame.end - frame.offset for frame in frames)
        print(f"{name:>34} {stored / (len(frames) * reports_per_flush * tasks_per_slice):14.1f}")
    print()


def print_listing(folder: str | None, workflows: int) -> None:
    """Prints how long it takes to list many workflows."""
    with scratch(folder) as store:
        took = _time(lambda: _make_workflows(store, workflows))
        print(f"made {workflows} workflows of one task in {took:.0f} s\n")
        title = f"listing of {workflows} workflows"
        print(f"{title:>40} {'median s':>9} {'of it CPU':>9}")
        _print_median("no catalog: every journal is read", lambda: _forget_and_list(store), 3)
        _print_median("nothing changed", lambda: list_summaries(store), ROUNDS)
        for number in range(30):
            _make_workflow(store, f"late-{number}")
        _print_median("30 changed, not yet in the catalog", lambda: list_summaries(store), ROUNDS)
    print()


def print_remote_listing(uri: str, workflows: int) -> None:
    """Prints how long a listing takes in a bucket, which gets a copy of workflows and catalog."""
    memory, store = MemoryStore(appendable=False), open_store(uri)
    _make_workflows(memory, workflows)
    list_summaries(memory)  # writes the catalog: names and sizes are the same in both places
    with ThreadPoolExecutor(REMOTE_WRITERS) as writers:
        copy = partial(_copy_object, memory, store)
        list(writers.map(copy, [each.key for each in memory.list("")]))
    print(f"{f'listing of {workflows} workflows':>40} {'median s':>9} {'of it CPU':>9}")
    _print_median("nothing changed", lambda: list_summaries(store), ROUNDS)
    ended = partial(list_summaries, store, statuses=[Status.SUCCESSFUL], newest_first=True)
    _print_median("those that ended, newest first", ended, ROUNDS)


def _copy_object(source: Store, target: Store, key: str) -> None:
    target.put(key, [source.get(key)])


def _print_median(name: str, action: Callable[[], object], rounds: int) -> None:
    """CPU time says more than the clock where others use the machine, too."""
    took, used = [], []
    for _ in range(rounds):
        before = time.process_time()
        took.append(_time(action))
        used.append(time.process_time() - before)
    print(f"{name:>40} {statistics.median(took):9.2f} {statistics.median(used):9.2f}")


def _time(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def _forget_and_list(store: Store) -> None:
    store.delete([CATALOG_KEY])
    list_summaries(store)


def _make_workflows(store: Store, count: int) -> None:
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda number: _make_workflow(store, f"run-{number:06d}"), range(count)))


def _make_workflow(store: Store, workflow_id: str) -> None:
    told = Rehearsal(store, workflow_id, seed=1)
    rng = random.Random(workflow_id)
    told.create(single(rng), make_environment(rng))
    told.run()
    told.close()


if __name__ == "__main__":
    main()
