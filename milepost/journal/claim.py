"""Claims: how a would-be owner asks for the next epoch, and how an owner learns it was succeeded.

A claim is an object whose name says it all: the epoch and a nonce. Its content is for humans. A
claim is never changed, and never deleted unless a higher one stays: with its successor's claim
gone, a paused owner would believe itself the owner again.

Who claims lists the claims again afterwards, and proceeds only if it is alone in its epoch and
nobody is above it. Of two who claim the same epoch the later one sees the earlier, so at most one
proceeds and epochs are unique. Needs nothing but a ``put`` that the next ``list`` shows.
"""

from __future__ import annotations

import os
import random
import time

import msgpack

from milepost.errors import LostOwnershipError, StorageUnavailableError
from milepost.journal.layout import ClaimName, claims_folder, parse_claim_name
from milepost.journal.store import Store

CLAIM_TRIES_MAX = 16
"""Claims of one taker. With the random pauses between them, two takers part after two or three."""

PAUSE_MS_MAX = 20
"""Longest pause after the first tie; it grows with every further one."""


def claim_epoch(store: Store, workflow_id: str, owner: str) -> ClaimName:
    """Ask for the next epoch until nobody else asks for the same.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        owner: Who asks, for humans who look into the claim.

    Returns:
        The claim; its epoch belongs to the caller alone.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        LostOwnershipError: If somebody else claimed a higher epoch meanwhile, or every time the
            same.
        StorageUnavailableError: If the storage fails, or does not list what was put.
    """
    folder = claims_folder(workflow_id)
    for tie in range(CLAIM_TRIES_MAX):
        claim = ClaimName(highest_epoch(store, workflow_id) + 1, os.urandom(8))
        content = msgpack.packb({"owner": owner, "time": time.time()})
        store.put(folder + str(claim), [content])
        others = _rivals(store, workflow_id, claim)
        if not others:
            return claim
        if max(others).epoch > claim.epoch:
            raise LostOwnershipError(workflow_id, claim.epoch, max(others).epoch)
        time.sleep(random.uniform(0, PAUSE_MS_MAX * (tie + 1)) / 1000)
    raise LostOwnershipError(workflow_id, claim.epoch, claim.epoch)


def highest_epoch(store: Store, workflow_id: str) -> int:
    """Find the highest epoch that was ever claimed.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.

    Returns:
        The epoch, 0 if there is no claim.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        StorageUnavailableError: If the storage fails.
    """
    return max((claim.epoch for claim in list_claims(store, workflow_id, 0)), default=0)


def is_settled(store: Store, workflow_id: str, end_epoch: int) -> bool:
    """Tell whether what was read of a journal **before** this call will stay in it.

    Without a later claim it will: whoever claims from now on reads after the claim, and so finds
    it. With one, its owner may have read before the newest events came, and go on without them.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        end_epoch: The epoch of the owner whose segment the journal ended with.

    Returns:
        Whether nobody has claimed a later epoch.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        StorageUnavailableError: If the storage fails.
    """
    claims = list_claims(store, workflow_id, end_epoch)
    return max((claim.epoch for claim in claims), default=0) <= end_epoch


def require_ownership(store: Store, workflow_id: str, claim: ClaimName) -> None:
    """Make sure that nobody has claimed a later epoch so far.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        claim: The claim of the owner.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        LostOwnershipError: If there is a later claim, or the own one is gone because the workflow
            was deleted.
        StorageUnavailableError: If the storage fails.
    """
    claims = list_claims(store, workflow_id, claim.epoch)
    newest = max((each.epoch for each in claims), default=0)
    if newest > claim.epoch or claim not in claims:
        raise LostOwnershipError(workflow_id, claim.epoch, newest)


def _rivals(store: Store, workflow_id: str, claim: ClaimName) -> list[ClaimName]:
    claims = list_claims(store, workflow_id, claim.epoch)
    # A deletion under a higher claim removes lower ones, perhaps this one by now.
    if claim not in claims and not any(each.epoch > claim.epoch for each in claims):
        reason = "a claim just stored is not listed; the storage must list what was put"
        raise StorageUnavailableError("list", claims_folder(workflow_id), reason)
    return [each for each in claims if each != claim]


def list_claims(store: Store, workflow_id: str, epoch: int) -> list[ClaimName]:
    """List the claims of an epoch and all later ones.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        epoch: The lowest epoch to list.

    Returns:
        The claims, lowest first.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        StorageUnavailableError: If the storage fails.
    """
    folder = claims_folder(workflow_id)
    listed = store.list(folder, after=f"{folder}{epoch:010d}.")
    parsed = [parse_claim_name(each.key[len(folder) :]) for each in listed]
    return [claim for claim in parsed if claim is not None]
