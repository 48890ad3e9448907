"""The doctor's rounds: every check in turn, Ray's in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

from milepost.doctor.finding import Finding, Level
from milepost.doctor.storage import check_storage
from milepost.doctor.versions import check_versions

RAY_SECONDS_MAX = 150.0
"""A cold start of Ray on a slow machine takes a minute."""

RAY_COMMAND = (sys.executable, "-m", "milepost.engine.checkup")


def examine(storage: str | None, *, with_ray: bool = True) -> Iterator[Finding]:
    """Look at everything, and tell each finding as soon as it is there.

    Args:
        storage: Path or URI of the store; by default the folder that a driver would use.
        with_ray: Whether to connect to Ray, or start it.

    Yields:
        The findings.
    """
    yield from check_versions()
    chosen = storage or str(platformdirs.user_data_path("milepost"))
    yield from check_storage(chosen)
    if with_ray:
        yield from check_ray(chosen)


def check_ray(
    storage: str, command: Sequence[str] = RAY_COMMAND, seconds_max: float = RAY_SECONDS_MAX
) -> Iterator[Finding]:
    """Try Ray: connect or start, run a task on each node, reach the storage from there.

    Args:
        storage: Path or URI of the store.
        command: The program that does it and prints its findings as JSON.
        seconds_max: How long it may take.

    Yields:
        Its findings, or one about its end.
    """
    where, cure = _whereabouts()
    try:
        done = subprocess.run(
            command, input=storage, capture_output=True, text=True, timeout=seconds_max
        )
    except subprocess.TimeoutExpired:
        yield Finding("ray", Level.FAULT, f"no answer from {where} in {seconds_max:.0f} s", cure)
        return
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            yield Finding(told["subject"], Level(told["level"]), told["text"], told["cure"])
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        text = f"{where} cannot be used: {last} (exit code {done.returncode})"
        yield Finding("ray", Level.FAULT, text, cure)


def _whereabouts() -> tuple[str, str]:
    """Says which cluster Ray takes here, and what to do if that does not work."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address != "local":
        return f"the cluster at {address}", (
            f"start that cluster, correct RAY_ADDRESS ({address}), or unset it; with token "
            f"authentication set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"
        )
    noted = _read_note() if not address else ""
    if noted:
        return f"the cluster at {noted}, which `ray start` noted on this machine,", (
            "if it is gone, `ray stop` clears the note; RAY_ADDRESS=local starts another one"
        )
    return "a cluster of its own", (
        "try `ray start --head` by hand; its logs are below /tmp/ray/session_latest/logs"
    )


def _read_note() -> str:
    """Returns the address that `ray start` leaves for programs on its machine; empty without."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        return note.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
