"""What a running task can know about itself, under the names that ``ray.workflow`` used.

:func:`milepost.current` tells the same and more.
"""

from __future__ import annotations

from milepost.engine.context import current, current_task

__all__ = [
    "get_current_task_id",
    "get_current_workflow_id",
    "get_name",
    "in_workflow_execution",
]


def get_current_workflow_id() -> str:
    """Returns the id of the workflow whose task is running.

    Raises:
        OutsideTaskError: If no task of a workflow is running in this thread.
    """
    return current().workflow_id


def get_current_task_id() -> str:
    """Returns the id of the task that is running.

    Raises:
        OutsideTaskError: If no task of a workflow is running in this thread.
    """
    return current().task_id


def get_name() -> str:
    """Returns both ids of the task that is running, as ``workflow@task``.

    Raises:
        OutsideTaskError: If no task of a workflow is running in this thread.
    """
    return f"{get_current_workflow_id()}@{get_current_task_id()}"


def in_workflow_execution() -> bool:
    """Tells whether a task of a workflow is running in this thread."""
    return current_task.get() is not None
