"""What callers are told who ask for an output: the value, or why there is none."""

from __future__ import annotations

from milepost.engine.host import WorkflowHost
from milepost.engine.outputs import describe_failure
from milepost.errors import OutputNotAvailableError, TaskNotFoundError, WorkflowCancellationError
from milepost.replay.expanding import expand
from milepost.replay.payload import Payload
from milepost.replay.state import State, Status


async def await_output(storage: str, host: WorkflowHost, task_id: str | None) -> Payload:
    """Returns an output of a workflow that runs here, once there is one and it is durable.

    Args:
        storage: What opens the store; an error's cause is read from there by who gets it.
        host: Where the workflow runs.
        task_id: A task of it, or None for the workflow.

    Raises:
        TaskNotFoundError: If the workflow ends without such a task.
        WorkflowExecutionError: If it fails.
        WorkflowCancellationError: If it is canceled.
        LostOwnershipError: If another cluster takes the workflow over.
        StorageUnavailableError: If the storage fails.
    """
    flushes = host.flushes
    while True:
        payload = _find_output(host.state, task_id)
        if payload is not None:
            await host.sync()
            if host.flushes == flushes:  # none has just made sure that it is ours
                await host.confirm()
            return payload
        if host.stopped is not None:
            raise host.stopped
        if host.ended or (host.announced is Status.FAILED and not _may_come(host, task_id)):
            return pick_output(storage, host.state, task_id)
        await host.change()


def pick_output(storage: str, state: State, task_id: str | None) -> Payload:
    """Returns an output of a workflow that is not running, or raises why there is none.

    Raises:
        TaskNotFoundError: If there is no such task.
        WorkflowExecutionError: If it failed.
        WorkflowCancellationError: If it was canceled.
        OutputNotAvailableError: If it has not ended and nobody is working on it.
    """
    payload = _find_output(state, task_id)
    if payload is not None and state.status is not Status.CANCELED:
        return payload
    task = state.graph.find(task_id) if task_id is not None else None
    if task_id is not None and task is None:
        raise TaskNotFoundError(state.workflow_id, task_id, state.graph.find_near(task_id))
    if state.status is Status.CANCELED:
        raise WorkflowCancellationError(state.workflow_id)
    if state.status is Status.FAILED:
        culprit = task if task in state.failed else next(iter(state.failed))
        raise describe_failure(storage, state, culprit)
    status = see_from_outside(state.status or Status.RUNNING)
    raise OutputNotAvailableError(state.workflow_id, status.value, task_id)


def see_from_outside(status: Status) -> Status:
    """Returns how a stored status looks to somebody who knows that nobody here owns it."""
    return Status.RESUMABLE if status in (Status.RUNNING, Status.PENDING) else status


def _find_output(state: State, task_id: str | None) -> Payload | None:
    task = state.root if task_id is None else state.graph.find(task_id)
    payload = state.results[task] if task is not None and state.results else None
    return None if payload is None else expand(state, payload)


def _may_come(host: WorkflowHost, task_id: str | None) -> bool:
    """Tells whether a task of a failed workflow is still running and may yet commit."""
    task = None if task_id is None else host.state.graph.find(task_id)
    return any(task in slice_.outstanding for slice_ in host.state.slices.values())
