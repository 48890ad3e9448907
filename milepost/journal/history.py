"""One workflow's history for whoever looks back: decoded events, and states at any point.

Reads and never changes anything, needs no Ray, and runs no stored code. Events are decoded one
segment at a time, so that the length of a journal costs time and not memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milepost.errors import CorruptJournalError, IllegalEventError
from milepost.journal.frame import Frame
from milepost.journal.reader import read_journal
from milepost.journal.store import Store
from milepost.replay.codec import EventFormatError, decode_all
from milepost.replay.events import Event
from milepost.replay.fold import apply
from milepost.replay.state import State

if TYPE_CHECKING:
    import pyarrow

    from milepost.journal.head import Head
    from milepost.journal.verify import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event and where it stands.

    Attributes:
        seq: Its number in the journal, from 0.
        epoch: The epoch of the owner that wrote it.
        file: The object that holds it.
        offset: Where its frame begins there, in bytes.
        event: What happened.
    """

    seq: int
    epoch: int
    file: str
    offset: int
    event: Event


class History:
    """The journal of one workflow, for reading."""

    def __init__(self, store: Store, workflow_id: str) -> None:
        """Prepare to read; nothing is read yet.

        Args:
            store: Where the workflow is.
            workflow_id: The workflow.
        """
        self.store = store
        self.workflow_id = workflow_id

    def __iter__(self) -> Iterator[Entry]:
        """Read the events in order.

        Yields:
            Each event with its place. Their frames were verified.

        Raises:
            WorkflowNotFoundError: If there is no such workflow.
            CorruptJournalError: If anything is damaged or missing.
            UnsupportedFormatError: If a newer Milepost wrote it.
            StorageUnavailableError: If the storage fails.
        """
        for frame in read_journal(self.store, self.workflow_id):
            yield from decode_frame(frame)

    def state_at(self, *, seq: int | None = None, at_us: int | None = None) -> State:
        """Rebuild the state at a point in the past.

        Args:
            seq: The last event that counts; by default the last there is.
            at_us: Stop before the first event that tells a later time than this, in microseconds
                since 1970. Events without a time of their own follow the one before them.

        Returns:
            The state. If nothing had happened by then, an empty one.

        Raises:
            WorkflowNotFoundError: If there is no such workflow.
            CorruptJournalError: If the journal is damaged, or says something that cannot be.
            UnsupportedFormatError: If a newer Milepost wrote it.
            StorageUnavailableError: If the storage fails.
        """
        state = State()
        for entry in self:
            if seq is not None and entry.seq > seq:
                break
            if at_us is not None and getattr(entry.event, "at_us", at_us) > at_us:
                break
            apply_entry(state, entry)
        return state

    def verify(self, *, deep: bool = False, noted: Head | None = None) -> Verification:
        """Check everything stored of the workflow.

        Args:
            deep: Read and hash every blob, too.
            noted: A head noted earlier that the journal must go on from.

        Returns:
            What was found.

        Raises:
            WorkflowNotFoundError: If nothing at all is stored of it.
            StorageUnavailableError: If the storage fails.
        """
        from milepost.journal.verify import verify  # it reads histories, too

        return verify(self.store, self.workflow_id, deep=deep, noted=noted)

    def to_arrow(self, what: str = "events", *, redact: bool = False) -> pyarrow.RecordBatchReader:
        """Read the workflow as an Arrow table, a batch at a time.

        Args:
            what: ``events``, ``tasks`` or ``attempts``.
            redact: Whether to leave out what payloads and error texts contain.

        Returns:
            The rows; errors come while they are read.

        Raises:
            UsageError: If there is no such table.
        """
        from milepost.journal.tables import open_table  # it reads histories, too

        return open_table(self, what, redact=redact)


def decode_frame(frame: Frame) -> Iterator[Entry]:
    """Decode the events of a frame.

    Args:
        frame: The frame.

    Yields:
        Each event with its place.

    Raises:
        CorruptJournalError: If they are no events.
        UnsupportedFormatError: If a newer Milepost wrote them.
    """
    try:
        for seq, event in enumerate(decode_all(frame.raw), frame.first_seq):
            yield Entry(
                seq=seq, epoch=frame.epoch, file=frame.file, offset=frame.offset, event=event
            )
    except (EventFormatError, ValueError) as error:
        raise CorruptJournalError(frame.file, frame.offset, str(error)) from error


def apply_entry(state: State, entry: Entry) -> None:
    """Apply one event of a journal to the state before it.

    Args:
        state: The state; it is changed.
        entry: The event.

    Raises:
        CorruptJournalError: If the event is not legal there.
    """
    state.incarnation = state.incarnation or entry.epoch
    try:
        apply(state, entry.event)
    except IllegalEventError as error:
        raise CorruptJournalError(entry.file, entry.offset, str(error)) from error


def open_history(uri: str | os.PathLike[str], workflow_id: str) -> History:
    """Open a workflow's history for reading; the store is never made or changed.

    Args:
        uri: The store, or the path of a bundle.
        workflow_id: The workflow.

    Returns:
        Its history. Whether the workflow exists shows when it is read.

    Raises:
        StorageUriError: If there is no store.
        CorruptJournalError: If the store's root file cannot be read.
        UnsupportedFormatError: If a newer Milepost made the store.
        StorageUnavailableError: If the storage fails.
    """
    from milepost.journal.bundle import open_to_look  # it reads histories, too

    return History(open_to_look(uri), workflow_id)
