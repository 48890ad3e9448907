"""The public functions; the package's ``__init__`` re-exports them.

Signatures and meanings follow those of the former ``ray.workflow`` where these were good.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
import uuid
import warnings
from collections.abc import Sequence
from typing import Any

import ray
from ray.dag import FunctionNode
from ray.exceptions import RayActorError, RayTaskError

from milepost.engine.admission import Limits, check_limits
from milepost.engine.compiler import compile_dag
from milepost.engine.context import current, current_task
from milepost.engine.environment import capture_environment
from milepost.engine.listener import EventListener, wait_for_event
from milepost.engine.logs import tell
from milepost.engine.mapped import MapResult
from milepost.engine.mapping import map
from milepost.engine.messages import Submission, Verdict
from milepost.engine.metadata import TaskTable
from milepost.engine.options import options, pack_metadata
from milepost.engine.parcels import ParcelCollector
from milepost.engine.payloads import away_from_home
from milepost.engine.plain import execute
from milepost.engine.progress import show_progress
from milepost.engine.recovery import Recovered
from milepost.engine.retry import Retry
from milepost.engine.session import Session, connect
from milepost.engine.waiting import sleep
from milepost.errors import (
    EngineUnavailableError,
    InvalidGraphError,
    InvalidOptionError,
    InvalidWorkflowIdError,
    MilepostError,
)
from milepost.journal import encode_workflow_id
from milepost.replay.state import DURABILITIES, Status

__all__ = [
    "EventListener",
    "MapResult",
    "Retry",
    "cancel",
    "continuation",
    "current",
    "delete",
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


def init(
    *,
    storage: str | None = None,
    dispatchers: int | None = None,
    recover: bool = False,
    max_running_workflows: int | None = None,
    max_pending_workflows: int | None = None,
) -> None:
    """Connects this process to the engine; starts Ray and the engine where they do not run yet.

    Every other function calls it with no arguments if nobody has.

    Args:
        storage: Where workflows are kept: the path of a folder, or a URI of a bucket (see
            ``docs/storage.md``). By default the environment variable ``MILEPOST_STORAGE``, else the
            only store in use on this cluster, else a folder in the user's data directory.
        dispatchers: How many dispatcher processes to start, if the engine does not run yet; by
            default one per eight CPUs of the cluster, at most four.
        recover: Whether to go on, in the background, with every workflow whose owner is gone; see
            :func:`recover`. A :func:`run` or :func:`resume` of one of them joins it, whichever of
            the two comes first.
        max_running_workflows: How many workflows of the store may run at once on this cluster; -1
            for any number. Others are PENDING, run nothing, and get their turn in the order in
            which they came. By default what is in force, which is no limit until somebody names
            one. Both limits last as long as the cluster, for all its drivers.
        max_pending_workflows: How many may be PENDING; -1 for any number, 0 for none. Beyond that,
            :func:`run` and :func:`resume` raise TooManyWorkflowsError, a ``queue.Full``, and
            nothing is stored.

    Raises:
        ConflictingInitError: If this process is connected to another store, or other limits are in
            force.
        TypeError: If a limit is not an int.
        StorageUriError: If the storage cannot be used; the text says why.
        InvalidOptionError: If ``dispatchers`` is not a positive number, or a limit makes no sense.
        EngineUnavailableError: If the engine does not start.
    """
    if dispatchers is not None and (type(dispatchers) is not int or dispatchers < 1):
        raise InvalidOptionError(f"dispatchers must be a positive int, not {dispatchers!r}")
    limits = check_limits(max_running_workflows, max_pending_workflows)
    session = connect(storage, dispatchers)
    if limits != Limits():
        _fetch(session.manager.set_limits.remote(limits))
    if recover:
        session.manager.recover.remote([])


def run(
    dag: Any,
    *args: Any,
    workflow_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    durability: str = "pipelined",
    **kwargs: Any,
) -> Any:
    """Runs a workflow to its end and returns its result.

    If the storage holds a workflow of this id already, that one goes on (or its stored result is
    returned) with the tasks, arguments and code that were stored; nothing in it changes, and a
    warning tells if those given here differ.

    Args:
        dag: The root of a DAG of tasks, made by ``f.bind(...)``. A node that is an argument arrives
            as its value; one inside a list, dict or object arrives as an ``ObjectRef``.
        *args: What the DAG's ``InputNode`` stands for, by position.
        workflow_id: The id; by default a random one.
        metadata: A dict of what JSON can hold, to keep with the workflow.
        durability: "pipelined": a task may start while its inputs' commits are being written;
            "strict": it starts only when they are durable.
        **kwargs: What the DAG's ``InputNode`` stands for, by name.

    Returns:
        The value that the root task returned.

    Raises:
        InvalidGraphError: If ``dag`` is not a DAG of tasks.
        SignatureMismatchError: If a task is bound with arguments that it does not take.
        NotSerializableError: If a function or an argument cannot be pickled (for most arguments,
            Ray's ``bind`` finds that first, and raises TypeError).
        InvalidWorkflowIdError: If the id cannot be used.
        InvalidOptionError: If another argument has a value that is not allowed.
        WorkflowActiveError: If a workflow of this id is running on this cluster, unless a recovery
            picked it up: that one is joined.
        WorkflowNotResumableError: If the stored workflow of this id was canceled.
        TooManyWorkflowsError: If it may not even wait for its turn; see :func:`init`.
        WorkflowExecutionError: If a task failed for good; the cause is the user's exception.
        LostOwnershipError: If another cluster took the workflow over.
        StorageUnavailableError: If the storage fails.

    Example:
        >>> import milepost, ray
        >>> @ray.remote
        ... def add(a, b):
        ...     return a + b
        >>> milepost.run(add.bind(add.bind(1, 2), 3), workflow_id="sum")
        6
    """
    session, workflow_id = _submit(dag, args, kwargs, workflow_id, metadata, durability)
    return _watch(session, workflow_id)


def run_async(
    dag: Any,
    *args: Any,
    workflow_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    durability: str = "pipelined",
    **kwargs: Any,
) -> ray.ObjectRef[Any]:
    """Starts a workflow and returns a ref to its result as soon as its creation is durable.

    From then on it needs neither this process nor this cluster. Arguments and errors are those of
    :func:`run`; errors of the tasks come from ``ray.get`` of the ref.
    """
    session, workflow_id = _submit(dag, args, kwargs, workflow_id, metadata, durability)
    return session.request_output(workflow_id)


def resume(workflow_id: str) -> Any:
    """Goes on with a stored workflow and returns its result; committed tasks do not run again.

    Args:
        workflow_id: The id of a workflow that failed, or whose cluster is gone.

    Returns:
        The result; at once if the workflow has ended successfully before.

    Raises:
        WorkflowActiveError: If it is running on this cluster, unless a recovery picked it up.
        WorkflowNotResumableError: If it is unknown or canceled.
        TooManyWorkflowsError: If it may not even wait for its turn; see :func:`init`.
        WorkflowExecutionError: If a task failed for good; the cause is the user's exception.
        CorruptJournalError: If its journal is damaged; the text says where.
        UnsupportedFormatError: If a newer Milepost wrote it.
        LostOwnershipError: If another cluster took the workflow over.
        StorageUnavailableError: If the storage fails.
    """
    return _watch(_resume(workflow_id), workflow_id)


def resume_async(workflow_id: str) -> ray.ObjectRef[Any]:
    """Goes on with a stored workflow; returns a ref to its result once it is ours, durably.

    Arguments and errors are those of :func:`resume`; errors of the tasks come from ``ray.get`` of
    the ref.
    """
    return _resume(workflow_id).request_output(workflow_id)


def _resume(workflow_id: str) -> Session:
    session = _connect_for(workflow_id)
    tell(f'Resuming workflow [id="{workflow_id}"].')
    job = ray.get_runtime_context().get_job_id()
    _fetch(session.dispatcher(workflow_id).resume.remote(workflow_id, job))
    return session


def _watch(session: Session, workflow_id: str) -> Any:
    """Returns a result when there is one; meanwhile somebody may see how far it is."""
    ref = session.request_output(workflow_id)
    dispatcher = session.dispatcher(workflow_id)
    show_progress(ref, workflow_id, lambda: dispatcher.metadata.remote(workflow_id))
    return _fetch(ref)


def resume_all(include_failed: bool = False) -> list[tuple[str, ray.ObjectRef[Any]]]:
    """Goes on with every workflow whose owner is gone, and with FAILED ones if asked.

    Like :func:`recover`, it leaves alone what another cluster is running.

    Args:
        include_failed: Whether to include FAILED workflows.

    Returns:
        For each of them its id and a ref to its result. Where one cannot be resumed, its ref
        raises the reason; the others go on.
    """
    session = connect()
    failed = [each for each, _ in list_all(Status.FAILED)] if include_failed else []
    found = recover()  # before the failed ones, where turns are limited
    started = [session.dispatcher(each).resume.remote(each) for each in failed]
    going_on = [
        (each.workflow_id, _follow_recovered(session, each))
        for each in found
        if each.outcome in ("resumed", "refused")
    ]
    return going_on + [
        (each, _follow(session, each, ref)) for each, ref in zip(failed, started, strict=True)
    ]


def recover(force: Sequence[str] = ()) -> list[Recovered]:
    """Goes on with every workflow that has not ended and whose owner is gone.

    Those that were running come before those that were pending. An owner shows that it is alive by
    a lease in the storage; if there are owners of other clusters, this waits until each has renewed
    its lease or let it run out (ten seconds, see ``docs/how-to/recover.md``). FAILED workflows are
    left alone: what failed in them would fail again; see :func:`resume_all`.

    Args:
        force: Ids of workflows to take over although their owner seems alive. That owner stops.

    Returns:
        What became of each workflow that had not ended and is not run by this cluster, and of each
        in ``force``.

    Raises:
        InvalidWorkflowIdError: If an id in ``force`` cannot be one.
        StorageUnavailableError: If the storage fails.
    """
    for workflow_id in force:
        _check_id(workflow_id)
    found: list[Recovered] = _fetch(connect().manager.recover.remote(list(force)))
    return found


def _follow_recovered(session: Session, found: Recovered) -> ray.ObjectRef[Any]:
    if found.error is not None:
        return session.refuse(found.workflow_id, found.error)
    return session.request_output(found.workflow_id)


def _follow(session: Session, workflow_id: str, started: ray.ObjectRef[Any]) -> ray.ObjectRef[Any]:
    try:
        _fetch(started)
    except MilepostError as error:
        return session.refuse(workflow_id, error)
    return session.request_output(workflow_id)


def cancel(workflow_id: str) -> None:
    """Ends a workflow that has not ended, for good and without a result.

    When this returns, that is durable: no other task of it starts, on any cluster, and whoever
    waits for it gets a WorkflowCancellationError. Its running tasks are killed, with the Ray tasks
    that they started. A canceled workflow cannot be resumed; to cancel it again changes nothing.

    Args:
        workflow_id: The workflow: running, pending, failed, or without an owner. If another cluster
            runs it, it is taken from that cluster, whose tasks end as soon as that notices.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        WorkflowEndedError: If it has ended successfully.
        LostOwnershipError: If another cluster claims it at the same time; look, and try again.
        CorruptJournalError: If its journal is damaged.
        StorageUnavailableError: If the storage fails; try again, the workflow may be canceled or
            not.
    """
    session = _connect_for(workflow_id)
    _fetch(session.dispatcher(workflow_id).cancel.remote(workflow_id))


def delete(workflow_id: str) -> None:
    """Deletes a workflow: its journal, its results, everything stored of it.

    For everybody who reads the storage it is there or not, never in part. The id can be used again,
    for a workflow that has nothing in common with this one. If another cluster ran it last, this
    watches for as long as a lease lasts (ten seconds) whether that cluster lives.

    Args:
        workflow_id: The workflow; it must not be running, here or on another cluster.

    Raises:
        WorkflowActiveError: If it is running; wait, or stop the cluster that runs it.
        WorkflowNotFoundError: If there is no such workflow.
        LostOwnershipError: If another cluster claims it at the same time; look, and try again.
        StorageUnavailableError: If the storage fails; try again, the workflow may be deleted or
            not.
    """
    session = _connect_for(workflow_id)
    _fetch(session.dispatcher(workflow_id).delete.remote(workflow_id))


def get_output(workflow_id: str, *, task_id: str | None = None) -> Any:
    """Returns the result of a workflow or of one of its tasks; waits while it is running.

    Args:
        workflow_id: The workflow.
        task_id: A task of it, which may not exist yet; by default the workflow itself.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        TaskNotFoundError: If it has ended without such a task.
        OutputNotAvailableError: If nobody on this cluster is working on it; the text tells if
            another one is.
        WorkflowExecutionError: If it failed; the cause is the user's exception.
        WorkflowCancellationError: If it was canceled.
        CorruptJournalError: If its journal is damaged.
        CorruptBlobError: If the stored result is damaged.
        StorageUnavailableError: If the storage fails.
    """
    return _fetch(get_output_async(workflow_id, task_id=task_id))


def get_output_async(workflow_id: str, *, task_id: str | None = None) -> ray.ObjectRef[Any]:
    """Returns a ref to what :func:`get_output` returns; its errors come from ``ray.get``."""
    return _connect_for(workflow_id).request_output(workflow_id, task_id)


def get_status(workflow_id: str) -> Status:
    """Returns the status of a workflow.

    RESUMABLE means that it has not ended and nobody is working on it: no dispatcher of this
    cluster, and no other owner that shows itself alive.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        CorruptJournalError: If its journal is damaged.
        StorageUnavailableError: If the storage fails.
    """
    session = _connect_for(workflow_id)
    return Status(_fetch(session.dispatcher(workflow_id).status.remote(workflow_id)))


def list_all(
    status_filter: Status | str | set[Status] | set[str] | set[Status | str] | None = None,
) -> list[tuple[str, Status]]:
    """Returns the ids and statuses of all workflows in the storage, sorted by id.

    One whose journal cannot be read is shown as RESUMABLE; :func:`resume` tells what is wrong.

    Args:
        status_filter: One status or a set of them, as members or names; by default all.

    Raises:
        InvalidOptionError: If a name in the filter is not a status.
        TypeError: If the filter is of another type.
        StorageUnavailableError: If the storage fails.
    """
    wanted = _parse_filter(status_filter)
    statuses: dict[str, str] = _fetch(connect().manager.list_statuses.remote())
    found = [(workflow_id, Status(status)) for workflow_id, status in sorted(statuses.items())]
    return [item for item in found if item[1] in wanted]


def get_metadata(workflow_id: str, task_id: str | None = None) -> dict[str, Any]:
    """Tells what is known of a workflow, or of one of its tasks, at this moment.

    Times are seconds since 1970; those that are not known yet are left out. Values that only
    Python can read, such as exception types, are shown as "(pickled)": nothing stored is executed.

    Args:
        workflow_id: The workflow.
        task_id: A task of it; by default the workflow itself.

    Returns:
        Of a workflow: ``status`` (as :func:`get_status` tells it), ``user_metadata``, ``stats``
        with ``start_time`` and ``end_time`` of its latest run, ``tasks`` (how many are in which
        state) and ``progress`` (the part of the tasks known so far that has a result, 0 to 1). Of a
        task: ``task_id``, ``task_options``, ``user_metadata``, ``workflow_refs`` (the tasks whose
        results it takes), ``stats``, ``state`` and ``attempts``; of a map also how many ``items``
        are in which state.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        TaskNotFoundError: If it has no such task so far.
        CorruptJournalError: If its journal is damaged.
        StorageUnavailableError: If the storage fails.
    """
    dispatcher = _connect_for(workflow_id).dispatcher(workflow_id)
    found: dict[str, Any] = _fetch(dispatcher.metadata.remote(workflow_id, task_id))
    return found


def list_tasks(workflow_id: str) -> list[dict[str, Any]]:
    """Returns all tasks of a workflow so far, inputs before those that take them.

    Args:
        workflow_id: The workflow.

    Returns:
        For each task its ``task_id``, its ``state`` (WAITING for inputs, READY, SCHEDULED,
        EXTENDED by a continuation that is under way, AWAITING what no worker runs, COMMITTED,
        FAILED, or DROPPED because a task whose continuation it is part of caught an exception, or
        the result did not need it), how many ``attempts`` it had, and ``stats`` as in
        :func:`get_metadata`.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        CorruptJournalError: If its journal is damaged.
        StorageUnavailableError: If the storage fails.
    """
    dispatcher = _connect_for(workflow_id).dispatcher(workflow_id)
    table: TaskTable = _fetch(dispatcher.tasks.remote(workflow_id))
    return table.describe()


def continuation(dag: Any) -> Any:
    """Makes a task go on with another DAG: its result is that of the DAG's root.

    Inside a task of a workflow, return what this returns; the new tasks become part of the
    workflow, to any depth. Elsewhere the DAG is run by plain Ray and its value is returned, so that
    the same function works both ways.

    Args:
        dag: The root of a DAG of tasks, made by ``f.bind(...)``.

    Raises:
        InvalidGraphError: If ``dag`` is not a task node.
    """
    if not isinstance(dag, FunctionNode):
        raise InvalidGraphError(
            f"continuation() takes f.bind(...) of a @ray.remote function, not an object of type "
            f"{type(dag).__name__}"
        )
    return dag if current_task.get() is not None else execute(dag)


def _submit(
    dag: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    workflow_id: str | None,
    metadata: dict[str, Any] | None,
    durability: str,
) -> tuple[Session, str]:
    if workflow_id is None:
        workflow_id = f"{uuid.uuid4()}.{time.time():.9f}"
    _check_id(workflow_id)
    if durability not in DURABILITIES:
        raise InvalidOptionError(f"durability must be one of {DURABILITIES}, not {durability!r}")
    packed = pack_metadata({} if metadata is None else metadata)
    session = connect()
    blobs, fingerprints = ParcelCollector(), dict[str, str]()
    with away_from_home():  # this may be a task of another workflow
        fragment = compile_dag(dag, blobs, args, kwargs, fingerprints)
    submission = Submission(
        workflow_id=workflow_id,
        nonce=uuid.uuid4().hex,
        fragment=fragment,
        blobs=blobs.blobs,
        parcels=tuple(blobs.parcels),
        metadata=packed,
        environment=capture_environment() | {"code": fingerprints},
        durability=durability,
        versions=_describe_versions(),
    )
    verdict: Verdict = _fetch(session.dispatcher(workflow_id).create.remote(submission))
    done = "Resuming workflow" if verdict.outcome == "resumed" else "Workflow job created."
    tell(f'{done} [id="{workflow_id}"].')
    if verdict.differences:
        warnings.warn(
            f"workflow {workflow_id!r} exists with other {' and '.join(verdict.differences)}; the "
            f"stored ones count, those given were not used (another workflow_id runs them)",
            stacklevel=3,
        )
    return session, workflow_id


def _connect_for(workflow_id: str) -> Session:
    _check_id(workflow_id)
    return connect()


def _check_id(workflow_id: object) -> None:
    if not isinstance(workflow_id, str):
        raise InvalidWorkflowIdError(workflow_id, "it must be text")
    encode_workflow_id(workflow_id)


def _describe_versions() -> str:
    own = importlib.metadata.version("milepost")
    return f"milepost {own}, ray {ray.__version__}, python {platform.python_version()}"


def _fetch(ref: ray.ObjectRef[Any]) -> Any:
    """Gets a value; errors come out as themselves, not wrapped in Ray's."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, MilepostError):
            raise cause from cause.__cause__
        raise
    except RayActorError as error:
        raise EngineUnavailableError(f"the engine cannot be reached: {error}") from error


def _parse_filter(status_filter: object) -> frozenset[Status]:
    if status_filter is None:
        return frozenset(Status)
    if isinstance(status_filter, str):
        status_filter = {status_filter}
    if not isinstance(status_filter, set | frozenset):
        raise TypeError("status_filter must be a status, its name, or a set of these")
    if not all(isinstance(each, str) for each in status_filter):
        raise TypeError("a set of statuses must hold statuses or their names")
    try:
        return frozenset(Status(each) for each in status_filter)
    except ValueError:
        names = ", ".join(Status)
        raise InvalidOptionError(
            f"no such status in {status_filter!r}; there are {names}"
        ) from None
