"""Builders and the harness of the tests of the pure core: given events, when input, then events."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack
import pytest

import map_building as maps
from milepost.replay.codec import decode, decode_all, encode
from milepost.replay.decide import Decision, decide
from milepost.replay.events import (
    AttemptFailed,
    AttemptsLost,
    Event,
    EventReceived,
    GraphExtended,
    Noted,
    OwnershipTaken,
    RetriesDue,
    StatusChanged,
    TaskError,
    TasksCommitted,
    TasksHandedBack,
    TasksScheduled,
    Wait,
    WaitsBegan,
    WaitsEnded,
    WorkflowCreated,
)
from milepost.replay.fold import apply
from milepost.replay.fragment import (
    Backoff,
    ChunkItems,
    Constant,
    Fragment,
    Function,
    MapSpec,
    RangeItems,
    ResultItems,
    TaskOptions,
)
from milepost.replay.inputs import (
    CancelAsked,
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
from milepost.replay.invariants import check
from milepost.replay.payload import Payload, inline
from milepost.replay.state import State

AT_US = 1_700_000_000_000_000
INPUT = msgpack.ExtType(1, b"\x00")


class Build:
    """Short ways to make events and inputs; what a test does not name has a fixed default."""

    input_value = INPUT
    """Among the arguments of a task that waits: the value of its first input."""

    def committed_as(self, number: int, task: int, value: object) -> TasksCommitted:
        return replace(self.committed(number, task), payloads=(self.payload(value),))

    def payload(self, value: object = None) -> Payload:
        return inline(0, msgpack.packb(value))

    def function(self, name: str = "f", *, code: bool = True) -> Function:
        content = inline(1, b"code of " + name.encode()) if code else None
        return Function(name=f"app.{name}", digest=name.encode().ljust(32, b"."), code=content)

    def options(
        self, number: int = 0, max_retries: int = 3, *, catch: bool = False, waits_for: str = ""
    ) -> TaskOptions:
        return TaskOptions(
            max_retries=max_retries,
            catch_exceptions=catch,
            waits_for=waits_for,
            retry_errors=self.payload(True),
            ray=self.payload({"num_cpus": number}),
        )

    def fragment(
        self,
        *inputs: Sequence[int],
        names: Sequence[str] = (),
        classes: Sequence[int] = (),
        functions: Sequence[str] = (),
        max_retries: int = 3,
        constants: tuple[Constant, ...] = (),
        catching: Sequence[int] = (),
        waits: Mapping[int, tuple[str, Sequence[Any]]] | None = None,
    ) -> Fragment:
        """Returns a node per entry of ``inputs``; the other columns default to one same thing.

        Nodes of the classes ``catching`` catch exceptions; ``waits`` says what the nodes of a class
        wait for, and with which arguments. ``INPUT`` stands for the value of the first input.
        """
        waits = waits or {}
        names = names or ["f"] * len(inputs)
        functions = functions or ["f"] * len(inputs)
        classes = classes or [0] * len(inputs)
        called = [
            msgpack.packb([list(waits[number][1]), {}])
            if number in waits
            else b"template of %d" % len(sources)
            for number, sources in zip(classes, inputs, strict=True)
        ]
        templates = sorted(set(called))
        distinct = [list(dict.fromkeys(column)) for column in (names, functions)]
        numbers = list(dict.fromkeys(classes))
        return Fragment(
            names=tuple(distinct[0]),
            functions=tuple(self.function(name) for name in distinct[1]),
            options=tuple(
                self.options(
                    number,
                    max_retries,
                    catch=number in catching,
                    waits_for=waits[number][0] if number in waits else "",
                )
                for number in numbers
            ),
            templates=tuple(templates),
            constants=constants,
            node_names=tuple(distinct[0].index(name) for name in names),
            node_functions=tuple(distinct[1].index(name) for name in functions),
            node_options=tuple(numbers.index(number) for number in classes),
            node_templates=tuple(map(templates.index, called)),
            input_counts=tuple(len(sources) for sources in inputs),
            inputs=tuple(source for sources in inputs for source in sources),
        )

    def patient(
        self,
        fragment: Fragment,
        delay_us: int = 1_000_000,
        *,
        jitter: float = 0.0,
        delay_us_max: int = 60_000_000,
        timeout_us: int = 0,
    ) -> Fragment:
        """Returns a fragment whose tasks wait before they are tried again, twice as long each."""
        backoff = Backoff(delay_us=delay_us, factor=2.0, jitter=jitter, delay_us_max=delay_us_max)
        options = (replace(each, backoff=backoff) for each in fragment.options)
        return replace(
            fragment, options=tuple(replace(each, timeout_us=timeout_us) for each in options)
        )

    def due(self, after_us: int) -> RetriesDue:
        return RetriesDue(at_us=AT_US + after_us)

    def catcher(self) -> Fragment:
        """Returns a task that catches exceptions, without retries."""
        return self.fragment((), catching=[0], max_retries=0)

    def single(self, max_retries: int = 3) -> Fragment:
        return self.fragment((), max_retries=max_retries)

    def fan(self, width: int, max_retries: int = 3) -> Fragment:
        """Returns ``width`` independent tasks and one that takes them all."""
        return self.fragment(*[()] * width, range(width), max_retries=max_retries)

    def chain(self, length: int) -> Fragment:
        return self.fragment((), *[(node,) for node in range(length - 1)])

    def created(self, fragment: Fragment, durability: str = "pipelined") -> WorkflowCreated:
        return WorkflowCreated(
            workflow_id="w",
            at_us=AT_US,
            fragment=fragment,
            metadata=self.payload({"user": "ann"}),
            environment=self.payload({}),
            durability=durability,
            versions="milepost 1",
        )

    def taken(self, epoch: int = 1) -> OwnershipTaken:
        return OwnershipTaken(epoch=epoch, owner=f"owner {epoch}", reason="start", at_us=AT_US)

    def status(self, status: str) -> StatusChanged:
        return StatusChanged(status=status, reason="because", who="ann", at_us=AT_US)

    def started(self, fragment: Fragment, durability: str = "pipelined") -> list[Event]:
        """Returns the first three events of every journal."""
        return [self.created(fragment, durability), self.taken(), self.status("RUNNING")]

    def scheduled(self, number: int, *tasks: int, attempt: int = 1) -> TasksScheduled:
        attempts = (attempt,) * len(tasks)
        return TasksScheduled(slice=number, tasks=tasks, attempts=attempts, at_us=AT_US)

    def committed(
        self, number: int, *tasks: int, attempt: int = 1, node: str | int = "n1"
    ) -> TasksCommitted:
        return TasksCommitted(
            slice=number,
            tasks=tasks,
            attempts=(attempt,) * len(tasks),
            payloads=tuple(self.payload([task, attempt]) for task in tasks),
            started_us=(AT_US,) * len(tasks),
            durations_us=(7,) * len(tasks),
            node=node,
        )

    def error(self, kind: str = "exception") -> TaskError:
        return TaskError(
            kind=kind, type="ValueError", message="no", traceback="at line 1", exception=None
        )

    def failed(
        self,
        number: int,
        task: int,
        *,
        attempt: int = 1,
        final: bool = False,
        node: str | int = "n1",
    ) -> AttemptFailed:
        return AttemptFailed(
            slice=number,
            task=task,
            attempt=attempt,
            error=self.error(),
            final=final,
            at_us=AT_US,
            node=node,
        )

    def lost(self, number: int, *tasks: int, attempt: int = 1) -> AttemptsLost:
        attempts = (attempt,) * len(tasks)
        return AttemptsLost(
            slice=number, tasks=tasks, attempts=attempts, reason="killed", at_us=AT_US
        )

    def handed_back(self, number: int, *tasks: int, attempt: int = 1) -> TasksHandedBack:
        attempts = (attempt,) * len(tasks)
        return TasksHandedBack(slice=number, tasks=tasks, attempts=attempts, at_us=AT_US)

    def extended(
        self, number: int, task: int, fragment: Fragment, *, attempt: int = 1
    ) -> GraphExtended:
        return GraphExtended(
            slice=number,
            task=task,
            attempt=attempt,
            fragment=fragment,
            started_us=AT_US,
            duration_us=7,
            node="n1",
        )

    def began(self, *waits: tuple[int, Wait], after_us: int = 0) -> WaitsBegan:
        tasks, said = zip(*waits, strict=True)
        return WaitsBegan(tasks=tasks, waits=said, at_us=AT_US + after_us)

    def ended(self, *tasks: int, after_us: int = 0) -> WaitsEnded:
        return WaitsEnded(tasks=tasks, at_us=AT_US + after_us)

    def received(self, key: str, payload: Payload | None = None) -> EventReceived:
        return EventReceived(key=key, payload=payload or self.payload(key), who="bob", at_us=AT_US)

    def arrived(self, key: str, value: object = None) -> EventArrived:
        return EventArrived(key=key, payload=self.payload(value), who="bob", at_us=AT_US)

    def noted(self) -> Noted:
        return Noted(text="hello", who="ann", at_us=AT_US)

    def gained(self, epoch: int = 1) -> OwnershipGained:
        return OwnershipGained(epoch=epoch, owner=f"owner {epoch}", reason="start", at_us=AT_US)

    def resume(self) -> ResumeAsked:
        return ResumeAsked(who="ann", at_us=AT_US)

    def cancel(self) -> CancelAsked:
        return CancelAsked(who="ann", at_us=AT_US)

    def wanted(
        self,
        slices_max: int = 4,
        *,
        slice_us: int = 1000,
        costs_us: dict[int, float] | None = None,
        riders_max: int = 0,
        after_us: int = 0,
    ) -> WorkWanted:
        """Wants work; without ``costs_us`` the cost of every function is unknown."""
        return WorkWanted(
            slices_max=slices_max,
            slice_us=slice_us,
            costs_us=costs_us or {},
            at_us=AT_US + after_us,
            riders_max=riders_max,
        )

    def report(
        self,
        number: int,
        *tasks: int,
        attempt: int = 1,
        raised: Sequence[Raised] = (),
        continued: Sequence[Continued] = (),
        handed_back: Sequence[int] = (),
        epoch: int = 1,
    ) -> SliceReported:
        """Reports that ``tasks`` returned, besides what raised and what continued."""
        return SliceReported(
            slice=number,
            epoch=epoch,
            tasks=tasks,
            attempts=(attempt,) * len(tasks),
            payloads=tuple(self.payload([task, attempt]) for task in tasks),
            started_us=(AT_US,) * len(tasks),
            durations_us=(7,) * len(tasks),
            raised=tuple(raised),
            continued=tuple(continued),
            handed_back=tuple((task, attempt) for task in handed_back),
            node="n1",
            at_us=AT_US,
        )

    def raised(self, task: int, *, attempt: int = 1, retryable: bool = True) -> Raised:
        return Raised(task=task, attempt=attempt, error=self.error(), retryable=retryable)

    def continued(self, task: int, fragment: Fragment, *, attempt: int = 1) -> Continued:
        return Continued(
            task=task, attempt=attempt, fragment=fragment, started_us=AT_US, duration_us=7
        )

    def loss(self, number: int, *, epoch: int = 1) -> SliceLost:
        return SliceLost(slice=number, epoch=epoch, reason="killed", at_us=AT_US)


class Story:
    """One workflow: its journal so far and the live state, checked after every event."""

    def __init__(self) -> None:
        self.state = State()
        self.journal: list[Event] = []
        self.digests: list[str] = []

    def given(self, *events: Event) -> None:
        for event in events:
            apply(self.state, event)
            check(self.state)
            self.journal.append(event)
            self.digests.append(self.state.digest())

    def when(self, happened: Input) -> Decision:
        """Decides, which must change nothing, then applies what is to be appended."""
        before = pickle.dumps(self.state)
        decision = decide(self.state, happened)
        assert pickle.dumps(self.state) == before, "decide changed the state"
        self.given(*decision.append)
        return decision

    def check_replay(self) -> None:
        """Checks that the stored bytes of every prefix give the state that was live then."""
        stored = [encode(event) for event in self.journal]
        assert [decode(data) for data in stored] == self.journal
        replayed = State()
        for event, digest in zip(decode_all(b"".join(stored)), self.digests, strict=True):
            apply(replayed, event)
            assert replayed.digest() == digest
        check(replayed)


@pytest.fixture(scope="session")
def build() -> Build:
    return Build()


@pytest.fixture(scope="session")
def new_story() -> Callable[[], Story]:
    return Story


@pytest.fixture
def story() -> Iterator[Story]:
    told = Story()
    yield told
    told.check_replay()


@pytest.fixture(scope="session")
def riders_journal(build: Build) -> list[Event]:
    """Returns a small journal in which tasks ride along and are handed back."""
    graph = build.fragment((), (0,), (1,), (2,), names="abcd")
    return [
        *build.started(graph),
        build.scheduled(0, 0, 1, 2, 3),
        build.handed_back(0, 2, 3),
        build.committed(0, 0, 1),
        build.scheduled(1, 2, 3),
        build.failed(1, 2),
        build.scheduled(2, 2, attempt=2),
        build.extended(2, 2, build.fragment((), (0,), names="xy"), attempt=2),
        build.scheduled(3, 4, 5),
        build.committed(3, 4, 5),
        build.scheduled(4, 3),
        build.committed(4, 3),
        build.status("SUCCESSFUL"),
    ]


@pytest.fixture(scope="session")
def waits_journal(build: Build) -> list[Event]:
    """Returns a journal in which tasks wait for all that there is, under two owners."""
    blob = Payload(encoding=2, digest=bytes(range(32)), size=1 << 20)
    graph = build.fragment(
        (),
        (0,),
        (),
        (),
        (1, 2, 3),
        (4,),
        names=("f", "sleep", "event", "slow", "wait", "g"),
        classes=(0, 1, 2, 0, 3, 0),
        waits={1: ("time", [INPUT]), 2: ("event", ["go"]), 3: ("tasks", [2, 60.0])},
    )
    minute = 60_000_000
    rest = build.fragment((), (), (0, 1), classes=(4, 4, 0), waits={4: ("task", ["slow"])})
    return [
        *build.started(graph),
        build.began((2, Wait(key="go")), (4, Wait(count=2, due_us=AT_US + minute))),
        build.scheduled(0, 0),
        replace(build.committed(0, 0), payloads=(build.payload(1.5),)),
        build.began((1, Wait(due_us=AT_US + 1_500_000))),
        build.scheduled(1, 3),
        build.received("late", blob),
        build.taken(2),
        build.status("RUNNING"),
        build.received("go"),
        build.ended(2),
        build.ended(1, after_us=1_600_000),
        build.ended(4, after_us=1_600_000),
        build.scheduled(2, 5),
        build.extended(2, 5, rest),
        build.began((6, Wait(task=3)), (7, Wait(task=3)), after_us=1_700_000),
        build.scheduled(3, 3, attempt=2),
        build.committed(3, 3, attempt=2),
        build.ended(6, 7, after_us=1_800_000),
        build.scheduled(4, 8),
        build.committed(4, 8),
        build.status("SUCCESSFUL"),
    ]


@pytest.fixture(scope="session")
def retries_journal(build: Build) -> list[Event]:
    """Returns a journal in which tasks and items are put off, under two owners."""
    graph = replace(
        build.patient(build.fragment((), (), (0, 1)), jitter=0.5, timeout_us=9_000_000),
        maps=(MapSpec(node=1, length=3, chunk_size=0, items=RangeItems(first=0, step=1)),),
    )
    second = 1_000_000
    late = TaskError(kind="timeout", type="T", message="it", traceback="", exception=None)
    gone = replace(late, kind="node")
    return [
        *build.started(graph),
        build.scheduled(0, 0),
        maps.scheduled(1, 1, (0, 1, 1)),
        maps.scheduled(2, 1, (1, 2, 1)),
        replace(build.failed(0, 0), error=late, node="", retry_us=AT_US + second),
        replace(maps.failed(1, 1, 0), retry_us=AT_US + 2 * second),
        replace(maps.failed(2, 1, 1), error=gone, node="", retry_us=AT_US + 3 * second),
        maps.scheduled(3, 1, (2, 3, 1)),
        build.due(second),
        build.scheduled(4, 0, attempt=2),
        replace(build.failed(4, 0, attempt=2), retry_us=AT_US + 4 * second),
        replace(build.taken(2), at_us=AT_US - second),
        build.status("RUNNING"),
        build.due(2 * second),
        build.due(4 * second),
        build.scheduled(5, 0, attempt=3),
        build.committed(5, 0, attempt=3),
        maps.scheduled(6, 1, (0, 1, 2)),
        maps.committed(6, 1, (0, 1)),
        maps.scheduled(7, 1, (1, 2, 2)),
        maps.committed(7, 1, (1, 2)),
        maps.scheduled(8, 1, (2, 3, 2)),
        maps.committed(8, 1, (2, 3)),
        build.scheduled(9, 2),
        build.committed(9, 2),
        build.status("SUCCESSFUL"),
    ]


@pytest.fixture(scope="session")
def map_journal(build: Build) -> list[Event]:
    """Returns a small journal of maps: of numbers, of chunks, of the values of the first."""
    chunks = ChunkItems(counts=(2, 3), payloads=(build.payload([1, 2]), build.payload([3, 4, 5])))
    graph = build.fragment((), (), (0, 1), classes=(0, 1, 0), catching=[1])
    first = replace(
        graph,
        maps=(
            MapSpec(node=0, length=6, chunk_size=0, items=RangeItems(first=5, step=-2)),
            MapSpec(node=1, length=5, chunk_size=2, items=chunks),
        ),
    )
    second = replace(
        build.single(),
        maps=(MapSpec(node=0, length=6, chunk_size=0, items=ResultItems(task=0)),),
    )
    return [
        *build.started(first),
        maps.scheduled(0, 0, (0, 6, 1)),
        maps.scheduled(1, 1, (0, 3, 1)),
        maps.committed(0, 0, (0, 2), (3, 4)),
        maps.failed(0, 0, 2),
        maps.handed_back(0, 0, (4, 6)),
        maps.scheduled(2, 0, (2, 3, 2), (4, 6, 1)),
        maps.lost(2, 0),
        maps.failed(1, 1, 1, final=True),
        maps.committed(1, 1, (0, 1), (2, 3), node=0),
        maps.scheduled(3, 0, (2, 3, 3)),
        maps.failed(3, 0, 2, attempt=3, kind="crash", final=True),
        build.status("FAILED"),
        build.taken(2),
        build.status("RUNNING"),
        maps.scheduled(4, 0, (2, 3, 4)),
        maps.scheduled(5, 0, (4, 6, 2)),
        maps.committed(4, 0, (2, 3), node="n2"),
        maps.committed(5, 0, (4, 6)),
        build.scheduled(6, 2),
        build.extended(6, 2, second),
        maps.scheduled(7, 3, (0, 6, 1)),
        maps.committed(7, 3, (0, 6)),
        build.status("SUCCESSFUL"),
    ]


@pytest.fixture(scope="session")
def sample_journal(build: Build) -> list[Event]:
    """Returns a small journal with every kind of event and every shape of payload."""
    blob = Payload(encoding=2, digest=bytes(range(32)), size=1 << 20)
    crash = TaskError(kind="crash", type="WorkerDied", message="ü", traceback="", exception=blob)
    constant = Constant(payload=inline(1, b"pickle"), nodes=(0, 1))
    graph = build.fragment(
        (), (), (0, 1), (2, 2), names="ffgh", classes=(0, 0, 1, 0), constants=(constant,)
    )
    return [
        *build.started(graph, "strict"),
        build.scheduled(0, 0, 1),
        build.committed(0, 1),
        build.failed(0, 0),
        build.noted(),
        build.scheduled(1, 0, attempt=2),
        AttemptFailed(
            slice=1, task=0, attempt=2, error=crash, final=True, at_us=AT_US + 1, node=""
        ),
        build.status("FAILED"),
        build.status("PENDING"),
        build.taken(7),
        build.status("RUNNING"),
        build.scheduled(2, 0, attempt=3),
        build.committed(2, 0, attempt=3, node=0),
        build.scheduled(3, 2),
        build.extended(3, 2, build.fragment((), (), (0, 1), names="fxf", functions="fgf")),
        build.scheduled(4, 5, 4),
        build.lost(4, 5, 4),
        build.scheduled(5, 4, 5, attempt=2),
        build.committed(5, 5, 4, attempt=2),
        build.scheduled(6, 6),
        build.committed(6, 6),
        build.scheduled(7, 3),
        TasksCommitted(
            slice=7,
            tasks=(3,),
            attempts=(1,),
            payloads=(blob,),
            started_us=(AT_US,),
            durations_us=(-1,),
            node="n2",
        ),
        build.status("SUCCESSFUL"),
    ]
