"""One play: clients and faults for a while, then calm, then all is held against the promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from client import Client
from milepost.engine import dispatcher as dispatcher_module
from milepost.engine import hosting, threads
from milepost.engine import leases as leases_module
from milepost.engine import turns as turns_module
from milepost.engine.dispatcher import Dispatcher
from milepost.engine.host import WorkflowHost
from milepost.engine.recovery import Candidate, recover_all
from milepost.errors import (
    LostOwnershipError,
    MilepostError,
    StorageUnavailableError,
)
from milepost.journal import JournalWriter, claim, compaction, deletion, reader, writer
from record import BrokenPromise
from virtual_time import Lock, VirtualLoop, current_fiber, pause
from world import Process, ProcessDiedError, World, process_here

T = TypeVar("T")

STORM_S = (20.0, 90.0)
CALM_S_MAX = 900.0
"""Once the faults have stopped, everything must have ended within this time."""

RECOVER_EVERY_S = 15.0


def play(seed: int, on_start: Callable[[World], object] = id) -> World:
    """Plays one seed to its end.

    Args:
        seed: Decides everything.
        on_start: Gets the world, before anything happens in it.

    Raises:
        BrokenPromise: If something happened that never may.
    """
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        world = runner.run(_play(seed, on_start))
    if loop.faults:
        raise BrokenPromise(f"seed {seed}: errors nobody looked at: {loop.faults}")
    return world


async def _play(seed: int, on_start: Callable[[World], object]) -> World:
    world = World(seed)
    on_start(world)
    with _as_simulated(world):
        world.start(world.random.randint(2, 4))
        try:
            await _run(world)
        finally:
            for process in world.processes:
                process.threads.abandon()
    return world


async def _run(world: World) -> None:
    loop, random = asyncio.get_running_loop(), world.random
    world.storm_ends_at = random.uniform(*STORM_S)
    faults = asyncio.create_task(_make_faults(world), name="faults")
    recovery = asyncio.create_task(_recover_now_and_then(world))
    ids = [f"w{number}" for number in range(random.randint(1, 4))]
    clients = [asyncio.create_task(Client(world, each).live(), name=each) for each in ids]
    deadline = world.storm_ends_at + CALM_S_MAX
    done, late = await asyncio.wait({*clients, faults}, timeout=deadline - loop.time())
    for task in done:
        task.result()
    if late:
        names = ", ".join(sorted(task.get_name() for task in late))
        raise BrokenPromise(f"seed {world.seed}: {names} not at an end {CALM_S_MAX} s later")
    recovery.cancel()
    await asyncio.sleep(60)  # compactions, leases
    for each in ids:
        world.record.check_end(each, world.programs.get(each))
    if world.record.defects:
        raise BrokenPromise(f"seed {world.seed}: hosts stopped on {world.record.defects}")
    _check_leftovers(world, ids)


async def _make_faults(world: World) -> None:
    random, loop = world.random, asyncio.get_running_loop()
    while loop.time() < world.storm_ends_at:
        await asyncio.sleep(random.expovariate(1 / 4))
        cluster = random.choice(world.clusters)
        match random.choice(("kill", "kill", "pause", "away", "power", "clock", "none")):
            case "kill" if not cluster.process.dead:
                world.kill(cluster.process)
            case "pause":
                world.pause(cluster.process)
            case "away" if not world.weather.away:
                world.weather.away = True
                world.note("the storage is away")
                loop.call_later(random.uniform(1.0, 70.0), setattr, world.weather, "away", False)
            case "power" if random.random() < 0.5 and not any(
                each.process.dead for each in world.clusters
            ):
                world.note("power cut")
                await world.cut_power()
            case "clock":
                cluster.process.skew_us += random.choice((-1, 1)) * random.randrange(600_000_000)
            case _:
                pass
        world.record.check_now()
    world.weather.stormy = False
    world.note("calm")
    await asyncio.sleep(0)  # so that every restart has begun
    await asyncio.gather(*world.restarts)


async def _recover_now_and_then(world: World) -> None:
    """What `milepost recover --watch` does, from one cluster or another."""
    while True:
        await asyncio.sleep(RECOVER_EVERY_S * world.random.uniform(0.5, 1.5))
        process = world.pick()
        hosted = set(process.cluster.hosted)

        async def take_up(candidate: Candidate, process: Process = process) -> str:
            return await process.call(
                lambda dispatcher: dispatcher.take_up(candidate.workflow_id, candidate.owner)
            )

        try:
            found = await process.call(
                partial(Dispatcher.find_candidates, hosted=hosted, force=set())
            )
            for each in await recover_all(found, take_up):
                world.note("recovered", each.workflow_id, each.outcome)
        except (MilepostError, ProcessDiedError) as error:
            world.note("no recovery:", type(error).__name__)


def _check_leftovers(world: World, ids: list[str]) -> None:
    """Nothing lies about that the layout does not explain, and leases have ended."""
    for each in world.disk.list(""):
        folder, _, rest = each.key.partition("/")
        known = folder in ("workflows", "blobs") and rest.split("/")[0] in ids
        if not (known or folder in ("leases", "catalog")):
            raise BrokenPromise(f"seed {world.seed}: {each.key} is nobody's")


@contextmanager
def _as_simulated(world: World) -> Iterator[None]:
    """Puts the world's storage, workers, threads, clocks and chance in the place of real ones."""
    random = Random(world.seed + 1)
    flush = JournalWriter.flush

    def note_flush(self: JournalWriter, events: Any) -> None:
        first_seq = self.next_seq
        flush(self, events)
        fiber = current_fiber()
        if fiber is None or not fiber.process.dead:
            world.record.flushed(self, first_seq, events)

    release = WorkflowHost._release

    def note_release(self: WorkflowHost) -> None:
        world.record.became_durable(self, self._durable_seq)
        release(self)

    stop = WorkflowHost._stop

    def note_stop(self: WorkflowHost, error: Exception) -> None:
        if not isinstance(error, StorageUnavailableError | LostOwnershipError):
            world.record.defects.append(repr(error))
        stop(self, error)

    def here() -> Process:
        return process_here.get()

    clock = SimpleNamespace(time=lambda: 0.0, sleep=pause)
    chance = SimpleNamespace(uniform=random.uniform, sample=random.sample)
    bytes_ = SimpleNamespace(urandom=random.randbytes)
    locks = SimpleNamespace(Lock=Lock)
    with (
        patch.object(JournalWriter, "flush", note_flush),
        patch.object(WorkflowHost, "_release", note_release),
        patch.object(WorkflowHost, "_stop", note_stop),
        patch.multiple(claim, time=clock, random=chance, os=bytes_),
        patch.object(deletion, "time", clock),
        patch.object(reader, "os", bytes_),
        patch.object(writer, "threading", locks),
        patch.object(compaction, "threading", locks),
        patch.multiple(hosting, _now_us=world.now_us, random=chance),
        patch.object(leases_module, "_now_us", world.now_us),
        patch.object(turns_module, "_now_us", world.now_us),
        patch.object(threads, "ThreadPoolExecutor", lambda *given, **_: here().threads),
        patch.object(leases_module, "describe_machine", lambda: "simulated"),
        patch.object(leases_module, "describe_process", lambda: here().name),
        patch.object(dispatcher_module, "open_store", lambda storage, create: here().store),
        patch.object(dispatcher_module, "ThreadPoolExecutor", lambda *given, **_: here().threads),
        patch.object(dispatcher_module, "RayWorkers", lambda *given: here().workers),
        patch.object(dispatcher_module, "count_cpus", lambda: 2),
    ):
        yield
