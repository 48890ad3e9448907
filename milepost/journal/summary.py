"""A workflow in one line: what its newest segments say, without folding its journal.

Every owner writes *ownership taken* and the status in its first frame, so what is asked for is in
its own segments; only when the workflow was created is said in the first segment of all. Nothing
here is cached; :mod:`milepost.journal.catalog` does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from milepost.errors import CorruptJournalError
from milepost.journal.backward import BackwardWalk
from milepost.journal.claim import is_settled
from milepost.journal.frame import Frame
from milepost.journal.reader import read_journal
from milepost.journal.store import Store
from milepost.replay.codec import EventFormatError, decode_only
from milepost.replay.events import OwnershipTaken, StatusChanged, WorkflowCreated
from milepost.replay.state import FINAL, Status

ENDED = FINAL | {Status.FAILED}
"""Statuses under which nothing runs unless somebody asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """What a listing shows of a workflow. Times are microseconds since 1970, 0 where unknown.

    Attributes:
        workflow_id: The workflow.
        status: As stored; RUNNING may mean that its owner is gone. RESUMABLE if it cannot be read.
        owner: Who owns it, or did last.
        epoch: The owner's epoch.
        created_us: When it was created.
        started_us: When its present run started: a resume starts another.
        ended_us: When it ended or failed; 0 while it has not.
        settled: Whether the rest is certain: durable, and known to every owner to come. If not,
            somebody has claimed the workflow and not written yet, who may go on without its end.
        error: Why its journal cannot be read; empty if it can.
    """

    workflow_id: str
    status: Status
    owner: str = ""
    epoch: int = 0
    created_us: int = 0
    started_us: int = 0
    ended_us: int = 0
    settled: bool = True
    error: str = ""


def summarize(store: Store, workflow_id: str) -> WorkflowSummary:
    """Read what a listing shows of a workflow.

    Args:
        store: Where it is.
        workflow_id: The workflow.

    Returns:
        Its summary.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If nothing was ever written.
        CorruptJournalError: If what had to be read is damaged or missing.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    return _summarize(store, workflow_id, creation=True)


def read_status(store: Store, workflow_id: str) -> WorkflowSummary:
    """Read only the present owner's segments: as :func:`summarize`, without the creation's time.

    Args:
        store: Where it is.
        workflow_id: The workflow.

    Returns:
        Its summary; the time of creation may be 0.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If nothing was ever written.
        CorruptJournalError: If what had to be read is damaged or missing.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    return _summarize(store, workflow_id, creation=False)


def _summarize(store: Store, workflow_id: str, *, creation: bool) -> WorkflowSummary:
    draft, file = _Draft(), ""
    walk = BackwardWalk(store, workflow_id, settle=True)
    for frames in walk:
        file = frames[-1].file
        draft.take_older(frames)
        if draft.has_status:
            break
    if creation and not draft.has_creation:
        draft.take_creation(read_journal(store, workflow_id))
    settled = is_settled(store, workflow_id, walk.end_epoch)
    return draft.finish(workflow_id, file, settled)


class _Draft:
    """Collects from frames, the newest first: what is known already is newer."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._taken: OwnershipTaken | None = None
        self._created_us = 0
        self._started_us = 0
        self._ended_us = 0

    @property
    def has_status(self) -> bool:
        """Whether older segments have nothing to add but the creation."""
        return self._status is not None and self._taken is not None and self._started_us > 0

    @property
    def has_creation(self) -> bool:
        """Whether the creation was seen."""
        return self._created_us > 0

    def take_older(self, frames: Iterable[Frame]) -> None:
        status: Status | None = None
        taken: OwnershipTaken | None = None
        started_us = ended_us = 0
        for event in _events(frames):
            if isinstance(event, StatusChanged):
                status = Status(event.status)
                started_us = event.at_us if status is Status.RUNNING else started_us
                ended_us = event.at_us if status in ENDED else 0
            elif isinstance(event, OwnershipTaken):
                taken = event
            elif isinstance(event, WorkflowCreated):
                self._created_us = event.at_us
        if self._status is None:
            self._status, self._ended_us = status, ended_us
        self._taken = self._taken or taken
        self._started_us = self._started_us or started_us

    def take_creation(self, frames: Iterator[Frame]) -> None:
        """Read only as far as the first event."""
        for event in _events(frames):
            if isinstance(event, WorkflowCreated):
                self._created_us = event.at_us
            return

    def finish(self, workflow_id: str, file: str, settled: bool) -> WorkflowSummary:
        if self._status is None or self._taken is None:
            raise CorruptJournalError(file, 0, "the journal names no owner or no status")
        return WorkflowSummary(
            workflow_id=workflow_id,
            status=self._status,
            owner=self._taken.owner,
            epoch=self._taken.epoch,
            created_us=self._created_us,
            started_us=self._started_us,
            ended_us=self._ended_us,
            settled=settled,
        )


def _events(frames: Iterable[Frame]) -> Iterator[object]:
    for frame in frames:
        try:
            yield from decode_only(frame.raw, OwnershipTaken, StatusChanged, WorkflowCreated)
        except (EventFormatError, ValueError) as error:
            raise CorruptJournalError(frame.file, frame.offset, str(error)) from error
