"""Reads a journal: verified frames in order, one segment in memory at a time.

Nothing is ever handed out that was not verified: CRCs, chain, dense numbers, links to the parents.
Nothing is changed, and no stored code runs. A reader that does not own the workflow may see
events at the very end that were never acknowledged; a later owner may keep or lose them.

Segments are read, not mapped: an I/O error under a mapped file kills the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from milepost.errors import CorruptJournalError, StorageUnavailableError, WorkflowNotFoundError
from milepost.journal.frame import CHAIN_START, Frame
from milepost.journal.layout import segments_folder
from milepost.journal.lineage import Link, missing_segment, trace_lineage
from milepost.journal.segment import HEAD_BYTES, Parent, scan_frames
from milepost.journal.store import ObjectNotFoundError, Store

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
        parent: What the next segment says about the newest one; None if there is none.
    """

    journal_id: bytes
    next_seq: int
    chain: bytes
    parent: Parent | None


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

    def __iter__(self) -> Iterator[Frame]:
        """Read the journal from its first frame.

        Yields:
            The frames, in order.

        Raises:
            InvalidWorkflowIdError: If the id cannot be encoded.
            CorruptJournalError: If anything is damaged or missing.
            UnsupportedFormatError: If a newer Milepost wrote a segment.
            StorageUnavailableError: If the storage fails, or the journal changed meanwhile.
        """
        for _ in range(LISTINGS_MAX - 1):
            try:
                yield from self._read()
                return
            except ObjectNotFoundError:
                continue
        try:
            yield from self._read()
        except ObjectNotFoundError as error:
            raise missing_segment(error) from error

    def _read(self) -> Iterator[Frame]:
        lineage = list(trace_lineage(self._store, self._workflow_id))
        self.tip = None
        end, next_seq = HEAD_BYTES, 0
        for link in reversed(lineage):
            end = HEAD_BYTES
            for frame in read_segment(self._store, link, settle=self._settle):
                end, next_seq = frame.end, frame.next_seq
                if self._is_new(frame):
                    yield frame
        if next_seq < self._next_seq:
            raise self._changed()
        self.tip = self._tip_after(lineage[0], end) if lineage else _empty_tip()

    def _is_new(self, frame: Frame) -> bool:
        """Skip what an earlier listing gave already, if it is the same."""
        if frame.first_seq >= self._next_seq:
            self._next_seq, self._chain = frame.next_seq, frame.chain
            return True
        differs = frame.next_seq == self._next_seq and frame.chain != self._chain
        if differs or frame.next_seq > self._next_seq:
            raise self._changed()
        return False

    def _changed(self) -> StorageUnavailableError:
        reason = "the journal got a new owner while it was read; read it again"
        return StorageUnavailableError("read", segments_folder(self._workflow_id), reason)

    def _tip_after(self, newest: Link, end: int) -> Tip:
        head = newest.head
        parent = Parent(name=head.name, sealed_bytes=end, chain=self._chain)
        return Tip(
            journal_id=head.journal_id, next_seq=self._next_seq, chain=self._chain, parent=parent
        )


def _empty_tip() -> Tip:
    return Tip(journal_id=os.urandom(16), next_seq=0, chain=CHAIN_START, parent=None)


def read_segment(store: Store, link: Link, *, settle: bool = False) -> Iterator[Frame]:
    """Read one segment of a lineage, verified up to its link with the next.

    Args:
        store: Where it is.
        link: The segment.
        settle: For the newest: read only what survives a power cut.

    Yields:
        Its frames.

    Raises:
        ObjectNotFoundError: If the segment is gone.
        CorruptJournalError: If it is damaged, or is not what the next segment says.
        StorageUnavailableError: If the storage fails.
    """
    sealed = link.sealed
    length = sealed.sealed_bytes if sealed else store.settle(link.key) if settle else None
    content = store.get(link.key, 0, length)
    if sealed and len(content) < sealed.sealed_bytes:
        reason = f"{sealed.sealed_bytes} bytes of it are sealed, so its end is missing"
        raise CorruptJournalError(link.key, len(content), reason)
    next_seq, chain = link.head.first_seq, link.head.chain
    for frame in scan_frames(content, link.head, link.key, sealed=sealed is not None):
        next_seq, chain = frame.next_seq, frame.chain
        yield frame
    if sealed and (chain, next_seq) != (sealed.chain, link.next_seq):
        raise CorruptJournalError(link.key, len(content), "the next segment does not fit its end")


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
        WorkflowNotFoundError: If nothing was ever written.
        CorruptJournalError: If anything is damaged or missing.
        UnsupportedFormatError: If a newer Milepost wrote the journal.
        StorageUnavailableError: If the storage fails, or the journal changed meanwhile.
    """
    found = False
    for frame in JournalWalk(store, workflow_id):
        found = True
        yield frame
    if not found:
        raise WorkflowNotFoundError(workflow_id, store.uri)


def read_newest_frames(store: Store, workflow_id: str) -> list[Frame]:
    """Read only the newest segment that holds a frame.

    Every owner writes the workflow's status in its first frame, so the newest status is in here.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Returns:
        The verified frames of that segment, at least one.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If nothing was ever written.
        CorruptJournalError: If the segment is damaged or missing.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    for _ in range(LISTINGS_MAX - 1):
        try:
            return _newest_frames(store, workflow_id)
        except ObjectNotFoundError:
            continue
    try:
        return _newest_frames(store, workflow_id)
    except ObjectNotFoundError as error:
        raise missing_segment(error) from error


def _newest_frames(store: Store, workflow_id: str) -> list[Frame]:
    for link in trace_lineage(store, workflow_id):
        frames = list(read_segment(store, link))
        if frames:
            return frames
    raise WorkflowNotFoundError(workflow_id, store.uri)
