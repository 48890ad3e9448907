"""Which workflows a dispatcher runs, and how they change hands.

Each change of hands happens under the workflow's lock: creating, resuming, taking over, settling,
canceling, deleting. What is decided inside a workflow is the business of its host.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from milepost.engine.healing import Healer
from milepost.engine.host import WorkflowHost
from milepost.engine.leases import LeaseKeeper, OwnerWatch, read_lease_s
from milepost.engine.logs import describe_end, say
from milepost.engine.messages import Submission, Verdict
from milepost.engine.recent import RecentStates
from milepost.engine.recovery import UNDER_WAY
from milepost.engine.shares import Shares
from milepost.engine.submissions import (
    find_differences,
    find_job,
    make_creation,
    read_environment,
    read_nonce,
)
from milepost.engine.threads import InThread, own_thread
from milepost.engine.turns import Turns
from milepost.engine.workers import RayWorkers
from milepost.errors import (
    CorruptJournalError,
    LostOwnershipError,
    StorageUnavailableError,
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
    list_summaries,
    load_settled,
    put_blob,
    read_status,
)
from milepost.journal.states import cancel_state, own_state, settle_end
from milepost.journal.summary import ENDED
from milepost.replay.state import FINAL, State, Status

_log = logging.getLogger(__name__)


class Notes(Protocol):
    """What the manager is told, so that a dispatcher that is restarted learns what it hosted."""

    def started(self, workflow_id: str) -> None:
        """A workflow is hosted here from now on."""

    def ended(self, workflow_id: str) -> None:
        """It is not any more."""


class Hosting:
    """The hosts of one dispatcher, and what makes and ends them.

    Attributes:
        hosts: What runs here, by workflow.
        recent: What ended here a moment ago.
        healer: Goes on with what its storage stopped.
        owners: Tells which other owners are alive.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        workers: RayWorkers,
        threads: ThreadPoolExecutor,
        in_thread: InThread,
        notes: Notes,
        turns: Turns,
    ) -> None:
        """Begin with nothing to run.

        Args:
            store: Where the workflows are.
            owner: Who this is, "cluster/dispatcher".
            workers: Where slices are executed.
            threads: Where journals are flushed.
            in_thread: Runs a function that blocks.
            notes: What is told when a host begins and ends.
            turns: What tells whether a workflow may run.
        """
        self._store = store
        self._owner = owner
        self._cluster = owner.rpartition("/")[0] + "/"
        self._workers = workers
        self._shares = Shares(workers)
        self._threads = threads
        self._in_thread = in_thread
        self._notes = notes
        self._turns = turns
        self.hosts: dict[str, WorkflowHost] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.recent: RecentStates = RecentStates()
        self.healer: Healer = Healer(self._go_on_if_orphan, self._note_healed)
        self._leases = LeaseKeeper(
            store, owner, read_lease_s(), own_thread(), self._runs_anything, self._check_ownership
        )
        self.owners: OwnerWatch = OwnerWatch(store, in_thread)
        self._taken_up: set[str] = set()  # by a recovery, which nobody waits for

    def lock(self, workflow_id: str) -> asyncio.Lock:
        """Returns the lock under which a workflow changes hands; it lives while it is in use."""
        return self._locks.setdefault(workflow_id, asyncio.Lock())

    async def create(self, submission: Submission) -> Verdict:
        """Starts a workflow, or goes on with the stored one of this id.

        Raises:
            WorkflowActiveError: If it is already running or pending.
            WorkflowNotResumableError: If the stored one is canceled.
            LostOwnershipError: If another cluster takes it over at the same time.
            StorageUnavailableError: If the storage fails.
            TooManyWorkflowsError: If it may not even wait for its turn.
        """
        async with self.lock(submission.workflow_id):
            host = self.hosts.get(submission.workflow_id)
            if host is not None and read_nonce(host.state) == submission.nonce:
                return Verdict(outcome="created")  # the same message, sent again by Ray
            stored = await self._find_stored(submission.workflow_id)
            if stored is None:
                async with self._turn(submission.workflow_id) as admitted:
                    return await self._create(submission, admitted)
            state, _ = await self._in_thread(load_settled, self._store, submission.workflow_id)
            again = read_nonce(state) == submission.nonce
            operation, job = "run" if not again else "resume", find_job(submission.environment)
            outcome = await self._go_on(submission.workflow_id, operation, job)
            if again:
                return Verdict(outcome="created")
            return Verdict(outcome=outcome, differences=find_differences(state, submission))

    async def _find_stored(self, workflow_id: str) -> WorkflowSummary | None:
        try:
            return await self._in_thread(read_status, self._store, workflow_id)
        except WorkflowNotFoundError:
            return None

    @asynccontextmanager
    async def _turn(self, workflow_id: str, *, must: bool = False) -> AsyncIterator[bool]:
        """Gives whether a workflow may run now; takes that back if it is not hosted afterwards."""
        try:
            yield await self._turns.take(workflow_id, must)
        finally:
            if workflow_id not in self.hosts:
                self._turns.give_back(workflow_id)

    async def _create(self, submission: Submission, admitted: bool) -> Verdict:
        workflow_id = submission.workflow_id
        await self._leases.hold()
        state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
        if state.next_seq:
            self._threads.submit(writer.close)
            raise WorkflowActiveError(workflow_id, "run")
        if submission.parcels:
            await self._workers.write_parcels(workflow_id, writer.incarnation, submission.parcels)
        await self._in_thread(self._put_blobs, submission, writer.incarnation)
        host = self._make_host(state, writer)
        host.job = find_job(submission.environment)
        created = make_creation(submission, _now_us(), self._cluster)
        await self._start(workflow_id, host, host.create(created, self._owner, admitted))
        return Verdict(outcome="created")

    def _put_blobs(self, submission: Submission, incarnation: int) -> None:
        for content in submission.blobs.values():
            put_blob(self._store, submission.workflow_id, incarnation, [content])

    async def resume(self, workflow_id: str, job: str = "", asked: str = "resume") -> str:
        """Goes on with a stored workflow.

        Args:
            workflow_id: The workflow.
            job: For whose driver lines on its way are written, if not for that of its submitter.
            asked: Who asked for it and why, for the journal.

        Returns:
            "resumed", or "stored" if it has ended successfully.

        Raises:
            WorkflowActiveError: If it is already running or pending.
            WorkflowNotResumableError: If it is unknown or canceled.
            LostOwnershipError: If another cluster takes it over at the same time.
            CorruptJournalError: If its journal is damaged.
            StorageUnavailableError: If the storage fails.
            TooManyWorkflowsError: If it may not even wait for its turn.
        """
        async with self.lock(workflow_id):
            return await self._go_on(workflow_id, "resume", job, asked)

    async def _go_on(self, workflow_id: str, operation: str, job: str, asked: str = "") -> str:
        asked = asked or operation
        host = self.hosts.get(workflow_id)
        if host is not None:
            if host.announced is not Status.FAILED and host.announced not in FINAL:
                if workflow_id in self._taken_up:
                    return "resumed"
                raise WorkflowActiveError(workflow_id, operation)
            if host.announced is Status.FAILED and await self._resume(host, asked):
                host.job = job or host.job
                return "resumed"
        stored = await self._find_stored(workflow_id)
        if stored is None:
            raise WorkflowNotResumableError(workflow_id, f"it is not in {self._store.uri}")
        end: Status | None = stored.status
        if stored.status not in FINAL or not stored.settled:
            end = await self.take_over(workflow_id, asked, job=job)
        if end is Status.CANCELED:
            raise WorkflowNotResumableError(workflow_id, "it was canceled")
        return "resumed" if end is None else "stored"

    async def _resume(self, host: WorkflowHost, asked: str) -> bool:
        """Goes on with a failed workflow where its host still is; False if it is no more."""
        workflow_id = host.state.workflow_id
        async with self._turn(workflow_id) as admitted:
            resumed = await asyncio.shield(host.resume(asked, admitted))
            if resumed and not admitted:
                self._turns.follow(workflow_id, host.begin)
            return resumed

    async def take_over(
        self, workflow_id: str, reason: str, *, must: bool = False, job: str = ""
    ) -> Status | None:
        """Goes on with a workflow, unless it has ended in a way that nothing can follow.

        Args:
            workflow_id: The workflow. Its lock is held.
            reason: Why, for people.
            must: Whether it may wait for its turn even if the queue is full: it had a place.
            job: For whose driver lines are written, if not for that of its submitter.

        Returns:
            How it has ended, which is certain then, or None if it goes on.
        """
        await self._let_running_go_first(workflow_id)
        async with self._turn(workflow_id, must=must) as admitted:
            self.recent.drop(workflow_id)
            await self._leases.hold()
            state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
            if not state.next_seq:
                self._threads.submit(writer.close)
                raise WorkflowNotResumableError(workflow_id, "it was deleted a moment ago")
            if state.status in FINAL:
                await self._in_thread(settle_end, state, writer, self._owner, reason, _now_us())
                return state.status
            host = self._make_host(state, writer)
            host.job = job or host.job
            await self._start(workflow_id, host, host.take_over(self._owner, reason, admitted))
            return None

    async def _let_running_go_first(self, workflow_id: str) -> None:
        """Before what was PENDING here asks for a turn, what was RUNNING here has its own again.

        Needed when nobody remembers the turns: manager and dispatcher were restarted together.
        """
        if workflow_id in self._turns:
            return
        stored = await self._find_stored(workflow_id)
        if stored is None or stored.status is not Status.PENDING or stored.owner != self._owner:
            return
        running = await self._in_thread(
            partial(list_summaries, statuses=[Status.RUNNING]), self._store
        )
        for each in running:
            if each.owner == self._owner and each.workflow_id not in self.hosts:
                await self._turns.take(each.workflow_id, must=True)
                self.healer.begin([each.workflow_id], pause_s=0)

    async def settle(self, workflow_id: str) -> State | None:
        """Makes the end of a workflow certain; goes on with it if it turns out to have none.

        Returns:
            The state with the end that is certain now, None if there is none.
        """
        async with self.lock(workflow_id):
            if workflow_id in self.hosts:
                return None
            reason = "its end was made certain"
            state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
            if state.status in ENDED or not state.next_seq:
                await self._in_thread(settle_end, state, writer, self._owner, reason, _now_us())
                return state if state.next_seq else None
            host = self._make_host(state, writer)
            async with self._turn(workflow_id, must=True) as admitted:
                await self._start(workflow_id, host, host.take_over(self._owner, reason, admitted))
            return None

    async def cancel(self, workflow_id: str, who: str = "") -> None:
        """Ends a workflow without a result; returns when that is durable.

        Args:
            workflow_id: The workflow.
            who: Who asked for it and why, for the journal; by default this owner.

        Raises:
            WorkflowNotFoundError: If there is none of this id.
            WorkflowEndedError: If it has ended successfully.
            LostOwnershipError: If another cluster takes it over at the same time.
            CorruptJournalError: If its journal is damaged.
            StorageUnavailableError: If the storage fails; it may be canceled or not.
        """
        async with self.lock(workflow_id):
            host = self.hosts.get(workflow_id)
            status = None if host is None else await asyncio.shield(host.cancel(who or self._owner))
            status = status or await self._cancel_stored(workflow_id, who)
            if status is not Status.CANCELED:
                raise WorkflowEndedError(workflow_id, "cancel", status.value)

    async def _cancel_stored(self, workflow_id: str, who: str) -> Status:
        """Cancels what nobody here hosts; returns the status that it then has for good."""
        stored = await self._in_thread(read_status, self._store, workflow_id)
        if stored.status in FINAL and stored.settled:
            return stored.status
        self.recent.drop(workflow_id)
        state, writer = await self._in_thread(own_state, self._store, workflow_id, self._owner)
        if state.next_seq and state.status not in FINAL:
            await self._in_thread(cancel_state, state, writer, self._owner, _now_us(), who)
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
        async with self.lock(workflow_id):
            host = self.hosts.get(workflow_id)
            if host is not None and not host.ended and host.announced not in FINAL:
                raise WorkflowActiveError(workflow_id, "delete")
            await self._require_owner_gone(workflow_id, "delete")
            self.recent.drop(workflow_id)
            delete = partial(delete_workflow, self._store, workflow_id, owner=self._owner)
            await self._in_thread(delete)
            self.recent.drop(workflow_id)

    async def _require_owner_gone(self, workflow_id: str, operation: str) -> None:
        """Refuses what would take a workflow from a cluster that is running it."""
        try:
            stored = await self._find_stored(workflow_id)
        except CorruptJournalError:
            return  # nobody can be running it for long
        if stored is None or stored.status not in UNDER_WAY or self.is_ours(stored.owner):
            return
        if await self.owners.find_alive([stored.owner]):
            raise WorkflowActiveError(workflow_id, operation)

    async def adopt(self, workflow_ids: Sequence[str]) -> None:
        """Goes on with workflows that this dispatcher owned before it was restarted."""
        self.healer.begin(workflow_ids, pause_s=0)
        await asyncio.gather(*map(self.healer.wait, workflow_ids))

    async def _go_on_if_orphan(self, workflow_id: str) -> None:
        async with self.lock(workflow_id):
            if workflow_id not in self.hosts and await self.is_orphan(workflow_id):
                await self.take_over(workflow_id, "its dispatcher or storage failed", must=True)

    def _note_healed(self, workflow_id: str) -> None:
        if workflow_id not in self.hosts:
            self._turns.disclaim(workflow_id)
            self._note_gone(workflow_id)

    def _note_gone(self, workflow_id: str) -> None:
        self._taken_up.discard(workflow_id)
        self._notes.ended(workflow_id)

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
            TooManyWorkflowsError: If it may not even wait for its turn.
        """
        async with self.lock(workflow_id):
            if workflow_id in self.hosts:
                return "owned"
            stored = await self._in_thread(read_status, self._store, workflow_id)
            if stored.status not in UNDER_WAY:
                return "ended"
            if stored.owner != owner:
                return "owned"
            await self.take_over(workflow_id, f"recovered from {owner}")
            if workflow_id in self.hosts:
                self._taken_up.add(workflow_id)
            return "resumed"

    def find_incarnation(self, workflow_id: str, incarnation: int) -> WorkflowHost | None:
        """Returns the host of this very workflow, not of a later one of the same id."""
        host = self.hosts.get(workflow_id)
        return host if host is not None and host.state.incarnation == incarnation else None

    def is_ours(self, owner: str) -> bool:
        """Tells whether an owner belongs to this cluster."""
        return owner.startswith(self._cluster)

    def _runs_anything(self) -> bool:
        return bool(self.hosts) or self.healer.busy

    async def _check_ownership(self, late: bool) -> None:
        """Stops what somebody else has taken over; looks at all only after a pause."""
        hosts = list(self.hosts.values())
        chosen = hosts if late else random.sample(hosts, min(len(hosts), 1))
        await asyncio.gather(*(host.check_ownership() for host in chosen))

    async def is_orphan(self, workflow_id: str) -> bool:
        """Tells whether the stored workflow was ours and has not ended."""
        stored = await self._find_stored(workflow_id)
        if stored is None or stored.owner != self._owner:
            return False
        return stored.status in (Status.RUNNING, Status.PENDING)

    def _make_host(self, state: State, writer: JournalWriter) -> WorkflowHost:
        host = WorkflowHost(
            state,
            writer,
            self._workers,
            self._threads,
            _now_us,
            on_end=self._forget,
            on_finish=self._finish,
            shares=self._shares,
        )
        if state.next_seq and read_environment(state).get("cluster") == self._cluster:
            host.job = find_job(read_environment(state))
        return host

    def _finish(self, host: WorkflowHost) -> None:
        """Called when an end is durable, before what still runs has come to its own."""
        self._turns.give_back(host.state.workflow_id)
        say(host.job, describe_end(host.state))

    async def _start(self, workflow_id: str, host: WorkflowHost, start: Awaitable[None]) -> None:
        self.hosts[workflow_id] = host
        self._notes.started(workflow_id)

        async def begin() -> None:
            await start
            if host.state.status is Status.PENDING:
                self._turns.follow(workflow_id, host.begin)

        await asyncio.shield(begin())  # a caller who gives up must not leave it half done

    def _forget(self, host: WorkflowHost) -> None:
        workflow_id = host.state.workflow_id
        host.objects.clear()  # the host may lie in a cycle, and this process idle for long
        host.refs.clear()
        if self.hosts.get(workflow_id) is host:
            del self.hosts[workflow_id]
        if isinstance(host.stopped, LostOwnershipError):
            _log.warning("%s", host.stopped)
        elif host.stopped is not None:
            _log.error("workflow %s stopped: %s", workflow_id, host.stopped)
        elif host.state.status in FINAL:  # a failed one may go on anywhere
            self.recent.keep(host.state)
        if isinstance(host.stopped, StorageUnavailableError) and host.announced is not None:
            self.healer.begin([workflow_id])
        elif workflow_id not in self.hosts:  # also if its start failed: who asked was told so
            if host.stopped is not None:  # otherwise it was given back when the end was durable
                self._turns.give_back(workflow_id)
            self._note_gone(workflow_id)

    def live(self) -> dict[str, str]:
        """Returns the workflows hosted here that have not ended, with their durable status."""
        return {
            workflow_id: host.announced.value
            for workflow_id, host in self.hosts.items()
            if host.announced is not None
        }


def _now_us() -> int:
    return time.time_ns() // 1000
