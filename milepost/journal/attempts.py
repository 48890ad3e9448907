"""The attempts of a workflow's tasks, one record each, from the events in one pass.

What an attempt took, where it ran and how it ended stands in two events, of its beginning and of
its end; this module brings them together. Memory grows with the attempts under way, not with the
journal. Kinds of events that it does not know pass by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from milepost.journal.history import Entry
from milepost.replay.events import (
    AttemptFailed,
    AttemptsLost,
    GraphExtended,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
    OwnershipTaken,
    TasksCommitted,
    TasksHandedBack,
    TasksScheduled,
)


class Outcome(StrEnum):
    """How an attempt ended; the values are stable, for scripts."""

    COMMITTED = "committed"
    EXTENDED = "extended"
    """It returned a continuation."""
    FAILED = "failed"
    """It raised, or its worker died and it is blamed."""
    LOST = "lost"
    """Its worker or its owner died, and it is not blamed."""
    HANDED_BACK = "handed_back"
    """It never began: its worker gave it back."""
    RUNNING = "running"
    """It has not ended, as far as the journal tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of one task, or of some items of a map.

    Times are microseconds since 1970, 0 where the journal has none.

    Attributes:
        task: The task, by number.
        number: The attempt's number, from 1; of items, that of the first.
        slice: The slice it travelled in.
        epoch: The epoch of the owner that sent it.
        scheduled_us: When it was handed to a worker.
        started_us: When its function was called.
        ended_us: When its function returned, or when the end was noticed. If it was lost with its
            owner: the last time that the journal tells before the next owner.
        worker: Who ran it, as ``node:process``; empty if the journal does not say.
        outcome: How it ended.
        error: Why it failed or was lost.
        seq: The event that ended it; that of its beginning while it runs.
        items: How many items of a map it stands for; 0 for a task that is none.
    """

    task: int
    number: int
    slice: int
    epoch: int
    scheduled_us: int
    started_us: int = 0
    ended_us: int = 0
    worker: str = ""
    outcome: Outcome = Outcome.RUNNING
    error: str = ""
    seq: int = 0
    items: int = 0

    @property
    def run_us(self) -> int:
        """How long its function ran; 0 if the journal does not say."""
        return max(0, self.ended_us - self.started_us) if self.started_us else 0

    @property
    def queue_us(self) -> int:
        """How long it waited at its worker; 0 if the journal does not say."""
        return max(0, self.started_us - self.scheduled_us) if self.started_us else 0


class AttemptLog:
    """Takes events in order and gives the attempts that each of them ended.

    Attributes:
        under_way: The attempts of tasks that have not ended, by task.
        items_under_way: Those of items, by slice; each stands for what is left of the slice.
    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self.under_way: dict[int, Attempt] = {}
        self.items_under_way: dict[int, Attempt] = {}
        self._workers: dict[str, None] = {}
        self._last_us = 0
        self._names: list[str] = []

    def take(self, entry: Entry) -> Iterator[Attempt]:
        """Take the next event; the iterator must be used up.

        Args:
            entry: The event.

        Yields:
            What it ended.
        """
        yield from self._take(entry)
        self._last_us = max(self._last_us, getattr(entry.event, "at_us", 0))

    def _take(self, entry: Entry) -> Iterator[Attempt]:
        match entry.event:
            case TasksScheduled() as event:
                self._begin(event, entry)
            case TasksCommitted() as event:
                yield from self._commit(event, entry.seq)
            case GraphExtended() as event:
                ended_us = event.started_us + event.duration_us
                worker = self._name(event.node)
                times = (event.started_us, ended_us, worker)
                yield self._end(event.task, Outcome.EXTENDED, entry.seq, *times)
            case AttemptFailed() as event:
                times = (0, event.at_us, self._name(event.node))
                error = f"{event.error.type}: {event.error.message}"
                yield self._end(event.task, Outcome.FAILED, entry.seq, *times, error)
            case AttemptsLost() as event:
                for task in event.tasks:
                    yield self._end(
                        task, Outcome.LOST, entry.seq, 0, event.at_us, "", event.reason
                    )  # fmt: skip
            case TasksHandedBack() as event:
                for task in event.tasks:
                    yield self._end(task, Outcome.HANDED_BACK, entry.seq, 0, event.at_us)
            case OwnershipTaken() as event:
                lost = (Outcome.LOST, entry.seq, 0, self._last_us, "")
                reason = f"epoch {event.epoch} took over"
                for task in list(self.under_way):
                    yield self._end(task, *lost, reason)
                for number, begun in list(self.items_under_way.items()):
                    yield self._end_items(begun.task, number, 0, *lost, reason)
            case _:
                yield from self._take_items(entry)

    def _take_items(self, entry: Entry) -> Iterator[Attempt]:
        """Take an event of a map; one attempt stands for all items that it tells of."""
        seq = entry.seq
        match entry.event:
            case ItemsScheduled() as event:
                self.items_under_way[event.slice] = Attempt(
                    task=event.task,
                    number=event.attempts[0] if event.attempts else 0,
                    slice=event.slice,
                    epoch=entry.epoch,
                    scheduled_us=event.at_us,
                    seq=seq,
                    items=sum(event.stops) - sum(event.starts),
                )
            case ItemsCommitted() as event:
                count = sum(event.stops) - sum(event.starts)
                ended_us = event.started_us + event.duration_us
                times = (event.started_us, ended_us, self._name(event.node))
                yield self._end_items(
                    event.task, event.slice, count, Outcome.COMMITTED, seq, *times
                )
            case ItemFailed() as event:
                times = (0, event.at_us, self._name(event.node))
                error = f"item {event.item}: {event.error.type}: {event.error.message}"
                yield self._end_items(
                    event.task, event.slice, 1, Outcome.FAILED, seq, *times, error
                )
            case ItemsLost() as event:
                lost = (Outcome.LOST, seq, 0, event.at_us, "", event.reason)
                yield self._end_items(event.task, event.slice, 0, *lost)
            case ItemsHandedBack() as event:
                count = sum(event.stops) - sum(event.starts)
                yield self._end_items(
                    event.task, event.slice, count, Outcome.HANDED_BACK, seq, 0, event.at_us
                )
            case _:
                return

    def _end_items(
        self,
        task: int,
        number: int,
        count: int,
        outcome: Outcome,
        seq: int,
        started_us: int,
        ended_us: int,
        worker: str = "",
        error: str = "",
    ) -> Attempt:
        """Take items from a slice that is under way; 0 takes all that are left."""
        begun = self.items_under_way.pop(number, None)
        if begun is None:
            begun = Attempt(task=task, number=0, slice=number, epoch=0, scheduled_us=0)
        left = begun.items - count if count else 0
        if left > 0:
            self.items_under_way[number] = replace(begun, items=left)
        return replace(
            begun,
            started_us=started_us,
            ended_us=ended_us,
            worker=worker,
            outcome=outcome,
            error=error,
            seq=seq,
            items=count or begun.items,
        )

    def _begin(self, event: TasksScheduled, entry: Entry) -> None:
        for task, number in zip(event.tasks, event.attempts, strict=False):
            self.under_way[task] = Attempt(
                task=task,
                number=number,
                slice=event.slice,
                epoch=entry.epoch,
                scheduled_us=event.at_us,
                seq=entry.seq,
            )

    def _commit(self, event: TasksCommitted, seq: int) -> Iterator[Attempt]:
        worker = self._name(event.node)
        ends = zip(event.started_us, event.durations_us, strict=False)
        self._last_us = max(self._last_us, *map(sum, ends), 0)
        rows = zip(event.tasks, event.started_us, event.durations_us, strict=False)
        for task, started_us, duration_us in rows:
            times = (started_us, started_us + duration_us, worker)
            yield self._end(task, Outcome.COMMITTED, seq, *times)

    def _end(
        self,
        task: int,
        outcome: Outcome,
        seq: int,
        started_us: int,
        ended_us: int,
        worker: str = "",
        error: str = "",
    ) -> Attempt:
        begun = self.under_way.pop(task, None)
        return Attempt(
            task=task,
            number=begun.number if begun else 0,
            slice=begun.slice if begun else -1,
            epoch=begun.epoch if begun else 0,
            scheduled_us=begun.scheduled_us if begun else 0,
            started_us=started_us,
            ended_us=ended_us,
            worker=worker,
            outcome=outcome,
            error=error,
            seq=seq,
        )

    def _name(self, node: str | int) -> str:
        """Give a worker's name, which the journal writes out where it first mentions it."""
        if isinstance(node, int):
            return self._names[node] if 0 <= node < len(self._names) else ""
        if node and node not in self._workers:
            self._workers[node] = None
            self._names.append(node)
        return node


def list_attempts(entries: Iterable[Entry]) -> Iterator[Attempt]:
    """Give the attempts of a workflow, in the order in which they ended.

    Args:
        entries: The events, from the first on.

    Yields:
        The attempts; last those that have not ended.

    Raises:
        MilepostError: What iterating the entries raises.
    """
    log = AttemptLog()
    for entry in entries:
        yield from log.take(entry)
    yield from log.under_way.values()
    yield from log.items_under_way.values()
