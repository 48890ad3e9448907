"""A host without Ray and without a clock: drives the real core with made-up reports.

Everything a journal holds comes out of a seed: graphs, names, code, results, times, failures. The
events go through the real writer, so what lies in the store afterwards is what a workflow of that
shape leaves there, but for the random names of claims. Used to train the dictionary, to make the
golden journals, and by the benchmarks.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import msgpack

from milepost.journal import Store, take_ownership
from milepost.journal.frame import Frame
from milepost.replay.codec import decode_all, encode
from milepost.replay.decide import Decision, RunSlice, decide
from milepost.replay.events import Event, TaskError, WaitsBegan, WaitsEnded, WorkflowCreated
from milepost.replay.fold import apply
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import (
    Continued,
    EventArrived,
    Input,
    OwnershipGained,
    Raised,
    ResumeAsked,
    SliceLost,
    SliceReported,
    WorkWanted,
)
from milepost.replay.payload import Payload, inline
from milepost.replay.state import State

START_US = 1_790_000_000_000_000
"""Near this time, September 2026, all made-up workflows run."""

WORKFLOW_SPREAD_US = 10**14
"""Up to so much later (three years) they start."""

Result = Callable[[random.Random, int], Payload]
"""Makes the value of a task."""


def plain(value: object) -> Payload:
    """Returns plain data as an inline payload."""
    return inline(0, msgpack.packb(value))


def small_integer(rng: random.Random, task: int) -> Payload:
    """Returns what a task that does nothing may return."""
    return plain(rng.randrange(100))


class Rehearsal:
    """One workflow under one owner after the other.

    Attributes:
        state: The state after all events so far.
        at_us: The made-up time.
        writer: The present owner's journal writer.
    """

    def __init__(
        self,
        store: Store,
        workflow_id: str,
        *,
        seed: int,
        result: Result = small_integer,
        workers: int = 2,
        task_us: int = 300,
    ) -> None:
        """Prepares a workflow that does not exist yet.

        Args:
            store: Where to write it.
            workflow_id: Its id.
            seed: Decides everything.
            result: Makes the values of tasks.
            workers: How many slices are under way at once.
            task_us: How long a task takes, on average.
        """
        self.state = State()
        self._rng = random.Random(f"{seed} {workflow_id}")
        self.at_us = START_US + self._rng.randrange(WORKFLOW_SPREAD_US)
        self._store = store
        self._workflow_id = workflow_id
        self._result = result
        self._task_us = task_us
        self._queued: list[Event] = []
        self._running: deque[RunSlice] = deque()
        self._workers = [self._name_worker() for _ in range(workers)]
        self._cluster = f"{self._rng.getrandbits(64):016x}/0"

    def _name_worker(self) -> str:
        return f"{self._rng.getrandbits(48):012x}:{self._rng.randrange(300, 400_000)}"

    def create(self, fragment: Fragment, environment: Payload, *, strict: bool = False) -> None:
        """Takes the workflow for the first time and makes its creation durable."""
        self.writer = take_ownership(self._store, self._workflow_id, owner=self._cluster)
        created = WorkflowCreated(
            workflow_id=self._workflow_id,
            at_us=self.at_us,
            fragment=fragment,
            metadata=plain({}),
            environment=environment,
            durability="strict" if strict else "pipelined",
            versions="milepost 0.1.0, ray 2.60.0, python 3.11.7",
        )
        self._append((created,))
        self._gain("created")

    def take_over(self, reason: str = "resume") -> None:
        """Goes on with the workflow as another owner: what was under way is lost."""
        self.state, self._queued = State(), []
        self._running.clear()
        self.at_us += self._rng.randrange(10**9)
        self._cluster = f"{self._rng.getrandbits(64):016x}/0"
        self.writer = take_ownership(
            self._store, self._workflow_id, owner=self._cluster, on_frame=self._fold
        )
        self._gain(reason)

    def _fold(self, frame: Frame) -> None:
        for event in decode_all(frame.raw):
            apply(self.state, event)

    def _gain(self, reason: str) -> None:
        self._feed(
            OwnershipGained(
                epoch=self.writer.epoch, owner=self._cluster, reason=reason, at_us=self._tick(90)
            )
        )
        self.flush()

    def resume(self) -> None:
        """Goes on after a failure under the same owner."""
        self._feed(ResumeAsked(who="resume", at_us=self._tick(10**7)))
        self.flush()

    def run(
        self,
        *,
        reports_per_flush: int = 1,
        reports_max: int = 10**9,
        tasks_per_slice: int = 500,
        failure: float = 0.0,
        loss: float = 0.0,
        continuation: Callable[[random.Random], Fragment] | None = None,
        continuations_max: int = 0,
    ) -> None:
        """Runs tasks until the workflow ends or is stuck.

        Args:
            reports_per_flush: How many reports become durable together.
            reports_max: Stops in the middle after so many.
            tasks_per_slice: How many tasks travel together.
            failure: The probability that an attempt raises.
            loss: The probability that a worker dies.
            continuation: Makes what a task may return instead of a value.
            continuations_max: How many tasks do.
        """
        reports = 0
        self._want(tasks_per_slice)
        while self._running and reports < reports_max:
            slice_ = self._running.popleft()
            reports += 1
            if self._rng.random() < loss:
                self._feed(
                    SliceLost(
                        slice=slice_.slice,
                        epoch=slice_.epoch,
                        reason="the worker died",
                        at_us=self._tick(10**6),
                    )
                )
            elif continuation is not None and continuations_max > 0 and len(slice_.tasks) == 1:
                continuations_max -= 1
                self._feed(self._continue(slice_, continuation(self._rng)))
            else:
                self._feed(self._report(slice_, failure))
            self._want(tasks_per_slice)
            if reports % reports_per_flush == 0:
                self.flush()
        self.flush()

    def receive(self, key: str) -> None:
        """Delivers an event from outside."""
        content = self._result(self._rng, 0)
        who = "POST /event"
        arrived = EventArrived(key=key, payload=content, who=who, at_us=self._tick(10**6))
        self._feed(arrived)
        self.flush()

    def flush(self) -> None:
        """Makes the events so far durable, in one frame."""
        events, self._queued = self._queued, []
        if events:
            self.writer.flush([encode(event) for event in events])

    def close(self) -> None:
        """Lets go of the segment."""
        self.writer.close()

    def _want(self, tasks_per_slice: int) -> None:
        costs = dict.fromkeys(range(len(self.state.graph.functions)), float(self._task_us))
        waits: set[type[Event]] = {WaitsBegan, WaitsEnded}
        happened: set[type[Event]] = waits
        while happened & waits:
            wanted = WorkWanted(
                slices_max=len(self._workers),
                slice_us=self._task_us * tasks_per_slice,
                costs_us=costs,
                at_us=self._tick(200),
            )
            happened = {type(event) for event in self._feed(wanted).append}

    def _feed(self, happened: Input) -> Decision:
        decision = decide(self.state, happened)
        self._append(decision.append)
        self._running.extend(each for each in decision.effects if isinstance(each, RunSlice))
        return decision

    def _append(self, events: tuple[Event, ...]) -> None:
        for event in events:
            apply(self.state, event)
        self._queued.extend(events)

    def _tick(self, mean_us: int) -> int:
        self.at_us += round(self._rng.expovariate(1 / mean_us))
        return self.at_us

    def _report(self, slice_: RunSlice, failure: float) -> SliceReported:
        tasks, attempts, payloads, started, durations = [], [], [], [], []
        raised = []
        self._tick(1500)
        for task, attempt in zip(slice_.tasks, slice_.attempts, strict=True):
            begin = self._tick(15)
            spent = self._tick(self._task_us) - begin
            if self._rng.random() < failure:
                raised.append(self._raise(task, attempt))
                continue
            tasks.append(task)
            attempts.append(attempt)
            payloads.append(self._result(self._rng, task))
            started.append(begin)
            durations.append(spent)
        return SliceReported(
            slice=slice_.slice,
            epoch=slice_.epoch,
            tasks=tuple(tasks),
            attempts=tuple(attempts),
            payloads=tuple(payloads),
            started_us=tuple(started),
            durations_us=tuple(durations),
            raised=tuple(raised),
            continued=(),
            handed_back=(),
            node=self._rng.choice(self._workers),
            at_us=self._tick(400),
        )

    def _raise(self, task: int, attempt: int) -> Raised:
        name = self.state.graph.functions[self.state.graph.node_functions[task]].name
        kind, message = self._rng.choice(
            [
                ("builtins.ValueError", "invalid literal for int() with base 10: 'x'"),
                ("builtins.KeyError", "'name'"),
                ("builtins.TimeoutError", "timed out"),
                ("builtins.ConnectionError", "connection reset by peer"),
                ("builtins.RuntimeError", "CUDA out of memory"),
            ]
        )
        short = name.rpartition(".")[2]
        traceback = (
            f'Traceback (most recent call last):\n  File "/app/pipeline.py", line '
            f"{self._rng.randrange(10, 400)}, in {short}\n    raise "
            f"{kind[9:]}({message!r})\n{kind[9:]}: {message}\n"
        )
        pickled = (
            f"\x80\x05\x95\x38\x8c\x08builtins\x94\x8c\n{kind[9:]}\x94\x93\x94\x8c{message}\x94"
        )
        error = TaskError(
            kind="exception",
            type=kind,
            message=message,
            traceback=traceback,
            exception=inline(1, pickled.encode("latin-1") + b"\x85\x94R\x94."),
        )
        return Raised(task=task, attempt=attempt, error=error, retryable=True)

    def _continue(self, slice_: RunSlice, fragment: Fragment) -> SliceReported:
        continued = Continued(
            task=slice_.tasks[0],
            attempt=slice_.attempts[0],
            fragment=fragment,
            started_us=self._tick(1500),
            duration_us=round(self._rng.expovariate(1 / self._task_us)),
        )
        return SliceReported(
            slice=slice_.slice,
            epoch=slice_.epoch,
            tasks=(),
            attempts=(),
            payloads=(),
            started_us=(),
            durations_us=(),
            raised=(),
            continued=(continued,),
            handed_back=(),
            node=self._rng.choice(self._workers),
            at_us=self._tick(400),
        )
