"""What journals say: whole states by folding, or only the newest status.

The replayer gives events their meaning; this module brings it the verified frames, and turns what
it refuses into a damaged place in a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from milepost.errors import CorruptJournalError, IllegalEventError, MilepostError
from milepost.journal.catalog import list_workflows
from milepost.journal.frame import Frame
from milepost.journal.ownership import take_ownership
from milepost.journal.reader import read_journal, read_newest_frames
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
        owner: Who wrote the newest segment.
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
    return state, writer


def _fold_frame(state: State, frame: Frame) -> None:
    try:
        for event in decode_all(frame.raw):
            apply(state, event)
    except (EventFormatError, IllegalEventError) as error:
        raise CorruptJournalError(frame.file, frame.offset, str(error)) from error


def read_status(store: Store, workflow_id: str) -> StoredStatus:
    """Reads the newest segment, and the whole journal only if that does not tell.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        CorruptJournalError: If that segment is damaged.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If it cannot be read now.
    """
    # Where every flush is a segment of its own, the newest one may hold no status.
    for read in (read_newest_frames, read_journal):
        status, owner, file = _find_status(read(store, workflow_id))
        if status is not None:
            return StoredStatus(status=status, owner=owner)
    raise CorruptJournalError(file, 0, "the journal holds no status")


def _find_status(frames: Iterable[Frame]) -> tuple[Status | None, str, str]:
    """Find the newest status, who wrote last, and the newest file."""
    status, owner, file = None, "", ""
    for frame in frames:
        file = frame.file
        try:
            for event in decode_all(frame.raw):
                if isinstance(event, StatusChanged):
                    status = Status(event.status)
                elif isinstance(event, OwnershipTaken):
                    owner = event.owner
        except (EventFormatError, ValueError) as error:
            raise CorruptJournalError(file, frame.offset, str(error)) from error
    return status, owner, file


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
