"""Which segments a journal consists of: the chain of parents, back from the newest segment.

Every owner starts its own segments and names as parent the one it found newest. Of two would-be
owners the one of the higher epoch wins, so the newest segment is the one of the highest epoch and
index, and segments that are not among its ancestors never happened. Only heads are read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from milepost.errors import CorruptJournalError
from milepost.journal.layout import SegmentName, parse_segment_name, segments_folder
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


def list_segments(store: Store, workflow_id: str) -> Sequence[SegmentName]:
    """List a workflow's segments, also those that never happened.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Returns:
        Their names, oldest first.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        CorruptJournalError: If two segments claim one place.
        StorageUnavailableError: If the storage fails.
    """
    folder = segments_folder(workflow_id)
    parsed = [parse_segment_name(each.key[len(folder) :]) for each in store.list(folder)]
    names = sorted(name for name in parsed if name is not None)
    for one, other in pairwise(names):
        if (one.epoch, one.index) == (other.epoch, other.index):
            raise CorruptJournalError(folder + str(other), 0, f"segment {one} has the same place")
    return names


def trace_lineage(store: Store, workflow_id: str) -> Iterator[Link]:
    """Follow the parents, from the newest segment to the first.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Yields:
        The segments, newest first; none if nothing was ever written.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        ObjectNotFoundError: If a segment is missing; perhaps it was compacted away just now.
        CorruptJournalError: If a head is damaged or does not fit the one after it.
        UnsupportedFormatError: If a newer Milepost wrote a segment.
        StorageUnavailableError: If the storage fails.
    """
    folder = segments_folder(workflow_id)
    head = _newest_head(store, workflow_id, folder)
    sealed, next_seq = None, None
    while head is not None:
        key = folder + str(head.name)
        yield Link(key=key, head=head, sealed=sealed, next_seq=next_seq)
        sealed, next_seq = head.parent, head.first_seq
        head = _parent_head(store, folder, head)


def _newest_head(store: Store, workflow_id: str, folder: str) -> SegmentHead | None:
    for name in reversed(list_segments(store, workflow_id)):
        key = folder + str(name)
        head = parse_segment_head(store.get(key, 0, HEAD_BYTES), name, key)
        if head is not None:
            return head
        # The head may have been written since it was read: decide by one look at the whole.
        content = store.get(key)
        head = parse_segment_head(content, name, key)
        if head is not None:
            return head
        require_torn_at_birth(content, key, store.appendable)
    return None


def _parent_head(store: Store, folder: str, child: SegmentHead) -> SegmentHead | None:
    if child.parent is None:
        return None
    name = child.parent.name
    key = folder + str(name)
    head = parse_segment_head(store.get(key, 0, HEAD_BYTES), name, key)
    if head is None:
        raise CorruptJournalError(key, 0, "segment head is damaged")
    if head.journal_id != child.journal_id or head.first_seq > child.first_seq:
        raise CorruptJournalError(key, 0, f"segment {child.name} goes on from another journal")
    return head


def missing_segment(error: ObjectNotFoundError) -> CorruptJournalError:
    """Say that a segment is gone for good, after it was looked for again.

    Args:
        error: What the store said.

    Returns:
        The error to raise.
    """
    return CorruptJournalError(error.key, 0, "a later segment needs this one, but it is missing")
