"""When what ran where: a workflow's attempts as bars in lanes, one lane for each worker.

Nothing here knows how it is drawn. Memory grows with the attempts, a few numbers each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from milepost.journal.attempts import Attempt, AttemptLog, Outcome
from milepost.journal.history import Entry
from milepost.replay.events import OwnershipTaken, StatusChanged

NOBODY = "worker not told"
"""The lane of attempts that were lost or handed back: the journal does not say whose they were."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt in its lane. Times are microseconds since 1970.

    Attributes:
        task: The task, by number.
        number: The attempt's number.
        scheduled_us: When it was handed to a worker.
        started_us: When its function was called; as scheduled where the journal does not say.
        ended_us: When it ended.
        outcome: How.
        error: Why it failed or was lost.
        items: How many items of a map it stands for; 0 for a task that is none.
    """

    task: int
    number: int
    scheduled_us: int
    started_us: int
    ended_us: int
    outcome: Outcome
    error: str
    items: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that concerns the whole workflow.

    Attributes:
        at_us: When.
        text: What.
        is_takeover: Whether a new owner went on from there.
    """

    at_us: int
    text: str
    is_takeover: bool


@dataclass(slots=True)
class Lanes:
    """What there is to draw.

    Attributes:
        bars: The bars of each worker.
        marks: What concerns the whole.
    """

    bars: dict[str, list[Bar]] = field(default_factory=lambda: defaultdict(list))
    marks: list[Mark] = field(default_factory=list)

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last time of anything; both 0 if there is nothing."""
        times = [mark.at_us for mark in self.marks]
        for bars in self.bars.values():
            times.append(min(bar.scheduled_us for bar in bars))
            times.append(max(bar.ended_us for bar in bars))
        return (min(times), max(times)) if times else (0, 0)

    def merged(self, lanes_max: int) -> list[tuple[str, list[Bar]]]:
        """Give so many lanes at most: those that began first, and the rest as one.

        Args:
            lanes_max: How many.

        Returns:
            Their names and bars.
        """
        order = sorted(
            self.bars.items(),
            key=lambda lane: (lane[0] == NOBODY, min(bar.started_us for bar in lane[1])),
        )
        if len(order) <= lanes_max:
            return order
        kept, rest = order[: lanes_max - 1], order[lanes_max - 1 :]
        together = [bar for _, bars in rest for bar in bars]
        return [*kept, (f"{len(rest)} more workers", together)]


def read_lanes(entries: Iterable[Entry]) -> Lanes:
    """Read a workflow's attempts.

    Args:
        entries: Its events, from the first on.

    Returns:
        What there is to draw. An attempt that runs still ends with the last event that has a time.

    Raises:
        MilepostError: What iterating the entries raises.
    """
    lanes, log, last_us = Lanes(), AttemptLog(), 0
    for entry in entries:
        last_us = max(last_us, getattr(entry.event, "at_us", 0))
        lanes.marks.extend(_marks(entry))
        for attempt in log.take(entry):
            last_us = max(last_us, attempt.ended_us)
            _add(lanes, attempt, last_us)
    for attempt in (*log.under_way.values(), *log.items_under_way.values()):
        _add(lanes, attempt, last_us)
    return lanes


def _marks(entry: Entry) -> Iterator[Mark]:
    match entry.event:
        case OwnershipTaken() as event if event.at_us:
            yield Mark(event.at_us, f"epoch {event.epoch}: {event.reason}", event.epoch > 1)
        case StatusChanged() as event if event.at_us:
            reason = f" ({event.reason})" if event.reason else ""
            yield Mark(event.at_us, f"{event.status}{reason}", False)
        case _:
            return


def _add(lanes: Lanes, attempt: Attempt, last_us: int) -> None:
    scheduled_us = attempt.scheduled_us or attempt.started_us
    started_us = attempt.started_us or scheduled_us
    bar = Bar(
        attempt.task,
        attempt.number,
        scheduled_us,
        max(started_us, scheduled_us),
        max(attempt.ended_us or last_us, started_us),
        attempt.outcome,
        attempt.error,
        attempt.items,
    )
    lanes.bars[attempt.worker or NOBODY].append(bar)
