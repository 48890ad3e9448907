"""A workflow as its journal tells it: the state, and of each task when and where it ran.

One pass over the events. Memory grows with the tasks, a few numbers each, not with the events.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from milepost.journal.attempts import Attempt, AttemptLog
from milepost.journal.history import Entry, apply_entry
from milepost.replay.state import State, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One task. Times are microseconds since 1970, 0 where the journal has none.

    Attributes:
        task: Its id.
        function: The function it runs.
        state: Where it stands, a name of :class:`~milepost.replay.state.TaskState`.
        attempts: How many attempts were scheduled.
        scheduled_us: When its latest attempt was handed to a worker.
        started_us: When its function was called.
        ended_us: When its function returned.
        worker: Who ran it, as ``node:process``.
        bytes: How long its serialized value is; None while it has none.
        blob: Whether the value is stored beside the journal.
        items: How many items it has if it is a map; else None.
        items_done: How many of them have their value.
    """

    task: str
    function: str
    state: str
    attempts: int
    scheduled_us: int
    started_us: int
    ended_us: int
    worker: str
    bytes: int | None
    blob: bool
    items: int | None = None
    items_done: int | None = None

    @property
    def run_us(self) -> int | None:
        """How long its function ran; None if the journal does not say."""
        return max(0, self.ended_us - self.started_us) if self.ended_us else None

    @property
    def queue_us(self) -> int | None:
        """How long it waited at its worker; None if the journal does not say."""
        known = self.ended_us and self.scheduled_us
        return max(0, self.started_us - self.scheduled_us) if known else None


class Story:
    """What a journal has told so far.

    Attributes:
        state: The state after all events so far.
        log: The attempts under way.
    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self.state: State = State()
        self.log: AttemptLog = AttemptLog()
        self._scheduled_us: array[int] = array("q")
        self._workers: array[int] = array("q")
        self._names: list[str] = [""]
        self._numbers: dict[str, int] = {"": 0}

    def take(self, entry: Entry) -> list[Attempt]:
        """Take the next event.

        Args:
            entry: The event.

        Returns:
            The attempts that it ended.

        Raises:
            CorruptJournalError: If it is not legal there.
        """
        apply_entry(self.state, entry)
        ended = list(self.log.take(entry))
        missing = len(self.state.tasks) - len(self._workers)
        if missing > 0:
            self._scheduled_us.extend([0] * missing)
            self._workers.extend([0] * missing)
        for each in ended:
            self._scheduled_us[each.task] = min(each.scheduled_us, 2**62)
            self._workers[each.task] = self._number(each.worker)
        return ended

    def _number(self, worker: str) -> int:
        if worker not in self._numbers:
            self._numbers[worker] = len(self._names)
            self._names.append(worker)
        return self._numbers[worker]

    @property
    def workers(self) -> list[str]:
        """The workers that ended an attempt, in that order."""
        return self._names[1:]

    def tasks(self) -> Iterator[TaskRecord]:
        """Describe the tasks.

        Yields:
            One record for each, in the order of the graph.
        """
        return map(self.task, range(len(self.state.tasks)))

    def task(self, task: int) -> TaskRecord:
        """Describe one task.

        Args:
            task: Its number.

        Returns:
            What the journal says of it.
        """
        state, graph = self.state, self.state.graph
        result, running = state.results[task], self.log.under_way.get(task)
        map_ = state.maps.get(task)
        return TaskRecord(
            task=graph.task_id(task),
            function=graph.functions[graph.node_functions[task]].name,
            state=TaskState(state.tasks[task]).name,
            attempts=state.attempts[task],
            scheduled_us=running.scheduled_us if running else self._scheduled_us[task],
            started_us=0 if running else state.task_started_us[task],
            ended_us=0 if running else state.task_ended_us[task],
            worker=self._names[self._workers[task]],
            bytes=result.size if result else None,
            blob=bool(result and result.digest),
            items=map_.width if map_ else None,
            items_done=map_.done if map_ else None,
        )


def read_story(
    entries: Iterable[Entry],
    *,
    on_event: Callable[[Entry], object] = lambda entry: None,
    on_attempt: Callable[[Attempt], object] = lambda attempt: None,
) -> Story:
    """Read a workflow from its first event on.

    Args:
        entries: The events.
        on_event: Called with each, before it is taken.
        on_attempt: Called with each attempt that ended; last with those that have not.

    Returns:
        The story.

    Raises:
        MilepostError: What iterating the entries raises.
        CorruptJournalError: If an event is not legal where it stands.
    """
    story = Story()
    for entry in entries:
        on_event(entry)
        for each in story.take(entry):
            on_attempt(each)
    for each in (*story.log.under_way.values(), *story.log.items_under_way.values()):
        on_attempt(each)
    return story
