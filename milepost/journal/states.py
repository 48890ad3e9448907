"""What journals say: whole states, by folding.

The replayer gives events their meaning; this module brings it the verified frames, and turns what
it refuses into a damaged place in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from milepost.errors import (
    CorruptJournalError,
    IllegalEventError,
    MilepostError,
    StorageUnavailableError,
    WorkflowNotFoundError,
)
from milepost.journal.claim import is_settled
from milepost.journal.compaction import Compactor
from milepost.journal.frame import Frame
from milepost.journal.ownership import take_ownership
from milepost.journal.reader import JournalWalk, read_journal
from milepost.journal.store import Store
from milepost.journal.writer import JournalWriter
from milepost.replay.codec import EventFormatError, decode_all, encode
from milepost.replay.events import Event, OwnershipTaken, StatusChanged
from milepost.replay.fold import apply
from milepost.replay.state import State, Status


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


def load_settled(store: Store, workflow_id: str) -> tuple[State, bool]:
    """Folds a whole journal without owning it, for somebody who tells others what it says.

    Returns:
        The state, and whether all of it is certain: durable, and known to every owner to come. If
        not, somebody has claimed the workflow and not written yet.

    Raises:
        WorkflowNotFoundError: If there is none.
        CorruptJournalError: If it is damaged, or says something that cannot be.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If it cannot be read now.
    """
    for _ in range(2):  # as in read_journal
        state, walk = State(), JournalWalk(store, workflow_id, settle=True)
        for frame in walk:
            _fold_frame(state, frame)
        if state.next_seq:
            assert walk.tip is not None, workflow_id
            return state, is_settled(store, workflow_id, walk.tip.end_epoch)
    raise WorkflowNotFoundError(workflow_id, store.uri)


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


def settle_end(state: State, writer: JournalWriter, owner: str, reason: str, at_us: int) -> None:
    """Writes no more than the ownership of an ended workflow, and lets go of it again.

    Once this is acknowledged, every owner to come knows the end that ``state`` holds.

    Args:
        state: What :func:`own_state` gave; without a journal there is nothing to make certain.
        writer: Likewise.
        owner: Who owns it for this moment.
        reason: Why, for people.
        at_us: The time, microseconds since 1970.

    Raises:
        LostOwnershipError: If somebody else takes it over at the same time.
        StorageUnavailableError: If the storage fails.
    """
    taken = OwnershipTaken(epoch=writer.epoch, owner=owner, reason=reason, at_us=at_us)
    _write_last(state, writer, [taken] if state.next_seq else [])


def cancel_state(
    state: State, writer: JournalWriter, owner: str, at_us: int, who: str = ""
) -> None:
    """Cancels a workflow that has not ended and that nobody runs, and lets go of it again.

    Args:
        state: What :func:`own_state` gave.
        writer: Likewise.
        owner: Who owns it for this moment.
        at_us: The time, microseconds since 1970.
        who: Who asked for it and why; by default the owner.

    Raises:
        LostOwnershipError: If somebody else takes it over at the same time.
        StorageUnavailableError: If the storage fails; it may be canceled or not.
    """
    status, reason = Status.CANCELED.value, "canceled"
    taken = OwnershipTaken(epoch=writer.epoch, owner=owner, reason=reason, at_us=at_us)
    canceled = StatusChanged(status=status, reason=reason, who=who or owner, at_us=at_us)
    _write_last(state, writer, [taken, canceled])


def _write_last(state: State, writer: JournalWriter, events: Sequence[Event]) -> None:
    """Writes the last events of a journal, if there are any, and closes it."""
    try:
        for event in events:
            apply(state, event)
        if events:
            writer.flush([encode(event) for event in events])
            with suppress(MilepostError):  # a journal that stays long is no harm
                Compactor(writer).run(last=True)
    finally:
        with suppress(StorageUnavailableError):  # all that was flushed is durable
            writer.close()


def _fold_frame(state: State, frame: Frame) -> None:
    state.incarnation = state.incarnation or frame.epoch
    try:
        for event in decode_all(frame.raw):
            apply(state, event)
    except (EventFormatError, IllegalEventError) as error:
        raise CorruptJournalError(frame.file, frame.offset, str(error)) from error
