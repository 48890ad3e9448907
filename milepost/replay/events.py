"""The vocabulary: everything that can happen to a workflow, in the past tense.

Events are plain frozen records without behaviour; what they mean is in :mod:`milepost.replay.fold`,
how they are stored in :mod:`milepost.replay.codec`. Tasks are named by number (their place in the
graph). Times are integers, microseconds since the epoch, read by the host and never here. Where the
volume is, one event carries many tasks in columns of equal length. A node (who ran a task) is named
by text where the journal mentions it first, and afterwards by its position among those texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from milepost.replay.fragment import Fragment
from milepost.replay.payload import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCreated:
    """The first event of every journal."""

    workflow_id: str
    at_us: int
    fragment: Fragment
    metadata: Payload
    """The user's metadata, a plain dict."""
    environment: Payload
    """What tasks need around them (runtime environment, import paths), a plain dict."""
    durability: str
    """"pipelined" or "strict"."""
    versions: str
    """The versions that created it, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipTaken:
    """A new owner goes on from here; attempts of earlier owners are lost."""

    epoch: int
    owner: str
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksScheduled:
    """A slice of tasks was handed to one worker.

    Each is ready, or rides along: what its inputs lack are values of tasks before it.
    """

    slice: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksCommitted:
    """Results of tasks of one slice, each behind those of its inputs.

    The first commit of a task is the only one.
    """

    slice: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    payloads: tuple[Payload, ...]
    started_us: tuple[int, ...]
    durations_us: tuple[int, ...]
    node: str | int


WORKER_DIED = frozenset({"crash", "memory", "node"})
"""Kinds of errors with which the worker of an attempt was lost, perhaps by the attempt's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why an attempt failed, as data that can be read without running stored code."""

    kind: str
    """"exception" (user code raised), "timeout" (it ran for too long and was ended), "memory" (its
    node ran out of memory), "node" (its node was lost) or "crash" (its worker died otherwise)."""
    type: str
    message: str
    traceback: str
    exception: Payload | None
    """The pickled exception, if it could be pickled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """An attempt raised, or its worker died. If ``final``, the task has failed.

    Else the next attempt may start at ``retry_us``, or at once if that is 0.
    """

    slice: int
    task: int
    attempt: int
    error: TaskError
    final: bool
    at_us: int
    node: str | int
    retry_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsLost:
    """A worker died and took these attempts with it; none of them is blamed for it."""

    slice: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksHandedBack:
    """A worker gave up tasks that it had not started and never will: they cost no attempt."""

    slice: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphExtended:
    """A task returned a continuation: its value will be that of the fragment's root."""

    slice: int
    task: int
    attempt: int
    fragment: Fragment
    started_us: int
    duration_us: int
    node: str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a task waits for that no worker runs; what comes first ends it.

    Attributes:
        due_us: A time, or 0.
        key: The key of an event, or "".
        count: How many of the task's inputs are to have a value, or 0.
        task: Another task that is to have a value, or -1.
    """

    due_us: int = 0
    key: str = ""
    count: int = 0
    task: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsBegan:
    """Ready tasks wait from now on, each for what is said here; no worker has anything to do."""

    tasks: tuple[int, ...]
    waits: tuple[Wait, ...]
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsEnded:
    """What these tasks waited for has come, and with it they have their values."""

    tasks: tuple[int, ...]
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReceived:
    """What tasks wait for, or will, came from outside. The first of a key is the only one."""

    key: str
    payload: Payload
    who: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsScheduled:
    """A slice of items of one map was handed to one worker; each row is a run of neighbours."""

    slice: int
    task: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    attempts: tuple[int, ...]
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsCommitted:
    """Results of items of one slice; a payload holds the values of a run, in a list."""

    slice: int
    task: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    payloads: tuple[Payload, ...]
    started_us: int
    """When the first of them began."""
    duration_us: int
    """How long all of them took together."""
    node: str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailed:
    """An attempt of an item raised, or its worker died. If ``final``, there will be no other."""

    slice: int
    task: int
    item: int
    attempt: int
    error: TaskError
    final: bool
    at_us: int
    node: str | int
    retry_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsLost:
    """A worker died and took all that was outstanding of its slice; none is blamed for it."""

    slice: int
    task: int
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsHandedBack:
    """A worker gave up items that it had not started and never will: they cost no attempt."""

    slice: int
    task: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriesDue:
    """All attempts that were put off until this time or an earlier one may start."""

    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChanged:
    """The workflow's status is now ``status`` (one of :class:`milepost.replay.state.Status`)."""

    status: str
    reason: str
    who: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A remark for the reader of the journal; it changes nothing."""

    text: str
    who: str
    at_us: int


Event: TypeAlias = (
    WorkflowCreated
    | OwnershipTaken
    | TasksScheduled
    | TasksCommitted
    | AttemptFailed
    | AttemptsLost
    | TasksHandedBack
    | GraphExtended
    | WaitsBegan
    | WaitsEnded
    | EventReceived
    | ItemsScheduled
    | ItemsCommitted
    | ItemFailed
    | ItemsLost
    | ItemsHandedBack
    | RetriesDue
    | StatusChanged
    | Noted
)
