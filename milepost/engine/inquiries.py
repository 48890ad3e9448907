"""What a dispatcher answers to questions: statuses, outputs, metadata, what might be recovered.

Of a workflow that it hosts it tells what is durable; of others what the storage holds for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

from milepost.engine.answers import await_output, pick_output, see_from_outside
from milepost.engine.healing import PATIENCE_S
from milepost.engine.hosting import Hosting
from milepost.engine.metadata import TaskTable, describe_task, describe_workflow
from milepost.engine.outputs import SealedOutput
from milepost.engine.recovery import UNDER_WAY, Candidate, choose_candidates
from milepost.engine.stored import StoredReader
from milepost.engine.threads import InThread
from milepost.errors import LostOwnershipError, OutputNotAvailableError, StorageUnavailableError
from milepost.journal import Store, WorkflowSummary
from milepost.journal.claim import is_settled
from milepost.replay.state import State, Status

Result = TypeVar("Result")


class Inquiries:
    """Answers for one dispatcher."""

    def __init__(self, storage: str, store: Store, hosting: Hosting, in_thread: InThread) -> None:
        """Prepare to answer.

        Args:
            storage: What opens the store elsewhere; large values are read there by who asked.
            store: Where the workflows are.
            hosting: What runs here.
            in_thread: Runs a function that blocks.
        """
        self._storage = storage
        self._store = store
        self._hosting = hosting
        self._in_thread = in_thread
        self._stored = StoredReader(store, in_thread, hosting.settle)

    async def status(self, workflow_id: str) -> str:
        """Returns the status of a workflow.

        Raises:
            WorkflowNotFoundError: If there is none of this id.
            CorruptJournalError: If its journal is damaged.
            LostOwnershipError: If others claim it again and again.
            StorageUnavailableError: If the storage fails.
        """
        here = await self._read_status_here(workflow_id)
        if here is not None:
            return here.value
        stored = await self._stored.summary(workflow_id)
        under_way = stored.status in UNDER_WAY and not self._hosting.is_ours(stored.owner)
        alive = await self._hosting.owners.find_fresh() if under_way else frozenset()
        return self._see(stored, alive).value

    async def _read_status_here(self, workflow_id: str) -> Status | None:
        """Returns the status of a workflow that runs here; None if it does not, or no more."""
        host = self._hosting.hosts.get(workflow_id)
        if host is None:
            return None
        begun = host.announced is not None
        try:
            if host.announced is not host.state.status:  # others may read in the journal what is
                await host.sync()  # on its way there, and tell it before the flush has returned
            with suppress(StorageUnavailableError):  # as far as known, it is still ours
                await host.confirm()
        except (LostOwnershipError, StorageUnavailableError):
            if not begun:
                raise
            return None
        return host.announced

    def _see(self, stored: WorkflowSummary, alive: Collection[str]) -> Status:
        """Returns the status of a workflow that is not hosted here, as callers should see it."""
        elsewhere = stored.owner in alive and not self._hosting.is_ours(stored.owner)
        return stored.status if elsewhere else see_from_outside(stored.status)

    async def stored_statuses(self) -> dict[str, str]:
        """Returns the status of every workflow in the storage, as seen by a non-owner.

        One that cannot be read is RESUMABLE: a resume tells why it is not.
        """
        stored = await self._stored.summaries()
        elsewhere = any(
            each.status in UNDER_WAY and not self._hosting.is_ours(each.owner) for each in stored
        )
        alive = await self._hosting.owners.find_fresh() if elsewhere else frozenset()
        return {each.workflow_id: self._see(each, alive).value for each in stored}

    async def output(self, workflow_id: str, task_id: str | None = None) -> SealedOutput:
        """Returns the result of a workflow or of one of its tasks; waits while it runs.

        Raises:
            WorkflowNotFoundError: If there is no such workflow.
            TaskNotFoundError: If the workflow has ended without such a task.
            WorkflowExecutionError: If it failed.
            WorkflowCancellationError: If it was canceled.
            OutputNotAvailableError: If nobody in this cluster is working on it.
            LostOwnershipError: If another cluster took the workflow over.
            CorruptJournalError: If its journal is damaged.
            StorageUnavailableError: If the storage fails for longer than a minute.
        """
        while True:
            try:
                return await self._output(workflow_id, task_id)
            except StorageUnavailableError:
                if not await self._hosting.healer.wait(workflow_id, PATIENCE_S):
                    raise
            except OutputNotAvailableError:  # is another cluster running it?
                status = await self.status(workflow_id)
                raise OutputNotAvailableError(workflow_id, status, task_id) from None

    async def _output(self, workflow_id: str, task_id: str | None) -> SealedOutput:
        async with self._hosting.lock(workflow_id):
            host = self._hosting.hosts.get(workflow_id)
            recent = workflow_id in self._hosting.recent
            if host is None and not recent and await self._hosting.is_orphan(workflow_id):
                await self._hosting.take_over(workflow_id, "dispatcher restarted", must=True)
                host = self._hosting.hosts.get(workflow_id)
        if host is not None:
            state, payload = host.state, await await_output(self._storage, host, task_id)
        else:
            state, certain = await self._recall(workflow_id)
            if not certain:  # it runs or did, and somebody is taking it over
                raise OutputNotAvailableError(workflow_id, Status.RESUMABLE.value, task_id)
            payload = pick_output(self._storage, state, task_id)
        return SealedOutput(self._storage, workflow_id, state.incarnation, payload)

    async def metadata(self, workflow_id: str, task_id: str | None = None) -> dict[str, Any]:
        """Returns what is known of a workflow or of one of its tasks.

        Raises:
            WorkflowNotFoundError: If there is no such workflow.
            TaskNotFoundError: If it has no such task so far.
            CorruptJournalError: If its journal is damaged.
            StorageUnavailableError: If the storage fails.
        """
        if task_id is None:
            return await self._take(workflow_id, describe_workflow)
        return await self._take(workflow_id, lambda state, _: describe_task(state, task_id))

    async def tasks(self, workflow_id: str) -> TaskTable:
        """Returns all tasks of a workflow so far; raises like :meth:`metadata`."""
        return await self._take(workflow_id, lambda state, _: TaskTable.of(state))

    async def _take(self, workflow_id: str, take: Callable[[State, Status], Result]) -> Result:
        """Takes something out of a state; returns it when all it tells is durable."""
        host = self._hosting.hosts.get(workflow_id)
        if host is not None and host.state.status is not None:
            taken = take(host.state, host.state.status)
            with suppress(LostOwnershipError, StorageUnavailableError):
                await host.sync()
                return taken
        status = Status(await self.status(workflow_id))
        state, _ = await self._recall(workflow_id)
        return take(state, status)

    async def _recall(self, workflow_id: str) -> tuple[State, bool]:
        """Returns the state of an ended workflow, unless another cluster did something to it."""
        state = self._hosting.recent.find(workflow_id)
        if state is not None:
            if await self._in_thread(is_settled, self._store, workflow_id, state.epoch):
                return state, True
            self._hosting.recent.drop(workflow_id)
        return await self._stored.state(workflow_id)

    async def find_candidates(
        self, hosted: Collection[str], force: Collection[str]
    ) -> list[Candidate]:
        """Returns what has not ended and is not run by this cluster, and whether its owner lives.

        Waits as long as a lease lasts, if owners have to be watched.

        Args:
            hosted: What this cluster runs.
            force: What to take from its owner even if that lives.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        stored = [
            each
            for each in await self._stored.summaries()
            if each.workflow_id not in hosted and (each.error or each.status in UNDER_WAY)
        ]
        owners = {each.owner for each in stored if each.owner and each.workflow_id not in force}
        watched = {owner for owner in owners if not self._hosting.is_ours(owner)}
        alive = await self._hosting.owners.find_alive(watched)
        return choose_candidates(stored, alive, force)
