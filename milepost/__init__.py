"""Durable execution for Ray: workflows that outlive their cluster.

A workflow is a DAG of ordinary Ray tasks. Every result is committed to a journal in a folder or a
bucket; after a crash, on the same cluster or on a fresh one, committed tasks do not run again.

Importing this package does not load Ray; the first use of one of its functions does.

Example:
    >>> import milepost, ray
    >>> milepost.init(storage="/data/workflows")
    >>> @ray.remote
    ... def add(a, b):
    ...     return a + b
    >>> milepost.run(add.bind(add.bind(1, 2), 3), workflow_id="sum")
    6
"""

from importlib import import_module
from typing import TYPE_CHECKING

from milepost import errors
from milepost.errors import WorkflowCancellationError, WorkflowError, WorkflowExecutionError
from milepost.replay.state import Status as WorkflowStatus

if TYPE_CHECKING:
    from milepost.engine.api import (
        EventListener,
        MapResult,
        cancel,
        continuation,
        current,
        delete,
        get_metadata,
        get_output,
        get_output_async,
        get_status,
        init,
        list_all,
        list_tasks,
        map,
        options,
        recover,
        resume,
        resume_all,
        resume_async,
        run,
        run_async,
        sleep,
        wait_for_event,
    )
    from milepost.engine.retry import Retry

CANCELED = WorkflowStatus.CANCELED
FAILED = WorkflowStatus.FAILED
PENDING = WorkflowStatus.PENDING
RESUMABLE = WorkflowStatus.RESUMABLE
RUNNING = WorkflowStatus.RUNNING
SUCCESSFUL = WorkflowStatus.SUCCESSFUL

__all__ = [
    "CANCELED",
    "FAILED",
    "PENDING",
    "RESUMABLE",
    "RUNNING",
    "SUCCESSFUL",
    "EventListener",
    "MapResult",
    "Retry",
    "WorkflowCancellationError",
    "WorkflowError",
    "WorkflowExecutionError",
    "WorkflowStatus",
    "cancel",
    "continuation",
    "current",
    "delete",
    "errors",
    "get_metadata",
    "get_output",
    "get_output_async",
    "get_status",
    "init",
    "list_all",
    "list_tasks",
    "map",
    "options",
    "recover",
    "resume",
    "resume_all",
    "resume_async",
    "run",
    "run_async",
    "sleep",
    "wait_for_event",
]


def __getattr__(name: str) -> object:
    """Loads the engine, and Ray with it, when one of its functions is first used."""
    if name in __all__:
        return getattr(import_module("milepost.engine.api"), name)
    raise AttributeError(f"module 'milepost' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names what is there, loaded or not, for completion at a prompt."""
    return sorted({*globals(), *__all__})
