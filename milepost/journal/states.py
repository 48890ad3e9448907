"""What journals say: whole states, by folding.

The replayer gives events their meaning; this module brings it the verified frames, and turns what
it refuses into a damaged place in a file.
"""

from __future__ import annotations

from milepost.errors import CorruptJournalError, IllegalEventError
from milepost.journal.frame import Frame
from milepost.journal.ownership import take_ownership
from milepost.journal.reader import read_journal
from milepost.journal.store import Store
from milepost.journal.writer import JournalWriter
from milepost.replay.codec import EventFormatError, decode_all
from milepost.replay.fold import apply
from milepost.replay.state import State


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
