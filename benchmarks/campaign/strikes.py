"""The ways to strike at a cluster: one table, each with its weight.

A strike kills or pauses something that lives at this moment, and tells whom it hit. What it takes
away for good and the engine cannot bring back (a driver, a node, a cluster) is then started anew.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import psutil

from campaign.recovery import Proof, tasks_run_again
from campaign.stage import Stage, send, wait_until

TARGET_S_MAX = 20.0
"""How long a strike waits for something to strike at: a task that runs, an actor that is there."""

KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT


class NoTargetError(Exception):
    """There was nothing to strike at in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A way to strike.

    Attributes:
        weight: How often it is drawn, beside the others.
        hit: Does it; returns the pids of what was hit.
        proof: Finds in the ledger what proves the recovery.
        again: What has to be done then; returns the cluster that goes on. It is given what opens
            another one. By default nothing has.
    """

    weight: int
    hit: Callable[[Stage, Random], list[int]]
    proof: Proof
    again: Callable[[Stage, Callable[[], Stage]], Stage] | None = None


def kill_worker(stage: Stage, draw: Random) -> list[int]:
    """Kill a process that runs tasks at this moment."""
    return send([_choose(lambda: stage.find("run_slice"), draw)], KILL)


STRIKES: dict[str, Strike] = {
    "worker": Strike(weight=6, hit=kill_worker, proof=tasks_run_again),
}


def _choose(find: Callable[[], list[psutil.Process]], draw: Random) -> psutil.Process:
    """Wait until there is something of a kind, and draw one of it."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = find()
        return bool(found)

    if not wait_until(look, TARGET_S_MAX):
        raise NoTargetError
    return draw.choice(sorted(found, key=lambda each: each.pid))
