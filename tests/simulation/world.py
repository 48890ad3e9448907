"""The simulated world: processes that run real dispatchers, their storage, and the weather.

Everything random comes from one generator, everything that happens is noted in one trace: the same
seed gives the same trace.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeAlias, TypeVar

from faulty_store import Disk, ProcessStore
from milepost.engine.admission import Admission, Limits, Turn
from milepost.engine.dispatcher import Dispatcher
from milepost.replay.state import Status
from programs import Program
from record import Record
from virtual_time import Threads
from workers import SimulatedWorkers

T = TypeVar("T")
Fault: TypeAlias = Literal["before", "after", "torn", "late"]
Strike: TypeAlias = Literal["dies", "pauses"]

EPOCH_US = 1_700_000_000_000_000
TRACE_LINES_MAX = 200_000

process_here: ContextVar[Process] = ContextVar("simulated_process")


class Weather:
    """How bad things are right now; all of it stops when the faults stop."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.stormy = True
        self.away = False
        self.rate = random.choice((0.0, 0.002, 0.01, 0.03))
        self.slow = random.choice((0.001, 0.005, 0.05, 0.5))
        self._strikes = random.choice((0.0, 0.001, 0.005))

    def latency_s(self) -> float:
        """How long half a call of the storage takes."""
        if self.stormy and self._random.random() < 0.01:
            return self._random.uniform(0.1, 200.0 if self._random.random() < 0.1 else 3.0)
        return self._random.uniform(0.0001, self.slow)

    def fault(self, changes: bool) -> Fault | None:
        """What goes wrong with a call of the storage; only what changes it can be half done."""
        if self.stormy and self.away:
            return "before"
        if not self.stormy or self._random.random() >= self.rate:
            return None
        return self._random.choice(("before", "after", "torn", "late")) if changes else "before"

    def strike(self) -> Strike | None:
        """Whether the process that calls the storage is struck in the middle of the call."""
        if not self.stormy or self._random.random() >= self._strikes:
            return None
        return self._random.choice(("dies", "pauses"))

    def task_s(self) -> float:
        """How long a task runs."""
        if self.stormy and self._random.random() < 0.01:
            return self._random.uniform(5.0, 60.0)
        return self._random.choice((0.0005, 0.01, 0.2))

    def pause_s(self) -> float:
        """How long a process that is paused stays so; sometimes longer than any lease."""
        return self._random.uniform(1.0, self._random.choice((5.0, 60.0, 300.0)))


class Process:
    """A dispatcher's process: it can be paused or die, and then nothing reaches it or leaves it."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        world.processes.append(self)
        self.world = world
        self.cluster = cluster
        self.name = f"{cluster.name}#{len(world.processes)}"
        self.dead = False
        self.skew_us = world.random.choice((0, 0, 0, -40_000_000, 7_000_000, 3_600_000_000))
        self.resume_at = 0.0
        self.threads = Threads(self, lambda: world.random.uniform(0.0001, 0.002))
        self.store = ProcessStore(world, self)
        self.workers = SimulatedWorkers(world, self)
        self.limbo: list[Any] = []
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        token = process_here.set(self)
        self.dispatcher = Dispatcher("simulated", cluster.name, 0, cluster)
        process_here.reset(token)

    def paused_for_s(self) -> float:
        """How long it is still paused."""
        return max(0.0, self.resume_at - asyncio.get_running_loop().time())

    async def gate(self) -> None:
        """Returns when the process is not paused; never if it is dead."""
        while not self.dead:
            wait_s = self.paused_for_s()
            if wait_s <= 0:
                return
            await asyncio.sleep(wait_s)
        await self.nowhere()

    async def nowhere(self) -> None:
        """Never returns, and is never forgotten either: that would be an error in the log."""
        self.limbo.append(asyncio.get_running_loop().create_future())
        await self.limbo[-1]

    def die(self) -> None:
        """Ends it with everything in its memory."""
        self.dead = True
        if not self._end.done():
            self._end.set_result(None)

    async def call(self, make: Callable[[Dispatcher], Coroutine[Any, Any, T]]) -> T:
        """Calls the dispatcher as Ray would.

        Raises:
            ProcessDiedError: If the process dies before the answer comes.
        """
        if self.dead:
            raise ProcessDiedError(self.name)
        token = process_here.set(self)
        call = asyncio.create_task(self._answer(make))
        process_here.reset(token)
        call.add_done_callback(_look_at)  # who asked may not wait for the answer
        ends: set[asyncio.Future[Any]] = {call, self._end}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not call.done() or self.dead:
            raise ProcessDiedError(self.name)
        return call.result()

    async def _answer(self, make: Callable[[Dispatcher], Coroutine[Any, Any, T]]) -> T:
        await self.gate()
        try:
            answer = await make(self.dispatcher)
        except Exception:
            await self.gate()
            raise
        await self.gate()
        return answer


class ProcessDiedError(Exception):
    """Whom we asked is no more; what became of the question nobody knows."""


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


class _Note:
    """A remote method of the manager."""

    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class Cluster:
    """A cluster with one dispatcher, which is started again when it dies; also its manager."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.hosted: dict[str, None] = {}
        choose = world.random.choice
        limits = Limits(max_running=choose((None, 1, 2)), max_pending=choose((None, 0, 1)))
        self.admission = Admission(limits)
        self.read_limits = _Note(self._read_limits)
        self.admit = _Note(self._admit)
        self.release = _Note(self._release)
        self._calls: list[asyncio.Task[None]] = []
        self.note_started = _Note(lambda index, workflow_id: self._note(workflow_id, True))
        self.note_ended = _Note(lambda index, workflow_id: self._note(workflow_id, False))
        self.process = Process(world, self)

    def _note(self, workflow_id: str, started: bool) -> None:
        if started:
            self.hosted[workflow_id] = None
        else:
            self.hosted.pop(workflow_id, None)

    async def _read_limits(self) -> Limits:
        return self.admission.limits

    async def _admit(self, turn: Turn, must: bool) -> bool | None:
        self.hosted[turn.workflow_id] = None
        admitted = self.admission.ask(turn, must)
        await asyncio.sleep(self.world.random.uniform(0.0001, 0.01))
        await process_here.get().gate()
        return admitted

    def _release(self, workflow_id: str, ticket: int | None) -> None:
        self.admission.release(workflow_id, ticket)
        self._calls += [
            asyncio.create_task(self._begin(turn.workflow_id)) for turn in self.admission.call_up()
        ]

    async def _begin(self, workflow_id: str) -> None:
        self.world.note("turn", self.name, workflow_id)
        with suppress(ProcessDiedError):  # its successor asks again
            await self.process.call(lambda dispatcher: dispatcher.begin(workflow_id))

    def check_turns(self) -> None:
        """Checks that no more workflows run here than may.

        Raises:
            AssertionError: If they do.
        """
        limit = self.admission.limits.max_running
        hosts = self.process.dispatcher._hosting.hosts.values()
        running = [
            each.state.workflow_id
            for each in hosts
            if each.state.status is Status.RUNNING and each.stopped is None
        ]
        assert limit is None or len(running) <= limit, f"{running} run at once, not {limit}"

    async def restart(self, dead: Process, after_s: float) -> None:
        """Starts another dispatcher after a while, and has it go on."""
        assert dead.dead, "only the dead are replaced"
        assert dead is self.process, "and only once"
        await asyncio.sleep(after_s)
        self.process = Process(self.world, self)
        hosted = list(self.hosted)
        with suppress(ProcessDiedError):  # whoever killed it starts the next one
            await self.process.call(lambda dispatcher: dispatcher.adopt(hosted))


@dataclass
class World:
    """All there is.

    Attributes:
        record: What was acknowledged and told; it knows the promises.
        programs: What runs under each id now.
        storm_ends_at: When the faults stop, seconds.
    """

    seed: int
    random: Random = field(init=False)
    disk: Disk = field(init=False)
    weather: Weather = field(init=False)
    record: Record = field(init=False)
    clusters: list[Cluster] = field(init=False, default_factory=list)
    programs: dict[str, Program] = field(init=False, default_factory=dict)
    processes: list[Process] = field(init=False, default_factory=list)
    trace: list[str] = field(init=False, default_factory=list)
    storm_ends_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.random = Random(self.seed)
        self.disk = Disk(appendable=self.random.random() < 0.5)
        self.weather = Weather(self.random)
        self.riders_max = self.random.choice((0, 20))
        self.slices_max = self.random.choice((1, 1, 2, 4))  # with few, slices hold many tasks
        self.record = Record(self)
        self.restarts: list[asyncio.Task[None]] = []
        self._hash = hashlib.sha256()
        self._notes = 0

    def note(self, *what: object) -> None:
        """Adds a line to the trace."""
        line = " ".join(map(str, [f"{self._loop.time():.6f}", *what]))
        self._hash.update(line.encode() + b"\n")
        self._notes += 1
        if len(self.trace) < TRACE_LINES_MAX:
            self.trace.append(line)

    @property
    def digest(self) -> str:
        """A hash over the whole trace."""
        return f"{self._notes}:{self._hash.hexdigest()}"

    def now_us(self) -> int:
        """The time by the clock of the process that asks; clocks differ, and jump."""
        process = process_here.get(None)
        skew_us = 0 if process is None else process.skew_us
        return EPOCH_US + round(self._loop.time() * 1e6) + skew_us

    def start(self, clusters: int) -> None:
        """Starts clusters."""
        for number in range(clusters):
            self.clusters.append(Cluster(self, f"c{number}"))

    def pick(self) -> Process:
        """Returns the process of a random cluster; it may be dead for the moment."""
        return self.random.choice(self.clusters).process

    def kill(self, process: Process) -> None:
        """Ends a process; another takes its place after a while."""
        self.note("kill", process.name)
        process.die()
        after_s = self.random.uniform(0.2, 20.0)
        # It may die in one of its threads, and only the loop's thread can make tasks.
        self._loop.call_soon(
            lambda: self.restarts.append(
                self._loop.create_task(process.cluster.restart(process, after_s))
            )
        )

    def pause(self, process: Process) -> None:
        """Stops a process for a while, and whatever of it is under way."""
        until = self._loop.time() + self.weather.pause_s()
        process.resume_at = max(process.resume_at, until)
        self.note("pause", process.name, f"{process.resume_at:.3f}")

    def strike(self, process: Process, how: Strike) -> None:
        """Has a process die or pause where it is, unless it is dead already."""
        if process.dead:
            return
        if how == "dies":
            self.kill(process)
        else:
            self.pause(process)

    def happen_later(self, effect: Callable[[], object]) -> None:
        """Has a request that was given up reach the storage all the same."""

        def happen() -> None:
            self.note("a late request arrives")
            effect()

        self._loop.call_later(self.random.uniform(0.01, 30.0), happen)

    async def cut_power(self) -> None:
        """Kills everybody, and takes away what was not synced."""
        for cluster in self.clusters:
            cluster.process.die()
        self.disk.cut_power(self.random)
        restarts: list[Awaitable[None]] = [
            cluster.restart(cluster.process, self.random.uniform(0.5, 5.0))
            for cluster in self.clusters
        ]
        await asyncio.gather(*restarts)
