"""What happened as seen from outside, held against the promises.

Nothing here trusts the engine: flushes are noted where the journal's writer returns from them,
tasks where a worker starts them, answers where a caller gets them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import msgpack

from milepost.engine.host import WorkflowHost
from milepost.errors import WorkflowNotFoundError
from milepost.journal import JournalWriter, read_journal
from milepost.replay.codec import decode, decode_all
from milepost.replay.events import GraphExtended, OwnershipTaken, TasksCommitted
from milepost.replay.fold import apply
from milepost.replay.invariants import check
from milepost.replay.state import State, Status

if TYPE_CHECKING:
    from programs import Program
    from world import World


class BrokenPromise(AssertionError):
    """Something happened that never may."""


@dataclass
class Life:
    """One workflow from its creation to its deletion.

    Attributes:
        acknowledged: The events that a flush has returned for, by seq.
        committed: Tasks whose commit was acknowledged, with the epoch it happened in.
    """

    acknowledged: dict[int, bytes] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)


class Record:
    """Notes and judges."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lives: dict[tuple[str, int], Life] = {}
        self.counts: Counter[str] = Counter()
        self.defects: list[str] = []
        self._programs: dict[tuple[str, str], Program] = {}
        self._results: dict[tuple[str, int], int] = {}

    def submitted(self, workflow_id: str, nonce: str, program: Program) -> None:
        """Notes which program a submission holds."""
        self._programs[workflow_id, nonce] = program

    def program_of(self, host: WorkflowHost) -> Program:
        """Returns the program that a host runs."""
        assert host.state.environment is not None
        environment = msgpack.unpackb(host.state.environment.data)
        return self._programs[host.state.workflow_id, environment["submission"]]

    def flushed(self, writer: JournalWriter, first_seq: int, events: Sequence[bytes]) -> None:
        """Notes a flush that has returned."""
        self.counts["flushes"] += 1
        life = self.lives.setdefault((writer.workflow_id, writer.incarnation), Life())
        for seq, event in enumerate(events, first_seq):
            self._require(seq not in life.acknowledged, f"event {seq} is acknowledged twice")
            life.acknowledged[seq] = event
            happened = decode(event)
            if isinstance(happened, TasksCommitted):
                life.committed.update(dict.fromkeys(happened.tasks, writer.epoch))

    def task_started(self, host: WorkflowHost, task: int, attempt: int) -> None:
        """Notes that a worker starts a task: none that its owner knows to have committed."""
        self.counts["attempts"] += 1
        state = host.state
        task_id = state.graph.task_id(task)
        self._world.note(state.workflow_id, "runs", task_id, attempt, "epoch", state.epoch)
        life = self.lives.get((state.workflow_id, state.incarnation))
        committed = None if life is None else life.committed.get(task)
        if committed is not None:
            self._require(
                committed > state.epoch, f"{task_id} runs again, committed in epoch {committed}"
            )

    def told(self, workflow_id: str, what: str, answer: object) -> None:
        """Notes an answer that a caller got."""
        self.counts[f"told {what}"] += 1
        self._world.note("told", workflow_id, what, answer)

    def told_result(self, workflow_id: str, program: Program, data: bytes) -> None:
        """Notes a result that a caller got: the right one, and the same for everybody."""
        value, attempt = msgpack.unpackb(data)
        expected = program.value()
        self._require(value == expected, f"{workflow_id}: told {value}, not {expected}")
        first = self._results.setdefault((workflow_id, id(program)), attempt)
        self._require(first == attempt, f"{workflow_id}: told two results of different attempts")

    def check_journal(self, workflow_id: str) -> State | None:
        """Reads a journal as a stranger would and holds it against everything noted."""
        state = State()
        events: list[bytes] = []
        values: dict[int, bytes] = {}
        try:
            for frame in read_journal(self._world.disk, workflow_id):
                state.incarnation = state.incarnation or frame.epoch
                for event in decode_all(frame.raw):
                    self._check_event(state, values, event)
                    apply(state, event)
                    check(state)
                events.extend(_split(frame.raw))
        except WorkflowNotFoundError:
            return None
        life = self.lives.get((workflow_id, state.incarnation), Life())
        for seq, acknowledged in life.acknowledged.items():
            kept = seq < len(events) and events[seq] == acknowledged
            self._require(kept, f"event {seq} of {workflow_id} was acknowledged and is lost")
        return state

    def _check_event(self, state: State, values: dict[int, bytes], event: object) -> None:
        if isinstance(event, TasksCommitted):
            for task, payload in zip(event.tasks, event.payloads, strict=True):
                self._require(task not in values, f"task {task} commits twice")
                values[task] = payload.data
                waits = [each for each in state.graph.inputs(task) if state.results[each] is None]
                self._require(not waits or set(waits) <= set(event.tasks), f"{task} has no inputs")
        elif isinstance(event, GraphExtended):
            self._require(event.task not in values, f"task {event.task} continues after its commit")
        elif isinstance(event, OwnershipTaken):
            self._require(event.epoch > state.epoch, "epochs do not rise")

    def check_end(self, workflow_id: str, program: Program | None) -> None:
        """Holds a workflow at the end of the play against what it must be."""
        state = self.check_journal(workflow_id)
        if program is None:
            self._require(state is None, f"{workflow_id} was deleted and is there")
            return
        if state is None:
            raise BrokenPromise(f"{workflow_id} is gone")
        self._require(state.status is Status.SUCCESSFUL, f"{workflow_id} is {state.status}")
        assert state.result is not None
        value, attempt = msgpack.unpackb(state.result.data)
        self._require(value == program.value(), f"{workflow_id} is {value}, not {program.value()}")
        told = self._results.get((workflow_id, id(program)), attempt)
        self._require(told == attempt, f"{workflow_id}: told another result than that which stays")

    def _require(self, condition: bool, promise: str) -> None:
        if not condition:
            raise BrokenPromise(f"seed {self._world.seed}: {promise}")


def _split(raw: bytes) -> list[bytes]:
    """Returns the bytes of each event of a frame."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw) or 1)
    unpacker.feed(raw)
    starts = [0]
    while starts[-1] < len(raw):
        unpacker.skip()
        starts.append(unpacker.tell())
    return [raw[start:end] for start, end in pairwise(starts)]
