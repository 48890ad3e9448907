"""Writes a journal: makes events durable, and says so only while nobody else claims the workflow.

The order in :meth:`JournalWriter.flush` is what keeps writers one: write, sync, **then** list the
claims, then return. A successor puts its claim before it reads the journal. So if the listing shows
no later claim, every later claimant will read what was just written; and if it shows one, this
writer acknowledges nothing and has stopped for good.

A writer whose write or sync failed has stopped for good, too: what a failed fsync did to the file
cannot be known from here, and the next owner looks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from milepost.errors import LostOwnershipError, StorageUnavailableError
from milepost.journal.claim import require_ownership
from milepost.journal.frame import EncodedFrame, encode_frames
from milepost.journal.layout import ClaimName, SegmentName, segments_folder
from milepost.journal.reader import Tip
from milepost.journal.segment import (
    HEAD_BYTES,
    Parent,
    SegmentHead,
    encode_segment_head,
)
from milepost.journal.store import Appender, Store

SEGMENT_BYTES_MAX = 64 * 2**20
"""A segment that has reached this length is followed by a new one; readers hold one in memory."""


@dataclass(frozen=True, slots=True)
class Load:
    """Segments and their length: what a reader has to fetch one by one.

    Attributes:
        segment_count: How many there are.
        segment_bytes: How long they are together.
    """

    segment_count: int
    segment_bytes: int

    def __add__(self, more: Load) -> Load:
        return Load(
            self.segment_count + more.segment_count, self.segment_bytes + more.segment_bytes
        )

    def __sub__(self, less: Load) -> Load:
        return Load(
            self.segment_count - less.segment_count, self.segment_bytes - less.segment_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """An end of the journal behind which nothing will change.

    Attributes:
        head: The head that the next segment would have.
        load: What was not compacted up to there.
    """

    head: SegmentHead
    load: Load


class JournalWriter:
    """The one who may write a workflow's journal; made by taking ownership.

    Calls from several threads wait for each other.

    Attributes:
        workflow_id: The workflow.
        epoch: The owner's epoch.
        next_seq: The number that the next event gets.
        chain: The chain of the last frame.
        incarnation: The epoch of the journal's first frame, which is this one in a new journal.
        store: Where the workflow is.
        load: What is not compacted yet.
        compacted_bytes: How long the compacted object before that is; 0 without one.
        kept: The keys that the owner read the journal from and goes on from.
        acknowledged: Whether a frame of this owner is durable and acknowledged.
    """

    def __init__(
        self,
        store: Store,
        workflow_id: str,
        claim: ClaimName,
        tip: Tip,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        """Go on after the end of a journal; nothing is written yet.

        Args:
            store: Where the workflow is.
            workflow_id: The workflow.
            claim: The owner's claim.
            tip: Where the journal ends, read after the claim was made.
            segment_bytes_max: When to start a new segment.
        """
        self.workflow_id = workflow_id
        self.epoch: int = claim.epoch
        self.next_seq: int = tip.next_seq
        self.chain: bytes = tip.chain
        self.incarnation: int = tip.incarnation or claim.epoch
        self.store = store
        self.load: Load = Load(tip.segment_count, tip.segment_bytes)
        self.compacted_bytes: int = tip.compacted_bytes
        self.kept: frozenset[str] = tip.keys
        self.acknowledged: bool = False
        self._claim = claim
        self._journal_id = tip.journal_id
        self._parent = tip.parent
        self._folder = segments_folder(workflow_id)
        self._segment_bytes_max = segment_bytes_max
        self._next_index = 0
        self._segment: _OpenSegment | None = None
        self._closed = False
        self._death: StorageUnavailableError | LostOwnershipError | None = None
        self._lock = threading.Lock()

    def flush(self, events: Sequence[bytes]) -> None:
        """Make events durable; only when this returns may anybody be told of them.

        Without events it only makes sure that the workflow is still owned.

        Args:
            events: The events' bytes, each one msgpack object.

        Raises:
            UsageError: If an event is empty or longer than a frame may be; nothing was written.
            ValueError: If the writer was closed.
            LostOwnershipError: If somebody else has claimed the workflow. The events may or may
                not be in the journal, and the writer is dead.
            StorageUnavailableError: If the storage fails. The events may or may not be in the
                journal, and the writer is dead.
        """
        with self._lock:
            self._require_alive()
            frames = encode_frames(
                events,
                journal_id=self._journal_id,
                epoch=self.epoch,
                first_seq=self.next_seq,
                chain=self.chain,
            )
            # Dead until proven alive: an interrupt in the middle must not leave a live writer.
            self._death = StorageUnavailableError("flush", self._folder, "a flush was interrupted")
            try:
                self._write(frames)
                require_ownership(self.store, self.workflow_id, self._claim)
            except (StorageUnavailableError, LostOwnershipError) as error:
                self._death = type(error)(*error.args)  # a copy without the traceback
                with suppress(StorageUnavailableError):
                    self._close_segment()
                raise
            self._death = None
            self.acknowledged = self.acknowledged or bool(frames)

    def seal(self) -> Seal:
        """End the present segment; what was flushed so far will be followed by another one.

        Returns:
            The end.

        Raises:
            ValueError: If the writer was closed.
            LostOwnershipError: If the workflow is known to be lost.
            StorageUnavailableError: If the writer is dead because the storage failed.
        """
        with self._lock:
            self._require_alive()
            segment = self._segment
            if segment is not None:
                self._seal(segment.name, segment.size)
                with suppress(StorageUnavailableError):  # all that was flushed is durable
                    self._close_segment()
            return Seal(head=self._next_head(whole_bytes=0), load=self.load)

    def note_compacted(self, seal: Seal, compacted_bytes: int) -> None:
        """Count what was sealed as compacted.

        Args:
            seal: The end of what was compacted.
            compacted_bytes: How long the object is that holds it.
        """
        with self._lock:
            self.load -= seal.load
            self.compacted_bytes = compacted_bytes

    def require_ownership(self) -> None:
        """Make sure that nobody has claimed a later epoch so far; flushes need not wait for it.

        Raises:
            LostOwnershipError: If somebody else has claimed the workflow; the writer is dead.
            StorageUnavailableError: If the storage fails; the writer lives on.
        """
        try:
            require_ownership(self.store, self.workflow_id, self._claim)
        except LostOwnershipError as error:
            with self._lock:
                self._death = self._death or LostOwnershipError(*error.args)
            raise

    def close(self) -> None:
        """Let go of the segment; the workflow stays owned until somebody claims it.

        Raises:
            StorageUnavailableError: If the storage fails; all that was flushed is durable still.
        """
        with self._lock:
            self._closed = True
            self._close_segment()

    def _require_alive(self) -> None:
        if self._closed:
            raise ValueError(f"the journal writer of {self.workflow_id!r} is closed")
        if self._death is not None:
            raise type(self._death)(*self._death.args)

    def _write(self, frames: Sequence[EncodedFrame]) -> None:
        if not self.store.appendable:
            if frames:
                self._put(frames)
            return
        # One sync per frame: a disk may keep the later and lose the earlier of two frames, and
        # that would look like damage. More than one frame in a flush is rare.
        for frame in frames:
            self._append(frame)

    def _put(self, frames: Sequence[EncodedFrame]) -> None:
        parts = [part for frame in frames for part in (frame.head, frame.payload)]
        whole_bytes = HEAD_BYTES + sum(map(len, parts))
        head = self._start_segment(whole_bytes)
        self.store.put(self._folder + str(head.name), [encode_segment_head(head), *parts])
        for frame in frames:
            self._advance(frame)
        self._seal(head.name, whole_bytes)

    def _append(self, frame: EncodedFrame) -> None:
        segment = self._segment
        if segment is not None and segment.size >= self._segment_bytes_max:
            self._close_segment()
            self._seal(segment.name, segment.size)
            segment = None
        if segment is None:
            head = self._start_segment(whole_bytes=0)
            segment = self._segment = self._open(head.name)
            segment.write(encode_segment_head(head), frame.head, frame.payload)
        else:
            segment.write(frame.head, frame.payload)
        self.load += Load(0, frame.size)
        self._advance(frame)

    def _open(self, name: SegmentName) -> _OpenSegment:
        key = self._folder + str(name)
        appender = self.store.append(key)
        if appender is None:
            raise StorageUnavailableError("append to", key, "the store cannot append")
        return _OpenSegment(name, appender)

    def _start_segment(self, whole_bytes: int) -> SegmentHead:
        head = self._next_head(whole_bytes)
        self._next_index += 1
        self.load += Load(1, whole_bytes or HEAD_BYTES)
        return head

    def _next_head(self, whole_bytes: int) -> SegmentHead:
        return SegmentHead(
            name=SegmentName(self.epoch, self._next_index, self._claim.nonce),
            journal_id=self._journal_id,
            first_seq=self.next_seq,
            parent=self._parent,
            whole_bytes=whole_bytes,
        )

    def _advance(self, frame: EncodedFrame) -> None:
        self.next_seq, self.chain = frame.next_seq, frame.chain

    def _seal(self, name: SegmentName, size: int) -> None:
        self._parent = Parent(name=name, sealed_bytes=size, chain=self.chain)

    def _close_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.appender.close()


class _OpenSegment:
    """The segment that grows, and how long it is."""

    def __init__(self, name: SegmentName, appender: Appender) -> None:
        self.name = name
        self.appender = appender
        self.size = 0

    def write(self, *parts: bytes) -> None:
        self.appender.write(parts)
        self.appender.sync()
        self.size += sum(map(len, parts))
