"""Going on with workflows whose owner is gone: which they are, in what order, what became of them.

The manager runs this: one dispatcher looks at the storage and at the leases, and each workflow is
then taken over by the dispatcher it belongs to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from milepost.errors import LostOwnershipError, MilepostError
from milepost.journal import WorkflowSummary
from milepost.replay.state import Status

_log = logging.getLogger(__name__)

SIDE_BY_SIDE = 16
"""Takeovers under way at once; most of each is waiting for the storage."""

WHY = {"owned": "it goes on already", "ended": "it has ended, or failed"}
"""What an outcome means that the taker gives without more words."""

UNDER_WAY = frozenset({Status.RUNNING, Status.PENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A workflow that has not ended and is not run by this cluster.

    Attributes:
        workflow_id: The workflow.
        owner: Who ran it last; empty if its journal cannot be read.
        owner_alive: Whether that owner shows that it lives.
    """

    workflow_id: str
    owner: str
    owner_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of a workflow at a recovery.

    Attributes:
        workflow_id: The workflow.
        outcome: "resumed"; "owned" (its owner is alive, or somebody else was quicker); "ended"
            (it had, when its turn came, or has failed); or "refused".
        detail: In words: which owner, or why not.
        error: Why it was refused, else None.
    """

    workflow_id: str
    outcome: str
    detail: str = ""
    error: MilepostError | None = None


def choose_candidates(
    stored: Sequence[WorkflowSummary], alive: Collection[str], force: Collection[str]
) -> list[Candidate]:
    """Puts those that ran before those that waited to run, each by age.

    Args:
        stored: What has not ended and is not run here.
        alive: Owners that live.
        force: Workflows to be taken over all the same. Those that are not among ``stored`` come
            last, so that whoever named them hears why not.
    """
    known = {each.workflow_id for each in stored}
    unknown = [
        Candidate(workflow_id=each, owner="", owner_alive=False)
        for each in sorted(set(force) - known)
    ]
    ordered = sorted(stored, key=lambda each: (each.status is Status.PENDING, each.created_us))
    return [
        Candidate(
            workflow_id=each.workflow_id,
            owner=each.owner,
            owner_alive=each.owner in alive and each.workflow_id not in force,
        )
        for each in ordered
    ] + unknown


async def recover_all(
    candidates: Sequence[Candidate], take_up: Callable[[Candidate], Awaitable[str]]
) -> list[Recovered]:
    """Takes over what has no owner any more.

    Args:
        candidates: In the order in which to begin.
        take_up: Takes one over if ``owner`` still is its last owner; returns the outcome.

    Returns:
        What became of each, in the same order.
    """
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def recover(candidate: Candidate) -> Recovered:
        if candidate.owner_alive:
            return _describe(candidate, "owned", f"{candidate.owner} is running it")
        async with places:
            try:
                outcome = await take_up(candidate)
            except LostOwnershipError as error:
                return _describe(candidate, "owned", str(error))
            except MilepostError as error:
                _log.error("workflow %s cannot go on: %s", candidate.workflow_id, error)
                return _describe(candidate, "refused", str(error), error)
        return _describe(candidate, outcome, WHY.get(outcome, ""))

    return await asyncio.gather(*map(recover, candidates))


def _describe(
    candidate: Candidate, outcome: str, detail: str = "", error: MilepostError | None = None
) -> Recovered:
    return Recovered(workflow_id=candidate.workflow_id, outcome=outcome, detail=detail, error=error)
