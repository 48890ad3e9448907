"""The state of one workflow, as the events so far have made it.

Arrays hold what there is per task; dicts hold only what is rare or in flight. The state is changed
by :func:`milepost.replay.fold.apply` and by nothing else.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, deque
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple, assert_never

import msgpack

from milepost.replay.events import TaskError, Wait
from milepost.replay.fragment import ChunkItems, Items, RangeItems, ResultItems, TaskOptions
from milepost.replay.graph import Graph, integers
from milepost.replay.mapping import ItemSlice, MapState
from milepost.replay.payload import Payload


class Status(StrEnum):
    """The status of a workflow. Members equal their names, so ``status == "RUNNING"`` holds."""

    RUNNING = "RUNNING"
    """Tasks are being run."""
    PENDING = "PENDING"
    """Admitted, waiting for its turn; no task runs."""
    SUCCESSFUL = "SUCCESSFUL"
    """Final: the result is stored."""
    FAILED = "FAILED"
    """A task failed for good; can be resumed from that task."""
    RESUMABLE = "RESUMABLE"
    """Its owner is gone or gave up; can be resumed. Never stored: seen from outside."""
    CANCELED = "CANCELED"
    """Final: no result, cannot be resumed."""


FINAL = frozenset({Status.SUCCESSFUL, Status.CANCELED})

DURABILITIES = ("pipelined", "strict")
"""Whether a task may start before the commits of its inputs are durable, or not."""


class TaskState(IntEnum):
    """Where a task stands."""

    WAITING = 0
    """Some input has no value yet."""
    READY = 1
    """All inputs have values; no attempt is under way."""
    SCHEDULED = 2
    """An attempt is under way."""
    EXTENDED = 3
    """It returned a continuation, which is under way. It never runs again."""
    COMMITTED = 4
    """Its value is known. It never runs again."""
    FAILED = 5
    """Its last attempt failed and there will be no other unless the workflow is resumed."""
    DROPPED = 6
    """It never runs (again): the task whose continuation it is part of caught an exception."""
    AWAITING = 7
    """It waits for something that no worker runs (:class:`milepost.replay.events.Wait`)."""
    DELAYED = 8
    """Its last attempt failed, and the next one is not due yet."""


class PutOff(NamedTuple):
    """An attempt that is not due yet.

    Attributes:
        due_us: When it is.
        since_us: When the last one failed.
        task: The task, or the map.
        item: The item of the map, or -1.
    """

    due_us: int
    since_us: int
    task: int
    item: int


@dataclass(slots=True)
class Slice:
    """Tasks handed to one worker.

    Attributes:
        option: Their common scheduling class.
        outstanding: The tasks that have neither committed nor failed yet, in scheduling order.
    """

    option: int
    outstanding: dict[int, None]


class State:
    """Everything the journal says about one workflow.

    Attributes:
        next_seq: Number of events applied; the seq of the next one.
        epoch: Generation of the present owner, 0 before the first.
        incarnation: Which of the workflows of this id it is, as its blobs are filed: the epoch of
            the journal's first frame, as its reader says; without one, of the first owner. No part
            of the digest: it says where things are, not what happened.
        root: The task whose value is the workflow's result.
        tasks: One :class:`TaskState` per task, as bytes.
        attempts: For each task, how many attempts were scheduled.
        waiting: For each task, how many of its inputs have no value yet.
        results: For each task, its committed value.
        task_started_us: For each task, when its latest attempt was scheduled, or began if that is
            known; 0 before. Like the next one no part of the digest.
        task_ended_us: For each task, when its function returned; 0 before.
        creators: For the root of each continuation, the task that returned it.
        continuations: For each task that returned a continuation, the root of that.
        catchers: The tasks whose value is a pair of result and exception.
        failures: For tasks that failed since the last resume, how often.
        failed: The errors of tasks in state FAILED, in order.
        suspects: Tasks whose worker died; they travel alone until they commit.
        ready: For each scheduling class that has some, its ready tasks in order. May hold stale
            entries: an entry counts only if the task is READY.
        slices: Slices under way.
        slice_counts: For each scheduling class, how many of its slices are under way.
        maps: What there is of the items of each task that is a map.
        open_maps: For each scheduling class that has some, its maps of which items can be
            scheduled, in order.
        item_slices: Slices under way that hold items of maps; numbered together with ``slices``,
            and counted in ``slice_counts``.
        counts: How many tasks are in each :class:`TaskState`.
        workers: The number of each worker that ran a task, in the order the journal names them.
        awaited: What each task in state AWAITING waits for.
        dues: A heap of the times that end waits, with their tasks. May hold stale entries, but not
            at its head: an entry counts only if the task waits for that time.
        ripe: The tasks in ``awaited`` for which what they wait for has come, whatever the time.
        listening: By the key of an event the tasks in ``awaited`` that wait for it.
        following: By task the tasks in ``awaited`` that wait for its value.
        put_off: A heap of the attempts that are not due yet.
        received: By key the content of the events that have come from outside.
    """

    __slots__ = (
        "attempts",
        "awaited",
        "catchers",
        "continuations",
        "counts",
        "created_us",
        "creators",
        "dues",
        "durability",
        "ended_us",
        "environment",
        "epoch",
        "failed",
        "failures",
        "following",
        "graph",
        "incarnation",
        "item_slices",
        "listening",
        "maps",
        "metadata",
        "next_seq",
        "next_slice",
        "open_maps",
        "owner",
        "put_off",
        "ready",
        "received",
        "results",
        "ripe",
        "root",
        "slice_counts",
        "slices",
        "started_us",
        "status",
        "suspects",
        "task_ended_us",
        "task_started_us",
        "tasks",
        "versions",
        "waiting",
        "workers",
        "workflow_id",
    )

    def __init__(self) -> None:
        self.workflow_id: str = ""
        self.created_us: int = 0
        self.started_us: int = 0
        self.ended_us: int = 0
        self.metadata: Payload | None = None
        self.environment: Payload | None = None
        self.durability: str = ""
        self.versions: str = ""
        self.status: Status | None = None
        self.epoch: int = 0
        self.owner: str = ""
        self.incarnation: int = 0
        self.next_seq: int = 0
        self.next_slice: int = 0
        self.graph: Graph = Graph()
        self.root: int = 0
        self.tasks: bytearray = bytearray()
        self.attempts: array[int] = integers()
        self.waiting: array[int] = integers()
        self.results: list[Payload | None] = []
        self.task_started_us: array[int] = integers()
        self.task_ended_us: array[int] = integers()
        self.creators: dict[int, int] = {}
        self.continuations: dict[int, int] = {}
        self.catchers: set[int] = set()
        self.failures: dict[int, int] = {}
        self.failed: dict[int, TaskError] = {}
        self.suspects: set[int] = set()
        self.ready: dict[int, deque[int]] = {}
        self.slices: dict[int, Slice] = {}
        self.slice_counts: Counter[int] = Counter()
        self.maps: dict[int, MapState] = {}
        self.open_maps: dict[int, dict[int, None]] = {}
        self.item_slices: dict[int, ItemSlice] = {}
        self.counts: list[int] = [0] * len(TaskState)
        self.workers: dict[str, int] = {}
        self.awaited: dict[int, Wait] = {}
        self.dues: list[tuple[int, int]] = []
        self.ripe: dict[int, None] = {}
        self.put_off: list[PutOff] = []
        self.listening: dict[str, dict[int, None]] = {}
        self.following: dict[int, dict[int, None]] = {}
        self.received: dict[str, Payload] = {}

    def task_state(self, task: int) -> TaskState:
        """Returns where ``task`` stands."""
        return TaskState(self.tasks[task])

    @property
    def result(self) -> Payload | None:
        """The workflow's result, or None while there is none."""
        return self.results[self.root] if self.results else None

    def digest(self) -> str:
        """Returns a SHA-256 over the whole state: equal events give equal digests everywhere."""
        return hashlib.sha256(b"".join(map(_pack, self._parts()))).hexdigest()

    def _parts(self) -> list[object]:
        return [*self._first_parts(), *self._settings()]

    def _settings(self) -> list[object]:
        """What tasks may have since a later version of the digest; nothing where they do not."""
        options = self.graph.options
        settings = [[each.catch_exceptions, each.checkpoint] for each in options]
        metadata = [[task, _flat(data)] for task, data in self.graph.metadata.items()]
        waits = [
            [each.waits_for for each in options if each.waits_for],
            [
                [task, wait.due_us, wait.key, wait.count, wait.task]
                for task, wait in self.awaited.items()
            ],
            [[key, _flat(payload)] for key, payload in self.received.items()],
        ]
        retries: list[list[object]] = [
            [_flat_limits(each) for each in options if each.backoff or each.timeout_us],
            [list(entry) for entry in sorted(self.put_off)],
        ]
        return [
            *([["settings", settings]] if not all(each.is_ordinary for each in options) else []),
            *([["metadata", metadata]] if metadata else []),
            *([["waits", *waits]] if any(waits) else []),
            *([["maps", *self._map_parts()]] if self.maps else []),
            *([["retries", *retries]] if any(retries) else []),
        ]

    def _map_parts(self) -> list[object]:
        slices = [
            [number, each.option, each.task, list(each.outstanding), each.suspects]
            for number, each in self.item_slices.items()
        ]
        return [slices, *([task, *_map_part(map_)] for task, map_ in self.maps.items())]

    def _first_parts(self) -> list[object]:
        graph = self.graph
        return [
            [self.workflow_id, self.created_us, self.started_us, self.ended_us],
            [_flat(self.metadata), _flat(self.environment), self.durability, self.versions],
            [self.status and self.status.value, self.epoch, self.owner],
            [self.next_seq, self.next_slice, self.root, self.counts[: TaskState.DROPPED]],
            graph.names,
            [[function.name, function.digest] for function in graph.functions],
            [
                [each.max_retries, _flat(each.retry_errors), _flat(each.ray)]
                for each in graph.options
            ],
            graph.templates,
            [[_flat(constant.payload), list(constant.nodes)] for constant in graph.constants],
            [list(graph.node_names), list(graph.node_ordinals), list(graph.node_functions)],
            [list(graph.node_options), list(graph.node_templates), list(graph.node_constants)],
            [list(graph.inputs(node)) for node in range(len(graph))],
            bytes(self.tasks),
            [list(self.attempts), list(self.waiting)],
            [_flat(result) for result in self.results],
            [sorted(self.creators.items()), sorted(self.failures.items()), sorted(self.suspects)],
            [[task, error.kind, error.type, error.message] for task, error in self.failed.items()],
            [[at, slice_.option, list(slice_.outstanding)] for at, slice_ in self.slices.items()],
            list(self.workers),
        ]


def _flat_limits(options: TaskOptions) -> list[object]:
    backoff = options.backoff
    if backoff is None:
        return [options.timeout_us]
    delays = [backoff.delay_us, backoff.factor, backoff.jitter, backoff.delay_us_max]
    return [options.timeout_us, *delays]


def _map_part(map_: MapState) -> list[object]:
    spec = map_.spec
    return [
        [spec.length, spec.chunk_size, _flat_items(spec.items), map_.catches],
        [map_.fresh, list(map_.requeued), map_.suspects],
        [sorted(map_.attempts.items()), sorted(map_.failures.items())],
        [[item, error.kind, error.type, error.message] for item, error in map_.failed.items()],
        [[start, stop, _flat(payload)] for start, stop, payload in map_.chunks()],
    ]


def _flat_items(items: Items) -> list[object]:
    match items:
        case RangeItems():
            return [items.first, items.step]
        case ChunkItems():
            return [list(items.counts), [_flat(payload) for payload in items.payloads]]
        case ResultItems():
            return [items.task]
        case _:
            assert_never(items)


def _flat(payload: Payload | None) -> list[object] | None:
    if payload is None:
        return None
    return [payload.encoding, payload.data, payload.digest, payload.size]


def _pack(part: object) -> bytes:
    packed: bytes = msgpack.packb(part, use_bin_type=True)
    return packed
