"""What journals say: whole states by folding, or only the newest status.

The replayer gives events their meaning; this module brings it the verified frames, and turns what
it refuses into a damaged place in a file.
"""

from __future__ import annotations

from dataclasses import dataclass

from milepost.errors import CorruptJournalError, IllegalEventError, MilepostError
from milepost.journal.backward import read_backward
from milepost.journal.catalog import list_workflows
from milepost.journal.frame import Frame
from milepost.journal.ownership import take_ownership
from milepost.journal.reader import read_journal
from milepost.journal.store import Store
from milepost.journal.writer import JournalWriter
from milepost.replay.codec import EventFormatError, decode_all
from milepost.replay.events import OwnershipTaken, StatusChanged
from milepost.replay.fold import apply
from milepost.replay.state import State, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStatus:
    """The newest status in a journal.

    Attributes:
        status: As stored; RUNNING may mean that its owner is gone.
        owner: Who is working on it; empty if that was not looked for, because nobody is.
    """

    status: Status
    owner: str


def load_state(store: Store, workflow_id: str) -> State:
    """Folds a whole journal without owning it.

    Raises:
        WorkflowNotFoundError: If there is none.
        CorruptJournalError: If it is damaged, or says something that cannot be.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If it cannot be read now.
    """
    state = State()
    for frame in read_journal(store, workflow_id):
        _fold_frame(state, frame)
    return state


def own_state(store: Store, workflow_id: str, owner: str) -> tuple[State, JournalWriter]:
    """Takes the workflow over and folds its journal, which may be empty.

    Raises:
        LostOwnershipError: If somebody else takes it over at the same time.
        CorruptJournalError: If the journal is damaged, or says something that cannot be.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    state = State()
    writer = take_ownership(
        store, workflow_id, owner=owner, on_frame=lambda frame: _fold_frame(state, frame)
    )
    state.incarnation = writer.incarnation
    return state, writer


def _fold_frame(state: State, frame: Frame) -> None:
    state.incarnation = state.incarnation or frame.epoch
    try:
        for event in decode_all(frame.raw):
            apply(state, event)
    except (EventFormatError, IllegalEventError) as error:
        raise CorruptJournalError(frame.file, frame.offset, str(error)) from error


def read_status(store: Store, workflow_id: str) -> StoredStatus:
    """Reads back from the journal's end until status and owner are known.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        CorruptJournalError: If what was read is damaged.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If it cannot be read now.
    """
    status, owner, file = None, "", ""
    for frames in read_backward(store, workflow_id):
        for frame in reversed(frames):
            file = frame.file
            found, taken = _read_ownership(frame)
            status, owner = status or found, owner or taken
            if status is not None and (owner or status not in (Status.RUNNING, Status.PENDING)):
                return StoredStatus(status=status, owner=owner)
    raise CorruptJournalError(file, 0, "the journal holds no status")


def _read_ownership(frame: Frame) -> tuple[Status | None, str]:
    """Gives the newest status and owner that a frame tells of, if it does."""
    status, owner = None, ""
    try:
        for event in decode_all(frame.raw):
            if isinstance(event, StatusChanged):
                status = Status(event.status)
            elif isinstance(event, OwnershipTaken):
                owner = event.owner
    except (EventFormatError, ValueError) as error:
        raise CorruptJournalError(frame.file, frame.offset, str(error)) from error
    return status, owner


def list_statuses(store: Store) -> dict[str, StoredStatus]:
    """Reads the newest status of every workflow; those that cannot be read are left out.

    Raises:
        StorageUnavailableError: If the storage cannot be listed.
    """
    found = {}
    for workflow_id in list_workflows(store):
        try:
            found[workflow_id] = read_status(store, workflow_id)
        except MilepostError:
            continue  # never created, or damaged: get_status names the reason
    return found
