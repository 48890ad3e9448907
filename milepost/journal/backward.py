"""Reads a journal from its end: for who wants the newest status, not the whole story."""

from __future__ import annotations

from collections.abc import Iterator

from milepost.errors import CorruptJournalError, WorkflowNotFoundError
from milepost.journal.compacted import read_blocks_backward, unpack_frames
from milepost.journal.frame import Frame
from milepost.journal.lineage import Link, Piece, list_journal, trace_lineage
from milepost.journal.reader import again_while_pieces_vanish, journal_changed, read_piece
from milepost.journal.store import Store


def read_backward(store: Store, workflow_id: str) -> Iterator[list[Frame]]:
    """Read a workflow's journal without owning it, the newest frames first.

    Errors come while iterating, not from the call. Stop iterating when enough was read: what comes
    before is then not even listed.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Yields:
        Verified frames in the order of the journal, at least one; then those just before them, and
        so on to the first event.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If nothing was ever written, or all of it was deleted.
        CorruptJournalError: If anything that was read is damaged or missing.
        UnsupportedFormatError: If a newer Milepost wrote the journal.
        StorageUnavailableError: If the storage fails, or the journal changed meanwhile.
    """
    reading = _BackwardReading(store, workflow_id)
    for _ in range(2):  # as in read_journal
        yield from again_while_pieces_vanish(reading.read)
        if reading.started:
            return
    raise WorkflowNotFoundError(workflow_id, store.uri)


class _BackwardReading:
    """Remembers where it was, so that it can go on after a new listing."""

    def __init__(self, store: Store, workflow_id: str) -> None:
        self.started = False
        self._store = store
        self._workflow_id = workflow_id
        self._first_seq = 0
        self._before = b""

    def read(self) -> Iterator[list[Frame]]:
        listing = list_journal(self._store, self._workflow_id)
        for piece in trace_lineage(self._store, listing):
            for before, frames in _read_backward(self._store, piece):
                if self.started:
                    frames = self._cut(frames)
                if frames:
                    self.started = True
                    self._first_seq, self._before = frames[0].first_seq, before
                    yield frames
        if self.started and self._first_seq:
            raise journal_changed(self._workflow_id)

    def _cut(self, frames: list[Frame]) -> list[Frame]:
        """Drop what was given before; what is left must go right before it."""
        left = [frame for frame in frames if frame.first_seq < self._first_seq]
        if left and (left[-1].next_seq, left[-1].chain) != (self._first_seq, self._before):
            raise journal_changed(self._workflow_id)
        return left


def _read_backward(store: Store, piece: Piece) -> Iterator[tuple[bytes, list[Frame]]]:
    """Give groups of frames, newest first, each with the chain before it."""
    if isinstance(piece, Link):
        yield piece.head.chain, list(read_piece(store, piece))
        return
    due = piece.name.next_seq
    for block in read_blocks_backward(store, piece.name, piece.key):
        frames = list(unpack_frames(block, piece.key))
        if frames[-1].next_seq != due:
            raise CorruptJournalError(piece.key, block.offset, f"it does not end at event {due}")
        due = block.first_seq
        yield block.before, frames
    if due:
        raise CorruptJournalError(piece.key, 0, f"what comes before event {due} is missing")
