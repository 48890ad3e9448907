"""The actor that owns workflows: folds, decides, writes journals, sends slices, answers callers.

A pool of these shares the work; which one a workflow belongs to follows from its id alone. Storage
and folding happen in threads, so that the event loop never waits. A dispatcher that is restarted
knows nothing: its manager tells it what it owned, and it goes on with it under a new epoch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from milepost.engine.admission import Limits, Turn
from milepost.engine.cluster import count_cpus, was_restarted
from milepost.engine.hosting import Hosting
from milepost.engine.inquiries import Inquiries
from milepost.engine.messages import Listened, Submission, Verdict, WorkerReport
from milepost.engine.metadata import TaskTable
from milepost.engine.outputs import SealedOutput
from milepost.engine.recovery import Candidate
from milepost.engine.threads import in_pool
from milepost.engine.turns import Turns
from milepost.engine.workers import RayWorkers
from milepost.errors import MilepostError, StorageUnavailableError, StorageUriError
from milepost.journal import Store, open_store
from milepost.replay.payload import Payload

_log = logging.getLogger(__name__)

THREADS = 16
"""Journals flushed side by side; local disks batch the syncs of about this many."""

STORE_PAUSE_S = 2.0
"""Between looks for the storage by a dispatcher that was restarted while it is away."""


class Dispatcher:
    """One of the pool: what Ray calls; see the module."""

    def __init__(self, storage: str, cluster_id: str, index: int, manager: Any) -> None:
        store = _open_patiently(storage)
        self._storage = storage
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="milepost-storage")
        in_thread = in_pool(threads)
        self._workers = RayWorkers(store, storage, count_cpus())
        self._turns = Turns(manager, index)
        self._hosting = Hosting(
            store,
            f"{cluster_id}/{index}",
            self._workers,
            threads,
            in_thread,
            _ManagerNotes(manager, index),
            self._turns,
        )
        self._inquiries = Inquiries(storage, store, self._hosting, in_thread)

    async def create(self, submission: Submission) -> Verdict:
        """Starts a workflow, or goes on with the stored one; see :meth:`Hosting.create`."""
        return await self._hosting.create(submission)

    async def resume(self, workflow_id: str, job: str = "", asked: str = "resume") -> str:
        """Goes on with a stored workflow; see :meth:`Hosting.resume`."""
        return await self._hosting.resume(workflow_id, job, asked)

    async def cancel(self, workflow_id: str, who: str = "") -> None:
        """Ends a workflow without a result; see :meth:`Hosting.cancel`."""
        await self._hosting.cancel(workflow_id, who)

    async def delete(self, workflow_id: str) -> None:
        """Deletes a workflow with everything stored of it; see :meth:`Hosting.delete`."""
        await self._hosting.delete(workflow_id)

    async def adopt(self, workflow_ids: Sequence[str]) -> None:
        """Goes on with what it owned before it was restarted; see :meth:`Hosting.adopt`."""
        await self._hosting.adopt(workflow_ids)

    async def take_up(self, workflow_id: str, owner: str) -> str:
        """Goes on with what lost its owner; see :meth:`Hosting.take_up`."""
        return await self._hosting.take_up(workflow_id, owner)

    async def limit(self, limits: Limits) -> list[Turn]:
        """Puts limits in force; returns the turns that there are; see :meth:`Turns.limit`."""
        return self._turns.limit(limits)

    async def begin(self, workflow_id: str) -> None:
        """Notes that the turn of a workflow has come; see :meth:`Turns.come`."""
        self._turns.come(workflow_id)

    async def find_candidates(
        self, hosted: Collection[str], force: Collection[str]
    ) -> list[Candidate]:
        """Returns what might be recovered; see :meth:`Inquiries.find_candidates`."""
        return await self._inquiries.find_candidates(hosted, force)

    async def live(self) -> dict[str, str]:
        """Returns what is hosted here and has not ended; see :meth:`Hosting.live`."""
        return self._hosting.live()

    async def status(self, workflow_id: str) -> str:
        """Returns the status of a workflow; see :meth:`Inquiries.status`."""
        return await self._inquiries.status(workflow_id)

    async def stored_statuses(self) -> dict[str, str]:
        """Returns the status of everything stored; see :meth:`Inquiries.stored_statuses`."""
        return await self._inquiries.stored_statuses()

    async def output(self, workflow_id: str, task_id: str | None = None) -> SealedOutput:
        """Returns a result, when there is one; see :meth:`Inquiries.output`."""
        return await self._inquiries.output(workflow_id, task_id)

    async def metadata(self, workflow_id: str, task_id: str | None = None) -> dict[str, Any]:
        """Returns what is known of a workflow or task; see :meth:`Inquiries.metadata`."""
        return await self._inquiries.metadata(workflow_id, task_id)

    async def tasks(self, workflow_id: str) -> TaskTable:
        """Returns all tasks of a workflow so far; see :meth:`Inquiries.tasks`."""
        return await self._inquiries.tasks(workflow_id)

    async def refuse(self, error: MilepostError) -> None:
        """Raises ``error``: gives its caller a ref that fails with it."""
        raise error

    async def take_aside(
        self, workflow_id: str, epoch: int, number: int, report: WorkerReport
    ) -> None:
        """Takes a report of a slice whose worker is busy with a long task."""
        self._workers.take_aside(workflow_id, epoch, number, report)

    async def store_ref(
        self, workflow_id: str, incarnation: int, box: list[Any]
    ) -> Payload | MilepostError | None:
        """Returns the payload of the value behind a ref, or why it has none.

        None if the workflow is not hosted here: then the asker stores it by itself.
        """
        host = self._hosting.find_incarnation(workflow_id, incarnation)
        if host is None:
            return None
        return await host.refs.store(self._storage, host.state, box[0])

    async def load_ref(
        self, workflow_id: str, incarnation: int, payload: Payload, node: str
    ) -> list[Any]:
        """Returns, in a list, the ref of a stored value; none if the workflow is not hosted here.

        Args:
            workflow_id: The workflow.
            incarnation: Which one of that id.
            payload: The value.
            node: Where to load it if nobody has.
        """
        host = self._hosting.find_incarnation(workflow_id, incarnation)
        return [host.refs.load(self._storage, host.state, payload, node)] if host else []

    async def take_listened(self, listened: Sequence[Listened]) -> list[bool]:
        """Takes what listeners got; tells of each whether anybody here still wants it."""
        return self._workers.take_listened(listened)

    async def watch(self) -> None:
        """Never returns: who waits for it learns when this process dies."""
        await asyncio.Event().wait()


class _ManagerNotes:
    """Tells the manager what one dispatcher hosts."""

    def __init__(self, manager: Any, index: int) -> None:
        self._manager = manager
        self._index = index

    def started(self, workflow_id: str) -> None:
        self._manager.note_started.remote(self._index, workflow_id)

    def ended(self, workflow_id: str) -> None:
        self._manager.note_ended.remote(self._index, workflow_id)


def _open_patiently(storage: str) -> Store:
    """Opens the store; a dispatcher that was restarted has a store that is only away."""
    while True:
        try:
            return open_store(storage, create=False)
        except (StorageUnavailableError, StorageUriError) as error:
            if not was_restarted():
                raise
            _log.warning("the dispatcher waits for its storage: %s", error)
            time.sleep(STORE_PAUSE_S)
