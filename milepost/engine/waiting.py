"""Nodes that wait and take no worker: what users bind, and what it does outside of a workflow.

In a workflow the functions here never run: the options of their nodes say what they wait for, and
the replayer begins and ends the wait (:mod:`milepost.replay.waiting`). Journals name these
functions, so they keep their names and arguments for ever.
"""

from __future__ import annotations

import math
import time
from typing import Any

import ray
from ray.dag import DAGNode

from milepost.engine.options import WAITS_FOR, make_label
from milepost.errors import InvalidOptionError


def sleep(duration: float | DAGNode) -> Any:
    """Makes a node that waits for a while and whose value is None.

    The clock starts when the node is ready (in a workflow where nothing comes before it: when that
    starts), not when this is called. The time at which it ends is in the journal: whoever goes on
    with the workflow waits for what is left of it. Waiting takes no worker, no CPU, no process.

    Args:
        duration: How long, in seconds; or a task that returns it.

    Raises:
        InvalidOptionError: If it is not a number, or a negative one.

    Example:
        >>> @ray.remote
        ... def remind(_, name):
        ...     return f"dear {name}"
        >>> milepost.run(remind.bind(milepost.sleep(7 * 24 * 3600), "Ann"))
        'dear Ann'
    """
    if isinstance(duration, DAGNode):
        return _sleep.bind(_check_seconds.bind(duration))
    return _sleep.bind(read_seconds(duration, "sleep()"))


def read_seconds(duration: object, where: str) -> float:
    """Returns a duration as a number of seconds.

    Raises:
        InvalidOptionError: If it is not one.
    """
    number = duration if isinstance(duration, int | float) else math.nan
    if isinstance(duration, bool) or not number >= 0:
        raise InvalidOptionError(f"{where} takes a number of seconds, 0 or more, not {duration!r}")
    return float(number)


def _wait_plainly(duration: float) -> None:
    time.sleep(duration)


def _check_duration(duration: Any) -> float:
    return read_seconds(duration, "sleep()")


def _name(task_id: str, waits_for: str = "") -> dict[str, Any]:
    return {"num_cpus": 0, **make_label({"task_id": task_id, WAITS_FOR: waits_for})}


_sleep: Any = ray.remote(**_name("milepost.sleep", "time"))(_wait_plainly)
_check_seconds: Any = ray.remote(**_name("milepost.sleep.duration"))(_check_duration)
