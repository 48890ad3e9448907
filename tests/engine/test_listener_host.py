"""Listeners wait side by side, each polled once; what they got is kept until somebody takes it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ray.exceptions import RayActorError

import milepost
from milepost.engine import listener_host, supply
from milepost.engine.compiler import compile_dag
from milepost.engine.listener import EventListener, TimerListener, listen, wait_for_event
from milepost.engine.listener_host import ListenerHost
from milepost.engine.messages import Listened, ListenOrder, SliceOrder, SliceTask, WorkerReport
from milepost.engine.payloads import deserialize
from milepost.errors import InvalidGraphError, SignatureMismatchError
from milepost.replay.fragment import Fragment
from milepost.replay.payload import Payload

if TYPE_CHECKING:
    from tests.engine.conftest import Disk

LATER_S = 0.05


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "describe_worker", lambda: "node:1")
    monkeypatch.setattr(listener_host, "GRACE_S", LATER_S)
    CALLS.clear()


CALLS: list[Any] = []
GATES: dict[str, asyncio.Event] = {}


class Opens(EventListener):
    """Waits until the test opens its gate."""

    async def poll_for_event(self, name: str, value: Any = None) -> Any:
        CALLS.append(("poll", name, milepost.current().attempt))
        await GATES.setdefault(name, asyncio.Event()).wait()
        return [name, value]


class Acknowledges(EventListener):
    """Notes what it is told."""

    async def poll_for_event(self) -> Any:
        return "event"

    async def event_checkpointed(self, event: Any) -> None:
        CALLS.append(("told", event))


class Fails(EventListener):
    def poll_for_event(self, error: BaseException) -> Any:
        raise error


class Dispatcher:
    """Plays the actor that sends listeners."""

    def __init__(self) -> None:
        self.taken: list[Listened] = []
        self.wants = True
        self.died = asyncio.Event()
        self.take_listened = _Remote(self._take)
        self.watch = _Remote(self._watch)

    async def _take(self, batch: Sequence[Listened]) -> list[bool]:
        if self.wants:
            self.taken += batch
        return [self.wants] * len(batch)

    async def _watch(self) -> None:
        await self.died.wait()
        raise RayActorError

    async def next(self) -> WorkerReport:
        await until(lambda: bool(self.taken))
        return self.taken.pop(0).report


class _Remote:
    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method

    def options(self, **options: Any) -> _Remote:
        assert options == {"max_task_retries": 0}
        return self

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        return self._method(*arguments)


class Stage:
    """A listener host, and a dispatcher that sends it listeners."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.host = ListenerHost()
        self.dispatcher = Dispatcher()
        GATES.clear()

    def order(self, node: Any, *, epoch: int = 1, attempt: int = 1, **more: Any) -> ListenOrder:
        fragment = compile_dag(node, self.disk)
        return self.order_of(fragment, epoch=epoch, attempt=attempt, **more)

    def order_of(
        self, fragment: Fragment, *, epoch: int = 1, attempt: int = 1, catches: bool = False
    ) -> ListenOrder:
        task = SliceTask(
            task=0,
            attempt=attempt,
            task_id=fragment.names[0],
            function=0,
            template=fragment.templates[0],
            inputs=(),
            first_constant=0,
            catches=catches,
        )
        slice_ = SliceOrder(
            storage=self.disk.uri,
            workflow_id="w",
            incarnation=1,
            epoch=epoch,
            slice=epoch,
            dispatcher=self.dispatcher,
            tasks=(task,),
            functions={0: fragment.functions[0]},
            constants=dict(enumerate(fragment.constants)),
            values={},
            refs={},
            retry_errors=fragment.options[0].retry_errors,
        )
        options = fragment.options[0]
        return ListenOrder(kind=options.waits_for, slice=slice_, refs=[], options=options)

    async def answer(self, node: Any, **more: Any) -> WorkerReport:
        await self.host.listen([self.order(node, **more)])
        return await self.dispatcher.next()

    def value(self, payload: Payload) -> Any:
        return deserialize(payload, self.disk)


def play(story: Callable[[Stage], Awaitable[None]], disk: Disk) -> None:
    async def run() -> None:
        await story(Stage(disk))

    asyncio.run(run())


def test_what_a_poll_returns_is_reported_as_the_value_of_its_task(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        GATES["a"] = asyncio.Event()
        GATES["a"].set()
        report = await stage.answer(wait_for_event(Opens, "a", value=(1, 2)), attempt=4)
        assert (report.tasks, report.attempts, report.last) == ([0], [4], True)
        assert stage.value(report.payloads[0]) == ["a", (1, 2)]
        assert await stage.host.count() == 0

    play(story, disk)


def test_whoever_wants_to_be_told_is_when_the_event_is_durable(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        report = await stage.answer(wait_for_event(Acknowledges))
        assert report.tasks == []
        assert CALLS == []
        (continued,) = report.continued
        await stage.host.listen([stage.order_of(continued.fragment)])
        told = await stage.dispatcher.next()
        assert CALLS == [("told", "event")]
        assert stage.value(told.payloads[0]) == "event"

    play(story, disk)


def test_who_catches_gets_a_pair(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        report = await stage.answer(wait_for_event(TimerListener, 0), catches=True)
        assert stage.value(report.payloads[0]) == (None, None)

    play(story, disk)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()]
)
def test_whatever_a_listener_raises_is_reported_and_ends_nobody_else(
    disk: Disk, error: BaseException
) -> None:
    async def story(stage: Stage) -> None:
        await stage.host.listen([stage.order(wait_for_event(Opens, "a"))])
        fragment = compile_dag(wait_for_event(Fails, error), disk)
        order = stage.order_of(fragment)
        other = replace(order, slice=replace(order.slice, workflow_id="other"))
        await stage.host.listen([other])
        report = await stage.dispatcher.next()
        (raised,) = report.raised
        assert raised.error.type.endswith(type(error).__name__)
        assert not raised.retryable
        assert await stage.host.count() == 1

    play(story, disk)


def test_a_listener_that_is_sent_again_is_not_polled_again(disk: Disk) -> None:
    """Its dispatcher died and another took its place: the event goes to that one."""

    async def story(stage: Stage) -> None:
        await stage.host.listen([stage.order(wait_for_event(Opens, "a"))])
        await until(lambda: bool(CALLS))
        first = stage.dispatcher
        stage.dispatcher = Dispatcher()
        order = stage.order(wait_for_event(Opens, "a"), epoch=2, attempt=2)
        await stage.host.listen([order])
        first.died.set()
        await asyncio.sleep(2 * LATER_S)
        GATES["a"].set()
        report = await stage.dispatcher.next()
        assert (report.attempts, CALLS) == ([2], [("poll", "a", 1)])
        assert first.taken == []

    play(story, disk)


def test_an_event_that_nobody_took_is_kept_for_who_asks_next(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.wants = False
        await stage.host.listen([stage.order(wait_for_event(Opens, "a"))])
        await until(lambda: bool(CALLS))
        GATES["a"].set()
        await until(lambda: bool(stage.host._untaken))
        stage.dispatcher.wants = True
        await stage.host.listen([stage.order(wait_for_event(Opens, "a"), epoch=2, attempt=2)])
        report = await stage.dispatcher.next()
        assert (report.attempts, CALLS) == ([2], [("poll", "a", 1)])
        assert not stage.host._untaken

    play(story, disk)


def test_what_nobody_takes_is_not_kept_for_ever(disk: Disk, monkeypatch: Any) -> None:
    monkeypatch.setattr(listener_host, "UNTAKEN_MAX", 2)

    async def story(stage: Stage) -> None:
        stage.dispatcher.wants = False
        order = stage.order(wait_for_event(TimerListener, 0))
        for number in range(5):
            numbered = replace(order, slice=replace(order.slice, workflow_id=str(number)))
            await stage.host.listen([numbered])
            await until(lambda: not stage.host._listening and not stage.host._postmen)
        assert [key[0] for key in stage.host._untaken] == ["3", "4"]

    play(story, disk)


def test_a_dropped_listener_ends_and_tells_nobody(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        await stage.host.listen([stage.order(wait_for_event(Opens, "a"), epoch=2)])
        await until(lambda: bool(CALLS))
        await stage.host.drop([(("w", 1, 0), 1)])
        assert await stage.host.count() == 1, "a former owner does not end what is ours"
        await stage.host.drop([(("w", 1, 0), 2)])
        GATES["a"].set()
        await asyncio.sleep(LATER_S)
        assert await stage.host.count() == 0
        assert stage.dispatcher.taken == []

    play(story, disk)


def test_listeners_of_a_dispatcher_that_died_for_good_end_after_a_while(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        await stage.host.listen([stage.order(wait_for_event(Opens, "a"))])
        await until(lambda: bool(CALLS))
        stage.dispatcher.died.set()
        await until(lambda: not stage.host._listening)

    play(story, disk)


def test_events_that_come_together_are_one_message(disk: Disk) -> None:
    async def story(stage: Stage) -> None:
        batches: list[int] = []
        take = stage.dispatcher._take

        async def note(batch: Sequence[Listened]) -> list[bool]:
            batches.append(len(batch))
            return await take(batch)

        stage.dispatcher.take_listened = _Remote(note)
        order = stage.order(wait_for_event(Opens, "a"))
        orders = [
            replace(order, slice=replace(order.slice, workflow_id=str(number), slice=number))
            for number in range(200)
        ]
        await stage.host.listen(orders)
        await until(lambda: len(CALLS) == 200)
        GATES["a"].set()
        await until(lambda: len(stage.dispatcher.taken) == 200)
        assert len(batches) < 100
        assert sorted(each.slice for each in stage.dispatcher.taken) == list(range(200))

    play(story, disk)


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110  what is tested tells nobody
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 30)


@pytest.mark.parametrize("given", [ValueError, "Opens", Opens(), None])
def test_only_a_class_of_listeners_is_taken(given: Any) -> None:
    with pytest.raises(InvalidGraphError, match="takes a subclass of") as caught:
        wait_for_event(given)
    assert isinstance(caught.value, TypeError)


def test_a_poll_that_cannot_be_called_as_bound_is_refused_at_once() -> None:
    with pytest.raises(SignatureMismatchError, match="poll_for_event cannot be called"):
        wait_for_event(Opens, "a", wrong=1)


def test_options_of_a_listener_are_kept_and_others_refused(disk: Disk) -> None:
    node = wait_for_event(TimerListener, 0)
    named = node.options(max_retries=7, **milepost.options(task_id="it", catch_exceptions=True))
    fragment = compile_dag(named, disk)
    (options,) = fragment.options
    assert fragment.names == ("it",)
    assert (options.max_retries, options.catch_exceptions) == (7, True)
    assert options.waits_for == "poll"
    assert compile_dag(node, disk).names == ("milepost.wait_for_event",)
    with pytest.raises(InvalidGraphError, match="no option num_cpus"):
        node.options(num_cpus=1)


def test_outside_of_a_workflow_a_listener_is_polled_and_told() -> None:
    assert contextvars.copy_context().run(listen, Acknowledges) == "event"
    assert CALLS == [("told", "event")]
