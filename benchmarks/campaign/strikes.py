"""The ways to strike at a cluster: one table, each with its weight.

A strike kills or pauses something that lives at this moment, and tells whom it hit. What it takes
away for good and the engine cannot bring back (a driver, a node, a cluster) is then started anew.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import psutil

from campaign.recovery import (
    Proof,
    any_owner_goes_on,
    driver_is_told,
    manager_answers,
    owner_follows,
    tasks_run_again,
    work_goes_on,
)
from campaign.stage import Blow, Stage, has_title, send, wait_until

TARGET_S_MAX = 20.0
"""How long a strike waits for something to strike at: a task that runs, an actor that is there."""

NODE_WORK_S_MAX = 10.0
"""How long a strike at a node waits for one that runs a task."""

PAUSE_S = (0.2, 5.0)
"""How long an actor or a worker is paused: shorter and longer than a lease."""

NODE_PAUSE_S = (5.0, 9.0)
"""How long a node is paused: Ray declares it dead meanwhile."""

CLUSTER_PAUSE_S = (2.0, 12.0)
"""How long a cluster stays paused after another one has started, which takes over when the lease
has run out: some wake up before that, most after it."""

KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT


class NoTargetError(Exception):
    """There was nothing to strike at in time."""


Hit = Callable[[Stage, Random], Blow]
"""Strikes, and tells what was hit."""

Replace = Callable[[Stage, Callable[[], Stage], Random], Stage]
"""Starts anew what is gone, perhaps by opening another cluster; returns the cluster that goes on.
A cluster that is not it and has not been killed is left to itself for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A way to strike.

    Attributes:
        weight: How often it is drawn, beside the others.
        hit: Does it.
        proof: Finds in the ledger what proves the recovery.
        replace: What is done then; by default nothing.
        from_wake: Whether recovery counts from the end of the pause that the strike is.
    """

    weight: int
    hit: Hit
    proof: Proof
    replace: Replace | None = None
    from_wake: bool = False


def strike_one(title: str, number: signal.Signals = KILL) -> Hit:
    """Return what sends a signal to one of the processes that Ray calls ``title``."""

    def hit(stage: Stage, draw: Random) -> Blow:
        return send([_choose(lambda: stage.find(title), draw)], number)

    return hit


def pause_one(title: str) -> Hit:
    """Return what stops one of the processes that Ray calls ``title``, for a while."""

    def hit(stage: Stage, draw: Random) -> Blow:
        return _pause(stage, [_choose(lambda: stage.find(title), draw)], draw.uniform(*PAUSE_S))

    return hit


def kill_driver(stage: Stage, draw: Random) -> Blow:
    """Kill a driver in the middle of what it does."""
    name = draw.choice(sorted(stage.living_drivers()))
    blow = send([psutil.Process(stage.drivers[name].pid)], KILL)
    stage.drivers[name].wait()
    return blow


def start_driver(stage: Stage, open_next: Callable[[], Stage], draw: Random) -> Stage:
    """Start a driver in the place of one that was killed."""
    stage.start_driver(recover=draw.random() < 0.3)
    return stage


def kill_node(stage: Stage, draw: Random) -> Blow:
    """Kill one of the nodes that are not the head, as the loss of its machine would."""
    return send(_choose_node(stage, draw), KILL)


def pause_node(stage: Stage, draw: Random) -> Blow:
    """Stop a node until after Ray has declared it dead."""
    return _pause(stage, _choose_node(stage, draw), draw.uniform(*NODE_PAUSE_S))


def add_node(stage: Stage, open_next: Callable[[], Stage], draw: Random) -> Stage:
    """Start a node in the place of one that is lost."""
    stage.add_node()
    return stage


def kill_head(stage: Stage, draw: Random) -> Blow:
    """Kill the head; its workers follow, other nodes and the drivers live on for a while."""
    services = [each for each in stage.cluster.processes() if stage.is_of_head(each)]
    return send(services, KILL)


def kill_cluster(stage: Stage, draw: Random) -> Blow:
    """Kill every process of a cluster, its drivers with it."""
    blow = send(stage.cluster.processes(), KILL)
    stage.kill()  # what was started meanwhile
    return blow


def open_another(stage: Stage, open_next: Callable[[], Stage], draw: Random) -> Stage:
    """Start another cluster on the same store."""
    return open_next()


def pause_cluster(stage: Stage, draw: Random) -> Blow:
    """Stop every process of a cluster, its drivers too."""
    return send(stage.cluster.processes(), STOP)


def wake_beside_another(stage: Stage, open_next: Callable[[], Stage], draw: Random) -> Stage:
    """Start another cluster on the same store, and then wake the paused one."""
    following = open_next()
    time.sleep(draw.uniform(*CLUSTER_PAUSE_S))
    send(stage.cluster.processes(), GO_ON)
    stage.note("woken")
    return following


STRIKES: dict[str, Strike] = {
    "worker": Strike(weight=6, hit=strike_one("run_slice"), proof=tasks_run_again),
    "dispatcher": Strike(weight=5, hit=strike_one("Dispatcher"), proof=owner_follows),
    "manager": Strike(weight=3, hit=strike_one("Manager"), proof=manager_answers),
    "driver": Strike(weight=4, hit=kill_driver, proof=driver_is_told, replace=start_driver),
    "node": Strike(weight=3, hit=kill_node, proof=tasks_run_again, replace=add_node),
    "head": Strike(weight=2, hit=kill_head, proof=owner_follows, replace=open_another),
    "cluster": Strike(weight=2, hit=kill_cluster, proof=owner_follows, replace=open_another),
    "worker-pause": Strike(
        weight=2, hit=pause_one("run_slice"), proof=work_goes_on, from_wake=True
    ),
    "dispatcher-pause": Strike(
        weight=3, hit=pause_one("Dispatcher"), proof=work_goes_on, from_wake=True
    ),
    "manager-pause": Strike(
        weight=1, hit=pause_one("Manager"), proof=manager_answers, from_wake=True
    ),
    "node-pause": Strike(weight=2, hit=pause_node, proof=tasks_run_again, replace=add_node),
    "cluster-pause": Strike(
        weight=2, hit=pause_cluster, proof=any_owner_goes_on, replace=wake_beside_another
    ),
}


def _pause(stage: Stage, processes: Sequence[psutil.Process], pause_s: float) -> Blow:
    blow = send(processes, STOP)
    time.sleep(pause_s)
    send(processes, GO_ON)
    stage.note("woken")
    return blow


def _choose_node(stage: Stage, draw: Random) -> list[psutil.Process]:
    """Draw a node that is not the head; returns its raylet and all that this started.

    If one of them runs a task before long, it is one that does.
    """
    wait_until(lambda: any(map(_runs_task, stage.raylets()[1:])), NODE_WORK_S_MAX)
    found = stage.raylets()[1:]
    raylet = draw.choice([each for each in found if _runs_task(each)] or found)
    return [raylet, *raylet.children(recursive=True)]


def _runs_task(raylet: psutil.Process) -> bool:
    try:
        return any(has_title(each, "run_slice") for each in raylet.children(recursive=True))
    except psutil.NoSuchProcess:
        return False


def _choose(find: Callable[[], list[psutil.Process]], draw: Random) -> psutil.Process:
    """Wait until there is something of a kind, and draw one of it."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = find()
        return bool(found)

    if not wait_until(look, TARGET_S_MAX):
        raise NoTargetError
    return draw.choice(sorted(found, key=lambda each: each.pid))
