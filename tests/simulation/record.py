"""What happened as seen from outside, held against the promises.

Nothing here trusts the engine: flushes are noted where the journal's writer returns from them,
tasks where a worker starts them, answers where a caller gets them. What has been acknowledged is
folded beside the hosts, and the journal is read again and again as a stranger would, past all
faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgpack

from milepost.engine.host import WorkflowHost
from milepost.engine.outputs import SealedOutput
from milepost.errors import WorkflowNotFoundError
from milepost.journal import JournalWriter, read_journal, verify
from milepost.replay.codec import decode, decode_all
from milepost.replay.events import (
    GraphExtended,
    ItemsCommitted,
    OwnershipTaken,
    TasksCommitted,
)
from milepost.replay.expanding import expand
from milepost.replay.fold import apply
from milepost.replay.invariants import check
from milepost.replay.payload import Payload
from milepost.replay.state import State, Status
from programs import read_value

if TYPE_CHECKING:
    from programs import Program
    from world import World

CLAIMS = "/claims/"
"""There is one for each takeover, and they stay as long as the workflow."""

OBJECTS_MAX = 60
"""So many other objects may be left of a workflow that has ended. Its last owner may have died
before it could compact the journal, and then nobody does."""


class BrokenPromise(AssertionError):
    """Something happened that never may."""


@dataclass
class Life:
    """One workflow from its creation to its deletion.

    Attributes:
        state: What the acknowledged events come to, and what lies between them.
        acknowledged: The events that a flush has returned for, by seq.
        epochs: The epoch of each flush that has returned, by its first seq.
        committed: Tasks whose commit was acknowledged, with the epoch it happened in.
        committed_items: The same for items of maps.
    """

    state: State = field(default_factory=State)
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    committed_items: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass
class Told:
    """What callers were told of one submission.

    Attributes:
        outputs: The bytes or the digest of each output, by task id; None for the workflow.
        canceled: Whether anybody asked to cancel it.
        deleted: Whether anybody asked to delete it.
        after: The newest incarnation of this id before it was submitted.
    """

    outputs: dict[str | None, bytes] = field(default_factory=dict)
    canceled: bool = False
    deleted: bool = False
    after: int = 0


class Record:
    """Notes and judges."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lives: dict[tuple[str, int], Life] = {}
        self.counts: Counter[str] = Counter()
        self.objects_most = 0
        self.defects: list[str] = []
        self._programs: dict[tuple[str, str], Program] = {}
        self._told: dict[str, Told] = {}

    def submitted(self, workflow_id: str, nonce: str, program: Program) -> Told:
        """Notes which program a submission holds; returns what will have been told of it."""
        self._programs[workflow_id, nonce] = program
        after = max((number for name, number in self.lives if name == workflow_id), default=0)
        self._told[workflow_id] = Told(after=after)
        return self._told[workflow_id]

    def program_of(self, host: WorkflowHost) -> Program:
        """Returns the program that a host runs."""
        assert host.state.environment is not None
        environment = msgpack.unpackb(host.state.environment.data)
        return self._programs[host.state.workflow_id, environment["submission"]]

    def flushed(self, writer: JournalWriter, first_seq: int, events: Sequence[bytes]) -> None:
        """Notes a flush that has returned."""
        self.counts["flushes"] += 1
        name, epoch = writer.workflow_id, writer.epoch
        self._world.note("acknowledged", name, epoch, first_seq, len(events), writer.chain.hex())
        life = self.lives.setdefault((name, writer.incarnation), Life())
        for seq, event in enumerate(events, first_seq):
            self._require(seq not in life.acknowledged, f"event {seq} is acknowledged twice")
            life.acknowledged[seq] = event
            happened = decode(event)
            if isinstance(happened, TasksCommitted):
                life.committed.update(dict.fromkeys(happened.tasks, epoch))
            elif isinstance(happened, ItemsCommitted):
                items = _list_items(happened)
                life.committed_items.update(((happened.task, each), epoch) for each in items)
        life.epochs[first_seq] = epoch
        in_order = [life.epochs[seq] for seq in sorted(life.epochs)]
        self._require(in_order == sorted(in_order), f"epochs of {name} do not rise: {in_order}")
        self._follow(life, writer, first_seq, events)

    def _follow(
        self, life: Life, writer: JournalWriter, first_seq: int, events: Sequence[bytes]
    ) -> None:
        """Folds what was acknowledged; what an owner adopted from the last is in the journal."""
        if life.state.next_seq == first_seq:
            life.state.incarnation = writer.incarnation
            for event in events:
                apply(life.state, decode(event))
            check(life.state)
        elif life.state.next_seq < first_seq:
            state = self.check_journal(writer.workflow_id)
            if state is not None and state.incarnation == writer.incarnation:
                life.state = state

    def became_durable(self, host: WorkflowHost, durable_seq: int) -> None:
        """Notes that a host is done with a flush: its state is what the journal says."""
        state = host.state
        life = self.lives.get((state.workflow_id, state.incarnation))
        if life is None or not state.next_seq == durable_seq == life.state.next_seq:
            return
        self.counts["states compared"] += 1
        same = state.digest() == life.state.digest()
        self._require(same, f"{state.workflow_id}: its owner's state is not that of its journal")

    def task_started(self, host: WorkflowHost, task: int, attempt: int) -> None:
        """Notes that a worker starts a task: none that its owner knows to have committed."""
        self.counts["attempts"] += 1
        state = host.state
        task_id = state.graph.task_id(task)
        self._world.note(state.workflow_id, "runs", task_id, attempt, "epoch", state.epoch)
        life = self.lives.get((state.workflow_id, state.incarnation))
        if self.program_of(host).node(task_id).kind == "noticing":
            durable = life is not None and life.state.graph.find(task_id) is not None
            self._require(durable, f"{task_id}: told of an event that is not durable")
        committed = None if life is None else life.committed.get(task)
        if committed is not None:
            self._require(
                committed > state.epoch, f"{task_id} runs again, committed in epoch {committed}"
            )

    def item_started(self, host: WorkflowHost, task: int, item: int, attempt: int) -> None:
        """Notes that a worker starts an item: none that its owner knows to have committed."""
        self.counts["items"] += 1
        state = host.state
        name = f"{state.graph.task_id(task)}[{item}]"
        self._world.note(state.workflow_id, "runs", name, attempt, "epoch", state.epoch)
        life = self.lives.get((state.workflow_id, state.incarnation))
        committed = None if life is None else life.committed_items.get((task, item))
        if committed is not None:
            again = f"{name} runs again, committed in epoch {committed}"
            self._require(committed > state.epoch, again)

    def told(self, workflow_id: str, what: str, answer: object) -> None:
        """Notes an answer that a caller got."""
        self.counts[f"told {what}"] += 1
        self._world.note("told", workflow_id, what, answer)

    def told_output(
        self, workflow_id: str, program: Program, task_id: str | None, output: SealedOutput
    ) -> None:
        """Notes an output that a caller got: the right one, and the same for everybody."""
        parts: Any = output._parts
        _, _, incarnation, payload = parts
        value = read_value(self._world.disk, workflow_id, incarnation, payload)
        expected = program.value(task_id)
        name = f"{workflow_id} {task_id or ''}"
        self._require(value == expected, f"{name}: told {value}, not {expected}")
        outputs = self._told[workflow_id].outputs
        first = outputs.setdefault(task_id, _identify(payload))
        self._require(first == _identify(payload), f"{name}: told outputs of different attempts")

    def check_now(self) -> None:
        """Reads every journal as a stranger would, in the middle of everything."""
        for workflow_id, told in self._told.items():
            state = self.check_journal(workflow_id)
            known = any(name == workflow_id and told.after < each for name, each in self.lives)
            if state is None and known and not told.deleted:
                raise BrokenPromise(f"{workflow_id} is gone, and nobody deleted it")

    def check_journal(self, workflow_id: str) -> State | None:
        """Reads a journal as a stranger would and holds it against everything noted."""
        state = State()
        events: list[bytes] = []
        values: dict[int, bytes] = {}
        items: set[tuple[int, int]] = set()
        try:
            for frame in read_journal(self._world.disk, workflow_id):
                state.incarnation = state.incarnation or frame.epoch
                for event in decode_all(frame.raw):
                    self._check_event(state, values, event)
                    self._check_items(items, event)
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

    def _check_items(self, items: set[tuple[int, int]], event: object) -> None:
        if isinstance(event, ItemsCommitted):
            for item in _list_items(event):
                self._require((event.task, item) not in items, f"item {item} commits twice")
                items.add((event.task, item))

    def check_end(self, workflow_id: str, program: Program | None) -> None:
        """Holds a workflow at the end of the play against what it must be."""
        state = self.check_journal(workflow_id)
        if program is None:
            self._require(state is None, f"{workflow_id} was deleted and is there")
            return
        if state is None:
            raise BrokenPromise(f"{workflow_id} is gone")
        told = self._told[workflow_id]
        canceled = state.status is Status.CANCELED and told.canceled
        ended = state.status is Status.SUCCESSFUL or canceled
        self._require(ended, f"{workflow_id} is {state.status}")
        for task_id, output in told.outputs.items():
            task = None if task_id is None else state.graph.find(task_id)
            payload = state.result if task is None else state.results[task]
            stays = payload is not None and _identify(expand(state, payload)) == output
            self._require(stays, f"{workflow_id} {task_id}: told another output than that of now")
        if state.status is Status.SUCCESSFUL:
            assert state.result is not None
            result = expand(state, state.result)
            value = read_value(self._world.disk, workflow_id, state.incarnation, result)
            expected = program.value()
            self._require(value == expected, f"{workflow_id} is {value}, not {expected}")
        self._check_objects(workflow_id)

    def _check_objects(self, workflow_id: str) -> None:
        """All that is stored of an ended workflow is whole and accounted for, and not much."""
        found = verify(self._world.disk, workflow_id, deep=True)
        self._require(found.is_clean, f"{workflow_id} has faults: {found.faults}")
        folders = (f"{name}/{workflow_id}/" for name in ("workflows", "blobs"))
        listed = [each.key for folder in folders for each in self._world.disk.list(folder)]
        count = sum(CLAIMS not in key for key in listed)
        self.objects_most = max(self.objects_most, count)
        self._require(count <= OBJECTS_MAX, f"{workflow_id}: {count} objects are left")

    def _require(self, condition: bool, promise: str) -> None:
        if not condition:
            raise BrokenPromise(f"seed {self._world.seed}: {promise}")


def _list_items(event: ItemsCommitted) -> list[int]:
    runs = zip(event.starts, event.stops, strict=True)
    return [item for start, stop in runs for item in range(start, stop)]


def _identify(payload: Payload) -> bytes:
    return payload.digest or payload.data


def _split(raw: bytes) -> list[bytes]:
    """Returns the bytes of each event of a frame."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw) or 1)
    unpacker.feed(raw)
    starts = [0]
    while starts[-1] < len(raw):
        unpacker.skip()
        starts.append(unpacker.tell())
    return [raw[start:end] for start, end in pairwise(starts)]
