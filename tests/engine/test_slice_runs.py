"""What is in a slice while one of its tasks runs long, and what rides in it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from milepost.engine import executor, supply
from milepost.engine.messages import WorkerReport
from milepost.engine.payloads import INLINE_BYTES_MAX
from slice_bench import Bench, fail_with, gather, task

if TYPE_CHECKING:
    from tests.engine.conftest import Disk, Objects


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "describe_worker", lambda: "node:1")


@pytest.fixture
def bench(disk: Disk) -> Bench:
    return Bench(disk)


def test_while_a_task_runs_long_the_others_are_reported_or_handed_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long task ends only when the second thread has told what is with the others."""
    told: queue.Queue[WorkerReport] = queue.Queue()
    happened: list[Any] = []

    def run() -> None:
        happened.append(told.get(timeout=60) if len(happened) == 2 else "ran")

    def tell(report: WorkerReport) -> Callable[[], object]:
        told.put(report)
        return lambda: happened.append("arrived")

    monkeypatch.setattr(executor, "load_function", lambda function, source: run)
    order = bench.order(gather(*[task(lambda: None).bind() for _ in range(5)]), tuple(range(5)))
    (last,) = executor.SliceRun(order, [], ()).report(tell)
    *ran, aside, arrived = happened
    assert (ran, arrived) == (["ran"] * 2, "arrived"), "what was handed back ran all the same"
    assert (aside.tasks, aside.handed_back, aside.last) == ([0, 1], [(3, 2), (4, 2)], False)
    assert (last.tasks, last.handed_back, last.last) == ([2], [], True)


def test_riders_take_values_of_their_own_and_fall_off_with_what_they_ride_on(
    bench: Bench, objects: Objects
) -> None:
    def spoil(value: Any) -> Any:
        value[0] = -1
        return value

    small, large = task(lambda: [1, 2]).bind(), task(lambda: [7] * INLINE_BYTES_MAX).bind()
    failing = task(spoil).bind(fail_with(lambda: ValueError("no")).bind())
    spoilers = [task(spoil).bind(node) for node in (small, small, large)]
    outcome = bench.attempt(gather(*spoilers, failing, small), *range(7))
    assert set(outcome.values) | set(outcome.raised) == set(range(6)), "a rider ran without input"
    assert list(outcome.values.values()).count([-1, 2]) == 2
    assert [1, 2] in outcome.values.values()
