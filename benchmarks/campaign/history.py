"""What is known after a campaign: the ledger and the journals, as one plain history.

Plain data, so that a test can doctor it. :mod:`~campaign.rules` judges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from campaign.ledger import BEGIN, END, Line
from milepost.errors import MilepostError, WorkflowNotFoundError
from milepost.journal import History, Store, list_workflows, verify
from milepost.journal.claim import list_claims
from milepost.journal.history import apply_entry
from milepost.replay.events import GraphExtended, OwnershipTaken, TasksCommitted
from milepost.replay.payload import Encoding, Payload, unpack_plain
from milepost.replay.state import State


@dataclass(slots=True, kw_only=True)
class Execution:
    """One execution of a task, as the task itself saw it.

    Attributes:
        token: Its own, unlike any other's.
        workflow: The workflow.
        task: The task's id.
        attempt: The attempt's number.
        epoch: Of the owner who ordered it.
        place: Of its first line in the ledger.
        begun_ns: When it began.
        pid: The process that ran it.
        ended_ns: When it ended; None if it never did.
        outcome: "returned", "raised", or empty.
    """

    token: str
    workflow: str
    task: str
    attempt: int
    epoch: int
    place: int = 0
    begun_ns: int = 0
    pid: int = 0
    ended_ns: int | None = None
    outcome: str = ""


@dataclass(slots=True, kw_only=True)
class Commit:
    """What a journal says of a task that will not run again.

    Attributes:
        task: The task's id.
        attempt: The attempt whose result counts.
        epoch: Of the owner who committed it.
        extended: Whether what it returned is a continuation.
    """

    task: str
    attempt: int
    epoch: int
    extended: bool = False


@dataclass(slots=True, kw_only=True)
class Stored:
    """What the store holds of a workflow.

    Attributes:
        workflow: The workflow.
        status: Its status.
        result: Its result, if it has one that is plain data.
        values: The values of its tasks that are plain data, by the tasks' ids.
        commits: In the order of the journal.
        epochs: Of all owners, in the order of the journal.
        claims: How many claims there are.
        faults: What no crash explains.
    """

    workflow: str
    status: str = ""
    result: object = None
    values: dict[str, object] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    claims: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Record:
    """Everything that is known.

    Attributes:
        lines: The ledger, without the executions.
        executions: In the order in which they began.
        stored: By workflow.
        leaks: What was left over that should not have been.
    """

    lines: list[Line] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    def of(self, what: str) -> Iterator[Line]:
        """Give the lines that tell ``what``."""
        return (line for line in self.lines if line.what == what)


def read_record(lines: Iterable[Line], store: Store) -> Record:
    """Put the ledger and the store together.

    Args:
        lines: The whole ledger.
        store: Where the workflows are.

    Returns:
        The record; what cannot be read of the store stands in it as faults.
    """
    record = Record()
    running: dict[str, Execution] = {}
    for line in lines:
        if line.what == BEGIN:
            running[line["token"]] = execution = _begin(line)
            record.executions.append(execution)
        elif line.what == END:
            running[line["token"]].ended_ns = line.at_ns
            running[line["token"]].outcome = line["outcome"]
        else:
            record.lines.append(line)
    for workflow_id in list_workflows(store):
        with suppress(WorkflowNotFoundError):  # a claim, and then its owner was killed
            record.stored[workflow_id] = read_stored(store, workflow_id)
    return record


def _begin(line: Line) -> Execution:
    return Execution(
        token=line["token"],
        workflow=line["workflow"],
        task=line["task"],
        attempt=line["attempt"],
        epoch=line["epoch"],
        place=line.place,
        begun_ns=line.at_ns,
        pid=line.pid,
    )


def read_stored(store: Store, workflow_id: str) -> Stored:
    """Read one workflow, event by event, and verify it with all its blobs.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
    """
    stored = Stored(workflow=workflow_id)
    state = State()
    try:
        verification = verify(store, workflow_id, deep=True)
        stored.faults = [f"{each.key}: {each.reason}" for each in verification.faults]
        numbered: list[tuple[int, int, int, bool]] = []
        for entry in History(store, workflow_id):
            apply_entry(state, entry)
            match entry.event:
                case OwnershipTaken():
                    stored.epochs.append(entry.event.epoch)
                case TasksCommitted():
                    both = zip(entry.event.tasks, entry.event.attempts, strict=True)
                    numbered += [(task, attempt, entry.epoch, False) for task, attempt in both]
                case GraphExtended():
                    task, attempt = entry.event.task, entry.event.attempt
                    numbered.append((task, attempt, entry.epoch, True))
                case _:
                    pass
    except WorkflowNotFoundError:
        if not stored.faults:
            raise
    except MilepostError as error:
        stored.faults.append(str(error))
        return stored
    stored.commits = [
        Commit(task=state.graph.task_id(task), attempt=attempt, epoch=epoch, extended=extended)
        for task, attempt, epoch, extended in numbered
    ]
    stored.claims = len(list_claims(store, workflow_id, 0))
    stored.status = state.status.value if state.status else ""
    stored.result = _plain(state.results[state.root])
    for task, payload in enumerate(state.results):
        if payload is not None:
            stored.values[state.graph.task_id(task)] = _plain(payload)
    return stored


def _plain(payload: Payload | None) -> object:
    if payload is None or payload.encoding != Encoding.PLAIN or payload.digest:
        return None
    return unpack_plain(payload.data)
