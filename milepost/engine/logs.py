"""Lines for the program that submitted a workflow: how far it is, and what its tasks print.

Ray shows a driver what the processes of its own job write. The engine's processes belong to a job
of their own, so they say for whom they write: Ray's log monitor reads that from lines that begin
with two words of its own. Whoever does not want these lines says ``ray.init(log_to_driver=False)``.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import ray

from milepost.replay.state import State, Status

if TYPE_CHECKING:
    from milepost.engine.messages import SliceOrder, SliceTask

_driver_log = logging.getLogger("ray.milepost")
"""Below Ray's own, so that lines of the driver's process go where those of Ray go."""

TASKS_TOLD_MAX = 200
"""Of a workflow's tasks only the first so many are told one by one; nobody reads more."""

SLICE_TASKS_TOLD_MAX = 10
"""More tasks in one slice take so little time each that telling would cost more than running."""


def tell(line: str) -> None:
    """Writes a line in the driver that calls the engine."""
    _driver_log.info("%s", _one_line(line))


def say(job: str, line: str) -> None:
    """Writes a line for a job, in a process that works for many.

    Args:
        job: The job's id; nothing is written if it is empty.
        line: What to write.
    """
    if job:
        own = ray.get_runtime_context().get_job_id()
        text = f"{_address(job, 'milepost')}{_one_line(line)}\n{_address(own, 'Dispatcher')}"
        _write(sys.stderr, text)


def describe_end(state: State) -> str:
    """Returns a line that tells how a workflow has ended."""
    name = f"Workflow '{state.workflow_id}'"
    if state.status is Status.FAILED:
        task, error = next(iter(state.failed.items()))
        why = f"{error.type}: {error.message} [{state.workflow_id}@{state.graph.task_id(task)}]"
        return f"{name} failed due to {why}"
    ends = {Status.SUCCESSFUL: "completes successfully", Status.CANCELED: "is canceled"}
    return f"{name} {ends.get(state.status or Status.RUNNING, 'goes on')}"


def _address(job: str, name: str) -> str:
    """Returns the words that make the lines behind them a job's; what is before is sent off."""
    return f":actor_name:{name}\n:job_id:{job}\n"


def _one_line(line: str) -> str:
    return " ".join(line.splitlines())


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        pass  # users may close it; no task fails for want of a log


_spoken_for = ""


def speak_for(job: str) -> None:
    """Has what this worker and its tasks write from now on go to the driver of a job."""
    global _spoken_for
    if job and job != _spoken_for:
        _spoken_for = job
        for stream in (sys.stdout, sys.stderr):
            _write(stream, f":task_name:milepost\n:job_id:{job}\n")


class TaskLog:
    """What a worker writes about the tasks of one slice, for the job that submitted them."""

    def __init__(self, order: SliceOrder) -> None:
        self._workflow_id = order.workflow_id
        self._speaks = bool(order.job) and len(order.tasks) <= SLICE_TASKS_TOLD_MAX

    def began(self, task: SliceTask) -> None:
        """Tells that an attempt begins."""
        if task.attempt > 1:
            self._tell(task, f"Retry {self._name(task)} (attempt {task.attempt})")
        self._tell(task, f"Task status [RUNNING]\t{self._name(task)}")

    def ended(self, task: SliceTask) -> None:
        """Tells that a task returned."""
        self._tell(task, f"Task status [SUCCESSFUL]\t{self._name(task)}")

    def failed(self, task: SliceTask, error_type: str) -> None:
        """Tells that an attempt raised."""
        reason = f"due to an exception raised by the task ({error_type})."
        self._tell(task, f"Task status [FAILED] {reason}\t{self._name(task)}")

    def _name(self, task: SliceTask) -> str:
        return f"[{self._workflow_id}@{task.task_id}]"

    def _tell(self, task: SliceTask, line: str) -> None:
        if self._speaks and task.task < TASKS_TOLD_MAX:
            _write(sys.stderr, f"{_one_line(line)}\n")
