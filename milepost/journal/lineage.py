"""What a journal consists of: the chain of parents, back from its newest end.

Every owner starts its own segments and names as parent the end it found. Of two would-be owners the
one of the higher epoch wins, so the newest segment is the one of the highest epoch and index, and
what is not among its ancestors never happened. A compacted object stands for everything before the
event that it is named by: where a link says the same event and chain, the trace ends in it. It is
the newest end itself only if no segment was written after what it holds. A tombstone ends all that
is older than it. Only names and heads are looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, TypeVar

from milepost.errors import AlteredJournalError, CorruptJournalError
from milepost.journal.layout import (
    CompactedName,
    SegmentName,
    compacted_folder,
    parse_compacted_name,
    parse_segment_name,
    parse_tombstone_name,
    segments_folder,
)
from milepost.journal.segment import (
    HEAD_BYTES,
    Parent,
    SegmentHead,
    parse_segment_head,
    require_torn_at_birth,
)
from milepost.journal.store import ObjectNotFoundError, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One segment of a lineage.

    Attributes:
        key: The segment's key.
        head: Its head.
        sealed: What the segment after it says about it; None for the newest.
        next_seq: The number of the event that the segment after it starts with, or None.
    """

    key: str
    head: SegmentHead
    sealed: Parent | None
    next_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A compacted object at the start of a lineage.

    Attributes:
        key: Its key.
        name: Its name.
        journal_id: The journal's id as the segment after it says; None if it is the newest end.
    """

    key: str
    name: CompactedName
    journal_id: bytes | None


Name = TypeVar("Name", SegmentName, CompactedName, int)
Piece: TypeAlias = Link | Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The names in a workflow's journal, also of what never happened.

    Attributes:
        workflow_id: The workflow.
        segments: The segments, oldest first.
        tombstones: The epochs of the tombstones, rising.
        compacted: The compacted objects, by what they are named by.
    """

    workflow_id: str
    segments: Sequence[SegmentName]
    tombstones: Sequence[int]
    compacted: Mapping[tuple[int, bytes], CompactedName]

    @property
    def tombstone(self) -> int:
        """The epoch of the newest tombstone, 0 if there is none."""
        return self.tombstones[-1] if self.tombstones else 0

    @property
    def epoch(self) -> int:
        """The highest epoch of anything listed, 0 if nothing is."""
        segments = (name.epoch for name in self.segments)
        compacted = (name.epoch for name in self.compacted.values())
        return max(self.tombstone, *segments, *compacted, 0)


def list_journal(store: Store, workflow_id: str) -> Listing:
    """List what a workflow's journal may consist of.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Returns:
        The names.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        CorruptJournalError: If two segments claim one place.
        StorageUnavailableError: If the storage fails.
    """
    # Segments first: what is deleted between the two listings was replaced before the second.
    names = _names(store, segments_folder(workflow_id))
    compacted = _names(store, compacted_folder(workflow_id))
    segments = _parsed(map(parse_segment_name, names))
    for one, other in pairwise(segments):
        if (one.epoch, one.index) == (other.epoch, other.index):
            key = segments_folder(workflow_id) + str(other)
            raise AlteredJournalError(key, 0, f"segment {one} has the same place")
    return Listing(
        workflow_id=workflow_id,
        segments=segments,
        tombstones=_parsed(map(parse_tombstone_name, names)),
        compacted={
            (name.next_seq, name.chain): name
            for name in _parsed(map(parse_compacted_name, compacted))
        },
    )


def _names(store: Store, folder: str) -> list[str]:
    return [each.key[len(folder) :] for each in store.list(folder)]


def _parsed(names: Iterator[Name | None]) -> list[Name]:
    return sorted(name for name in names if name is not None)


def trace_lineage(store: Store, listing: Listing) -> Iterator[Piece]:
    """Follow the parents, from the newest end to the first event.

    Args:
        store: Where the workflow is.
        listing: What there is.

    Yields:
        The segments, newest first, and last the compacted object, if there is one; nothing if
        nothing was written or all was deleted.

    Raises:
        ObjectNotFoundError: If a part is missing; perhaps it was compacted away just now.
        CorruptJournalError: If a head is damaged or does not fit the one after it.
        UnsupportedFormatError: If a newer Milepost wrote a segment.
        StorageUnavailableError: If the storage fails.
    """
    end = _newest_end(store, listing)
    if isinstance(end, SegmentHead):
        folder = segments_folder(listing.workflow_id)
        yield Link(key=folder + str(end.name), head=end, sealed=None, next_seq=None)
        yield from trace_parents(store, listing, end)
    elif end is not None:
        yield _base(listing, end, None)


def _newest_end(store: Store, listing: Listing) -> SegmentHead | CompactedName | None:
    compacted = max(listing.compacted.values(), key=_newness, default=None)
    if compacted is not None and compacted.epoch < listing.tombstone:
        compacted = None
    for name in reversed(listing.segments):
        # A late segment of an owner long succeeded must not hide what came after it.
        if name.epoch < max(listing.tombstone, compacted.epoch if compacted else 0):
            break
        head = _newest_head(store, listing, name)
        if head is None:
            continue
        if compacted and name.epoch == compacted.epoch and head.first_seq < compacted.next_seq:
            break
        return head
    return compacted


def _newness(name: CompactedName) -> tuple[int, int]:
    return name.epoch, name.next_seq


def _newest_head(store: Store, listing: Listing, name: SegmentName) -> SegmentHead | None:
    """Read the head of what may be the newest segment; None if it died at its birth."""
    key = segments_folder(listing.workflow_id) + str(name)
    head = parse_segment_head(store.get(key, 0, HEAD_BYTES), name, key)
    if head is not None:
        return head
    # The head may have been written since it was read: decide by one look at the whole.
    content = store.get(key)
    head = parse_segment_head(content, name, key)
    if head is None:
        require_torn_at_birth(content, key, store.appendable)
    return head


def trace_parents(store: Store, listing: Listing, head: SegmentHead) -> Iterator[Piece]:
    """Follow the parents of a segment.

    Args:
        store: Where the workflow is.
        listing: What there is.
        head: The head of the segment, which may not exist yet.

    Yields:
        What comes before it, newest first, as :func:`trace_lineage` does.

    Raises:
        ObjectNotFoundError: If a part is missing; perhaps it was compacted away just now.
        CorruptJournalError: If a head is damaged or does not fit the one after it.
        UnsupportedFormatError: If a newer Milepost wrote a segment.
        StorageUnavailableError: If the storage fails.
    """
    while head.parent is not None:
        parent, next_seq, journal_id = head.parent, head.first_seq, head.journal_id
        compacted = listing.compacted.get((next_seq, parent.chain))
        if compacted is None and parent.is_compacted:
            compacted = CompactedName(next_seq, parent.name.epoch, parent.chain)
            raise ObjectNotFoundError(_base(listing, compacted, journal_id).key)
        if compacted is not None:
            yield _base(listing, compacted, journal_id)
            return
        key = segments_folder(listing.workflow_id) + str(parent.name)
        head = _parent_head(store, key, parent.name, head)
        yield Link(key=key, head=head, sealed=parent, next_seq=next_seq)


def _base(listing: Listing, name: CompactedName, journal_id: bytes | None) -> Base:
    key = compacted_folder(listing.workflow_id) + str(name)
    return Base(key=key, name=name, journal_id=journal_id)


def _parent_head(store: Store, key: str, name: SegmentName, child: SegmentHead) -> SegmentHead:
    head = parse_segment_head(store.get(key, 0, HEAD_BYTES), name, key)
    if head is None:
        raise CorruptJournalError(key, 0, "segment head is damaged")
    if head.journal_id != child.journal_id or head.first_seq > child.first_seq:
        raise AlteredJournalError(key, 0, f"segment {child.name} goes on from another journal")
    return head


def missing_piece(error: ObjectNotFoundError) -> CorruptJournalError:
    """Say that a part of a journal is gone for good, after it was looked for again.

    Args:
        error: What the store said.

    Returns:
        The error to raise.
    """
    return CorruptJournalError(error.key, 0, "what comes later needs this, but it is missing")
