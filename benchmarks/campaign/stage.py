"""One life of a cluster: its nodes, its drivers and its standby, as processes to be struck.

All are processes of this machine. The head is a
:class:`~local_cluster.LocalCluster`; further nodes join it by ``ray start``. Every process carries
the cluster's mark in its environment, so that what survives its cluster is found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from campaign import ledger
from campaign.driver import Settings
from local_cluster import MARK, LocalCluster

HEAD_CPUS = 1
NODE_CPUS = 2
OBJECT_STORE_BYTES = 128 * 2**20
POLL_S = 0.02
NODE_START_S_MAX = 60.0
FINISH_S_MAX = 120.0

IMPATIENCE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""Ray declares a node dead after some four seconds of silence, not after thirty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What all clusters of a campaign have in common.

    Attributes:
        folder: Where the campaign keeps its files.
        storage: The store's URI.
        seed: The campaign's seed.
        nodes: How many nodes a cluster has besides the head.
        drivers: How many drivers work on it.
        at_once: How many workflows each driver keeps under way.
        lease_s: How long a lease lasts.
    """

    folder: Path
    storage: str
    seed: int
    nodes: int
    drivers: int
    at_once: int
    lease_s: float

    @property
    def ledger(self) -> Path:
        """Where everybody writes what happens."""
        return self.folder / "ledger"


class Stage:
    """See the module.

    Attributes:
        number: Which life this is, from 1.
        cluster: The head.
        drivers: The drivers that were started, by name; some may be dead.
        others: The nodes beside the head, and the standby; some may be dead.
    """

    def __init__(self, number: int, conditions: Conditions) -> None:
        """Describe a cluster; :meth:`start` starts it."""
        self.number = number
        self._environment = {"MILEPOST_LEASE_S": str(conditions.lease_s)} | IMPATIENCE
        self.cluster = LocalCluster(
            num_cpus=HEAD_CPUS,
            object_store_bytes=OBJECT_STORE_BYTES,
            environment=self._environment,
        )
        self.drivers: dict[str, subprocess.Popen[bytes]] = {}
        self.others: list[subprocess.Popen[bytes]] = []
        self._conditions = conditions
        self._finish = conditions.folder / f"finish-{number}"
        self._started = 0

    def start(self) -> None:
        """Start the cluster with all its nodes, without drivers.

        Raises:
            RuntimeError: If Ray does not start.
        """
        self.cluster.start()
        for _ in range(self._conditions.nodes):
            self.add_node()
        wait_until(lambda: len(self.raylets()) == 1 + self._conditions.nodes, NODE_START_S_MAX)

    def add_node(self) -> None:
        """Start another node; returns before it has joined."""
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *(f"--address={self.cluster.address}", "--node-ip-address=127.0.0.1"),
            *(f"--num-cpus={NODE_CPUS}", "--min-worker-port=0", "--max-worker-port=0"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"),
        ]
        self.others.append(self._launch(command, f"node-{len(self.others)}"))

    def start_driver(self, *, recover: bool = False) -> str:
        """Start a driver.

        Args:
            recover: Whether it goes on with everything that lost its owner.

        Returns:
            Its name.
        """
        self._started += 1
        name = f"{self.number}.{self._started}"
        conditions = self._conditions
        settings = Settings(
            storage=conditions.storage,
            ledger=str(conditions.ledger),
            seed=conditions.seed,
            name=name,
            at_once=conditions.at_once,
            finish=str(self._finish),
            recover=recover,
        )
        process = self._launch(
            [sys.executable, "-m", "campaign.driver"], f"driver-{name}", subprocess.PIPE
        )
        assert process.stdin is not None, name
        process.stdin.write(json.dumps(asdict(settings)).encode())
        process.stdin.close()
        self.drivers[name] = process
        return name

    def start_standby(self) -> None:
        """Start ``milepost recover --watch``, which takes over whatever loses its owner."""
        command = [sys.executable, "-m", "milepost", "--storage", self._conditions.storage]
        self.others.append(self._launch([*command, "recover", "--watch"], "standby"))

    def _launch(
        self, command: list[str], name: str, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a process of this cluster; what it prints goes to a file of its own."""
        inherited = {each: text for each, text in os.environ.items() if each[:4] != "RAY_"}
        own = self.cluster.environment | {
            MARK: str(self.cluster.folder),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        log = self._conditions.folder / f"{self.number}-{name}.log"
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env=inherited | own | self._environment,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def living_drivers(self) -> dict[str, subprocess.Popen[bytes]]:
        """Return the drivers that have neither finished nor died."""
        return {name: each for name, each in self.drivers.items() if each.poll() is None}

    def find(self, title: str) -> list[psutil.Process]:
        """Return the processes that Ray calls ``title``: an actor's class, or a task's name."""
        return [each for each in self.cluster.processes() if has_title(each, title)]

    def raylets(self) -> list[psutil.Process]:
        """Return the nodes' own processes, the head's first."""
        found = [each for each in self.cluster.processes() if program_of(each) == "raylet"]
        return sorted(found, key=lambda each: each.create_time())

    def finish(self) -> bool:
        """Tell the drivers to begin nothing more, and wait until everything has ended.

        Returns:
            Whether they did in time.
        """
        self._finish.touch()
        deadline = time.monotonic() + FINISH_S_MAX
        while self.living_drivers() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return not self.living_drivers()

    def kill(self) -> int:
        """Kill every process with SIGKILL, the drivers too; returns how many."""
        count = self.cluster.kill()
        for process in [*self.drivers.values(), *self.others]:
            process.wait()
        return count

    def is_of_head(self, process: psutil.Process) -> bool:
        """Tell whether a process is one of those that make the head: its raylet, its directory."""
        if program_of(process) == "gcs_server":
            return True
        return process in self.raylets()[:1]

    def note(self, what: str) -> None:
        """Write in the ledger what was done to this cluster."""
        ledger.write(str(self._conditions.ledger), what, stage=self.number)

    def stop(self) -> None:
        """Kill every process, and remove what Ray keeps in its folder."""
        self.kill()
        self.cluster.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """What was hit, and when.

    Attributes:
        pids: The processes.
        at_ns: When, on the machine's monotonic clock: before the first of them died, or after the
            last of them stood still.
    """

    pids: list[int]
    at_ns: int


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> Blow:
    """Send a signal to processes, some of which may have ended."""
    reached, at_ns = [], time.monotonic_ns()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            reached.append(process.pid)
    return Blow(pids=reached, at_ns=at_ns if number == signal.SIGKILL else time.monotonic_ns())


def has_title(process: psutil.Process, title: str) -> bool:
    """Tell whether Ray calls a process ``title``."""
    words = command_of(process)
    return bool(words) and (words[0] == f"ray::{title}" or words[0].startswith(f"ray::{title}."))


def program_of(process: psutil.Process) -> str:
    """Return the name of the program that a process runs; empty if it is gone."""
    words = command_of(process)
    return os.path.basename(words[0]) if words else ""


def command_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing if it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait for a condition; returns whether it came true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
