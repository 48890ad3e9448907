"""What a report tells, gathered in one reading of the journal and one verification."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from milepost.journal.figures import Figures, read_figures
from milepost.journal.history import Entry, History
from milepost.journal.story import Story, read_story
from milepost.journal.tool.events import describe_entry
from milepost.journal.tool.pictures.lanes import Lanes, read_lanes
from milepost.journal.tool.text import clean
from milepost.journal.verify import Verification, verify
from milepost.replay.events import AttemptFailed, ItemFailed

EVENTS_MAX = 5000
"""So many of the newest events are on the page."""

EVENT_CHARACTERS_MAX = 300
ERRORS_MAX = 200
TASKS_MAX = 200_000
TRACEBACK_CHARACTERS_MAX = 20_000


@dataclass(slots=True)
class Failure:
    """One attempt that failed.

    Attributes:
        seq: The event that says so.
        task: The task, by number.
        what: The task, and the item if it is a map.
        attempt: Its number.
        type: The type of the exception.
        message: Its message.
        traceback: Where it was raised.
        is_final: Whether the task failed with it.
    """

    seq: int
    task: int
    what: str
    attempt: int
    type: str
    message: str
    traceback: str
    is_final: bool


@dataclass(slots=True)
class Content:
    """What a report tells.

    Attributes:
        story: The state, and where tasks ran.
        lanes: The attempts by worker.
        figures: What it cost.
        verification: Whether what is stored is whole.
        events: The newest events, as rows: seq, epoch, kind, text.
        failures: The newest failed attempts.
        failures_count: How many there are of them in all.
    """

    story: Story
    lanes: Lanes
    figures: Figures
    verification: Verification
    events: deque[list[Any]] = field(default_factory=lambda: deque(maxlen=EVENTS_MAX))
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=ERRORS_MAX))
    failures_count: int = 0


def gather(history: History, *, redact: bool) -> Content:
    """Read all that a report tells.

    Args:
        history: The workflow.
        redact: Whether to leave out what payloads and error texts contain.

    Returns:
        The content.

    Raises:
        MilepostError: If the workflow cannot be read.
    """
    events: deque[list[Any]] = deque(maxlen=EVENTS_MAX)
    failures: deque[Failure] = deque(maxlen=ERRORS_MAX)
    count = 0

    def note(entry: Entry) -> None:
        nonlocal count
        events.append(_row(entry, redact))
        if isinstance(entry.event, AttemptFailed | ItemFailed):
            count += 1
            failures.append(_failure(entry.event, entry.seq, redact))

    story = read_story(history, on_event=note)
    for each in failures:
        each.what = story.state.graph.task_id(each.task) + each.what
    return Content(
        story=story,
        lanes=read_lanes(history),
        figures=read_figures(history.store, history.workflow_id),
        verification=verify(history.store, history.workflow_id),
        events=events,
        failures=failures,
        failures_count=count,
    )


def _row(entry: Entry, redact: bool) -> list[Any]:
    told = describe_entry(entry, redact)
    parts = " ".join(f"{name}={value}" for name, value in told["event"].items() if name != "at_us")
    text = clean(parts[: EVENT_CHARACTERS_MAX + 1])
    cut = text if len(text) <= EVENT_CHARACTERS_MAX else text[:EVENT_CHARACTERS_MAX] + " …"
    return [entry.seq, entry.epoch, told["kind"], getattr(entry.event, "at_us", 0), cut]


def _failure(event: AttemptFailed | ItemFailed, seq: int, redact: bool) -> Failure:
    error = event.error
    return Failure(
        seq=seq,
        task=event.task,
        what=f", item {event.item}" if isinstance(event, ItemFailed) else "",
        attempt=event.attempt,
        type=error.type,
        message="(redacted)" if redact else error.message,
        traceback="(redacted)" if redact else error.traceback[-TRACEBACK_CHARACTERS_MAX:],
        is_final=event.final,
    )


def tasks_in_columns(story: Story) -> dict[str, Any]:
    """Put the tasks into columns, words that come again by their place in a list.

    Args:
        story: The story.

    Returns:
        Plain data for the page.
    """
    words: dict[str, dict[str, int]] = {"function": {}, "state": {}, "worker": {}}
    rows = []
    for number, each in enumerate(story.tasks()):
        if number == TASKS_MAX:
            break
        coded = [
            words[name].setdefault(clean(getattr(each, name)), len(words[name])) for name in words
        ]
        items = f" ({each.items_done}/{each.items} items)" if each.items is not None else ""
        times = (each.scheduled_us, each.queue_us, each.run_us)
        rows.append([clean(each.task) + items, *coded, each.attempts, *times, each.bytes])
    names = ("task", *words, "attempts", "scheduled", "queue", "run", "bytes")
    return {
        "names": names,
        "words": {name: list(known) for name, known in words.items()},
        "rows": rows,
        "total": len(story.state.tasks),
    }
