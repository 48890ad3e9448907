"""Hosts one workflow: feeds the pure core, makes its events durable, performs its effects.

The one rule: events are applied and queued at once; an effect that demands it is performed only
when every event before it is durable; nobody is told anything that is not durable. Storage is only
touched in threads, one flush at a time, and a flush takes everything queued meanwhile with it
(group commit). This module knows neither Ray nor the clock: both are handed in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol, TypeAlias

from milepost.engine.alarm import Alarm
from milepost.engine.costs import CostTable
from milepost.engine.messages import ItemReport, WorkerReport
from milepost.engine.objects import ObjectTable
from milepost.engine.references import RefTable
from milepost.engine.shares import Share, Shares
from milepost.engine.timing import TimeLimits
from milepost.errors import (
    EngineUnavailableError,
    LostOwnershipError,
    MilepostError,
    StorageUnavailableError,
)
from milepost.journal import Compactor, JournalWriter
from milepost.replay.codec import encode
from milepost.replay.decide import CancelSlices, Decision, Effect, Finish, RunSlice, decide
from milepost.replay.decide_items import RunItems
from milepost.replay.events import (
    Event,
    ItemsScheduled,
    RetriesDue,
    TasksScheduled,
    WaitsBegan,
    WaitsEnded,
    WorkflowCreated,
)
from milepost.replay.fold import apply
from milepost.replay.inputs import (
    CancelAsked,
    Input,
    ItemsReported,
    OwnershipGained,
    ResumeAsked,
    SliceLost,
    SliceReported,
    TurnCame,
    WorkWanted,
)
from milepost.replay.state import FINAL, State, Status

_log = logging.getLogger(__name__)

SLICE_US = 15_000
"""Work per slice: a Ray call costs 1 to 3 ms, so a tenth of this or less is overhead."""

LAZY_FLUSH_S = 0.05
"""How long a record of scheduling alone may wait for company before it is written."""


BACKLOG_EVENTS_MAX = 5_000
BACKLOG_BYTES_MAX = 32 * 2**20
"""Of events and results that wait for a flush: beyond, no new slice starts. A storage slower than
the workers holds the workers back; their results do not pile up in memory."""


FOLDED_AT_ONCE_MAX = 5_000
"""Tasks of a new graph that is folded on the event loop, in about ten milliseconds; a larger one
takes a thread meanwhile, and nobody waits for it."""


_ABOUT_WAITING = (WaitsBegan, WaitsEnded, RetriesDue)
_ABOUT_SCHEDULING = (TasksScheduled, ItemsScheduled)


class SliceLostError(Exception):
    """The worker of a slice died or never came to be; ``kind`` as errors of tasks name it."""

    def __init__(self, reason: str, kind: str = "crash") -> None:
        super().__init__(reason, kind)
        self.reason = reason
        self.kind = kind


class Workers(Protocol):
    """Who runs slices."""

    @property
    def slices_max(self) -> int:
        """How many slices of one scheduling class to have under way at once."""

    @property
    def riders_max(self) -> int:
        """How many tasks may ride in one slice with what they wait for; 0 if workers cannot."""

    def run(self, host: WorkflowHost, slice_: AnySlice) -> AsyncIterator[Delivery]:
        """Runs a slice; yields its reports, the last one marked so.

        Raises:
            SliceLostError: If the worker died.
        """


AnySlice: TypeAlias = RunSlice | RunItems
"""Of tasks, or of items of a map."""

Delivery = tuple[WorkerReport | ItemReport, dict[int, Any]]
"""A report, and the Ray objects of its large values by task."""


class WorkflowHost:
    """The present owner's side of one workflow.

    Attributes:
        state: The state after all events so far, durable or not.
        announced: The newest status that is durable, None at first.
        stopped: Why the host gave up (storage or ownership lost), None while it has not.
        objects: Large values that are alive as Ray objects.
        job: For whose driver it writes lines on its way; empty: for nobody.
        flushes: How many flushes have returned: each made sure that the workflow is ours.
    """

    def __init__(
        self,
        state: State,
        writer: JournalWriter,
        workers: Workers,
        threads: Executor,
        now_us: Callable[[], int],
        on_end: Callable[[WorkflowHost], None],
        on_finish: Callable[[WorkflowHost], object] = id,
        shares: Shares | None = None,
    ) -> None:
        self.state = state
        self.announced: Status | None = None
        self.stopped: MilepostError | None = None
        self.objects: ObjectTable = ObjectTable()
        self.refs: RefTable = RefTable()
        self.flushes: int = 0
        self.job: str = ""
        self._writer = writer
        self._compactor = Compactor(writer)
        self._compaction: asyncio.Task[None] | None = None
        self._workers = workers
        self._threads = threads
        self._now_us = now_us
        self._on_end = on_end
        self._on_finish = on_finish
        self._costs = CostTable()
        self._queued: list[Event] = []
        self._deferred: list[tuple[int, Effect]] = []
        self._durable_seq = state.next_seq
        self._backlog_bytes = 0
        self._held_back = False
        self._wake = asyncio.Event()
        self._lazy_wake: asyncio.TimerHandle | None = None
        self._running: dict[int, asyncio.Task[None]] = {}
        self._share = Share(shares or Shares(workers), self._feed_work_again)
        self._watchers: list[asyncio.Future[None]] = []
        self._time_limits = TimeLimits()
        self._alarm = Alarm(now_us, self._feed_work)
        self._flusher: asyncio.Task[None] | None = None

    async def create(self, created: WorkflowCreated, owner: str, admitted: bool = True) -> None:
        """Starts a new workflow; returns when its creation is durable.

        Args:
            created: Its first event.
            owner: Who owns it.
            admitted: Whether it may run; else it is PENDING until :meth:`begin`.

        Raises:
            LostOwnershipError: If another owner took over.
            StorageUnavailableError: If the journal cannot be written.
        """
        if len(created.fragment.node_names) > FOLDED_AT_ONCE_MAX:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, apply, self.state, created)
            self._queued.append(created)
        else:
            self._act(Decision(append=(created,)))
        await self.take_over(owner, "created", admitted)

    async def take_over(self, owner: str, reason: str, admitted: bool = True) -> None:
        """Goes on with the workflow under this owner; returns when that is durable.

        Args:
            owner: Who owns it.
            reason: Why, for people.
            admitted: Whether it may run; else it is PENDING until :meth:`begin`.

        Raises:
            LostOwnershipError: If another owner took over.
            StorageUnavailableError: If the journal cannot be written.
        """
        self._flusher = asyncio.create_task(self._flush_forever())
        self._feed(
            OwnershipGained(
                epoch=self._writer.epoch,
                owner=owner,
                reason=reason,
                at_us=self._now_us(),
                admitted=admitted,
            )
        )
        await self.sync()  # so that no task starts for an owner that another has overtaken
        self._announce(admitted)
        self._feed_work()

    async def begin(self) -> None:
        """Runs a workflow that was PENDING; returns when that is durable.

        Raises:
            LostOwnershipError: If another owner took over.
            StorageUnavailableError: If the journal cannot be written.
        """
        self._feed(TurnCame(at_us=self._now_us()))
        await self.sync()
        if self.announced is Status.PENDING:  # nobody has canceled it meanwhile
            self.announced = Status.RUNNING
        self._feed_work()

    async def resume(self, who: str, admitted: bool = True) -> bool:
        """Goes on with a failed workflow that this host still has; returns when durable.

        Args:
            who: Who asked for it.
            admitted: Whether it may run; else it is PENDING until :meth:`begin`.

        Returns:
            False if it was too late for that: the host has ended.

        Raises:
            LostOwnershipError: If another owner took over.
            StorageUnavailableError: If the journal cannot be written.
        """
        await self.sync()  # the failure is told before the resume
        if self.ended:
            return False
        self._feed(ResumeAsked(who=who, at_us=self._now_us(), admitted=admitted))
        self.announced = None
        await self.sync()
        self._announce(admitted)
        self._feed_work()
        return True

    async def cancel(self, who: str) -> Status | None:
        """Ends the workflow without a result, and its running tasks; returns when durable.

        Returns:
            The status it ends with, None if it was too late for that: the host has ended.

        Raises:
            LostOwnershipError: If another owner took over.
            StorageUnavailableError: If the journal cannot be written.
        """
        await self.sync()  # what has happened before is told before
        if self.ended:
            return None
        self._feed(CancelAsked(who=who, at_us=self._now_us()))
        await self.sync()
        return self.state.status

    def _announce(self, admitted: bool) -> None:
        """Tells that it runs or waits, now that this is durable; its end may have been told.

        ``state.status`` may be an end already that is still to become durable.
        """
        if self.announced is None:
            self.announced = Status.RUNNING if admitted else Status.PENDING

    async def sync(self) -> None:
        """Returns when all events so far are durable.

        Raises:
            LostOwnershipError: If another owner took over.
            StorageUnavailableError: If the journal cannot be written.
        """
        seq = self.state.next_seq
        self._wake.set()
        while self._durable_seq < seq:
            if self.stopped is not None:
                raise self.stopped
            await self.change()

    async def check_ownership(self) -> None:
        """Stops if another owner took over, even if there is nothing to flush for long."""
        try:
            await self.confirm()
        except LostOwnershipError:
            pass  # it has stopped
        except StorageUnavailableError as error:  # the next flush will see
            _log.info("workflow %s was not checked: %s", self.state.workflow_id, error)

    async def confirm(self) -> None:
        """Returns if the workflow is still ours, as a flush does that has nothing to write.

        What was durable once may be of a workflow that another owner has deleted since.

        Raises:
            LostOwnershipError: If another owner took over; the host has stopped then.
            StorageUnavailableError: If the storage cannot tell.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._writer.require_ownership)
        except LostOwnershipError as error:
            if not self.ended:
                self._stop(error)
            raise

    def change(self) -> asyncio.Future[None]:
        """Returns a future that is done after the next flush, or when the host stops."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        return watcher

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen here."""
        if self.stopped is not None:
            return True
        over = self.announced in FINAL or self.announced is Status.FAILED
        return over and not self._running and not self._queued

    def _feed(self, happened: Input) -> Decision:
        decision = decide(self.state, happened)
        self._act(decision)
        return decision

    def _feed_work(self) -> None:
        events, size = len(self._queued), self._backlog_bytes
        self._held_back = events > BACKLOG_EVENTS_MAX or (events > 0 and size > BACKLOG_BYTES_MAX)
        if self._held_back:
            return
        allowed = self._share.allowed
        wanted = WorkWanted(
            slices_max=allowed,
            slice_us=SLICE_US,
            costs_us=self._costs.expected_us,
            at_us=self._now_us(),
            riders_max=self._workers.riders_max,
        )
        while any(isinstance(event, _ABOUT_WAITING) for event in self._feed(wanted).append):
            pass  # a wait may end where it begins, and what waited for it is ready then
        self._alarm.set(self.state)
        self._share.note_hunger(bool(self.state.ready or self.state.open_maps), allowed)

    def _feed_work_again(self) -> None:
        """Takes places that others gave back."""
        if not self.ended:
            self._feed_work()

    def _act(self, decision: Decision) -> None:
        """Applies and queues the events, then performs the effects that need not wait."""
        for event in decision.append:
            apply(self.state, event)
        self._queued.extend(decision.append)
        for effect in decision.effects:
            if effect.sync_first:
                self._deferred.append((self.state.next_seq, effect))
            else:
                self._perform(effect)
        self._schedule_flush(decision.append)

    def _schedule_flush(self, events: Sequence[Event]) -> None:
        """What only records a schedule may wait a little for the results it leads to."""
        if self._deferred or any(not isinstance(event, _ABOUT_SCHEDULING) for event in events):
            self._wake.set()
        elif events and self._lazy_wake is None:
            loop = asyncio.get_running_loop()
            self._lazy_wake = loop.call_later(LAZY_FLUSH_S, self._wake.set)

    async def _flush_forever(self) -> None:
        while not self.ended:
            await self._wake.wait()
            self._wake.clear()
            if self._lazy_wake is not None:
                self._lazy_wake.cancel()
                self._lazy_wake = None
            try:
                await self._flush()
            except Exception as error:  # noqa: BLE001  a host that cannot go on must say so
                self._stop(error)
        self._end()

    async def _flush(self) -> None:
        events, self._queued = self._queued, []
        self._backlog_bytes = 0
        if events:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._write, events)
            self._durable_seq += len(events)
            self.flushes += 1
        self._release()
        self._notify()
        self._compact_if_due()
        if self._held_back:
            self._feed_work()

    def _write(self, events: list[Event]) -> None:
        self._writer.flush([encode(event) for event in events])

    def _compact_if_due(self) -> None:
        """Starts a compaction beside the flushes; one at a time."""
        if self._compaction is None and self._compactor.is_due():
            self._compaction = asyncio.create_task(self._compact())

    async def _compact(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._compactor.run)
        except LostOwnershipError as error:
            if not self.ended:
                self._stop(error)
        except Exception as error:  # noqa: BLE001  a journal that stays long is no harm
            _log.warning("journal of %s was not compacted: %s", self.state.workflow_id, error)
        self._compaction = None

    def _release(self) -> None:
        """Performs the effects whose events have become durable."""
        ready = [effect for seq, effect in self._deferred if seq <= self._durable_seq]
        self._deferred = [entry for entry in self._deferred if entry[0] > self._durable_seq]
        for effect in ready:
            self._perform(effect)

    def _notify(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _perform(self, effect: Effect) -> None:
        if self.stopped is not None:
            return
        if isinstance(effect, Finish):
            self.announced = effect.status
            self._on_finish(self)
        elif isinstance(effect, CancelSlices):
            for number in effect.slices:
                if number in self._running:
                    self._running.pop(number).cancel()
                    self._share.end(number)
        else:
            self._share.begin(effect.slice)
            self._running[effect.slice] = asyncio.create_task(self._run_slice(effect))

    async def _run_slice(self, slice_: AnySlice) -> None:
        try:
            reason, kind = await self._follow_slice(slice_)
            self._running.pop(slice_.slice, None)
            self._share.end(slice_.slice)
            if slice_.slice in self.state.slices or slice_.slice in self.state.item_slices:
                # it has tasks that nobody will report
                self.objects.forget_inputs(self.state, slice_.tasks)
                self._feed(
                    SliceLost(
                        slice=slice_.slice,
                        epoch=slice_.epoch,
                        reason=reason,
                        at_us=self._now_us(),
                        kind=kind,
                    )
                )
            self._feed_work()
        except Exception as error:  # noqa: BLE001  a host that cannot go on must say so
            self._stop(error)
        finally:
            self._time_limits.stop(slice_.slice)
        self._wake.set()

    async def _follow_slice(self, slice_: AnySlice) -> tuple[str, str]:
        """Takes the reports of a slice; returns why what it did not report is lost, and a kind."""
        last = False
        try:
            async for report, objects in self._workers.run(self, slice_):
                last = report.last
                if report.began:
                    self._begin_timing(slice_)
                elif isinstance(report, ItemReport):
                    self._take_items(slice_, report)
                else:
                    self._take_report(slice_, report, objects)
        except SliceLostError as error:
            return error.reason or "its worker died", error.kind
        reason = "left tasks out" if last else "stopped without a last report"
        return f"its worker {reason}", "crash"

    def _begin_timing(self, slice_: AnySlice) -> None:
        limit_us = self.state.graph.options[slice_.option].timeout_us
        self._time_limits.start(slice_.slice, limit_us, partial(self._time_out, slice_, limit_us))

    def _time_out(self, slice_: AnySlice, limit_us: int) -> None:
        """Ends a slice whose task runs longer than it may, and goes on."""
        late = SliceLost(
            slice=slice_.slice,
            epoch=slice_.epoch,
            reason=f"it ran longer than its time limit of {limit_us / 1e6:g} s",
            at_us=self._now_us(),
            kind="timeout",
        )
        try:
            self._feed(late)
            self._feed_work()
        except Exception as error:  # noqa: BLE001  a host that cannot go on must say so
            self._stop(error)

    def _take_items(self, slice_: AnySlice, report: ItemReport) -> None:
        self._costs.add_items(self.state, slice_.tasks[0], report)
        self._backlog_bytes += sum(len(payload.data) for payload in report.payloads)
        self._feed(
            ItemsReported(
                slice=slice_.slice,
                epoch=slice_.epoch,
                starts=tuple(report.starts),
                stops=tuple(report.stops),
                payloads=tuple(report.payloads),
                started_us=report.started_us,
                duration_us=report.duration_us,
                raised=tuple(report.raised),
                handed_back=tuple(report.handed_back),
                node=report.node,
                at_us=self._now_us(),
            )
        )
        done = [each for each in slice_.tasks if self.state.results[each] is not None]
        self.objects.take(self.state, done, {})
        self._feed_work()

    def _take_report(self, slice_: AnySlice, report: WorkerReport, objects: dict[int, Any]) -> None:
        self._costs.add(self.state, report)
        self._backlog_bytes += sum(len(payload.data) for payload in report.payloads)
        self._feed(
            SliceReported(
                slice=slice_.slice,
                epoch=slice_.epoch,
                tasks=tuple(report.tasks),
                attempts=tuple(report.attempts),
                payloads=tuple(report.payloads),
                started_us=tuple(report.started_us),
                durations_us=tuple(report.durations_us),
                raised=tuple(report.raised),
                continued=tuple(report.continued),
                handed_back=tuple(report.handed_back),
                node=report.node,
                at_us=self._now_us(),
            )
        )
        done = [*report.tasks, *(continued.task for continued in report.continued)]
        self.objects.take(self.state, done, objects)
        self._feed_work()

    def _stop(self, error: Exception) -> None:
        """Gives up: ownership or storage is lost. What is durable stays; nothing more is told."""
        if not isinstance(error, MilepostError):
            _log.error("workflow %s stopped", self.state.workflow_id, exc_info=error)
            error = EngineUnavailableError(
                f"workflow {self.state.workflow_id!r} stopped on an internal error "
                f"({type(error).__name__}: {error}); resume it, and report this with the log"
            )
        self.stopped = self.stopped or error
        self._deferred.clear()
        self._alarm.stop()
        self._time_limits.stop_all()
        self._share.leave()
        for task in self._running.values():
            task.cancel()
        self._wake.set()

    def _end(self) -> None:
        self._alarm.stop()
        self._share.leave()
        self._notify()
        self._threads.submit(self._retire)
        self._on_end(self)

    def _retire(self) -> None:
        """Tidies up when everybody has been told; runs in a thread."""
        try:
            if self.stopped is None:
                self._compactor.run(last=True)
        except LostOwnershipError:
            pass  # somebody resumed or deleted the workflow meanwhile
        except Exception as error:  # noqa: BLE001  a journal that stays long is no harm
            _log.warning("journal of %s was not compacted: %s", self.state.workflow_id, error)
        finally:
            self._writer.close()
