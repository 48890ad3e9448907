"""What a cluster still holds when all its work has ended, and what lies in the store beside it.

Looked for while the cluster lives: processes that run tasks nobody waits for, actors and helper
processes beyond those that there should be, files of ended workflows that are still open, objects
in Ray's store that nobody needs. Then in the folder of the store: temporary files of writers that
were killed, leases of owners that are gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from campaign.ledger import Line
from campaign.stage import POLL_S, Stage, command_of

SETTLE_S_MAX = 30.0
"""So much time everything has to go. The lease of a cluster without work ends after six leases."""

Look = Callable[[], list[str]]
"""Tells what is there that should not be."""


def find_leaks(stage: Stage, storage: str) -> list[str]:
    """Wait until nothing is left over, or long enough.

    Args:
        stage: A cluster whose work has ended.
        storage: The folder of its store; the URI of a bucket, in which nothing is looked for.

    Returns:
        What is left, in words.
    """
    deadline = time.monotonic() + SETTLE_S_MAX
    while True:
        found = [*_find_processes(stage), *_find_open_files(stage, storage)]
        found += _find_files(storage)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(10 * POLL_S)


def find_lost_objects(lines: list[Line]) -> list[str]:
    """Tell what was left in Ray's object store when the last driver had finished."""
    finished = [line for line in lines if line.what == "finished"]
    if not finished or not finished[-1]["object_bytes"]:
        return []
    return [f"{finished[-1]['object_bytes']:.0f} bytes of objects that nobody needs are in Ray"]


def _find_processes(stage: Stage) -> list[str]:
    processes = stage.cluster.processes()
    busy = [each.pid for each in stage.find("run_slice")]
    found = [f"processes {busy} run tasks"] if busy else []
    for name in ("Manager", "Dispatcher"):
        actors = [each.pid for each in stage.find(name)]
        if len(actors) != 1:
            found.append(f"there is not one {name}, but {actors}")
    anchors = [each.pid for each in processes if "milepost.engine.anchor" in command_of(each)]
    if len(anchors) > 1:
        found.append(f"there is more than one anchor: {anchors}")
    return found


def _find_open_files(stage: Stage, storage: str) -> list[str]:
    found = []
    for each in stage.find("Dispatcher"):
        try:
            paths = [file.path for file in each.open_files()]
        except psutil.Error:
            continue
        found += [f"{path} is open" for path in paths if path.startswith(f"{storage}/")]
    return found


def _find_files(storage: str) -> list[str]:
    found = []
    for folder, _, names in os.walk(storage):
        found += [f"{folder}/{name} is left" for name in names if name.startswith(".tmp-")]
    leases = sorted(each.name for each in Path(storage, "leases").glob("*"))
    return found + ([f"there are leases {leases}"] if len(leases) > 1 else [])
