"""What a running task can know about itself."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """The task that is running in this thread.

    Attributes:
        workflow_id: Its workflow.
        task_id: Its id, unique in the workflow.
        attempt: Which attempt this is, from 1.
    """

    workflow_id: str
    task_id: str
    attempt: int

    @property
    def idempotency_token(self) -> str:
        """A text that is the same for every attempt of this task, and for no other task."""
        return f"{self.workflow_id}/{self.task_id}"


current_task: ContextVar[TaskContext | None] = ContextVar("milepost_current_task", default=None)
