"""What can happen to a running workflow: the inputs of :func:`milepost.replay.decide.decide`.

Hosts make them from what they see (a worker's report, a lost worker, free capacity) and put in the
time they read; nothing here is stored, only the events that follow from it are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from milepost.replay.events import TaskError
from milepost.replay.fragment import Fragment
from milepost.replay.payload import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipGained:
    """The journal is ours under ``epoch``; the workflow is to run (again), or to wait its turn."""

    epoch: int
    owner: str
    reason: str
    at_us: int
    admitted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeAsked:
    """Somebody asked the present owner to go on with a failed workflow, in its turn."""

    who: str
    at_us: int
    admitted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCame:
    """A workflow that waited for others to end may run now."""

    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    """Somebody asked to end the workflow without a result."""

    who: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventArrived:
    """Somebody outside delivers what tasks of the workflow wait for, or will."""

    key: str
    payload: Payload
    who: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkWanted:
    """Workers can take more, or time has passed.

    Attributes:
        slices_max: How many slices of one scheduling class may be under way at once.
        slice_us: How much work one slice should hold.
        riders_max: How many successors may ride in one slice with what they wait for.
        costs_us: What one task of a function costs, as measured; absent while unknown.
    """

    slices_max: int
    slice_us: int
    costs_us: Mapping[int, float]
    at_us: int
    riders_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An attempt whose function raised."""

    task: int
    attempt: int
    error: TaskError
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """An attempt whose function returned a continuation."""

    task: int
    attempt: int
    fragment: Fragment
    started_us: int
    duration_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReported:
    """A worker tells what became of tasks of a slice. The columns are those that returned.

    Attributes:
        epoch: Of the owner that sent the slice; a later owner may use its number again.
        handed_back: Tasks that the worker has not started and never will, with their attempts.
    """

    slice: int
    epoch: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    payloads: tuple[Payload, ...]
    started_us: tuple[int, ...]
    durations_us: tuple[int, ...]
    raised: tuple[Raised, ...]
    continued: tuple[Continued, ...]
    handed_back: tuple[tuple[int, int], ...]
    node: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRaised:
    """An attempt of an item whose function raised."""

    item: int
    attempt: int
    error: TaskError
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsReported:
    """A worker tells what became of items of a slice. The columns are runs that returned.

    Attributes:
        epoch: Of the owner that sent the slice; a later owner may use its number again.
        handed_back: Runs that the worker has not started and never will.
    """

    slice: int
    epoch: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    payloads: tuple[Payload, ...]
    started_us: int
    duration_us: int
    raised: tuple[ItemRaised, ...]
    handed_back: tuple[tuple[int, int], ...]
    node: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLost:
    """The worker of a slice died, or has to; what the slice has not reported is lost.

    Attributes:
        kind: Why, as errors of tasks name it.
    """

    slice: int
    epoch: int
    reason: str
    at_us: int
    kind: str = "crash"


Input: TypeAlias = (
    OwnershipGained
    | ResumeAsked
    | TurnCame
    | CancelAsked
    | EventArrived
    | WorkWanted
    | SliceReported
    | ItemsReported
    | SliceLost
)
