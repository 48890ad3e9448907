"""No step is quadratic, and a task costs a small constant of memory.

Work is counted in executed lines of ``milepost.replay``, not in seconds: twice the tasks must take
about twice the lines. What runs inside built-in functions is not counted; for that, the graphs of
the last tests are so large that something quadratic would never come to its end.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

import milepost.replay
from milepost.replay.codec import decode, encode
from milepost.replay.decide import RunSlice, decide
from milepost.replay.fold import apply, fold
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Input, SliceLost, SliceReported
from milepost.replay.invariants import check
from milepost.replay.state import State, Status

if TYPE_CHECKING:
    from tests.replay.conftest import Build

REPLAY = str(Path(milepost.replay.__file__).parent)


class Host:
    """The least that can host a workflow: a list of slices to run, each reported as a whole."""

    def __init__(self, build: Build, fragment: Fragment) -> None:
        self.build = build
        self.state = fold(build.started(fragment))
        self.slices: list[RunSlice] = []

    def feed(self, happened: Input) -> None:
        if isinstance(happened, SliceReported | SliceLost):
            happened = replace(happened, epoch=self.state.epoch)
        decision = decide(self.state, happened)
        for event in decision.append:
            apply(self.state, decode(encode(event)))
        self.slices += [effect for effect in decision.effects if isinstance(effect, RunSlice)]

    def want(self, slices_max: int = 4) -> None:
        costs = dict.fromkeys(range(8), 1.0)
        self.feed(self.build.wanted(slices_max, slice_us=1000, costs_us=costs))

    def finish(self) -> None:
        """Runs everything to its result; work is wanted after every report, as a host does."""
        self.want()
        while self.slices:
            effect = self.slices.pop()
            self.feed(self.build.report(effect.slice, *effect.tasks, attempt=effect.attempts[0]))
            self.want()
        assert self.state.status is Status.SUCCESSFUL


def count_lines(run: Callable[[], object]) -> int:
    """Returns how many lines of the package ``run`` executes."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace if frame.f_code.co_filename.startswith(REPLAY) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def fan(build: Build, size: int) -> None:
    Host(build, build.fan(size)).finish()


def chain(build: Build, size: int) -> None:
    Host(build, build.chain(size)).finish()


def layers(build: Build, size: int) -> None:
    """Every node takes the eight before it, some of them twice."""
    inputs = [[max(0, node - back) for back in range(1, 9)] if node else [] for node in range(size)]
    Host(build, build.fragment(*inputs)).finish()


def classes(build: Build, size: int) -> None:
    """Every task has options of its own."""
    fragment = build.fragment(*[()] * size, range(size), classes=range(size + 1))
    Host(build, fragment).finish()


def ids(build: Build, size: int) -> None:
    """All ask for ids that others get as numbers of theirs."""
    names = [f"f_{number}" for number in range(size)] + ["f"] * size + ["f_1"] * (size + 1)
    Host(build, build.fragment(*[()] * 3 * size, range(3 * size), names=names)).finish()


def continuations(build: Build, size: int) -> None:
    """Each task returns one more task, to the depth of ``size``."""
    host = Host(build, build.single())
    for depth in range(size):
        host.want()
        effect = host.slices.pop()
        continued = build.continued(depth, build.single())
        host.feed(build.report(effect.slice, continued=[continued]))
    host.finish()


def partial_reports(build: Build, size: int) -> None:
    """Slices are reported task by task."""
    host = Host(build, build.fan(size))
    host.want()
    while host.slices:
        effect = host.slices.pop()
        for task in effect.tasks:
            host.feed(build.report(effect.slice, task))
            host.want()
    assert host.state.status is Status.SUCCESSFUL


def losses(build: Build, size: int) -> None:
    """Every worker dies once, and everything becomes suspect."""
    host = Host(build, build.fan(size))
    for _ in range(size // 400 + 1):
        host.want()
        while host.slices:
            host.feed(build.loss(host.slices.pop().slice))
    host.finish()


def takeovers(build: Build, size: int) -> None:
    """Owners change after every slice; what is under way is bounded, so is what each redoes."""
    host = Host(build, build.fan(size))
    while host.state.status is not Status.SUCCESSFUL:
        host.feed(build.gained(host.state.epoch + 1))
        host.slices.clear()
        host.want(1)
        effect = host.slices.pop()
        host.feed(build.report(effect.slice, *effect.tasks, attempt=effect.attempts[0]))


def failures(build: Build, size: int) -> None:
    """Every task fails twice before it works, and each second failure ends the workflow."""
    host = Host(build, build.fan(size, max_retries=1))
    rounds = 0
    while host.state.status is not Status.SUCCESSFUL:
        host.feed(build.resume())
        host.want(10**9)
        works, rounds = rounds >= 2, rounds + 1
        effects, host.slices = host.slices, []
        for effect in effects:
            attempt = effect.attempts[0]
            raised = [build.raised(task, attempt=attempt) for task in effect.tasks]
            report = build.report(effect.slice, raised=raised)
            returned = build.report(effect.slice, *effect.tasks, attempt=attempt)
            host.feed(returned if works else report)


PROGRAMS = [
    fan,
    chain,
    layers,
    classes,
    ids,
    continuations,
    partial_reports,
    losses,
    takeovers,
    failures,
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_twice_the_tasks_take_about_twice_the_work(
    build: Build, program: Callable[[Build, int], None]
) -> None:
    once, twice = (count_lines(partial(program, build, size)) for size in (600, 1200))
    assert once > 600
    assert twice / once < 2.3, (once, twice)


def test_a_hundred_thousand_tasks_and_one_that_takes_them_all(build: Build) -> None:
    fan(build, 100_000)


def test_a_chain_of_twenty_thousand(build: Build) -> None:
    chain(build, 20_000)


def test_continuations_two_thousand_deep(build: Build) -> None:
    continuations(build, 2000)


def test_a_task_takes_a_small_constant_of_memory(build: Build) -> None:
    size, fragment = 20_000, build.fan(20_000)
    created = encode(build.created(fragment))
    tracemalloc.start()
    state = State()
    apply(state, decode(created))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    check(state)
    assert used / size < 250, used / size
    assert len(created) / size < 3, "a node of a regular graph is stored in some bytes"
