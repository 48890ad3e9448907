"""A Ray cluster of separate processes on this machine, made to be killed.

:class:`LocalCluster` starts ``ray start --head`` in a session of its own and can kill every process
of it with SIGKILL, as the loss of a machine would. It recognises its processes by their session, by
a mark in their environment and by the cluster's own temporary folder on their command line, never
by a program's name: other clusters, of whomever, are left alone. Any number of them run side by
side.

It must never kill the process that uses it, or one that started it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

MARK = "LOCAL_CLUSTER_FOLDER"
"""Environment variable that every process of a cluster inherits; its value is the folder."""

ADDRESS = "127.0.0.1"
START_SECONDS_MAX = 60.0
START_ATTEMPTS_MAX = 3
"""The port is chosen before Ray binds it, so another process can take it in between."""

KILL_SECONDS_MAX = 20.0
POLL_SECONDS = 0.05
STARTED = "Ray runtime started."
"""What ``ray start`` prints once the node is registered and accepts drivers."""

TOKEN = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
"""All clusters of one process share a token, because Ray reads it once per process: so a driver can
go from cluster to cluster. A driver *in this process* needs :attr:`LocalCluster.environment` in
force before Ray is first imported."""

QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Takes the behaviour that Ray otherwise announces in a warning at every start."""


class LocalCluster:
    """One Ray cluster of its own processes on this machine.

    Example:
        >>> with LocalCluster(num_cpus=2) as cluster:  # doctest: +SKIP
        ...     subprocess.run([sys.executable, "driver.py"], env=os.environ | cluster.environment)
        ...     cluster.kill()

    Attributes:
        address: Where drivers connect, as ``host:port``; empty while the cluster is down.
        folder: The cluster's temporary folder; it holds Ray's logs and sockets.
    """

    def __init__(
        self,
        *,
        num_cpus: int = 2,
        object_store_bytes: int = 256 * 1024 * 1024,
        environment: Mapping[str, str] | None = None,
        shows_logs: bool = False,
    ) -> None:
        """Describe a cluster; :meth:`start` or ``with`` starts it.

        Args:
            num_cpus: CPUs that Ray hands out, whatever the machine has.
            object_store_bytes: Size of the shared-memory object store.
            environment: Variables added to the environment of every process of the cluster.
            shows_logs: Whether drivers are shown what their tasks print.
        """
        self._num_cpus = num_cpus
        self._object_store_bytes = object_store_bytes
        self._extra = dict(environment or {})
        self._shows_logs = shows_logs
        self._head: subprocess.Popen[bytes] | None = None
        self.folder: Path | None = None
        self.address = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that let a driver find this cluster and authenticate to it."""
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        return {"RAY_ADDRESS": self.address} | token | QUIET

    def __enter__(self) -> Self:
        """Start the cluster."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill the cluster and remove its folder."""
        self.stop()

    def start(self) -> Self:
        """Start the cluster and wait until it accepts drivers.

        Raises:
            RuntimeError: The cluster runs already, or Ray did not start; the message ends with
                what Ray printed.
        """
        if self._head is not None:
            raise RuntimeError(f"the cluster at {self.address} was started before; stop() it first")
        failure = ""
        for _ in range(START_ATTEMPTS_MAX):
            failure = self._try_to_start()
            if not failure:
                return self
        raise RuntimeError(f"Ray did not start in {START_ATTEMPTS_MAX} attempts:\n{failure}")

    def kill(self) -> int:
        """Kill every process of the cluster with SIGKILL and wait until none is left.

        The folder stays, so that Ray's logs can be read. Killing a dead cluster does nothing.

        Returns:
            How many processes were killed.

        Raises:
            RuntimeError: A process is still there after 20 seconds.
        """
        deadline = time.monotonic() + KILL_SECONDS_MAX
        killed: set[psutil.Process] = set()
        while processes := self.processes():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes that outlive SIGKILL: {processes}")
            for process in processes:
                kill_process(process)
            killed.update(processes)
            time.sleep(POLL_SECONDS)
        if self._head is not None:
            self._head.wait()
        self.address = ""
        return len(killed)

    def stop(self) -> None:
        """Kill the cluster and remove its folder, as if it had never been."""
        try:
            self.kill()
        finally:
            self._head = None
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def processes(self) -> list[psutil.Process]:
        """List the living processes of this cluster."""
        if self.folder is None or self._head is None:
            return []
        spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        return [
            process
            for process in psutil.process_iter()
            if process.pid not in spared and self._owns(process)
        ]

    def _owns(self, process: psutil.Process) -> bool:
        """Tell whether a process is alive and belongs to this cluster."""
        assert self._head is not None
        folder = str(self.folder)
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return (
                os.getsid(process.pid) == self._head.pid
                or any(folder in argument for argument in process.cmdline())
                or process.environ().get(MARK) == folder
            )
        except (psutil.Error, OSError):
            return False

    def _try_to_start(self) -> str:
        """Start the head once.

        Returns:
            Nothing if it started, else what Ray printed.
        """
        # Ray's unix sockets lie 62 characters below this folder and may have 107 in all, so the
        # short /tmp is used whatever TMPDIR says.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")).resolve()
        port = free_port()
        log = self.folder / "ray-start.log"
        try:
            with log.open("wb") as output:
                self._head = subprocess.Popen(
                    self._command(port),
                    env=self._process_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.address = f"{ADDRESS}:{port}"
            if self._wait_until_started(log):
                return ""
        except BaseException:
            self.stop()
            raise
        printed = log.read_text(errors="replace")
        self.stop()
        return printed or "(nothing was printed)"

    def _wait_until_started(self, log: Path) -> bool:
        """Wait until the head says that it is up; False if it died or took too long."""
        assert self._head is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self._head.poll() is None:
            if STARTED in log.read_text(errors="replace"):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _command(self, port: int) -> list[str]:
        """Return the command of the head; every port but its own is left to the system."""
        return [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--node-ip-address={ADDRESS}", f"--port={port}"),
            *("--min-worker-port=0", "--max-worker-port=0"),
            *(f"--temp-dir={self.folder}", f"--num-cpus={self._num_cpus}"),
            f"--object-store-memory={self._object_store_bytes}",
            *("--include-dashboard=false", "--no-monitor"),
            f"--include-log-monitor={str(self._shows_logs).lower()}",
            "--disable-usage-stats",
        ]

    def _process_environment(self) -> dict[str, str]:
        """Return the environment of the cluster: ours without what it says of other clusters."""
        inherited = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
        own = self.environment | {MARK: str(self.folder)} | self._extra
        del own["RAY_ADDRESS"]
        return inherited | own


def kill_process(process: psutil.Process) -> None:
    """Send SIGKILL to a process that may have ended in the meantime."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
