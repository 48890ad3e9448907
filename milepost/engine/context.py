"""What a running task can know about itself."""

from __future__ import annotations

import json
import uuid
from contextvars import ContextVar
from dataclasses import dataclass

from milepost.errors import OutsideTaskError

_TOKENS = uuid.UUID("6b1d9a3e-6f0e-4f0c-8a46-0b8d1a1e7f52")
"""The namespace of idempotency tokens; another one would change them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """The task that is running in this thread.

    Attributes:
        workflow_id: Its workflow.
        incarnation: Tells this workflow from deleted ones that had the same id.
        task_id: Its id, unique in the workflow.
        attempt: Which attempt this is, from 1.
        epoch: That of the owner who ordered this attempt. It only rises; an outside system that
            remembers the highest one it saw can refuse what a paused owner orders late.
    """

    workflow_id: str
    incarnation: int
    task_id: str
    attempt: int
    epoch: int

    @property
    def idempotency_token(self) -> str:
        """A UUID that is the same for every attempt of this task, and for no other task.

        Give it to what must happen once (a payment, a mail) and knows such tokens: a task whose
        worker died may have done its work before, and runs again.
        """
        return str(
            uuid.uuid5(_TOKENS, json.dumps([self.workflow_id, self.incarnation, self.task_id]))
        )


current_task: ContextVar[TaskContext | None] = ContextVar("milepost_current_task", default=None)


def current() -> TaskContext:
    """Returns what the running task can know about itself: its ids, its attempt, its token.

    Raises:
        OutsideTaskError: If no task of a workflow is running in this thread.

    Example:
        >>> @ray.remote(max_retries=5, retry_exceptions=True)
        ... def pay(cents):
        ...     bank.pay(cents, idempotency_key=milepost.current().idempotency_token)
    """
    context = current_task.get()
    if context is None:
        raise OutsideTaskError(
            "no task of a workflow is running in this thread; call this inside of one"
        )
    return context
