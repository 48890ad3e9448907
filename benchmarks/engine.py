"""Measures the engine on a local cluster, beside plain Ray: ``make bench-quick``.

Prints one table. Every figure is the median of ``--runs`` runs on a warm cluster; the time to bind
a graph is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import ray

import milepost

Run = Callable[[], float]


def do_nothing(*inputs: object) -> None:
    """Does nothing, with whatever it gets."""


def sleep(seconds: float) -> None:
    """Takes its time, without the processor."""
    time.sleep(seconds)


nothing: Any = ray.remote(do_nothing)
nap: Any = ray.remote(sleep)


def time_workflow(dag: Any, durability: str = "pipelined") -> float:
    """Returns how many seconds the workflow ``dag`` takes from submission to its result."""
    began = time.perf_counter()
    milepost.run(dag, durability=durability)
    return time.perf_counter() - began


def time_chain(length: int, durability: str) -> float:
    """Returns the seconds of a chain of tasks."""
    node = nothing.bind()
    for _ in range(length - 1):
        node = nothing.bind(node)
    return time_workflow(node, durability)


def time_plain_chain(length: int) -> float:
    """Returns the seconds of a chain in plain Ray."""
    began = time.perf_counter()
    ref = nothing.remote()
    for _ in range(length - 1):
        ref = nothing.remote(ref)
    ray.get(ref)
    return time.perf_counter() - began


def time_fan(width: int) -> float:
    """Returns the seconds of independent tasks and one that takes them all."""
    return time_workflow(nothing.bind(*[nothing.bind() for _ in range(width)]))


def time_plain_fan(width: int) -> float:
    """Returns the seconds of the same in plain Ray."""
    began = time.perf_counter()
    ray.get(nothing.remote(*[nothing.remote() for _ in range(width)]))
    return time.perf_counter() - began


def time_naps(count: int, seconds: float) -> float:
    """Returns the seconds of tasks that take long."""
    return time_workflow(nothing.bind(*[nap.bind(seconds) for _ in range(count)]))


def time_plain_naps(count: int, seconds: float) -> float:
    """Returns the seconds of the same in plain Ray."""
    began = time.perf_counter()
    ray.get([nap.remote(seconds) for _ in range(count)])
    return time.perf_counter() - began


ROWS: list[tuple[str, int, Run, Run]] = [
    (
        "chain of 500, pipelined",
        500,
        lambda: time_chain(500, "pipelined"),
        lambda: time_plain_chain(500),
    ),
    ("chain of 500, strict", 500, lambda: time_chain(500, "strict"), lambda: time_plain_chain(500)),
    (
        "10,000 no-ops and a join",
        10_001,
        lambda: time_fan(10_000),
        lambda: time_plain_fan(10_000),
    ),
    ("one task", 1, lambda: time_chain(1, "pipelined"), lambda: time_plain_chain(1)),
    (
        "64 tasks of 1 s on 2 CPUs",
        64,
        lambda: time_naps(64, 1.0),
        lambda: time_plain_naps(64, 1.0),
    ),
]


def measure(run: Run, runs: int) -> float:
    """Returns the median seconds of some runs, after one that is not counted."""
    run()
    return statistics.median(run() for _ in range(runs))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--skip-naps", action="store_true", help="leave out what takes minutes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
        milepost.init(storage=folder)
        print(f"{platform.machine()}, {os.cpu_count()} CPUs, Ray {ray.__version__}")
        print("| work | ours | per task | plain Ray | ours / plain Ray |")
        print("|---|---:|---:|---:|---:|")
        for name, tasks, ours, plain in ROWS:
            if given.skip_naps and "1 s" in name:
                continue
            runs = 1 if "1 s" in name else given.runs
            spent = time_naps(64, 1.0) if "1 s" in name else measure(ours, runs)
            peer = plain() if "1 s" in name else measure(plain, runs)
            print(
                f"| {name} | {spent:.3f} s | {spent / tasks * 1e3:.3f} ms "
                f"| {peer:.3f} s | {spent / peer:.2f} |",
                flush=True,
            )
        ray.shutdown()


if __name__ == "__main__":
    main()
