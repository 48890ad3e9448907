"""Reads a journal: verified frames in order, one segment or a few blocks in memory at a time.

Nothing is ever handed out that was not verified: CRCs, chain, dense numbers, links to the parents.
Nothing is changed, and no stored code runs. A reader that does not own the workflow may see
events at the very end that were never acknowledged; a later owner may keep or lose them. Whoever
tells others what was read asks :func:`milepost.journal.claim.is_settled` first.

Segments are read, not mapped: an I/O error under a mapped file kills the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from milepost.errors import (
    AlteredJournalError,
    CorruptJournalError,
    StorageUnavailableError,
    WorkflowNotFoundError,
)
from milepost.journal.compacted import read_blocks, read_head, unpack_frames
from milepost.journal.frame import CHAIN_START, Frame
from milepost.journal.layout import segments_folder
from milepost.journal.lineage import (
    Base,
    Link,
    Piece,
    list_journal,
    missing_piece,
    trace_lineage,
)
from milepost.journal.segment import HEAD_BYTES, Parent, compacted_parent, scan_frames
from milepost.journal.store import ObjectNotFoundError, Store

Read = TypeVar("Read")

LISTINGS_MAX = 5
"""Listings of one read. A segment vanishes when it is compacted, which takes long; five in a row
mean that it is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """Where a journal ends, and so where the next owner goes on.

    Attributes:
        journal_id: The journal's id.
        next_seq: The number of the next event.
        chain: The chain of the last frame.
        parent: What the next segment says about the newest end; None if there is none.
        incarnation: The epoch of the first frame; 0 if there is none.
        epoch: The highest epoch of anything in the journal's folders.
        end_epoch: The epoch of the owner that the newest end belongs to; 0 if there is none.
        keys: Where the journal was read from.
        segment_count: How many segments these are.
        segment_bytes: How long they are together.
        compacted_bytes: How long the compacted object among them is; 0 without one.
    """

    journal_id: bytes
    next_seq: int = 0
    chain: bytes = CHAIN_START
    parent: Parent | None = None
    incarnation: int = 0
    epoch: int = 0
    end_epoch: int = 0
    keys: frozenset[str] = field(default_factory=frozenset)
    segment_count: int = 0
    segment_bytes: int = 0
    compacted_bytes: int = 0


class JournalWalk:
    """One reading of a whole journal.

    Iterating gives the frames; after the last one, :attr:`tip` is set.

    Attributes:
        tip: Where the journal ends; None until everything was read.
    """

    def __init__(self, store: Store, workflow_id: str, *, settle: bool = False) -> None:
        """Prepare to read.

        Args:
            store: Where the workflow is.
            workflow_id: The workflow.
            settle: Read only what survives a power cut, as somebody must who builds on it.
        """
        self.tip: Tip | None = None
        self._store = store
        self._workflow_id = workflow_id
        self._settle = settle
        self._next_seq = 0
        self._chain = CHAIN_START
        self._incarnation = 0

    def __iter__(self) -> Iterator[Frame]:
        """Read the journal from its first frame.

        Yields:
            The frames, in order.

        Raises:
            InvalidWorkflowIdError: If the id cannot be encoded.
            WorkflowNotFoundError: If the workflow was deleted while it was read.
            CorruptJournalError: If anything is damaged or missing.
            UnsupportedFormatError: If a newer Milepost wrote a part of it.
            StorageUnavailableError: If the storage fails, or the journal changed meanwhile.
        """
        return again_while_pieces_vanish(self._read)

    def _read(self) -> Iterator[Frame]:
        listing = list_journal(self._store, self._workflow_id)
        lineage = list(trace_lineage(self._store, listing))[::-1]
        self.tip = None
        end = next_seq = segment_bytes = compacted_bytes = 0
        for piece in lineage:
            end = HEAD_BYTES
            for frame in read_piece(self._store, piece, settle=self._settle):
                end, next_seq = frame.end, frame.next_seq
                if self._is_new(frame):
                    yield frame
            if isinstance(piece, Base):
                compacted_bytes = end
            else:
                segment_bytes += end
        if next_seq < self._next_seq:
            raise self._changed() if lineage else self._deleted()
        self.tip = Tip(
            journal_id=_journal_id(self._store, lineage),
            next_seq=self._next_seq,
            chain=self._chain,
            parent=_as_parent(lineage[-1], end, self._chain) if lineage else None,
            incarnation=self._incarnation,
            epoch=listing.epoch,
            end_epoch=piece_epoch(lineage[-1]) if lineage else 0,
            keys=frozenset(piece.key for piece in lineage),
            segment_count=sum(isinstance(piece, Link) for piece in lineage),
            segment_bytes=segment_bytes,
            compacted_bytes=compacted_bytes,
        )

    def _is_new(self, frame: Frame) -> bool:
        """Skip what an earlier listing gave already, if it is the same."""
        if frame.first_seq >= self._next_seq:
            self._next_seq, self._chain = frame.next_seq, frame.chain
            self._incarnation = self._incarnation or frame.epoch
            return True
        differs = frame.next_seq == self._next_seq and frame.chain != self._chain
        if differs or frame.next_seq > self._next_seq:
            raise self._changed()
        return False

    def _changed(self) -> StorageUnavailableError:
        return journal_changed(self._workflow_id)

    def _deleted(self) -> WorkflowNotFoundError:
        return WorkflowNotFoundError(self._workflow_id, self._store.uri)


def piece_epoch(piece: Piece) -> int:
    """Tell whose part of a lineage this is.

    Args:
        piece: The part.

    Returns:
        The epoch of its owner; of a compacted object, that of the last owner in it.
    """
    return piece.head.name.epoch if isinstance(piece, Link) else piece.name.epoch


def again_while_pieces_vanish(read: Callable[[], Iterator[Read]]) -> Iterator[Read]:
    """Read, and start again with a new listing when a part was compacted away meanwhile.

    Args:
        read: Lists and reads; must know what it gave before.

    Yields:
        What it yields.

    Raises:
        CorruptJournalError: If a part stays away, or of ``read``.
    """
    for _ in range(LISTINGS_MAX - 1):
        try:
            yield from read()
            return
        except ObjectNotFoundError:
            continue
    try:
        yield from read()
    except ObjectNotFoundError as error:
        raise missing_piece(error) from error


def journal_changed(workflow_id: str) -> StorageUnavailableError:
    """Say that what was read does not go on as it began.

    Args:
        workflow_id: The workflow.

    Returns:
        The error to raise.
    """
    reason = "the journal got a new owner while it was read; read it again"
    return StorageUnavailableError("read", segments_folder(workflow_id), reason)


def _journal_id(store: Store, lineage: list[Piece]) -> bytes:
    if not lineage:
        return os.urandom(16)
    newest = lineage[-1]
    if isinstance(newest, Link):
        return newest.head.journal_id
    return read_head(store, newest.name, newest.key).journal_id


def _as_parent(newest: Piece, end: int, chain: bytes) -> Parent:
    if isinstance(newest, Base):
        return compacted_parent(newest.name.epoch, chain)
    return Parent(name=newest.head.name, sealed_bytes=end, chain=chain)


def read_piece(store: Store, piece: Piece, *, settle: bool = False) -> Iterator[Frame]:
    """Read one part of a lineage, verified up to its link with the next.

    Args:
        store: Where it is.
        piece: The part.
        settle: Read only what survives a power cut.

    Yields:
        Its frames.

    Raises:
        ObjectNotFoundError: If it is gone.
        CorruptJournalError: If it is damaged, or is not what the next segment says.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    if isinstance(piece, Link):
        return _read_segment(store, piece, settle)
    return _read_base(store, piece, settle)


def _read_segment(store: Store, link: Link, settle: bool) -> Iterator[Frame]:
    sealed = link.sealed
    length = sealed.sealed_bytes if sealed else store.settle(link.key) if settle else None
    content = store.get(link.key, 0, length)
    if sealed and len(content) < sealed.sealed_bytes:
        raise _cut_off(link, sealed, content)
    next_seq, chain = link.head.first_seq, link.head.chain
    for frame in scan_frames(content, link.head, link.key, sealed=sealed is not None):
        next_seq, chain = frame.next_seq, frame.chain
        yield frame
    if sealed and (chain, next_seq) != (sealed.chain, link.next_seq):
        raise AlteredJournalError(link.key, len(content), "the next segment does not fit its end")


def _cut_off(link: Link, sealed: Parent, content: bytes) -> CorruptJournalError:
    """Tell an end that is missing from a frame that somebody cut out before it."""
    try:
        for _ in scan_frames(content, link.head, link.key, sealed=True):
            pass
    except AlteredJournalError as error:
        return error
    except CorruptJournalError:
        pass  # where the last frame is cut through
    reason = f"{sealed.sealed_bytes} bytes of it are sealed, so its end is missing"
    return CorruptJournalError(link.key, len(content), reason)


def _read_base(store: Store, base: Base, settle: bool) -> Iterator[Frame]:
    if settle:  # what it replaced may be deleted by who builds on it
        store.settle(base.key)
    seq, epoch, offset = 0, 0, 0
    for block in read_blocks(store, base.name, base.key, base.journal_id):
        offset = block.offset
        if block.first_seq != seq:
            raise AlteredJournalError(base.key, offset, f"block of event {seq} is missing")
        for frame in unpack_frames(block, base.key):
            seq, epoch = frame.next_seq, frame.epoch
            yield frame
    if (seq, epoch) != (base.name.next_seq, base.name.epoch):
        raise AlteredJournalError(base.key, offset, f"it ends before event {seq}, not as it says")


def read_journal(store: Store, workflow_id: str) -> Iterator[Frame]:
    """Read a workflow's journal without owning it.

    Errors come while iterating, not from the call.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Yields:
        The verified frames, from the first event on, without gaps.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If nothing was ever written, or all of it was deleted.
        CorruptJournalError: If anything is damaged or missing.
        UnsupportedFormatError: If a newer Milepost wrote the journal.
        StorageUnavailableError: If the storage fails, or the journal changed meanwhile.
    """
    found = False
    # Twice: a folder that is listed while an object is put and the one it replaces is deleted
    # may show neither of them.
    for _ in range(2):
        for frame in JournalWalk(store, workflow_id):
            found = True
            yield frame
        if found:
            return
    raise WorkflowNotFoundError(workflow_id, store.uri)
