"""Keeps a journal short while it is written: compacts it, and clears away what was replaced.

The order is what keeps it safe. The end of what is compacted is fixed first (nothing is ever added
behind a sealed end). Then the object is put; it says the same as the segments it stands for and
changes for no reader where the journal ends. **Then** the claims are listed, and only if nobody has
claimed the workflow meanwhile is anything deleted: every later claimant lists the journal after its
claim, and so finds the object. With the check before the put, a new owner could have read the
segments, and cleared away the object it does not know.

What an owner clears away after a takeover is of lower epochs and not among what it went on from.
Once a flush of its own is acknowledged, no later owner can go on from any of that.

Flushes go on meanwhile; they wait only while the present segment is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from milepost.errors import MilepostError
from milepost.journal.compacted import read_blocks
from milepost.journal.layout import (
    CompactedName,
    SegmentName,
    blobs_folder,
    compacted_folder,
    parse_incarnation,
    segments_folder,
    tombstone_key,
)
from milepost.journal.lineage import Base, list_journal, missing_piece, trace_parents
from milepost.journal.packing import Packer
from milepost.journal.reader import read_piece
from milepost.journal.store import ObjectNotFoundError, Part, Store
from milepost.journal.writer import JournalWriter, Load, Seal

SEGMENTS_MAX = 256
"""So many segments may lie around: a reader needs two requests for each."""

SEGMENT_BYTES_MAX = 2**20
"""So long may they be together: frames of one or two events compress badly alone."""

REQUEST_BYTES = 16 * 2**10
"""What could be copied in the time that one more request costs. Compaction copies all that was
compacted before; it waits until what it gains is worth that, so that no journal costs more than a
multiple of its length, however long it gets."""

LAST_BYTES_MIN = 32 * 2**10
"""A single segment below this stays as it is at the end: nothing would be gained."""


class Compactor:
    r"""Does the chores of a journal's owner, one at a time; calls wait for each other.

    Example:
        >>> from milepost.journal import MemoryStore, take_ownership
        >>> store = MemoryStore(appendable=False)
        >>> writer = take_ownership(store, "nightly", owner="the docs")
        >>> for event in (b"\x01", b"\x02"):
        ...     writer.flush([event])
        >>> Compactor(writer).run(last=True)
        >>> len(store.list("workflows/nightly/segments/"))
        0
    """

    def __init__(
        self,
        writer: JournalWriter,
        *,
        segments_max: int = SEGMENTS_MAX,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        """Look after the journal of a writer; nothing is done yet.

        Args:
            writer: The owner's writer, fresh from the takeover.
            segments_max: How many segments may lie around.
            segment_bytes_max: How long they may be together.
        """
        self._writer = writer
        self._store: Store = writer.store
        self._segments_max = segments_max
        self._segment_bytes_max = segment_bytes_max
        self._lock = threading.Lock()
        self._failures = 0
        # Before the first owner there was nobody who could have left anything.
        self._swept = writer.epoch == 1

    def is_due(self, *, last: bool = False) -> bool:
        """Tell whether there is anything to do now; costs nothing.

        Args:
            last: Whether nothing more will be flushed.

        Returns:
            Whether :meth:`run` would do something.
        """
        if not self._writer.acknowledged:
            return False
        return not self._swept or self._is_long(self._writer.load, last=last)

    def run(self, *, last: bool = False) -> None:
        """Do what is due. Whatever it raises, the journal is whole and nothing in it is lost.

        Args:
            last: Whether nothing more will be flushed.

        Raises:
            ValueError: If the writer was closed.
            LostOwnershipError: If somebody else has claimed the workflow.
            CorruptJournalError: If what should be compacted is damaged.
            UnsupportedFormatError: If a newer Milepost wrote a part of the journal.
            StorageUnavailableError: If the storage fails.
        """
        with self._lock:
            if not self.is_due(last=last):
                return
            try:
                if self._is_long(self._writer.load, last=last):
                    self._compact()
                self._sweep_up()
            except MilepostError:
                self._failures += 1  # it is tried again, after ever longer
                raise
            self._failures = 0

    def _is_long(self, load: Load, *, last: bool) -> bool:
        """Weigh what is not compacted against what compaction costs."""
        before = self._writer.compacted_bytes
        if last:
            several = load.segment_count > 1 or (before > 0 and load.segment_count > 0)
            return several or load.segment_bytes >= LAST_BYTES_MIN
        weight = load.segment_bytes + REQUEST_BYTES * load.segment_count
        patience = 2 ** min(self._failures, 30)
        long = (
            load.segment_count > self._segments_max * patience
            or load.segment_bytes > self._segment_bytes_max * patience
        )
        return long and weight >= before

    def _compact(self) -> None:
        writer = self._writer
        seal = writer.seal()
        parent = seal.head.parent
        assert parent is not None, f"{writer.workflow_id!r} was flushed to, but has no segment"
        name = CompactedName(seal.head.first_seq, writer.epoch, parent.chain)
        parts = self._pack(seal, name)
        self._store.put(compacted_folder(writer.workflow_id) + str(name), parts)
        writer.require_ownership()
        self._delete(
            lambda segment: (segment.epoch, segment.index) < (writer.epoch, seal.head.name.index),
            lambda other: (other.epoch, other.next_seq) < (writer.epoch, name.next_seq),
        )
        writer.note_compacted(seal, sum(map(len, parts)))

    def _pack(self, seal: Seal, name: CompactedName) -> list[Part]:
        """Read what is sealed and pack it; all of it is verified on the way."""
        writer = self._writer
        listing = list_journal(self._store, writer.workflow_id)
        packer = Packer(seal.head.journal_id, compacted_folder(writer.workflow_id) + str(name))
        try:
            for piece in reversed(list(trace_parents(self._store, listing, seal.head))):
                if isinstance(piece, Base):
                    for block in read_blocks(self._store, piece.name, piece.key, piece.journal_id):
                        packer.copy(block)
                else:
                    for frame in read_piece(self._store, piece):
                        packer.add(frame)
        except ObjectNotFoundError as error:
            writer.require_ownership()  # a new owner compacts, too
            raise missing_piece(error) from error
        return packer.finish(name)

    def _sweep_up(self) -> None:
        """Remove what earlier owners left, and earlier workflows of the same id."""
        if self._swept:
            return
        writer, kept = self._writer, self._writer.kept
        segments, compacted = (
            segments_folder(writer.workflow_id),
            compacted_folder(writer.workflow_id),
        )
        self._delete(
            lambda name: name.epoch < writer.epoch and segments + str(name) not in kept,
            lambda name: name.epoch < writer.epoch and compacted + str(name) not in kept,
        )
        delete_old_incarnations(self._store, writer.workflow_id, writer.incarnation)
        self._swept = True

    def _delete(
        self,
        is_old_segment: Callable[[SegmentName], bool],
        is_old_object: Callable[[CompactedName], bool],
    ) -> None:
        listing = list_journal(self._store, self._writer.workflow_id)
        id_ = self._writer.workflow_id
        tombstones = [each for each in listing.tombstones if each < self._writer.epoch]
        # Oldest first: what is left of a history at any time does not reach back to its start, so
        # that no reader takes it for the whole.
        old = sorted(filter(is_old_object, listing.compacted.values()))
        self._store.delete(compacted_folder(id_) + str(name) for name in old)
        old_segments = filter(is_old_segment, listing.segments)
        self._store.delete(segments_folder(id_) + str(name) for name in old_segments)
        self._store.delete(tombstone_key(id_, each) for each in tombstones)


def delete_old_incarnations(store: Store, workflow_id: str, incarnation: int) -> None:
    """Delete the blobs of earlier workflows of the same id.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        incarnation: The lowest incarnation to keep.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        StorageUnavailableError: If the storage fails.
    """
    folder = blobs_folder(workflow_id)
    for name in store.list_folders(folder):
        found = parse_incarnation(name)
        if found is not None and found < incarnation:
            store.delete([each.key for each in store.list(f"{folder}{name}/")])
