"""What a workflow cost and where its time went: figures from one reading of its journal."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

from milepost.journal.attempts import Attempt, Outcome
from milepost.journal.history import decode_frame
from milepost.journal.layout import blobs_folder, workflow_folder
from milepost.journal.reader import read_journal
from milepost.journal.store import Store
from milepost.journal.story import Story
from milepost.replay.state import State

SLOWEST_MAX = 10


@dataclass(slots=True)
class FunctionFigures:
    """What the tasks of one function took.

    Attributes:
        name: The function.
        attempts: How many attempts of its tasks ended.
        run_us: How long they ran, together.
        longest_us: How long the longest ran.
    """

    name: str
    attempts: int = 0
    run_us: int = 0
    longest_us: int = 0


@dataclass(slots=True, kw_only=True)
class Figures:
    """Figures of one workflow. Times are in microseconds.

    Attributes:
        workflow_id: The workflow.
        status: Its stored status.
        tasks: How many tasks there are.
        events: How many events.
        frames: How many frames they came in: each is at most one write and one look for rivals.
        epochs: How many owners wrote.
        raw_bytes: The events' bytes before compression.
        journal_bytes: What is stored of the journal, claims included.
        blobs: How many blobs.
        blob_bytes: How long they are together.
        outcomes: How many attempts ended in which way.
        retries: Attempts beyond the first of their task.
        wasted_us: From the scheduling of slices to the last attempt in each that gave no value; an
            upper bound of the work that was done in vain or twice.
        run_us: How long functions ran, together.
        queue_us: How long tasks that ended waited at their workers, together.
        span_us: From the first scheduling to the last end of an attempt.
        slowest: The longest attempts, with their task.
        functions: Figures by function, the one that took longest first.
        critical: The chain of tasks that decided when the result was there, the first task first,
            each with how long it ran.
    """

    workflow_id: str
    status: str = ""
    tasks: int = 0
    events: int = 0
    frames: int = 0
    epochs: int = 0
    raw_bytes: int = 0
    journal_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    wasted_us: int = 0
    run_us: int = 0
    queue_us: int = 0
    span_us: int = 0
    slowest: list[tuple[str, int]] = field(default_factory=list)
    functions: list[FunctionFigures] = field(default_factory=list)
    critical: list[tuple[str, int]] = field(default_factory=list)


def read_figures(store: Store, workflow_id: str) -> Figures:
    """Read a journal and what is listed beside it.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Returns:
        Its figures.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        CorruptJournalError: If its journal is damaged.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    found, story, tally = Figures(workflow_id=workflow_id), Story(), _Tally()
    epochs = set()
    for frame in read_journal(store, workflow_id):
        found.frames += 1
        found.raw_bytes += len(frame.raw)
        epochs.add(frame.epoch)
        for entry in decode_frame(frame):
            for each in story.take(entry):
                tally.take(each, story.state)
    state = story.state
    blobs = store.list(blobs_folder(workflow_id))
    found.status = state.status.value if state.status else ""
    found.tasks, found.events, found.epochs = len(state.tasks), state.next_seq, len(epochs)
    found.journal_bytes = sum(each.size for each in store.list(workflow_folder(workflow_id)))
    found.blobs, found.blob_bytes = len(blobs), sum(each.size for each in blobs)
    found.retries = sum(each - 1 for each in state.attempts if each > 1)
    found.critical = [
        (state.graph.task_id(task), max(0, state.task_ended_us[task] - state.task_started_us[task]))
        for task in find_critical_path(state)
    ]
    tally.tell(found, state)
    return found


class _Tally:
    """Adds up attempts."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._functions: dict[int, FunctionFigures] = {}
        self._slowest: list[tuple[int, int]] = []
        self._wasted_us: dict[int, int] = {}  # by slice: its tasks run one after the other
        self._run_us = self._queue_us = 0
        self._first_us, self._last_us = 2**63, 0

    def take(self, each: Attempt, state: State) -> None:
        self._outcomes[each.outcome.value] += 1
        if each.scheduled_us:
            self._first_us = min(self._first_us, each.scheduled_us)
        self._last_us = max(self._last_us, each.ended_us)
        if each.outcome in (Outcome.FAILED, Outcome.LOST):
            before = self._wasted_us.get(each.slice, 0)
            self._wasted_us[each.slice] = max(before, each.ended_us - each.scheduled_us)
        if not each.started_us:
            return
        self._run_us += each.run_us
        self._queue_us += each.queue_us
        number = state.graph.node_functions[each.task]
        if number not in self._functions:
            self._functions[number] = FunctionFigures(state.graph.functions[number].name)
        figures = self._functions[number]
        figures.attempts += 1
        figures.run_us += each.run_us
        figures.longest_us = max(figures.longest_us, each.run_us)
        item = (each.run_us, each.task)
        if len(self._slowest) < SLOWEST_MAX:
            heapq.heappush(self._slowest, item)
        elif item > self._slowest[0]:
            heapq.heapreplace(self._slowest, item)

    def tell(self, found: Figures, state: State) -> None:
        found.outcomes = dict(sorted(self._outcomes.items()))
        found.wasted_us = sum(self._wasted_us.values())
        found.run_us, found.queue_us = self._run_us, self._queue_us
        found.span_us = max(0, self._last_us - self._first_us)
        ordered = sorted(self._slowest, reverse=True)
        found.slowest = [(state.graph.task_id(task), run_us) for run_us, task in ordered]
        found.functions = sorted(self._functions.values(), key=lambda each: -each.run_us)


def find_critical_path(state: State) -> list[int]:
    """Find what decided when the result was there: back from it, always what ended last.

    Args:
        state: The state of a workflow.

    Returns:
        The tasks, the first one first; none if nothing has ended yet.
    """
    ended = state.task_ended_us
    if not ended or not any(ended):
        return []
    done = state.results[state.root] is not None
    last = state.root if done else max(range(len(ended)), key=ended.__getitem__)
    task: int | None = _value_task(state, last) if done else last
    path = []
    while task is not None:
        path.append(task)
        task = _decider(state, task)
    return path[::-1]


def _decider(state: State, task: int) -> int | None:
    """Tell which task's end let this one begin: its latest input, or who created it."""
    graph, ended = state.graph, state.task_ended_us
    if inputs := graph.inputs(task):
        return max((_value_task(state, each) for each in inputs), key=ended.__getitem__)
    return state.creators.get(graph.fragment_of(task)[1])


def _value_task(state: State, task: int) -> int:
    """Follow continuations to the task that made the value."""
    while task in state.continuations:
        task = state.continuations[task]
    return task
