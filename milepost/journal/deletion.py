"""Deletes a workflow: atomically for every reader, and so that its id can be used again.

A deletion is an owner that writes nothing but a tombstone. It claims the next epoch, which fences
whoever owns the workflow, puts the tombstone, and **then** lists the claims, like any flush. For a
reader, the newest end of a journal is what has the highest epoch; a tombstone there is the end of
everything. Whoever claims later starts from nothing. Whoever claimed in between may have gone on
from what it read before the tombstone was there: then the tombstone is not the newest end, the
listing shows that claim, and the deletion has failed and removes nothing.

What is removed afterwards is of lower epochs than the tombstone, and so can never be needed again,
however late it happens. The newest claim and the tombstone stay: a stalled owner of the deleted
workflow would believe itself the owner, and a reader that its late segment counts.
"""

from __future__ import annotations

import time

import msgpack

from milepost.errors import WorkflowNotFoundError
from milepost.journal.claim import claim_epoch, list_claims, require_ownership
from milepost.journal.compaction import delete_old_incarnations
from milepost.journal.layout import (
    blobs_folder,
    claims_folder,
    compacted_folder,
    segments_folder,
    tombstone_key,
)
from milepost.journal.lineage import Listing, list_journal
from milepost.journal.store import Store


def delete_workflow(store: Store, workflow_id: str, *, owner: str) -> None:
    """Delete a workflow with all its events and blobs.

    Whoever owns it gets a :class:`~milepost.errors.LostOwnershipError` from its next flush. Does
    not need a readable journal: a damaged workflow can be deleted, too.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        owner: Who deletes it, for humans.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If there is no such workflow, and nothing left of a deleted one.
        LostOwnershipError: If somebody else claimed the workflow at the same time. It may or may
            not be deleted.
        CorruptJournalError: If two segments claim one place.
        StorageUnavailableError: If the storage fails. It may or may not be deleted; deleting it
            again removes the rest.
    """
    if not _is_anything_left(store, list_journal(store, workflow_id)):
        raise WorkflowNotFoundError(workflow_id, store.uri)
    claim = claim_epoch(store, workflow_id, owner)
    content = msgpack.packb({"owner": owner, "time": time.time()})
    store.put(tombstone_key(workflow_id, claim.epoch), [content])
    require_ownership(store, workflow_id, claim)
    _remove(store, workflow_id, claim.epoch)


def _is_anything_left(store: Store, listing: Listing) -> bool:
    """Look for a workflow, or for what an interrupted deletion left."""
    if listing.segments or listing.compacted:
        return True
    return bool(listing.tombstone and store.list(blobs_folder(listing.workflow_id)))


def _remove(store: Store, workflow_id: str, epoch: int) -> None:
    """Remove everything older than the tombstone of this epoch."""
    listing = list_journal(store, workflow_id)
    compacted, segments = compacted_folder(workflow_id), segments_folder(workflow_id)
    old = sorted(name for name in listing.compacted.values() if name.epoch < epoch)
    store.delete(compacted + str(name) for name in old)
    store.delete(segments + str(name) for name in listing.segments if name.epoch < epoch)
    delete_old_incarnations(store, workflow_id, epoch)
    store.delete(tombstone_key(workflow_id, each) for each in listing.tombstones if each < epoch)
    claims = [claim for claim in list_claims(store, workflow_id, 0) if claim.epoch < epoch]
    store.delete(claims_folder(workflow_id) + str(claim) for claim in claims)
