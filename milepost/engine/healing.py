"""Goes on with workflows that stopped because their storage failed, once it answers again.

A writer that failed is dead: nobody knows what it left. So each workflow is taken over anew, from
what the storage holds. While the storage is away only one of them knocks, ever less often; once it
succeeds, all others follow, a few at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from milepost.errors import MilepostError, StorageUnavailableError

_log = logging.getLogger(__name__)

PATIENCE_S = 90.0
"""How long callers wait for a storage that is away before they are told; the healing goes on."""

PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 15.0

SIDE_BY_SIDE = 8
"""Workflows taken over at once when the storage is back: their journals are read in threads."""


class Healer:
    """Knocks until the storage answers, for all workflows of one dispatcher."""

    def __init__(
        self, go_on: Callable[[str], Awaitable[None]], on_end: Callable[[str], None]
    ) -> None:
        """Begin with nothing to heal.

        Args:
            go_on: Takes a workflow over if nobody has; raises if that cannot be done.
            on_end: Called when a workflow goes on, or never will.
        """
        self._go_on = go_on
        self._on_end = on_end
        self._ill: dict[str, asyncio.Event] = {}
        self._relapsed: set[str] = set()
        self._runner: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether any workflow waits."""
        return bool(self._ill)

    def begin(self, workflow_ids: Iterable[str], pause_s: float = PAUSE_FIRST_S) -> None:
        """Goes on with these workflows as soon as it can be done; returns at once."""
        for workflow_id in workflow_ids:
            self._ill.setdefault(workflow_id, asyncio.Event())
            self._relapsed.add(workflow_id)
        if self._ill and self._runner is None:
            self._runner = asyncio.create_task(self._run(pause_s))

    async def wait(self, workflow_id: str, patience_s: float | None = None) -> bool:
        """Waits until a workflow goes on, or never will.

        Args:
            workflow_id: The workflow.
            patience_s: How long to wait at most; by default for ever.

        Returns:
            Whether it came to that: False if it took too long, or nothing was to be healed.
        """
        healed = self._ill.get(workflow_id)
        if healed is None:
            return False
        try:
            await asyncio.wait_for(healed.wait(), patience_s)
        except TimeoutError:
            return False
        return True

    async def _run(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        pause_s = PAUSE_FIRST_S
        while self._ill:
            if await self._try(next(iter(self._ill))):
                pause_s = PAUSE_FIRST_S
                await self._try_all(list(self._ill))
            if self._ill:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        self._runner = None

    async def _try_all(self, workflow_ids: list[str]) -> None:
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def attempt(workflow_id: str) -> None:
            async with places:
                await self._try(workflow_id)

        await asyncio.gather(*map(attempt, workflow_ids))

    async def _try(self, workflow_id: str) -> bool:
        """Tells whether the storage answered."""
        self._relapsed.discard(workflow_id)
        try:
            await self._go_on(workflow_id)
        except StorageUnavailableError as error:
            _log.info("workflow %s waits for its storage: %s", workflow_id, error)
            # To the end: one journal that cannot be read must not keep the others waiting.
            self._ill[workflow_id] = self._ill.pop(workflow_id)
            return False
        except MilepostError as error:
            _log.error("workflow %s cannot go on: %s", workflow_id, error)
        except Exception:  # noqa: BLE001  a healer that died would leave all others ill
            _log.exception("workflow %s cannot go on", workflow_id)
        if workflow_id in self._relapsed:  # it went on, and the storage has failed it again
            return False
        self._ill.pop(workflow_id).set()
        self._on_end(workflow_id)
        return True
