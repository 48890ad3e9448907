"""Reads a journal from its end: for who wants the newest status, not the whole story."""

from __future__ import annotations

from collections.abc import Iterator

from milepost.errors import CorruptJournalError, WorkflowNotFoundError
from milepost.journal.compacted import read_blocks_backward, unpack_frames
from milepost.journal.frame import Frame
from milepost.journal.lineage import Link, Piece, list_journal, trace_lineage
from milepost.journal.reader import (
    again_while_pieces_vanish,
    journal_changed,
    piece_epoch,
    read_piece,
)
from milepost.journal.store import Store


def read_backward(store: Store, workflow_id: str) -> Iterator[list[Frame]]:
    """Read a workflow's journal without owning it, the newest frames first.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Returns:
        What iterating a :class:`BackwardWalk` gives; errors come while iterating.
    """
    return iter(BackwardWalk(store, workflow_id))


class BackwardWalk:
    """One reading of a journal without owning it, the newest frames first.

    Stop iterating when enough was read: what comes before is then not even listed.

    Attributes:
        end_epoch: The epoch of the owner that the newest end belongs to; 0 before anything is read.
    """

    def __init__(self, store: Store, workflow_id: str, *, settle: bool = False) -> None:
        """Prepare to read.

        Args:
            store: Where the workflow is.
            workflow_id: The workflow.
            settle: Read only what survives a power cut, as somebody must who tells it to others.
        """
        self.end_epoch: int = 0
        self._store = store
        self._workflow_id = workflow_id
        self._settle = settle
        self._started = False
        self._first_seq = 0
        self._before = b""

    def __iter__(self) -> Iterator[list[Frame]]:
        """Read the journal from its end.

        Yields:
            Verified frames in the order of the journal, at least one; then those just before them,
            and so on to the first event.

        Raises:
            InvalidWorkflowIdError: If the id cannot be encoded.
            WorkflowNotFoundError: If nothing was ever written, or all of it was deleted.
            CorruptJournalError: If anything that was read is damaged or missing.
            UnsupportedFormatError: If a newer Milepost wrote the journal.
            StorageUnavailableError: If the storage fails, or the journal changed meanwhile.
        """
        for _ in range(2):  # as in read_journal
            yield from again_while_pieces_vanish(self._read)
            if self._started:
                return
        raise WorkflowNotFoundError(self._workflow_id, self._store.uri)

    def _read(self) -> Iterator[list[Frame]]:
        listing = list_journal(self._store, self._workflow_id)
        for number, piece in enumerate(trace_lineage(self._store, listing)):
            if number == 0:
                self.end_epoch = piece_epoch(piece)
            for before, frames in _read_backward(self._store, piece, self._settle):
                if self._started:
                    frames = self._cut(frames)
                if frames:
                    self._started = True
                    self._first_seq, self._before = frames[0].first_seq, before
                    yield frames
        if self._started and self._first_seq:
            raise journal_changed(self._workflow_id)

    def _cut(self, frames: list[Frame]) -> list[Frame]:
        """Drop what was given before; what is left must go right before it."""
        left = [frame for frame in frames if frame.first_seq < self._first_seq]
        if left and (left[-1].next_seq, left[-1].chain) != (self._first_seq, self._before):
            raise journal_changed(self._workflow_id)
        return left


def _read_backward(store: Store, piece: Piece, settle: bool) -> Iterator[tuple[bytes, list[Frame]]]:
    """Give groups of frames, newest first, each with the chain before it."""
    if isinstance(piece, Link):
        yield piece.head.chain, list(read_piece(store, piece, settle=settle))
        return
    if settle:
        store.settle(piece.key)
    due = piece.name.next_seq
    for block in read_blocks_backward(store, piece.name, piece.key):
        frames = list(unpack_frames(block, piece.key))
        if frames[-1].next_seq != due:
            raise CorruptJournalError(piece.key, block.offset, f"it does not end at event {due}")
        due = block.first_seq
        yield block.before, frames
    if due:
        raise CorruptJournalError(piece.key, 0, f"what comes before event {due} is missing")
