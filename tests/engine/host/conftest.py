"""A stage for hosts without Ray: a store that can fail, workers that follow a script, virtual time.

Tests of hosts are coroutines. They run on an event loop whose clock jumps to the next timer as soon
as nothing else is left to do, so that no test waits and every order of events is the same each
time. What is submitted to a thread runs on the loop, at once or when the test lets it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import msgpack
import pytest

from front_desk import FrontDesk
from local_engine import Engine
from milepost.engine import dispatcher, functions, hosting, supply
from milepost.engine.host import AnySlice, Delivery, SliceLostError, WorkflowHost
from milepost.engine.messages import ItemReport, WorkerReport
from milepost.errors import MilepostError, StorageUnavailableError, WorkflowNotFoundError
from milepost.journal import MemoryStore, load_state, read_journal
from milepost.journal.states import own_state
from milepost.journal.store import Appender, Part
from milepost.replay.codec import decode_all
from milepost.replay.events import Event, TaskError, TasksCommitted, WorkflowCreated
from milepost.replay.fold import apply
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Continued, Raised
from milepost.replay.invariants import check
from milepost.replay.payload import Payload, inline
from milepost.replay.state import State, Status
from virtual_time import VirtualLoop

if TYPE_CHECKING:
    from tests.engine.conftest import Disk, Objects

P = ParamSpec("P")
T = TypeVar("T")

AT_US = 1_700_000_000_000_000
WORKFLOW = "w"
INSTANT_S = 0.000_001


def play(story: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in virtual time; errors nobody looked at are errors."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(story)
    assert loop.faults == []
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs tests that are coroutines."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    play(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


async def settle() -> None:
    """Returns when nothing more happens unless time passes or the test does something."""
    await asyncio.sleep(INSTANT_S)


class Threads(Executor):
    """Runs work on the loop: at once, after a while, or when the test lets it go."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.holding = False
        self._held: list[Callable[[], None]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001  as an executor does
                future.set_exception(error)

        if self.holding:
            self._held.append(work)
        elif self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, work)
        else:
            work()
        return future

    def hold(self) -> None:
        """From now on work waits for :meth:`release`."""
        self.holding = True

    @property
    def held(self) -> int:
        """How many pieces of work wait."""
        return len(self._held)

    def step(self) -> None:
        """Does what waits; what comes later waits again."""
        held, self._held = self._held, []
        for work in held:
            work()

    def release(self) -> None:
        """Does what waits; what comes later is done at once."""
        self.holding = False
        self.step()


Fault = Literal["before", "after", "torn"]


class FaultyStore(MemoryStore):
    """Fails those of its mutating calls that ``plan`` names, before or after their effect.

    Attributes:
        calls: How many mutating calls there were.
        plan: Says for the number of a call (from 1) what goes wrong.
    """

    def __init__(self, *, appendable: bool = True) -> None:
        super().__init__("stage", appendable=appendable)
        self.calls = 0
        self.plan: Callable[[int], Fault | None] = lambda number: None

    def fail_at(self, number: int, fault: Fault) -> None:
        """Lets one mutating call fail, and no other."""
        self.plan = lambda at: fault if at == number else None

    def fail_next(self, fault: Fault = "before") -> None:
        """Lets the next mutating call fail, and no other."""
        self.fail_at(self.calls + 1, fault)

    def put(self, key: str, parts: Sequence[Part]) -> None:
        def put_torn() -> None:
            """A store never shows a part of an object: nothing of it is there."""

        self.mutate("put", key, lambda: super(FaultyStore, self).put(key, parts), put_torn)

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        return self.mutate("create", key, lambda: super(FaultyStore, self).create(key, parts))

    def append(self, key: str) -> Appender | None:
        appender = super().append(key)
        return None if appender is None else _FaultyAppender(self, key, appender)

    def mutate(
        self,
        operation: str,
        key: str,
        effect: Callable[[], T],
        torn: Callable[[], object] = lambda: None,
    ) -> T:
        self.calls += 1
        fault = self.plan(self.calls)
        error = StorageUnavailableError(operation, key, f"planned ({fault})")
        if fault == "torn":
            torn()
        if fault in ("before", "torn"):
            raise error
        result = effect()
        if fault == "after":
            raise error
        return result


class _FaultyAppender:
    def __init__(self, store: FaultyStore, key: str, appender: Appender) -> None:
        self._store = store
        self._key = key
        self._appender = appender

    def write(self, parts: Sequence[Part]) -> None:
        whole = b"".join(parts)
        self._store.mutate(
            "write",
            self._key,
            lambda: self._appender.write([whole]),
            lambda: self._appender.write([whole[: len(whole) // 2]]),
        )

    def sync(self) -> None:
        self._store.mutate("sync", self._key, self._appender.sync)

    def close(self) -> None:
        self._appender.close()


class Desk:
    """A slice under way: the test plays its worker.

    Attributes:
        order: What the host asked for.
        closed: Whether the host stopped listening, or everything was said.
    """

    def __init__(self, order: AnySlice) -> None:
        self.order = order
        self.closed = False
        self._mail: asyncio.Queue[Delivery | Exception | None] = asyncio.Queue()

    @property
    def tasks(self) -> tuple[int, ...]:
        return self.order.tasks

    def attempt(self, task: int) -> int:
        return self.order.attempts[self.order.tasks.index(task)]

    def returns(
        self, *tasks: int, value: object = None, last: bool = True, duration_us: int = 0
    ) -> None:
        """Reports that ``tasks`` (by default all) returned ``value``, by default their number."""
        done = tasks or self.tasks
        report = self._report(done, value, duration_us)
        self.send(report, last=last)

    def returns_objects(self, *tasks: int, last: bool = True) -> None:
        """Reports large values: each has a blob, and an object that is called after its task."""
        report = self._report(tasks, None, 0)
        report.payloads = [Payload(encoding=2, digest=bytes(32), size=1 << 20) for _ in tasks]
        report.objects = list(tasks)
        self.send(report, last=last, objects={task: f"object {task}" for task in tasks})

    def _report(self, tasks: Sequence[int], value: object, duration_us: int) -> WorkerReport:
        return WorkerReport(
            node="n1",
            tasks=list(tasks),
            attempts=[self.attempt(task) for task in tasks],
            payloads=[pack(task if value is None else value) for task in tasks],
            started_us=[AT_US] * len(tasks),
            durations_us=[duration_us] * len(tasks),
        )

    def raises(
        self, task: int | None = None, *, retryable: bool = False, last: bool = True
    ) -> None:
        """Reports that a task (by default the only one) raised a ValueError."""
        task = self.tasks[0] if task is None else task
        error = TaskError(
            kind="exception", type="ValueError", message="no", traceback="", exception=None
        )
        raised = Raised(task=task, attempt=self.attempt(task), error=error, retryable=retryable)
        self.send(WorkerReport(node="n1", raised=[raised]), last=last)

    def continues(self, fragment: Fragment, *, last: bool = True) -> None:
        """Reports that the only task returned a continuation."""
        continued = Continued(
            task=self.tasks[0],
            attempt=self.order.attempts[0],
            fragment=fragment,
            started_us=AT_US,
            duration_us=0,
        )
        self.send(WorkerReport(node="n1", continued=[continued]), last=last)

    def send(
        self,
        report: WorkerReport | ItemReport,
        *,
        last: bool,
        objects: dict[int, Any] | None = None,
    ) -> None:
        report.last = last
        self._mail.put_nowait((report, objects or {}))
        if last:
            self.ends()

    def ends(self) -> None:
        """Says nothing more."""
        self._mail.put_nowait(None)

    def begins(self) -> None:
        """Says that its worker has begun."""
        self.send(WorkerReport(node="n1", began=True), last=False)

    def dies(self, reason: str = "killed", kind: str = "crash") -> None:
        self.breaks(SliceLostError(reason, kind))

    def breaks(self, error: Exception) -> None:
        """Lets the workers raise ``error`` instead of a report."""
        self._mail.put_nowait(error)

    async def listen(self) -> AsyncIterator[Delivery]:
        try:
            while (mail := await self._mail.get()) is not None:
                if isinstance(mail, Exception):
                    raise mail
                yield mail
        finally:
            self.closed = True


class Workers:
    """Workers that do what the test says, slice by slice.

    Attributes:
        desks: Every slice that was sent, in order.
    """

    def __init__(self, slices_max: int = 4) -> None:
        self.slices_max = slices_max
        self.riders_max = 0
        self.desks: list[Desk] = []

    async def run(self, host: WorkflowHost, slice_: AnySlice) -> AsyncIterator[Delivery]:
        desk = Desk(slice_)
        self.desks.append(desk)
        async for delivery in desk.listen():
            yield delivery

    @property
    def sent(self) -> list[tuple[int, ...]]:
        """The tasks of every slice that was sent."""
        return [desk.tasks for desk in self.desks]

    def find(self, task: int) -> Desk:
        """Returns the newest slice with this task."""
        return next(desk for desk in reversed(self.desks) if task in desk.tasks)


def pack(value: object) -> Payload:
    """Returns an inline payload of plain data."""
    return inline(0, msgpack.packb(value))


@dataclass
class Stage:
    """A store, threads and workers, and the hosts of one workflow that were put upon them.

    Attributes:
        ends: Every call of a host's ``on_end``, in order.
    """

    store: FaultyStore
    creation: Callable[..., WorkflowCreated]
    threads: Threads = field(default_factory=Threads)
    workers: Workers = field(default_factory=Workers)
    hosts: list[WorkflowHost] = field(default_factory=list)
    ends: list[WorkflowHost] = field(default_factory=list)
    _writers: list[Any] = field(default_factory=list)

    async def settle(self) -> None:
        """See :func:`settle`."""
        await settle()

    def graph(self, *inputs: Sequence[int], **options: Any) -> Fragment:
        """Returns a fragment with one node per entry; an entry names the inputs of its node."""
        return self.creation(*inputs, **options).fragment

    def make_host(self, workers: Any = None) -> WorkflowHost:
        """Returns a host that owns the workflow and has not begun."""
        state, writer = own_state(self.store, WORKFLOW, f"owner {len(self.hosts)}")
        host = WorkflowHost(
            state,
            writer,
            workers or self.workers,
            self.threads,
            lambda: AT_US + round(asyncio.get_running_loop().time() * 1e6),
            self.ends.append,
        )
        self.hosts.append(host)
        self._writers.append(writer)
        return host

    async def create(self, *inputs: Sequence[int], **options: Any) -> WorkflowHost:
        """Starts a workflow of this graph and returns its host when it is at work."""
        host = self.make_host()
        await host.create(self.creation(*inputs, **options), "owner")
        await settle()
        return host

    async def take_over(self) -> WorkflowHost:
        """Lets another host own the workflow and returns it when it is at work."""
        host = self.make_host()
        await host.take_over(f"owner {len(self.hosts)}", "test")
        await settle()
        return host

    def told(self, host: WorkflowHost) -> Status | None:
        """Returns the status that others are told now."""
        return host.announced

    def stored(self) -> State:
        """Returns the state that the journal gives."""
        return load_state(self.store, WORKFLOW)

    def frames(self) -> list[list[Event]]:
        """Returns the journal, frame by frame."""
        return [list(decode_all(frame.raw)) for frame in read_journal(self.store, WORKFLOW)]

    def journal(self) -> list[Event]:
        """Returns the events of the journal."""
        return [event for frame in self.frames() for event in frame]

    def is_closed(self, host: WorkflowHost) -> bool:
        """Tells whether the writer of ``host`` takes no more events."""
        try:
            self._writers[self.hosts.index(host)].flush([])
        except ValueError:
            return True
        except MilepostError:
            return False
        return False

    def check(self) -> None:
        """Checks what holds at every moment of every story."""
        for host in self.hosts:
            check(host.state)
            assert self.ends.count(host) <= 1, "a host ended more than once"
        try:
            check(self.stored())
        except WorkflowNotFoundError:
            return
        check_commits(self.journal())


def check_commits(journal: Sequence[Event]) -> None:
    """Checks that no task commits twice, or before its inputs."""
    known: set[int] = set()
    state = State()
    for event in journal:
        if isinstance(event, TasksCommitted):
            for task in event.tasks:
                assert task not in known, f"task {task} commits twice"
                missing = [
                    each
                    for each in state.graph.inputs(task)
                    if state.results[each] is None and each not in known
                ]
                assert not missing, f"task {task} commits before its inputs {missing}"
                known.add(task)
        apply(state, event)


@pytest.fixture
def new_stage(creation: Callable[..., WorkflowCreated]) -> Callable[..., Stage]:
    """Returns a way to make stages, for tests that need several."""
    return lambda *, appendable=True: Stage(FaultyStore(appendable=appendable), creation)


@pytest.fixture(params=["appending", "objects"])
def stage(request: pytest.FixtureRequest, new_stage: Callable[..., Stage]) -> Iterator[Stage]:
    """A stage on a store of each kind; what was played on it is checked at the end."""
    made = new_stage(appendable=request.param == "appending")
    yield made
    made.check()


@pytest.fixture(name="play")
def play_fixture() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Returns :func:`play`, for tests that are not coroutines themselves."""
    return play


@pytest.fixture
def engine(
    disk: Disk,
    objects: Objects,
    new_stage: Callable[..., Stage],
    creation: Callable[..., WorkflowCreated],
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    monkeypatch.setattr(supply, "describe_worker", lambda: "node:1")

    monkeypatch.setattr(functions, "_loaded", type(functions._loaded)())
    monkeypatch.setattr(functions, "_origins", type(functions._origins)())
    return Engine(disk, objects, new_stage().threads, play, creation)


class NoLease:
    """Stands for a dispatcher's lease: renewing it would count among a test's writes."""

    def __init__(self, *given: Any) -> None:
        pass

    async def hold(self) -> None:
        pass


@pytest.fixture
def desk(
    request: pytest.FixtureRequest,
    new_stage: Callable[..., Stage],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FrontDesk]:
    stage = new_stage(appendable=getattr(request, "param", "appending") == "appending")
    monkeypatch.setattr(dispatcher, "open_store", lambda storage, create: stage.store)
    monkeypatch.setattr(dispatcher, "ThreadPoolExecutor", lambda *given, **named: stage.threads)
    monkeypatch.setattr(dispatcher, "RayWorkers", lambda *given: stage.workers)
    monkeypatch.setattr(dispatcher, "count_cpus", lambda: 2)
    monkeypatch.setattr(hosting, "LeaseKeeper", NoLease)
    yield FrontDesk(stage)
    stage.check()
