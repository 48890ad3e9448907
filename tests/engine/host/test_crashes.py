"""Random little workflows on a storage that keeps failing, host after host, until they are done.

Whatever goes wrong, and whenever: the result is that of a run in which nothing does, every task is
committed once, and no task runs that its host knew to be committed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from milepost.engine.host import Delivery, SliceLostError, WorkflowHost
from milepost.engine.messages import WorkerReport
from milepost.errors import LostOwnershipError, MilepostError, StorageUnavailableError
from milepost.replay.decide import RunSlice
from milepost.replay.events import GraphExtended, TaskError, TasksCommitted, WorkflowCreated
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Continued, Raised
from milepost.replay.payload import Encoding, Payload, inline
from milepost.replay.state import Status, TaskState
from tallies import Tallies

if TYPE_CHECKING:
    from tests.engine.host.conftest import Fault, Stage

HOSTS_MAX = 100
DONE = TaskState.EXTENDED
"""From this state on a task never runs again, unless it failed; here none does."""

DURABILITIES = ("pipelined", "strict")
Play = Callable[[Coroutine[Any, Any, None]], None]


class Program:
    """A workflow whose values follow from its graph alone, however often and where it runs."""

    def __init__(self, seed: int, build: Callable[..., WorkflowCreated]) -> None:
        self._build = build
        chance = random.Random(seed)
        width = chance.randint(2, 8)
        inputs: list[tuple[int, ...]] = [()]
        for node in range(1, width):
            inputs.append(
                tuple(sorted(chance.sample(range(node), chance.randint(0, min(3, node)))))
            )
        used = {source for sources in inputs for source in sources}
        inputs.append(tuple(node for node in range(width) if node not in used) or (width - 1,))
        self.creation = build(*inputs, max_retries=-1, durability=chance.choice(DURABILITIES))

    def continuation(self, key: bytes) -> Fragment | None:
        """Some tasks continue; few enough that this comes to an end."""
        if key[0] % 8:
            return None
        fragment: Fragment = self._build((), (0,), (0,), (1, 2), max_retries=-1).fragment
        return replace(fragment, templates=tuple(key + each for each in fragment.templates))


class Diligent:
    """Workers that really compute, and sometimes raise or die.

    Attributes:
        runs: Every attempt that began: for which host, and the task.
        known: For each host the tasks that it knew to be done when it took over.
    """

    slices_max = 3
    riders_max = 0

    def __init__(self, program: Program, seed: int, trouble: float) -> None:
        self.runs: list[tuple[WorkflowHost, int]] = []
        self.known: dict[WorkflowHost, set[int]] = {}
        self._program = program
        self._chance = random.Random(seed)
        self._trouble = trouble

    async def run(self, host: WorkflowHost, slice_: RunSlice) -> AsyncIterator[Delivery]:
        for position, (task, attempt) in enumerate(
            zip(slice_.tasks, slice_.attempts, strict=True), start=1
        ):
            self.runs.append((host, task))
            key = self._key(host, task)
            await asyncio.sleep(self._chance.random() * 0.02)
            if self._chance.random() < self._trouble:
                raise SliceLostError("killed")
            report = self._attempt(task, attempt, key)
            report.last = position == len(slice_.tasks)
            yield report, {}

    def _key(self, host: WorkflowHost, task: int) -> bytes:
        """Everything a task's value may depend on: its place in the graph and its inputs."""
        graph, results = host.state.graph, host.state.results
        parts = [graph.templates[graph.node_templates[task]]]
        for source in graph.inputs(task):
            result = results[source]
            assert result is not None, f"task {task} was sent before its input {source}"
            parts.append(result.data)
        return hashlib.sha256(b"".join(parts)).digest()

    def _attempt(self, task: int, attempt: int, key: bytes) -> WorkerReport:
        report = WorkerReport(node="n")
        fragment = self._program.continuation(key)
        if self._chance.random() < self._trouble:
            error = TaskError(kind="exception", type="E", message="", traceback="", exception=None)
            report.raised.append(Raised(task=task, attempt=attempt, error=error, retryable=True))
        elif fragment is not None:
            report.continued.append(
                Continued(
                    task=task, attempt=attempt, fragment=fragment, started_us=0, duration_us=5000
                )
            )
        else:
            report.tasks.append(task)
            report.attempts.append(attempt)
            report.payloads.append(inline(Encoding.PICKLE.value, key))
            report.started_us.append(0)
            report.durations_us.append(5000)
        return report


def put_host(stage: Stage, workers: Diligent) -> WorkflowHost:
    """Returns a new owner of the workflow; notes what it knows to be done."""
    host = stage.make_host(workers)
    workers.known[host] = {task for task, kind in enumerate(host.state.tasks) if kind >= DONE}
    return host


async def finish(stage: Stage, program: Program, workers: Diligent) -> Payload:
    """Puts host after host on the store until the workflow has ended; returns its result."""
    for _ in range(HOSTS_MAX):
        try:
            host = put_host(stage, workers)
            if host.state.status is Status.SUCCESSFUL:
                assert host.state.result is not None
                return host.state.result
            if host.state.next_seq:
                await host.take_over("owner", "test")
            else:
                await host.create(program.creation, "owner")
            while not host.ended:
                await host.change()
        except StorageUnavailableError:
            pass
        await asyncio.sleep(1)
    raise AssertionError(f"not done after {HOSTS_MAX} hosts")


def check_story(stage: Stage, workers: Diligent) -> None:
    """Checks what has to hold however often the workflow changed hands."""
    settled: Counter[int] = Counter()
    for event in stage.journal():
        if isinstance(event, TasksCommitted):
            settled.update(event.tasks)
        elif isinstance(event, GraphExtended):
            settled[event.task] += 1
    assert settled == dict.fromkeys(range(len(stage.stored().tasks)), 1)
    again = [task for host, task in workers.runs if task in workers.known[host]]
    assert not again, f"tasks {again} ran though their host knew their results"
    stopped = [host for host in stage.hosts if host.stopped is not None]
    assert all(stage.ends.count(host) == 1 for host in stopped)
    assert all(stage.is_closed(host) for host in stage.ends)
    stage.check()


@pytest.fixture
def expected(
    play: Callable[..., Payload], new_stage: Callable[..., Stage], creation: Any
) -> Callable[[int], Payload]:
    """Returns the result of a program in a world without trouble."""

    def compute(seed: int) -> Payload:
        program = Program(seed, creation)
        calm = new_stage()
        return play(finish(calm, program, Diligent(program, seed, trouble=0)))

    return compute


@pytest.mark.parametrize("fault", ["before", "after", "torn"])
@pytest.mark.parametrize("every", [9, 13, 23])
@pytest.mark.parametrize("seed", range(4))
def test_a_storage_that_fails_every_so_often_changes_no_result(
    seed: int,
    every: int,
    fault: Fault,
    play: Callable[..., Payload],
    new_stage: Callable[..., Stage],
    creation: Any,
    expected: Callable[[int], Payload],
) -> None:
    for appendable in (True, False):
        stage = new_stage(appendable=appendable)
        stage.store.plan = lambda number: None if number % every else fault
        stage.threads.delay_s = 0.005
        program = Program(seed, creation)
        workers = Diligent(program, seed, trouble=0.1)
        assert play(finish(stage, program, workers)) == expected(seed)
        check_story(stage, workers)


@pytest.mark.parametrize("fault", ["before", "after", "torn"])
@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_one_call_changes_no_result(
    seed: int,
    fault: Fault,
    play: Callable[..., Payload],
    new_stage: Callable[..., Stage],
    creation: Any,
    expected: Callable[[int], Payload],
    tallies: Tallies,
) -> None:
    result = expected(seed)
    at, calls = 0, 1
    while at < calls:
        at += 1
        stage = new_stage(appendable=seed % 2 == 0)
        stage.store.fail_at(at, fault)
        program = Program(seed, creation)
        workers = Diligent(program, seed, trouble=0)
        assert play(finish(stage, program, workers)) == result
        check_story(stage, workers)
        calls = stage.store.calls
    tallies.add(
        "crash of a workflow's storage call",
        f"{fault} any one of its calls, {'appends' if seed % 2 == 0 else 'objects'}",
        crashes=at,
        same_result=at,
        committed_twice=0,
    )


@pytest.mark.parametrize("seed", range(12))
def test_rivals_that_keep_taking_over_change_no_result(
    seed: int,
    play: Callable[..., Payload],
    new_stage: Callable[..., Stage],
    creation: Any,
    expected: Callable[[int], Payload],
) -> None:
    """Old owners are not told: they run on, report, flush, and learn it there."""
    stage = new_stage(appendable=seed % 2 == 0)
    stage.threads.delay_s = 0.004
    program = Program(seed, creation)
    workers = Diligent(program, seed, trouble=0.1)
    chance = random.Random(seed)

    async def rival() -> None:
        for _ in range(8):
            await asyncio.sleep(chance.random() * 0.03)
            host = put_host(stage, workers)
            if host.state.next_seq and host.state.status is not Status.SUCCESSFUL:
                begin = host.take_over("rival", "test")
                await asyncio.gather(begin, return_exceptions=True)

    async def story() -> Payload:
        first = put_host(stage, workers)
        starting = first.create(program.creation, "owner")
        await asyncio.gather(starting, *[rival() for _ in range(3)], return_exceptions=True)
        await asyncio.sleep(5)
        for host in stage.hosts[:-1]:
            error: MilepostError | None = host.stopped
            assert error is None or isinstance(error, LostOwnershipError)
        return await finish(stage, program, workers)

    assert play(story()) == expected(seed)
    check_story(stage, workers)
