"""Taking a workflow over: claim first, **then** read, and go on from what was read.

In the other order an owner could commit between the reading and the claim, and be forgotten. See
:mod:`milepost.journal.claim` for the claim and :mod:`milepost.journal.writer` for the other half of
the argument. ``tests/journal/test_ownership_model.py`` checks it exhaustively for small cases.
"""

from __future__ import annotations

from collections.abc import Callable

from milepost.errors import CorruptJournalError, LostOwnershipError, WorkflowNotFoundError
from milepost.journal.claim import claim_epoch, highest_epoch
from milepost.journal.frame import Frame
from milepost.journal.layout import ClaimName, segments_folder
from milepost.journal.reader import JournalWalk, Tip
from milepost.journal.store import Store
from milepost.journal.writer import JournalWriter


def take_ownership(
    store: Store,
    workflow_id: str,
    *,
    owner: str,
    on_frame: Callable[[Frame], object] = lambda frame: None,
) -> JournalWriter:
    r"""Become the only one who may write a workflow's journal.

    Works for a workflow that has no journal yet, too. Whoever owned the workflow before gets a
    :class:`~milepost.errors.LostOwnershipError` from its next flush.

    Example:
        >>> from milepost.journal import MemoryStore
        >>> writer = take_ownership(MemoryStore(), "nightly", owner="the docs")
        >>> writer.flush([b"\x01", b"\x02"])
        >>> writer.epoch, writer.next_seq
        (1, 2)

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        owner: Who takes over, for humans.
        on_frame: Called with every frame of the journal, in order, each verified. All were
            delivered when this function returns; if it raises, they count for nothing.

    Returns:
        The writer, which goes on right after the last of these frames.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        LostOwnershipError: If somebody else takes the workflow over at the same time.
        CorruptJournalError: If the journal is damaged.
        UnsupportedFormatError: If a newer Milepost wrote the journal.
        StorageUnavailableError: If the storage fails.
    """
    claim = claim_epoch(store, workflow_id, owner)
    walk = JournalWalk(store, workflow_id, settle=True)
    try:
        for frame in walk:
            on_frame(frame)
    except WorkflowNotFoundError as error:  # deleted under a higher claim while it was read
        newest = highest_epoch(store, workflow_id)
        raise LostOwnershipError(workflow_id, claim.epoch, newest) from error
    assert walk.tip is not None, f"journal of {workflow_id!r} was read without finding its end"
    _require_newest(store, workflow_id, claim, walk.tip)
    return JournalWriter(store, workflow_id, claim, walk.tip)


def _require_newest(store: Store, workflow_id: str, claim: ClaimName, tip: Tip) -> None:
    """Make sure that what this owner writes will be newer than all there is."""
    if tip.epoch < claim.epoch:
        return
    newest = highest_epoch(store, workflow_id)
    if newest > claim.epoch:
        raise LostOwnershipError(workflow_id, claim.epoch, newest)
    reason = f"epoch {tip.epoch} in it was never claimed: claims were deleted"
    raise CorruptJournalError(segments_folder(workflow_id), 0, reason)
