"""What travels between driver, dispatcher and worker. Never stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from milepost.replay.fragment import Constant, Fragment, Function, RangeItems, TaskOptions
from milepost.replay.inputs import Continued, ItemRaised, Raised
from milepost.replay.mapping import Run
from milepost.replay.payload import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A new workflow, compiled by its driver.

    Attributes:
        nonce: Random; the same submission sent twice is recognized by it.
        blobs: By digest, what must be stored before the workflow is.
        parcels: Refs to more of these, too large for a message.
        environment: Runtime environment and import paths of the submitting job, plain data.
    """

    workflow_id: str
    nonce: str
    fragment: Fragment
    blobs: dict[bytes, bytes]
    parcels: tuple[Any, ...] = ()
    metadata: Payload
    environment: dict[str, object]
    durability: str
    versions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a submission.

    Attributes:
        outcome: "created", "resumed" (a stored workflow of this id goes on) or "stored" (it has
            ended: there is nothing to do).
        differences: In what the stored workflow differs from the submitted one, in words.
    """

    outcome: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceTask:
    """One task of a slice; numbers point into the tables of the slice.

    Attributes:
        inputs: The nodes whose values it takes, as its template names them.
        first_constant: What its template's constant positions are relative to.
        catches: Whether its value is a pair of result and exception.
    """

    task: int
    attempt: int
    task_id: str
    function: int
    template: bytes
    inputs: tuple[int, ...]
    first_constant: int
    catches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOrder:
    """Everything a worker needs to run a slice.

    Attributes:
        incarnation: Where in the storage the blobs of this very workflow are.
        storage: What opens the store; may hold credentials, so it is not shown.
        epoch: Of the owner, which with ``slice`` says whose slice it is.
        dispatcher: The actor that takes reports aside; None if there is no such way.
        values: The values of inputs that are stored inline or as blobs, by node.
        refs: For inputs that are Ray objects, by node, their place among the refs sent along.
        retry_errors: Which exceptions are worth another attempt, as in the task options.
        timed: Whether the owner has to know when the worker begins.
        job: For whose driver the worker writes what it and the tasks have to say; empty: nobody.
    """

    storage: str = field(repr=False)
    workflow_id: str
    incarnation: int
    epoch: int
    slice: int
    dispatcher: Any = field(repr=False)
    tasks: tuple[SliceTask, ...]
    functions: dict[int, Function]
    constants: dict[int, Constant]
    values: dict[int, Payload]
    refs: dict[int, int]
    retry_errors: Payload
    timed: bool = False
    job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOrder:
    """Everything a listener needs to wait.

    Attributes:
        kind: "poll", or "notice" that its event is durable.
        slice: The slice, whose only task it is.
        refs: The inputs that are Ray objects, as the slice numbers them.
        options: How the task is run; its event's notice likewise.
    """

    kind: str
    slice: SliceOrder
    refs: list[Any]
    options: TaskOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChunk:
    """Some of the values that a map is over, stored together: from ``start`` to below ``stop``."""

    start: int
    stop: int
    payload: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOrder:
    """Everything a worker needs to run items of a map; see :class:`SliceOrder` for the rest.

    Attributes:
        runs: Which items, and in which attempt.
        length: How many values the map is over.
        chunk_size: How many values make an item; 0 if each is one.
        items: The values that these items need, or how to count them.
        catches: Whether the value of each item is a pair of result and exception.
    """

    storage: str = field(repr=False)
    workflow_id: str
    incarnation: int
    epoch: int
    slice: int
    dispatcher: Any = field(repr=False)
    task: int
    task_id: str
    runs: tuple[Run, ...]
    length: int
    chunk_size: int
    items: RangeItems | tuple[ItemChunk, ...]
    catches: bool
    function: Function
    template: bytes
    inputs: tuple[int, ...]
    first_constant: int
    constants: dict[int, Constant]
    values: dict[int, Payload]
    refs: dict[int, int]
    retry_errors: Payload
    timed: bool = False
    job: str = ""


@dataclass(slots=True, kw_only=True)
class ItemReport:
    """What became of some items of a slice.

    Attributes:
        starts: With ``stops`` and ``payloads`` the runs that returned, and their values.
        started_us: When the first of these items began.
        duration_us: How long they took together.
        handed_back: Runs that were not started and never will be.
        objects: None: values of items travel in their payloads.
        began: Whether this tells no more than that the worker has begun.
        last: Whether the slice is over.
    """

    node: str
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    started_us: int = 0
    duration_us: int = 0
    raised: list[ItemRaised] = field(default_factory=list)
    handed_back: list[tuple[int, int]] = field(default_factory=list)
    objects: tuple[()] = ()
    began: bool = False
    last: bool = False


@dataclass(slots=True, kw_only=True)
class WorkerReport:
    """What became of some tasks of a slice.

    Attributes:
        handed_back: Tasks that were not started and never will be, with their attempts.
        objects: Tasks whose values the worker sends as Ray objects right behind this report, in
            this order.
        began: Whether this tells no more than that the worker has begun.
        last: Whether the slice is over.
    """

    node: str
    tasks: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    started_us: list[int] = field(default_factory=list)
    durations_us: list[int] = field(default_factory=list)
    raised: list[Raised] = field(default_factory=list)
    continued: list[Continued] = field(default_factory=list)
    handed_back: list[tuple[int, int]] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    began: bool = False
    last: bool = False


ListenerKey: TypeAlias = tuple[str, int, int]
"""Workflow, incarnation and task: the same for whoever sends a listener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listened:
    """What became of a listener, on its way to who sent it.

    Attributes:
        report: The only one of its slice.
    """

    key: ListenerKey
    workflow_id: str
    epoch: int
    slice: int
    report: WorkerReport
