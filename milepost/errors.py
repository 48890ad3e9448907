"""Every error Milepost raises, named for what the reader does next.

One root, :class:`MilepostError`. Below it: fix the call (:class:`UsageError`), try again later
(:class:`StorageUnavailableError`), look again because another owner took over
(:class:`LostOwnershipError`), repair the data (:class:`CorruptJournalError` and its kin), or handle
the outcome of a workflow (:class:`WorkflowError`).

Constructors keep their raw arguments in ``args``, so that every error survives pickling; the text
is built in ``__str__``. This module imports nothing but the standard library.
"""

from __future__ import annotations

import queue


class MilepostError(Exception):
    """Root of all errors of this library."""


class UsageError(MilepostError):
    """The call cannot work as written; nothing was started or stored."""


class InvalidGraphError(UsageError, TypeError):
    """The object given as a workflow is not a graph of task nodes that Milepost can run."""


class SignatureMismatchError(UsageError, TypeError):
    """A task is bound with arguments that its function does not take."""


class NotSerializableError(UsageError, TypeError):
    """A function, an argument or an option cannot be pickled."""


class InvalidOptionError(UsageError, ValueError):
    """An option of a task, a workflow or :func:`milepost.init` has a value that is not allowed."""


class InvalidWorkflowIdError(UsageError, ValueError):
    """A workflow id is empty, too long or not text."""

    def __init__(self, workflow_id: object, reason: str) -> None:
        super().__init__(workflow_id, reason)
        self.workflow_id = workflow_id
        self.reason = reason

    def __str__(self) -> str:
        shown = repr(self.workflow_id)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return f"workflow id {shown} cannot be used: {self.reason}"


class StorageUriError(UsageError, ValueError):
    """A storage URI cannot be parsed, is of an unknown kind, or holds something else."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        named = f"storage {self.uri!r}" if self.uri else "the storage"
        return f"{named} cannot be used: {self.reason}"


class ConflictingInitError(UsageError, ValueError):
    """:func:`milepost.init` was called again with a setting that differs from the one in force."""

    def __init__(self, setting: str, in_force: object, asked: object) -> None:
        super().__init__(setting, in_force, asked)
        self.setting = setting
        self.in_force = in_force
        self.asked = asked

    def __str__(self) -> str:
        return (
            f"milepost.init({self.setting}={self.asked!r}) conflicts with {self.setting}="
            f"{self.in_force!r} already in force; call milepost.init() without it"
        )


class OutsideTaskError(UsageError, AssertionError):
    """What only a running task of a workflow can ask was asked elsewhere."""


class InvalidStateTransitionError(UsageError, RuntimeError):
    """The workflow exists, but not in a status in which this call makes sense."""


class WorkflowActiveError(InvalidStateTransitionError):
    """The workflow is already running or pending, so it cannot be started or resumed now."""

    def __init__(self, workflow_id: str, operation: str) -> None:
        super().__init__(workflow_id, operation)
        self.workflow_id = workflow_id
        self.operation = operation

    def __str__(self) -> str:
        return (
            f"cannot {self.operation} workflow {self.workflow_id!r}: it is already running or "
            f"pending; wait for it with milepost.get_output({self.workflow_id!r})"
        )


class WorkflowEndedError(InvalidStateTransitionError):
    """The workflow has ended for good, so there is nothing left to do this to."""

    def __init__(self, workflow_id: str, operation: str, status: str) -> None:
        super().__init__(workflow_id, operation, status)
        self.workflow_id = workflow_id
        self.operation = operation
        self.status = status

    def __str__(self) -> str:
        return (
            f"cannot {self.operation} workflow {self.workflow_id!r}: it has ended and is "
            f"{self.status}; milepost.delete({self.workflow_id!r}) removes it"
        )


class WorkflowError(MilepostError):
    """Root of the errors that concern one workflow; its id is ``workflow_id``."""

    def __init__(self, workflow_id: str, *details: object) -> None:
        super().__init__(workflow_id, *details)
        self.workflow_id = workflow_id


class WorkflowNotFoundError(WorkflowError, ValueError):
    """The storage holds no workflow of this id."""

    def __init__(self, workflow_id: str, storage: str = "") -> None:
        super().__init__(workflow_id, storage)
        self.storage = storage

    def __str__(self) -> str:
        where = f" in {self.storage}" if self.storage else ""
        return (
            f"No such workflow_id {self.workflow_id!r}{where}; milepost.list_all() names the known "
            f"ones"
        )


class TaskNotFoundError(WorkflowError, ValueError):
    """The workflow has ended (or does not run) and holds no task of this id."""

    def __init__(self, workflow_id: str, task_id: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(workflow_id, task_id, near)
        self.task_id = task_id
        self.near = near

    def __str__(self) -> str:
        near = f"; there is {', '.join(map(repr, self.near))}" if self.near else ""
        return f"No such task_id {self.task_id!r} in workflow {self.workflow_id!r}{near}"


class OutputNotAvailableError(WorkflowError, ValueError):
    """The output does not exist (yet), and nothing in this cluster is working on it."""

    def __init__(self, workflow_id: str, status: str, task_id: str | None = None) -> None:
        super().__init__(workflow_id, status, task_id)
        self.status = status
        self.task_id = task_id

    def __str__(self) -> str:
        what = f"task {self.task_id!r} of workflow" if self.task_id else "workflow"
        active = self.status in ("RUNNING", "PENDING")
        return (
            f"{what} {self.workflow_id!r} has no output: its status is {self.status}"
            + " on another cluster" * active
            + f"; milepost.resume({self.workflow_id!r}) "
            + ("takes it over" if active else "goes on with it")
        )


class WorkflowNotResumableError(WorkflowError):
    """The workflow cannot go on: it is unknown, canceled, or its stored data do not suffice."""

    def __init__(self, workflow_id: str, reason: str) -> None:
        super().__init__(workflow_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} cannot be resumed: {self.reason}"


class WorkflowExecutionError(WorkflowError):
    """A task failed for good. The user's own exception is the ``__cause__``."""

    def __init__(self, workflow_id: str, task_id: str, error_type: str, message: str) -> None:
        super().__init__(workflow_id, task_id, error_type, message)
        self.task_id = task_id
        self.error_type = error_type
        self.message = message

    def __str__(self) -> str:
        return (
            f"task {self.task_id!r} of workflow {self.workflow_id!r} failed: {self.error_type}: "
            f"{self.message} (milepost.resume({self.workflow_id!r}) tries again, with the code as "
            f"it was stored; changed code needs a new workflow_id)"
        )


class WorkflowCancellationError(WorkflowError):
    """The workflow was canceled; it has no result and cannot be resumed."""

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} was canceled"


class TooManyWorkflowsError(MilepostError, queue.Full):
    """As many workflows run and wait as may; try again when one of them has ended."""

    def __init__(self, workflow_id: str, max_running: int, max_pending: int) -> None:
        super().__init__(workflow_id, max_running, max_pending)
        self.workflow_id = workflow_id
        self.max_running = max_running
        self.max_pending = max_pending

    def __str__(self) -> str:
        return (
            f"Workflow queue has been full: {self.max_running} workflows run and "
            f"{self.max_pending} wait, as many as may; {self.workflow_id!r} was neither started "
            f"nor changed, try again when one has ended"
        )


class TaskRaisedError(MilepostError):
    """Stands for an exception of a task that cannot be rebuilt in this process."""

    def __init__(self, task_id: str, error_type: str, message: str, reason: str) -> None:
        super().__init__(task_id, error_type, message, reason)
        self.task_id = task_id
        self.error_type = error_type
        self.message = message
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"task {self.task_id!r} raised {self.error_type}: {self.message} (the exception itself "
            f"cannot be rebuilt here: {self.reason})"
        )


class TaskCrashedError(MilepostError):
    """The worker process of a task died (killed, out of memory, node lost) before it reported."""

    def __init__(self, task_id: str, reason: str) -> None:
        super().__init__(task_id, reason)
        self.task_id = task_id
        self.reason = reason

    def __str__(self) -> str:
        return f"the worker that ran task {self.task_id!r} died: {self.reason}"


class TaskOutOfMemoryError(TaskCrashedError):
    """The worker process of a task was killed because its node ran out of memory."""


class NodeLostError(TaskCrashedError):
    """The node on which a task ran was lost."""


class TaskTimeoutError(MilepostError, TimeoutError):
    """A task ran longer than its ``timeout_s`` and was ended."""

    def __init__(self, task_id: str, reason: str) -> None:
        super().__init__(task_id, reason)
        self.task_id = task_id
        self.reason = reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} was ended: {self.reason}"


class StorageUnavailableError(MilepostError):
    """The storage refused or failed an operation (full, unreachable, no permission, I/O error)."""

    def __init__(self, operation: str, key: str, reason: str) -> None:
        super().__init__(operation, key, reason)
        self.operation = operation
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"storage failed to {self.operation} {self.key!r}: {self.reason}; nothing committed is "
            f"lost, resume the workflow when the storage works again"
        )


class EngineUnavailableError(MilepostError):
    """Ray or one of the engine's actors cannot be reached."""


class LostOwnershipError(MilepostError):
    """A newer owner has claimed the workflow; this one has stopped and writes nothing more."""

    def __init__(self, workflow_id: str, own_epoch: int, newer_epoch: int) -> None:
        super().__init__(workflow_id, own_epoch, newer_epoch)
        self.workflow_id = workflow_id
        self.own_epoch = own_epoch
        self.newer_epoch = newer_epoch

    def __str__(self) -> str:
        return (
            f"workflow {self.workflow_id!r} was taken over: epoch {self.newer_epoch} has been "
            f"claimed, this owner holds epoch {self.own_epoch} and has stopped"
        )


class CorruptJournalError(MilepostError):
    """Stored bytes are damaged. Nothing was changed; the place is ``file`` and ``offset``."""

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(file, offset, reason)
        self.file = file
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.file} is damaged at byte {self.offset}: {self.reason}; restore this file from "
            f"a copy (it was not touched)"
        )


class AlteredJournalError(CorruptJournalError):
    """Stored bytes contradict the hash chain though their checksums are right: no accident.

    Somebody changed, dropped, moved or added something. Nothing was changed by this library.
    """

    def __str__(self) -> str:
        return (
            f"{self.file} was altered at byte {self.offset}: {self.reason}; its checksums are "
            f"right, so this was no accident: compare it with a copy (it was not touched)"
        )


class CorruptBlobError(MilepostError):
    """A stored value does not have the content that its digest promises."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.reason}; restore this file from a copy"


class UnsupportedFormatError(MilepostError):
    """The data were written by a newer Milepost than this one."""

    def __init__(self, file: str, found: int, supported: int) -> None:
        super().__init__(file, found, supported)
        self.file = file
        self.found = found
        self.supported = supported

    def __str__(self) -> str:
        return (
            f"{self.file} has format version {self.found}, this Milepost reads up to "
            f"{self.supported}; use a newer Milepost (pip install -U milepost)"
        )


class IllegalEventError(MilepostError):
    """An event contradicts what its journal says before it (for instance a second commit)."""

    def __init__(self, seq: int, event: str, reason: str) -> None:
        super().__init__(seq, event, reason)
        self.seq = seq
        self.event = event
        self.reason = reason

    def __str__(self) -> str:
        return f"event {self.seq} ({self.event}) is not legal here: {self.reason}"
