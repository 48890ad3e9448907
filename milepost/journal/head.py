"""The head of a journal: how many events there are, and the hash chain over all of them.

Kept where nobody who can write to the store can, a head shows later whether anything before it was
changed, also by somebody who wrote the whole journal anew with all sums right. Every head of a
journal stays one for as long as the workflow lives: compaction keeps frames and chain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from milepost.errors import AlteredJournalError, WorkflowNotFoundError
from milepost.journal.frame import CHAIN_START
from milepost.journal.layout import workflow_folder
from milepost.journal.reader import read_journal
from milepost.journal.store import Store

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Head:
    """What stands for a journal up to some event.

    Attributes:
        next_seq: How many events it covers.
        chain: The chain of the frame that ends there.
    """

    next_seq: int
    chain: bytes

    def __str__(self) -> str:
        return f"{self.next_seq}:{self.chain.hex()}"


def parse_head(text: str) -> Head:
    """Read what ``str`` makes of a head.

    Args:
        text: The text.

    Returns:
        The head.

    Raises:
        ValueError: If it is not one.
    """
    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:80]!r} is no head, as 'milepost head' prints one")
    return Head(int(match[1]), bytes.fromhex(match[2]))


def read_head(store: Store, workflow_id: str, *, noted: Head | None = None) -> Head:
    """Read a whole journal, verified, and give its head.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        noted: A head noted earlier that the journal must go on from.

    Returns:
        The head.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        AlteredJournalError: If the journal does not go on from the noted head.
        CorruptJournalError: If it is damaged.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails.
    """
    head, watch = Head(0, CHAIN_START), HeadWatch(noted)
    for frame in read_journal(store, workflow_id):
        head = Head(frame.next_seq, frame.chain)
        watch.see(head, frame.file, frame.offset)
    if not head.next_seq:
        raise WorkflowNotFoundError(workflow_id, store.uri)
    watch.require(head, workflow_folder(workflow_id))
    return head


class HeadWatch:
    """Looks out for a noted head while a journal is read."""

    def __init__(self, noted: Head | None) -> None:
        """Begin before the first frame.

        Args:
            noted: The head; with None nothing is looked for.
        """
        self._noted = noted
        self._found = noted is None or noted == Head(0, CHAIN_START)
        self._place = ("", 0)

    def see(self, head: Head, file: str, offset: int) -> None:
        """Take the head after the next frame.

        Args:
            head: The head.
            file: Where the frame is.
            offset: Where in it.
        """
        if self._noted is None or self._found:
            return
        self._found = head == self._noted
        if not self._place[0] and head.next_seq >= self._noted.next_seq:
            self._place = file, offset

    def require(self, last: Head, folder: str) -> None:
        """Make sure, after the last frame, that the noted head was seen.

        Args:
            last: The journal's own head.
            folder: Where the workflow is, for the error.

        Raises:
            AlteredJournalError: If it was not; with the place where it should have been.
        """
        if self._found:
            return
        assert self._noted is not None, "without a noted head all is found"
        file, offset = self._place
        if not file:
            reason = f"it ends at event {last.next_seq}, but head {self._noted} was noted"
            raise AlteredJournalError(folder, 0, reason)
        reason = f"the journal (head {last}) does not go on from the noted head {self._noted}"
        raise AlteredJournalError(file, offset, reason)
