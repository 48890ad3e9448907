"""What may be told of workflows that nobody hosts here: only what no later owner can leave out.

A journal that somebody has claimed and not written yet may lose its newest events: the claimant may
have read before they came. Usually it writes within moments, so whoever asks waits a little. A
claimant that died never writes; then the asker takes the workflow over, just to make its end
certain. That is done for ended workflows alone. Of a running one nothing is told that could be
lost, and its claimant may be about to go on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from milepost.engine.threads import InThread
from milepost.errors import LostOwnershipError
from milepost.journal import Store, WorkflowSummary, list_summaries, load_settled, read_status
from milepost.journal.summary import ENDED
from milepost.replay.state import State

Read = TypeVar("Read")

PATIENCE_S = 2.0
"""How long a claimant may take to write, at least; taking over reads the whole journal."""

PATIENCE_FACTOR = 3.0
"""And that much longer than it takes here to read."""

TAKEOVERS_MAX = 5
"""Tries to make an end certain; each one fails only if somebody else claims meanwhile."""

PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 0.5


class StoredReader:
    """Reads workflows for others, in threads."""

    def __init__(
        self, store: Store, in_thread: InThread, settle: Callable[[str], Awaitable[State | None]]
    ) -> None:
        """Prepare to read.

        Args:
            store: Where the workflows are.
            in_thread: Runs a function that blocks.
            settle: Takes an ended workflow over and writes that; returns its state, None if it has
                not ended after all; raises if somebody else takes it over.
        """
        self._store = store
        self._in_thread = in_thread
        self._settle = settle

    async def summary(self, workflow_id: str) -> WorkflowSummary:
        """Returns the status of a workflow; if it has ended, that is certain.

        Raises:
            WorkflowNotFoundError: If there is none of this id.
            CorruptJournalError: If its journal is damaged.
            LostOwnershipError: If somebody else claims it again and again.
            StorageUnavailableError: If the storage fails.
        """

        async def read() -> tuple[WorkflowSummary, bool, bool]:
            found = await self._in_thread(read_status, self._store, workflow_id)
            return found, found.settled or found.status not in ENDED, found.status in ENDED

        return (await self._read_patiently(workflow_id, read, _summarize))[0]

    async def summaries(self) -> list[WorkflowSummary]:
        """Returns all workflows; where one has ended, that is certain.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        found: list[WorkflowSummary] = await self._in_thread(list_summaries, self._store)
        return [
            each
            if each.settled or each.status not in ENDED
            else await self.summary(each.workflow_id)
            for each in found
        ]

    async def state(self, workflow_id: str) -> tuple[State, bool]:
        """Returns the state of a workflow, and whether all of it is certain.

        Raises:
            WorkflowNotFoundError: If there is none of this id.
            CorruptJournalError: If its journal is damaged.
            LostOwnershipError: If somebody else claims it again and again.
            StorageUnavailableError: If the storage fails.
        """

        async def read() -> tuple[State, bool, bool]:
            state, settled = await self._in_thread(load_settled, self._store, workflow_id)
            return state, settled, state.status in ENDED

        return await self._read_patiently(workflow_id, read, lambda state: state)

    async def _read_patiently(
        self,
        workflow_id: str,
        read: Callable[[], Awaitable[tuple[Read, bool, bool]]],
        take: Callable[[State], Read],
    ) -> tuple[Read, bool]:
        """Reads until what is read is certain; ``read`` also tells if it is, and if it can be made.

        What was made certain is not read again: where each of several readers makes it so, each
        one's claim would be the next one's doubt, for ever. ``take`` makes the answer of it.

        Returns:
            What was read last, and whether it is certain.
        """
        clock = asyncio.get_running_loop().time
        began, pause_s, takeovers = clock(), PAUSE_FIRST_S, 0
        while True:
            asked = clock()
            found, certain, ended = await read()
            if certain:
                return found, True
            patience_s = max(PATIENCE_S, PATIENCE_FACTOR * (clock() - asked))
            if clock() - began > patience_s:
                if not ended:
                    return found, False
                try:
                    takeovers += 1
                    settled = await self._settle(workflow_id)
                    if settled is not None:
                        return take(settled), True
                except LostOwnershipError:  # whoever got it may be about to write
                    if takeovers == TAKEOVERS_MAX:
                        raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)


def _summarize(state: State) -> WorkflowSummary:
    """Returns the summary of a state that is certain."""
    assert state.status is not None, "an ended workflow has a status"
    return WorkflowSummary(
        workflow_id=state.workflow_id,
        status=state.status,
        owner=state.owner,
        epoch=state.epoch,
        created_us=state.created_us,
        started_us=state.started_us,
        ended_us=state.ended_us,
    )
