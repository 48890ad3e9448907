"""The actor that owns workflows: folds, decides, writes journals, sends slices, answers callers.

A pool of these shares the work; which one a workflow belongs to follows from its id alone. Storage
and folding happen in threads, so that the event loop never waits. A dispatcher that is restarted
knows nothing: its manager tells it what it owned, and it goes on with it under a new epoch.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from milepost.engine.answers import await_output, pick_output, see_from_outside
from milepost.engine.healing import PATIENCE_S, Healer
from milepost.engine.host import WorkflowHost
from milepost.engine.leases import LeaseKeeper, OwnerWatch, own_thread, read_lease_s
from milepost.engine.messages import Submission, Verdict, WorkerReport
from milepost.engine.metadata import TaskTable, describe_task, describe_workflow
from milepost.engine.outputs import SealedOutput
from milepost.engine.recovery import UNDER_WAY, Candidate, choose_candidates
from milepost.engine.stored import StoredReader
from milepost.engine.submissions import find_differences, make_creation, read_nonce
from milepost.engine.workers import RayWorkers, count_cpus, was_restarted
from milepost.errors import (
    CorruptJournalError,
    LostOwnershipError,
    MilepostError,
    OutputNotAvailableError,
    StorageUnavailableError,
    StorageUriError,
    WorkflowActiveError,
    WorkflowEndedError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
)
from milepost.journal import (
    JournalWriter,
    Store,
    WorkflowSummary,
    delete_workflow,
    load_settled,
    open_store,
    put_blob,
    read_status,
)
from milepost.journal.claim import is_settled
from milepost.journal.states import cancel_state, own_state, settle_end
from milepost.journal.summary import ENDED
from milepost.replay.state import FINAL, State, Status

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

THREADS = 16
"""Journals flushed side by side; local disks batch the syncs of about this many."""

RECENT_MAX = 256
RECENT_TASKS_MAX = 200_000
"""So many ended workflows, of so many tasks together, are kept for callers yet to come."""


STORE_PAUSE_S = 2.0
"""Between looks for the storage by a dispatcher that was restarted while it is away."""


class Dispatcher:
    """One of the pool; see the module."""

    def __init__(self, storage: str, cluster_id: str, index: int, manager: Any) -> None:
        self._storage = storage
        self._store = _open_patiently(storage)
        self._cluster = f"{cluster_id}/"
        self._owner = f"{cluster_id}/{index}"
        self._index = index
        self._manager = manager
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="milepost-storage")
        self._workers = RayWorkers(self._store, storage, count_cpus())
        self._hosts: dict[str, WorkflowHost] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._recent: OrderedDict[str, State] = OrderedDict()
        self._stored = StoredReader(self._store, self._in_thread, self._settle)
        self._healer = Healer(self._go_on_if_orphan, self._note_healed)
        self._leases = LeaseKeeper(
            self._store,
            self._owner,
            read_lease_s(),
            own_thread(),
            self._runs_anything,
            self._check_ownership,
        )
        self._owners = OwnerWatch(self._store, self._in_thread)
        self._taken_up: set[str] = set()  # by a recovery, which nobody waits for

    def _lock(self, workflow_id: str) -> asyncio.Lock:
        """Returns the lock under which a workflow changes hands; it lives while it is in use."""
        return self._locks.setdefault(workflow_id, asyncio.Lock())

    async def create(self, submission: Submission) -> Verdict:
        """Starts a workflow, or goes on with the stored one of this id.

        Raises:
            WorkflowActiveError: If it is already running or pending.
            WorkflowNotResumableError: If the stored one is canceled.
            LostOwnershipError: If another cluster takes it over at the same time.
            StorageUnavailableError: If the storage fails.
        """
        async with self._lock(submission.workflow_id):
            host = self._hosts.get(submission.workflow_id)
            if host is not None and read_nonce(host.state) == submission.nonce:
                return Verdict(outcome="created")  # the same message, sent again by Ray
            stored = await self._find_stored(submission.workflow_id)
            if stored is None:
                return await self._create(submission)
            state, _ = await self._in_thread(load_settled, self._store, submission.workflow_id)
            again = read_nonce(state) == submission.nonce
            outcome = await self._go_on(submission.workflow_id, "run" if not again else "resume")
            if again:
                return Verdict(outcome="created")
            return Verdict(outcome=outcome, differences=find_differences(state, submission))

    async def _find_stored(self, workflow_id: str) -> WorkflowSummary | None:
        try:
            return await self._in_thread(read_status, self._store, workflow_id)
        except WorkflowNotFoundError:
            return None

    async def _create(self, submission: Submission) -> Verdict:
        workflow_id = submission.workflow_id
        await self._leases.hold()
        state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
        if state.next_seq:
            self._threads.submit(writer.close)
            raise WorkflowActiveError(workflow_id, "run")
        await self._in_thread(self._put_blobs, submission, writer.incarnation)
        host = self._make_host(state, writer)
        await self._start(
            workflow_id, host, host.create(make_creation(submission, _now_us()), self._owner)
        )
        return Verdict(outcome="created")

    def _put_blobs(self, submission: Submission, incarnation: int) -> None:
        for content in submission.blobs.values():
            put_blob(self._store, submission.workflow_id, incarnation, [content])

    async def resume(self, workflow_id: str) -> str:
        """Goes on with a stored workflow.

        Returns:
            "resumed", or "stored" if it has ended successfully.

        Raises:
            WorkflowActiveError: If it is already running or pending.
            WorkflowNotResumableError: If it is unknown or canceled.
            LostOwnershipError: If another cluster takes it over at the same time.
            CorruptJournalError: If its journal is damaged.
            StorageUnavailableError: If the storage fails.
        """
        async with self._lock(workflow_id):
            return await self._go_on(workflow_id, "resume")

    async def _go_on(self, workflow_id: str, operation: str) -> str:
        host = self._hosts.get(workflow_id)
        if host is not None:
            if host.announced is not Status.FAILED and host.announced not in FINAL:
                if workflow_id in self._taken_up:
                    return "resumed"
                raise WorkflowActiveError(workflow_id, operation)
            if host.announced is Status.FAILED and await asyncio.shield(host.resume(operation)):
                return "resumed"
        stored = await self._find_stored(workflow_id)
        if stored is None:
            raise WorkflowNotResumableError(workflow_id, f"it is not in {self._store.uri}")
        end: Status | None = stored.status
        if stored.status not in FINAL or not stored.settled:
            end = await self._take_over(workflow_id, operation)
        if end is Status.CANCELED:
            raise WorkflowNotResumableError(workflow_id, "it was canceled")
        return "resumed" if end is None else "stored"

    async def _take_over(self, workflow_id: str, reason: str) -> Status | None:
        """Goes on with a workflow, unless it has ended in a way that nothing can follow.

        Returns:
            How it has ended, which is certain then, or None if it goes on.
        """
        self._recent.pop(workflow_id, None)
        await self._leases.hold()
        state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
        if not state.next_seq:
            self._threads.submit(writer.close)
            raise WorkflowNotResumableError(workflow_id, "it was deleted a moment ago")
        if state.status in FINAL:
            await self._in_thread(settle_end, state, writer, self._owner, reason, _now_us())
            return state.status
        host = self._make_host(state, writer)
        await self._start(workflow_id, host, host.take_over(self._owner, reason))
        return None

    async def _settle(self, workflow_id: str) -> State | None:
        """Makes the end of a workflow certain; goes on with it if it turns out to have none.

        Returns:
            The state with the end that is certain now, None if there is none.
        """
        async with self._lock(workflow_id):
            if workflow_id in self._hosts:
                return None
            reason = "its end was made certain"
            state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
            if state.status in ENDED or not state.next_seq:
                await self._in_thread(settle_end, state, writer, self._owner, reason, _now_us())
                return state if state.next_seq else None
            host = self._make_host(state, writer)
            await self._start(workflow_id, host, host.take_over(self._owner, reason))
            return None

    async def cancel(self, workflow_id: str) -> None:
        """Ends a workflow without a result; returns when that is durable.

        Raises:
            WorkflowNotFoundError: If there is none of this id.
            WorkflowEndedError: If it has ended successfully.
            LostOwnershipError: If another cluster takes it over at the same time.
            CorruptJournalError: If its journal is damaged.
            StorageUnavailableError: If the storage fails; it may be canceled or not.
        """
        async with self._lock(workflow_id):
            host = self._hosts.get(workflow_id)
            status = None if host is None else await asyncio.shield(host.cancel(self._owner))
            status = status or await self._cancel_stored(workflow_id)
            if status is not Status.CANCELED:
                raise WorkflowEndedError(workflow_id, "cancel", status.value)

    async def _cancel_stored(self, workflow_id: str) -> Status:
        """Cancels what nobody here hosts; returns the status that it then has for good."""
        stored = await self._in_thread(read_status, self._store, workflow_id)
        if stored.status in FINAL and stored.settled:
            return stored.status
        self._recent.pop(workflow_id, None)
        state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
        if state.next_seq and state.status not in FINAL:
            await self._in_thread(cancel_state, state, writer, self._owner, _now_us())
        else:
            await self._in_thread(settle_end, state, writer, self._owner, "cancel", _now_us())
        if state.status is None:
            raise WorkflowNotFoundError(workflow_id, self._store.uri)
        return state.status

    async def delete(self, workflow_id: str) -> None:
        """Deletes a workflow with everything stored of it.

        Raises:
            WorkflowActiveError: If it is running here, or its owner lives; that may take as long
                as a lease lasts to find out.
            WorkflowNotFoundError: If there is none of this id.
            LostOwnershipError: If another cluster claims it at the same time.
            CorruptJournalError: If two segments of its journal claim one place.
            StorageUnavailableError: If the storage fails; it may be deleted or not.
        """
        async with self._lock(workflow_id):
            host = self._hosts.get(workflow_id)
            if host is not None and not host.ended and host.announced not in FINAL:
                raise WorkflowActiveError(workflow_id, "delete")
            await self._require_owner_gone(workflow_id, "delete")
            self._recent.pop(workflow_id, None)
            delete = partial(delete_workflow, self._store, workflow_id, owner=self._owner)
            await self._in_thread(delete)
            self._recent.pop(workflow_id, None)

    async def _require_owner_gone(self, workflow_id: str, operation: str) -> None:
        """Refuses what would take a workflow from a cluster that is running it."""
        try:
            stored = await self._find_stored(workflow_id)
        except CorruptJournalError:
            return  # nobody can be running it for long
        if stored is None or stored.status not in UNDER_WAY or self._is_ours(stored.owner):
            return
        if await self._owners.find_alive([stored.owner]):
            raise WorkflowActiveError(workflow_id, operation)

    async def adopt(self, workflow_ids: Sequence[str]) -> None:
        """Goes on with workflows that this dispatcher owned before it was restarted."""
        self._healer.begin(workflow_ids, pause_s=0)
        await asyncio.gather(*map(self._healer.wait, workflow_ids))

    async def _go_on_if_orphan(self, workflow_id: str) -> None:
        async with self._lock(workflow_id):
            if workflow_id not in self._hosts and await self._is_orphan(workflow_id):
                await self._take_over(workflow_id, "its dispatcher or storage failed")

    def _note_healed(self, workflow_id: str) -> None:
        if workflow_id not in self._hosts:
            self._taken_up.discard(workflow_id)
            self._manager.note_ended.remote(self._index, workflow_id)

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
        watched = {owner for owner in owners if not self._is_ours(owner)}
        alive = await self._owners.find_alive(watched)
        return choose_candidates(stored, alive, force)

    async def take_up(self, workflow_id: str, owner: str) -> str:
        """Goes on with a workflow whose owner is gone.

        Args:
            workflow_id: The workflow.
            owner: Who ran it last, as far as the caller knows.

        Returns:
            "resumed", "owned" if somebody else goes on with it, or "ended".

        Raises:
            WorkflowNotFoundError: If there is none.
            CorruptJournalError: If its journal is damaged.
            LostOwnershipError: If somebody else takes it over at the same time.
            StorageUnavailableError: If the storage fails.
        """
        async with self._lock(workflow_id):
            if workflow_id in self._hosts:
                return "owned"
            stored = await self._in_thread(read_status, self._store, workflow_id)
            if stored.status not in UNDER_WAY:
                return "ended"
            if stored.owner != owner:
                return "owned"
            await self._take_over(workflow_id, f"recovered from {owner}")
            if workflow_id in self._hosts:
                self._taken_up.add(workflow_id)
            return "resumed"

    def _is_ours(self, owner: str) -> bool:
        return owner.startswith(self._cluster)

    def _runs_anything(self) -> bool:
        return bool(self._hosts) or self._healer.busy

    async def _check_ownership(self, late: bool) -> None:
        """Stops what somebody else has taken over; looks at all only after a pause."""
        hosts = list(self._hosts.values())
        chosen = hosts if late else random.sample(hosts, min(len(hosts), 1))
        await asyncio.gather(*(host.check_ownership() for host in chosen))

    async def _is_orphan(self, workflow_id: str) -> bool:
        """Tells whether the stored workflow was ours and has not ended."""
        stored = await self._find_stored(workflow_id)
        if stored is None or stored.owner != self._owner:
            return False
        return stored.status in (Status.RUNNING, Status.PENDING)

    def _make_host(self, state: State, writer: JournalWriter) -> WorkflowHost:
        return WorkflowHost(
            state, writer, self._workers, self._threads, _now_us, on_end=self._forget
        )

    async def _start(self, workflow_id: str, host: WorkflowHost, start: Awaitable[None]) -> None:
        self._hosts[workflow_id] = host
        self._manager.note_started.remote(self._index, workflow_id)
        await asyncio.shield(start)  # a caller who gives up must not leave it half done

    def _forget(self, host: WorkflowHost) -> None:
        workflow_id = host.state.workflow_id
        if self._hosts.get(workflow_id) is host:
            del self._hosts[workflow_id]
        if isinstance(host.stopped, LostOwnershipError):
            _log.warning("%s", host.stopped)
        elif host.stopped is not None:
            _log.error("workflow %s stopped: %s", workflow_id, host.stopped)
        elif host.state.status in FINAL:  # a failed one may go on anywhere
            self._keep_recent(host.state)
        if isinstance(host.stopped, StorageUnavailableError) and host.announced is not None:
            self._healer.begin([workflow_id])
        else:  # also if its start failed: who asked for it was told so
            self._taken_up.discard(workflow_id)
            self._manager.note_ended.remote(self._index, workflow_id)

    def _keep_recent(self, state: State) -> None:
        self._recent[state.workflow_id] = state
        total = sum(len(each.tasks) for each in self._recent.values())
        while total > RECENT_TASKS_MAX or len(self._recent) > RECENT_MAX:
            _, dropped = self._recent.popitem(last=False)
            total -= len(dropped.tasks)

    async def refuse(self, error: MilepostError) -> None:
        """Raises ``error``: gives its caller a ref that fails with it."""
        raise error

    async def live(self) -> dict[str, str]:
        """Returns the workflows hosted here that have not ended, with their durable status."""
        return {
            workflow_id: host.announced.value
            for workflow_id, host in self._hosts.items()
            if host.announced is not None
        }

    async def take_aside(
        self, workflow_id: str, epoch: int, number: int, report: WorkerReport
    ) -> None:
        """Takes a report of a slice whose worker is busy with a long task."""
        self._workers.take_aside(workflow_id, epoch, number, report)

    async def watch(self) -> None:
        """Never returns: who waits for it learns when this process dies."""
        await asyncio.Event().wait()

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
        under_way = stored.status in UNDER_WAY and not self._is_ours(stored.owner)
        alive = await self._owners.find_fresh() if under_way else frozenset()
        return self._see(stored, alive).value

    async def _read_status_here(self, workflow_id: str) -> Status | None:
        """Returns the status of a workflow that runs here; None if it does not, or no more."""
        host = self._hosts.get(workflow_id)
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
        elsewhere = stored.owner in alive and not self._is_ours(stored.owner)
        return stored.status if elsewhere else see_from_outside(stored.status)

    async def stored_statuses(self) -> dict[str, str]:
        """Returns the status of every workflow in the storage, as seen by a non-owner.

        One that cannot be read is RESUMABLE: a resume tells why it is not.
        """
        stored = await self._stored.summaries()
        elsewhere = any(
            each.status in UNDER_WAY and not self._is_ours(each.owner) for each in stored
        )
        alive = await self._owners.find_fresh() if elsewhere else frozenset()
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
                if not await self._healer.wait(workflow_id, PATIENCE_S):
                    raise
            except OutputNotAvailableError:  # is another cluster running it?
                status = await self.status(workflow_id)
                raise OutputNotAvailableError(workflow_id, status, task_id) from None

    async def _output(self, workflow_id: str, task_id: str | None) -> SealedOutput:
        async with self._lock(workflow_id):
            host = self._hosts.get(workflow_id)
            if host is None and await self._is_orphan_unless_recent(workflow_id):
                await self._take_over(workflow_id, "dispatcher restarted")
                host = self._hosts.get(workflow_id)
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
        host = self._hosts.get(workflow_id)
        if host is not None and host.state.status is not None:
            taken = take(host.state, host.state.status)
            with suppress(LostOwnershipError, StorageUnavailableError):
                await host.sync()
                return taken
        status = Status(await self.status(workflow_id))
        state, _ = await self._recall(workflow_id)
        return take(state, status)

    async def _is_orphan_unless_recent(self, workflow_id: str) -> bool:
        return workflow_id not in self._recent and await self._is_orphan(workflow_id)

    async def _recall(self, workflow_id: str) -> tuple[State, bool]:
        """Returns the state of an ended workflow, unless another cluster did something to it."""
        state = self._recent.get(workflow_id)
        if state is not None:
            if await self._in_thread(is_settled, self._store, workflow_id, state.epoch):
                return state, True
            self._recent.pop(workflow_id, None)
        return await self._stored.state(workflow_id)

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


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


def _now_us() -> int:
    return time.time_ns() // 1000
