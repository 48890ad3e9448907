"""Tries Ray as a workflow would use it: a program, run by ``milepost doctor``.

Reads the storage from standard input (it may hold credentials, which a command line would show to
everybody) and prints one JSON object per finding: ``subject``, ``level``, ``text`` and ``cure``.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import socket
import sys
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from milepost.errors import MilepostError, StorageUriError
from milepost.journal import open_store
from milepost.journal.opening import NO_STORE

TASK_SECONDS_MAX = 60.0
NODES_MAX = 64
SKEW_S_MAX = 20.0


def main() -> None:
    """Connects, or starts a cluster; runs a task on each node; prints what was found."""
    storage = sys.stdin.read()
    began = time.monotonic()
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    took_s = time.monotonic() - began
    every: Any = ray  # two of its functions have no types
    nodes = [node for node in every.nodes() if node["Alive"]]
    cpus = every.cluster_resources().get("CPU", 0)
    text = f"{ray.__version__}, {len(nodes)} nodes, {cpus:g} CPUs, there after {took_s:.1f} s"
    if cpus:
        tell("ray", "ok", text.replace("1 nodes", "1 node"))
    else:
        tell(
            "ray", "fault", text, "give the cluster CPUs: a task takes one unless it says num_cpus"
        )
        return
    for node in nodes[:NODES_MAX]:
        check_node(node["NodeID"], storage)
    ray.shutdown()


def check_node(node_id: str, storage: str) -> None:
    """Runs a task on a node, and tells what it saw."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(look_around).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    before = time.time()
    ref: ray.ObjectRef[Any] = task.remote(storage)
    try:
        seen: dict[str, Any] = ray.get(ref, timeout=TASK_SECONDS_MAX)
    except GetTimeoutError:
        cure = "look into the node's logs; too little memory or disk keeps workers from starting"
        tell("worker", "fault", f"node {node_id[:8]} ran no task in {TASK_SECONDS_MAX:.0f} s", cure)
        return
    except RayError as error:
        cure = "install the same Milepost on every node, as on this machine"
        last = str(error).strip().splitlines()[-1]
        tell("worker", "fault", f"node {node_id[:8]}: {last}", cure)
        return
    for finding in judge(seen, before, time.time()):
        tell(*finding)


def look_around(storage: str) -> dict[str, Any]:
    """Runs on a node: says who that is, which Milepost it has, what it sees of the storage."""
    try:
        open_store(storage, create=False)
        trouble = ""
    except StorageUriError as error:
        trouble = "" if error.reason == NO_STORE else str(error)
    except MilepostError as error:
        trouble = str(error)
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "milepost": importlib.metadata.version("milepost"),
        "storage": trouble,
    }


def judge(seen: dict[str, Any], before: float, after: float) -> list[tuple[str, str, str, str]]:
    """Returns what is to be told of a node.

    Args:
        seen: What :func:`look_around` returned.
        before: The time here when the task was sent, in seconds since 1970.
        after: The time here when its answer came.

    Returns:
        Subject, level, text and cure, of each finding.
    """
    host, own = seen["host"], importlib.metadata.version("milepost")
    found = []
    if seen["milepost"] != own:
        text = f"{host} has Milepost {seen['milepost']}, this machine {own}"
        found.append(("worker", "fault", text, "install the same version on every node"))
    if seen["storage"]:
        cure = (
            "give every node the same variables and credentials, and a storage that all can reach"
        )
        found.append(("worker", "fault", f"{host}: {seen['storage']}", cure))
    if not before - SKEW_S_MAX <= seen["time"] <= after + SKEW_S_MAX:
        text = f"the clock of {host} is {seen['time'] - after:+.0f} s off"
        found.append(("worker", "warning", text, "set its clock (NTP)"))
    return found or [("worker", "ok", f"{host} ran a task", "")]


def tell(subject: str, level: str, text: str, cure: str = "") -> None:
    """Prints a finding."""
    told = {"subject": subject, "level": level, "text": text, "cure": cure}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
