"""Follows a journal as frames land: what is new since the last look, and what was taken back.

A frame at the very end may be lost to a new owner that did not see it. Whoever follows is then told
where the journal went another way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from milepost.errors import MilepostError
from milepost.journal.backward import read_backward
from milepost.journal.frame import CHAIN_START, Frame
from milepost.journal.layout import workflow_folder
from milepost.journal.store import Store, StoredObject

REMEMBERED_MAX = 4096
"""So many ends of frames are remembered; an end that was taken back is one of the newest."""


class Follower:
    """One who reads a journal again and again.

    Attributes:
        next_seq: The number of the next event that was not given yet.
    """

    def __init__(self, store: Store, workflow_id: str) -> None:
        """Begin before the first event; nothing is read yet.

        Args:
            store: Where the workflow is.
            workflow_id: The workflow.
        """
        self.next_seq: int = 0
        self._store = store
        self._workflow_id = workflow_id
        self._listing: Sequence[StoredObject] | None = None
        self._ends: OrderedDict[int, bytes] = OrderedDict({0: CHAIN_START})

    def note(self, frame: Frame) -> None:
        """Remember a frame that was read elsewhere, right after those before it.

        Args:
            frame: The frame.
        """
        self.next_seq = frame.next_seq
        self._ends[frame.next_seq] = frame.chain
        if len(self._ends) > REMEMBERED_MAX:
            self._ends.popitem(last=False)

    def poll(self) -> tuple[int | None, list[Frame]]:
        """Look for what is new.

        Returns:
            From which event on what was given before no longer counts, or None; and the new frames.

        Raises:
            WorkflowNotFoundError: If the workflow is gone.
            CorruptJournalError: If what was read is damaged.
            UnsupportedFormatError: If a newer Milepost wrote it.
            StorageUnavailableError: If the storage fails.
        """
        listing = self._store.list(workflow_folder(self._workflow_id))
        if listing == self._listing:
            return None, []
        try:
            back_to, frames = self._read()
        except MilepostError:
            self._listing = None
            raise
        self._listing = listing
        changed = back_to if back_to < self.next_seq else None
        for end in [end for end in self._ends if end > back_to]:
            del self._ends[end]
        self.next_seq = back_to
        for frame in frames:
            self.note(frame)
        return changed, frames

    def _read(self) -> tuple[int, list[Frame]]:
        """Go back to the newest end that is known, and give what comes after it."""
        newer: list[Frame] = []
        for frames in read_backward(self._store, self._workflow_id):
            for frame in reversed(frames):
                if self._ends.get(frame.next_seq) == frame.chain:
                    return frame.next_seq, newer[::-1]
                newer.append(frame)
        return 0, newer[::-1]
