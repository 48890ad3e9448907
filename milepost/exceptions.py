"""The errors of :mod:`milepost.errors` that ``ray.workflow`` had, under its names."""

from __future__ import annotations

from milepost.errors import (
    WorkflowActiveError,
    WorkflowCancellationError,
    WorkflowError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
)

__all__ = [
    "WorkflowCancellationError",
    "WorkflowError",
    "WorkflowExecutionError",
    "WorkflowNotFoundError",
    "WorkflowNotResumableError",
    "WorkflowStillActiveError",
]

WorkflowStillActiveError = WorkflowActiveError
