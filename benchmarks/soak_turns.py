"""What workflows go through in the soak: each turn runs one, and knows how it must end.

A lane is a thread with ids of its own, so that what it knows of them is exact.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

import milepost
from milepost import errors

POOL = 48
"""Ids of a lane that are used again and again; all others are used once."""

KEPT = 60
"""Ended workflows of a lane with ids of their own; older ones are deleted."""

LARGE_BYTES = 300_000
WIDTH = 40


def _add(*numbers: int) -> int:
    return sum(numbers)


def _count_down(number: int) -> Any:
    return milepost.continuation(count_down.bind(number - 1)) if number else 0


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def _require(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(path.name)
    return path.name


def _die_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        os._exit(1)
    return path.name


def _make_large(seed: int) -> bytes:
    return random.Random(seed).randbytes(LARGE_BYTES)


def _measure(value: bytes) -> int:
    return len(value)


# Ray's stubs know neither variadic tasks nor what bind returns.
add: Any = ray.remote(_add)
count_down: Any = ray.remote(_count_down)
wait_for: Any = ray.remote(_wait_for)
require: Any = ray.remote(_require)
die_once: Any = ray.remote(_die_once)
make_large: Any = ray.remote(_make_large)
measure: Any = ray.remote(_measure)


class Lane:
    """One thread's share of the load.

    Attributes:
        known: The workflows that are stored now, with the status that each must have.
        deleted: Ids that were used once and deleted.
        turns: How many workflows went through what.
    """

    def __init__(self, number: int, seed: int, folder: Path) -> None:
        self.known: dict[str, milepost.WorkflowStatus] = {}
        self.deleted: set[str] = set()
        self.turns: Counter[str] = Counter()
        self._number = number
        self._random = random.Random(f"{seed} {number}")
        self._folder = folder
        self._used = 0
        self._once: deque[str] = deque()
        self._turns: dict[Callable[[str], None], int] = {
            self._add: 40,
            self._fan_out: 10,
            self._continue: 10,
            self._fail: 8,
            self._resume: 10,
            self._pass_large: 8,
            self._return_large: 6,
            self._crash: 1,
            self._cancel: 1,
        }

    def take_turn(self) -> None:
        """Runs one workflow through something."""
        workflow_id = self._choose_id()
        (turn,) = self._random.choices(list(self._turns), list(self._turns.values()))
        turn(workflow_id)
        self.turns[turn.__name__.strip("_").replace("_", " ")] += 1
        if len(self._once) > KEPT:
            self._delete(self._once.popleft())

    def _choose_id(self) -> str:
        """Gives an id that nothing is stored under."""
        if self._random.random() < 0.5:
            self._used += 1
            self._once.append(f"{self._number}/once {self._used}")
            return self._once[-1]
        workflow_id = f"{self._number}/again {self._random.randrange(POOL)}"
        if workflow_id in self.known:
            if self.known[workflow_id] is milepost.SUCCESSFUL and self._random.random() < 0.3:
                milepost.get_output(workflow_id)
                milepost.resume(workflow_id)
            self._delete(workflow_id)
        return workflow_id

    def _delete(self, workflow_id: str) -> None:
        milepost.delete(workflow_id)
        del self.known[workflow_id]
        if "once" in workflow_id:
            self.deleted.add(workflow_id)
        self.turns["delete"] += 1

    def _run(self, workflow_id: str, dag: Any, expected: object) -> None:
        result = milepost.run(dag, workflow_id=workflow_id)
        _require_equal(workflow_id, result, expected)
        self.known[workflow_id] = milepost.SUCCESSFUL

    def _add(self, workflow_id: str) -> None:
        numbers = [self._random.randrange(1000) for _ in range(3)]
        dag = add.bind(*[add.bind(number, 1) for number in numbers])
        self._run(workflow_id, dag, sum(numbers) + 3)

    def _fan_out(self, workflow_id: str) -> None:
        dag = add.bind(*[add.bind(number) for number in range(WIDTH)])
        self._run(workflow_id, dag, sum(range(WIDTH)))

    def _continue(self, workflow_id: str) -> None:
        self._run(workflow_id, count_down.bind(self._random.randrange(1, 5)), 0)

    def _pass_large(self, workflow_id: str) -> None:
        self._run(workflow_id, measure.bind(make_large.bind(self._used)), LARGE_BYTES)

    def _return_large(self, workflow_id: str) -> None:
        self._run(workflow_id, make_large.bind(self._used), _make_large(self._used))

    def _crash(self, workflow_id: str) -> None:
        path = self._folder / f"crash {time.time_ns()}"
        self._run(workflow_id, die_once.bind(path), path.name)
        path.unlink()

    def _fail(self, workflow_id: str) -> None:
        self._expect_failure(workflow_id, self._folder / "nowhere")

    def _resume(self, workflow_id: str) -> None:
        path = self._folder / f"mended {time.time_ns()}"
        self._expect_failure(workflow_id, path)
        path.touch()
        _require_equal(workflow_id, milepost.resume(workflow_id), path.name)
        self.known[workflow_id] = milepost.SUCCESSFUL
        path.unlink()

    def _expect_failure(self, workflow_id: str, path: Path) -> None:
        try:
            milepost.run(require.bind(path), workflow_id=workflow_id)
        except errors.WorkflowExecutionError as error:
            _require_equal(workflow_id, str(error.__cause__), path.name)
            self.known[workflow_id] = milepost.FAILED
        else:
            raise AssertionError(f"{workflow_id} did not fail")

    def _cancel(self, workflow_id: str) -> None:
        ref = milepost.run_async(wait_for.bind(self._folder / "nowhere"), workflow_id=workflow_id)
        milepost.cancel(workflow_id)
        self.known[workflow_id] = milepost.CANCELED
        try:
            ray.get(ref)
        except errors.WorkflowCancellationError:
            return
        raise AssertionError(f"{workflow_id} has a result")


def _require_equal(workflow_id: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{workflow_id} gave {found!r:.100}, not {expected!r:.100}")
