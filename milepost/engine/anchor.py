"""A small driver process that the engine's dispatchers belong to.

In Ray every actor belongs to the job of the program that started it, and when that program ends,
Ray kills the idle workers of its job at once: every pause of a workflow would then cost the start
of a process. The dispatchers therefore belong to a program that ends with them, this one. The
manager starts it; it outlives a manager that is killed.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from typing import Any

import ray

from milepost.engine.environment import build_runtime_env
from milepost.engine.names import NAMESPACE, dispatcher_name

READY = "ready"

START_S_MAX = 60.0
"""A driver starts in two seconds; a machine that needs this long has other troubles."""

LOOK_S = 5.0
"""Between looks whether there is a dispatcher left to stay for."""

_OF_THE_WORKER = ("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""Variables that Ray sets for the worker which starts this program, and not for a driver."""


def hold_job(settings: dict[str, Any]) -> None:
    """Starts this program and has it start the dispatchers; returns when they are on their way.

    Args:
        settings: What :func:`main` needs, as plain data. They go through a pipe, since everybody
            on a machine can read command lines, and a storage's URI may hold credentials.

    Raises:
        OSError: If the program cannot be started, or does not get so far.
    """
    environment = {name: text for name, text in os.environ.items() if name not in _OF_THE_WORKER}
    settings = {**settings, "pythonpath": os.environ.get("PYTHONPATH", "")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "milepost.engine.anchor"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None, process.args
    assert process.stdout is not None, process.args
    with process.stdin as given, process.stdout as said:
        given.write(json.dumps(settings) + "\n")
        given.flush()
        in_time, _, _ = select.select([said], [], [], START_S_MAX)
        line = said.readline().strip() if in_time else ""
    if line != READY:
        process.kill()
        raise OSError(f"the engine's own driver did not start (it said {line!r})")


def main(settings: dict[str, Any]) -> None:
    """Starts the dispatchers, says so, and stays while there is one."""
    ray.init(
        address=settings["address"],
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    warm = _start_worker(settings["environment"], settings["pythonpath"])
    # Only now: the worker starts while this process imports the rest of the engine.
    from milepost.engine.pool import start_dispatcher

    manager = ray.get_actor(settings["manager"], namespace=NAMESPACE)
    for index in range(settings["dispatchers"]):
        start_dispatcher(
            settings["storage"], settings["store_id"], settings["cluster_id"], index, manager
        )
    print(READY, flush=True)
    del warm  # it had to be kept so far: Ray drops what nobody waits for
    names = [
        dispatcher_name(settings["store_id"], index) for index in range(settings["dispatchers"])
    ]
    while any(map(_is_there, names)):
        time.sleep(LOOK_S)


def _start_worker(environment: dict[str, Any], python_path: str) -> ray.ObjectRef[None]:
    """Starts a process for the first slice of the program that starts the engine.

    Ray would start it when it gets that slice, half a second later. If this guesses wrongly what
    the dispatcher will ask for, it does so still.

    Args:
        environment: Of that program, as a submission holds it.
        python_path: The variable ``PYTHONPATH`` of the workers.
    """
    os.environ["PYTHONPATH"] = python_path
    import_paths = [*python_path.split(os.pathsep), os.getcwd()]
    runtime_env = build_runtime_env(environment, None, import_paths)
    options = {} if runtime_env is None else {"runtime_env": runtime_env}
    warm_up: Any = ray.remote(num_cpus=0, max_retries=0)(_warm_up)
    started: ray.ObjectRef[None] = warm_up.options(**options).remote()
    return started


def _warm_up() -> None:
    importlib.import_module("milepost.engine.executor")


def _is_there(name: str) -> bool:
    try:
        ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main(json.loads(sys.stdin.readline()))
