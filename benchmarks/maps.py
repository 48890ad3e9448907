"""Measures maps of no-ops on a local cluster: ``python benchmarks/maps.py``.

For each width it prints the items per second, the time of the last tenth of the items over that of
the first (by when their commits began), the most memory that manager, dispatchers and driver held
together, and what is left in the store: bytes of journal per item, and files. The cluster is warm.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import ray

import milepost
from milepost.journal import encode_workflow_id, open_store, read_journal
from milepost.replay.codec import decode_all
from milepost.replay.events import ItemsCommitted

MIB = 2**20
SAMPLE_S = 0.05
PARTS = ("Dispatcher", "Manager")


def do_nothing(item: object) -> None:
    """Does nothing, with whatever it gets."""


nothing: Any = ray.remote(do_nothing)


class MemoryWatch:
    """The most memory that this process and the engine's actors held together, in bytes."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        processes = [psutil.Process(), *_find_actors()]
        while not self._over.wait(SAMPLE_S):
            self.most = max(self.most, sum(each.memory_info().rss for each in processes))


def _find_actors() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if title.startswith(tuple(f"ray::{part}" for part in PARTS)):
            found.append(process)
    return found


def compare_tenths(store: Any, workflow_id: str, width: int) -> float:
    """Returns how much longer the last tenth of the items took to commit than the first."""
    spans: list[tuple[int, int]] = []
    for frame in read_journal(store, workflow_id):
        for event in decode_all(frame.raw):
            if isinstance(event, ItemsCommitted):
                count = sum(event.stops) - sum(event.starts)
                spans.append((event.started_us + event.duration_us, count))
    spans.sort()
    began, done, marks = spans[0][0], 0, [spans[0][0]]
    for at_us, count in spans:
        done += count
        if done * 10 >= width * len(marks):
            marks.append(at_us)
    first, last = marks[1] - began, marks[-1] - marks[-2]
    return last / first if first else float("nan")


def count_stored(folder: Path, workflow_id: str) -> tuple[int, int]:
    """Returns the bytes and the number of files of a workflow that has ended."""
    name = encode_workflow_id(workflow_id)
    places = (folder / "workflows" / name, folder / "blobs" / name)
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files), len(files)


def measure(folder: Path, width: int, runs: int) -> None:
    """Prints one row."""
    store = open_store(folder, create=False)
    seconds, ratios, memory, stored = [], [], 0, (0, 0)
    for _ in range(runs):
        workflow_id = uuid.uuid4().hex
        with MemoryWatch() as watch:
            began = time.perf_counter()
            result = milepost.run(milepost.map(nothing, range(width)), workflow_id=workflow_id)
            seconds.append(time.perf_counter() - began)
        assert len(result) == width
        time.sleep(1.0)  # the journal is made one object after the result is told
        memory = max(memory, watch.most)
        ratios.append(compare_tenths(store, workflow_id, width))
        stored = count_stored(folder, workflow_id)
    spent = statistics.median(seconds)
    size, files = stored
    print(
        f"| {width:,} | {spent:.2f} s | {width / spent:,.0f} | {statistics.median(ratios):.2f} "
        f"| {memory / MIB:.0f} MiB | {size / width:.2f} | {files} |",
        flush=True,
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
        milepost.init(storage=name)
        milepost.run(milepost.map(nothing, range(20_000)))
        print(f"{platform.machine()}, {os.cpu_count()} CPUs, Ray {ray.__version__}")
        print("| items | time | items/s | last / first tenth | memory | bytes/item | files |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for width in given.widths:
            measure(Path(name), width, given.runs)
        ray.shutdown()


if __name__ == "__main__":
    main()
