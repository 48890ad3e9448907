"""A bar that shows how far a workflow is, while a person waits for it in a terminal or notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

VARIABLE = "MILEPOST_PROGRESS"
"""Set to 0, there is no bar; set to 1, there is one wherever the output goes."""

PATIENCE_S = 1.0
"""What takes no longer needs no bar."""

LOOK_S = 0.5


def is_watched() -> bool:
    """Tells whether somebody sees what this process writes: a terminal, or a notebook."""
    asked = os.environ.get(VARIABLE, "")
    if asked in ("0", "1"):
        return asked == "1"
    if "ipykernel" in sys.modules:
        return True
    with suppress(ValueError):  # a closed stream
        return sys.stderr is not None and sys.stderr.isatty()
    return False


def show_progress(
    ref: ray.ObjectRef[Any], workflow_id: str, look: Callable[[], ray.ObjectRef[dict[str, Any]]]
) -> None:
    """Shows a bar until a result is there, if that takes its time and somebody sees it.

    Args:
        ref: The result.
        workflow_id: What to write before the bar.
        look: Asks for the workflow's metadata.
    """
    if not is_watched() or _is_done(ref, PATIENCE_S):
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    console = Console(file=sys.stderr, force_terminal=True if is_watched() else None)
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task(workflow_id, total=None, state="")
        while not _is_done(ref, LOOK_S):
            with suppress(RayError):  # the result's ref tells what is wrong
                told = ray.get(look(), timeout=LOOK_S * 10)
                bar.update(row, **describe(told))


def _is_done(ref: ray.ObjectRef[Any], timeout_s: float) -> bool:
    ready, _ = ray.wait([ref], timeout=timeout_s, fetch_local=False)
    return bool(ready)


def describe(told: dict[str, Any]) -> dict[str, Any]:
    """Returns what a bar shows of a workflow's metadata: how many of how many tasks, and the rest.

    Args:
        told: As :func:`milepost.get_metadata` returns it.
    """
    tasks = {name: count for name, count in told["tasks"].items() if count}
    done = tasks.pop("COMMITTED", 0)
    total = done + sum(tasks.values()) - tasks.pop("DROPPED", 0)
    state = " ".join(f"{count} {name.lower()}" for name, count in tasks.items())
    if told["status"] != "RUNNING":
        state = told["status"].lower()
    return {"completed": done, "total": total, "state": state}
