"""What holds for every workflow and every order of mishaps: commit once, replay is a function.

A driver plays host and workers of one workflow. First it does random acts, the mishaps among them;
then the faults stop and it must come to the result. It keeps a record of its own, made from events
alone, to compare the state with. Each run is told by a seed and the number of its acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.replay.codec import decode, encode
from milepost.replay.composing import NOTHING
from milepost.replay.decide import Decision, Finish, RunSlice, decide
from milepost.replay.events import (
    AttemptFailed,
    Event,
    GraphExtended,
    RetriesDue,
    StatusChanged,
    TasksCommitted,
    TasksScheduled,
    WaitsBegan,
    WaitsEnded,
    WorkflowCreated,
)
from milepost.replay.fold import fold
from milepost.replay.fragment import Constant, Fragment
from milepost.replay.inputs import Input, OwnershipGained
from milepost.replay.payload import Encoding, Payload
from milepost.replay.state import State, Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

NewStory: TypeAlias = "Callable[[], Story]"

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.integers(10, 100)
CAUGHT = "an exception"
ABOUT_TIME = (WaitsBegan, WaitsEnded, RetriesDue)
COMPOSED = "made of other values"
WAITS = {
    2: ("time", (0.5,)),
    3: ("event", ("key",)),
    4: ("tasks", (1, None)),
    5: ("tasks", (1, 2.0)),
}
"""Classes of tasks that no worker runs."""

ACTS = {
    "arrive": 1,
    "work": 6,
    "report": 10,
    "lose": 3,
    "take": 1,
    "resume": 3,
    "pend": 1,
    "repeat": 2,
}


def draw_fragment(build: Build, chance: Random) -> Fragment:
    """Draws a graph: a chain, a fan or anything; nodes that no other takes are taken by the root.

    Some nodes are taken by many and some twice by the same; names meet; constants hold nodes.
    """
    width = chance.choice([1, 2, 4, 8, 16])
    density = chance.choice([0, 1, 3])
    inputs = [
        [chance.randrange(node) for _ in range(chance.randint(0, density))] if node else []
        for node in range(width)
    ]
    taken = {source for sources in inputs for source in sources}
    inputs[-1] += [node for node in range(width - 1) if node not in taken]
    nodes = tuple(chance.randrange(width) for _ in range(chance.randint(0, 2)))
    classes = chance.choices([0, 1], k=width)
    for node in range(width) if chance.random() < 0.5 else ():
        if chance.random() < 0.3:
            classes[node] = chance.choice([2, 3, 4, 5] if inputs[node] else [2, 3])
    fragment = build.fragment(
        *inputs,
        names=chance.choices(["f", "g", "f_1", "f_1_1"], k=width),
        functions=chance.choices("fg", k=width),
        classes=classes,
        waits=WAITS,
        max_retries=chance.choice([3, 1, 0, -1]),
        constants=(Constant(payload=build.payload("held"), nodes=nodes),) if nodes else (),
        catching=chance.choice([[], [1], [0, 1]]),
    )
    if chance.random() < 0.6:
        return fragment
    return build.patient(fragment, chance.choice([1, 1_000_000]), jitter=0.5)


class Record:
    """What must be true, told from the events alone, without the code under test."""

    def __init__(self) -> None:
        self.root = -1
        self.inputs: list[list[int]] = []
        self.values: dict[int, Payload | str] = {}
        self.creators: dict[int, int] = {}
        self.owners: list[int | None] = []  # whose continuation a task belongs to
        self.catches: set[int] = set()
        self.dropped: set[int] = set()
        self.waits = False
        self.ended = False

    def note(self, event: Event) -> None:
        match event:
            case WorkflowCreated():
                self.root = self.add(event.fragment, None)
            case GraphExtended():
                root = self.add(event.fragment, event.task)
                self.creators[root] = event.task
                if event.task in self.catches:
                    self.catches.add(root)
            case AttemptFailed(final=True):
                self.catch(event.task)
            case WaitsEnded():
                for task in event.tasks:
                    self.commit(task, COMPOSED)
            case StatusChanged(status="SUCCESSFUL"):
                self.ended = True
            case TasksScheduled():
                for at, task in enumerate(event.tasks):
                    known = {*self.values, *event.tasks[:at]}
                    assert task not in self.values, "a committed task runs again"
                    assert task not in self.dropped, "a dropped task runs"
                    assert task not in self.creators.values(), "an extended task runs again"
                    assert all(source in known for source in self.inputs[task])
            case TasksCommitted():
                for task, payload in zip(event.tasks, event.payloads, strict=True):
                    assert all(source in self.values for source in self.inputs[task])
                    self.commit(task, payload)
            case _:
                pass

    def catch(self, failed: int) -> None:
        """Gives the nearest catcher above its value; what is below it is done or dropped."""
        catcher: int | None = failed
        while catcher is not None and (catcher not in self.catches or catcher in self.values):
            catcher = self.owners[catcher]
        if catcher is None:
            return
        end = catcher
        for root, creator in sorted(self.creators.items()):
            end = root if creator == end else end
        below = {catcher}
        for task, owner in enumerate(self.owners):
            if owner in below:
                below.add(task)
        self.commit(end, CAUGHT)
        self.dropped |= below - self.values.keys()

    def add(self, fragment: Fragment, owner: int | None) -> int:
        first, position = len(self.inputs), 0
        for at, option in enumerate(fragment.node_options):
            self.owners.append(owner)
            if fragment.options[option].catch_exceptions:
                self.catches.add(first + at)
            self.waits |= fragment.options[option].waits_for == "tasks"
        for count in fragment.input_counts:
            sources = fragment.inputs[position : position + count]
            self.inputs.append([first + source for source in sources])
            position += count
        return len(self.inputs) - 1

    def commit(self, task: int, payload: Payload | str) -> None:
        assert task not in self.values, "a task commits twice"
        assert task not in self.dropped, "a dropped task commits"
        self.values[task] = payload
        if task in self.creators:
            self.commit(self.creators[task], payload)

    def compare(self, state: State) -> None:
        results = [show(each) for each in state.results]
        assert results == [self.values.get(task) for task in range(len(self.inputs))]
        assert (state.result is not None) == (self.root in self.values)
        dropped = {task for task, kind in enumerate(state.tasks) if kind == TaskState.DROPPED}
        assert self.dropped <= dropped
        assert self.dropped == dropped or self.ended, "only an end drops more"
        for task, sources in enumerate(self.inputs):
            assert list(state.graph.inputs(task)) == sources


def show(value: Payload | None) -> Payload | str | None:
    if value is None:
        return None
    if value.encoding == Encoding.CAUGHT:
        return CAUGHT
    composed = value == NOTHING or value.encoding in (Encoding.TUPLE, Encoding.SPLIT)
    return COMPOSED if composed else value


class Driver:
    """Host and workers of one workflow, whose journal so far is ``events``."""

    def __init__(
        self, build: Build, story: Story, events: Sequence[Event], pool: list[Fragment]
    ) -> None:
        self.build, self.story, self.pool = build, story, pool
        self.record = Record()
        self.history: list[Input] = []
        self.successes = 0
        self.append(*events)

    @property
    def state(self) -> State:
        return self.story.state

    def append(self, *events: Event) -> None:
        self.story.given(*events)
        for event in events:
            self.record.note(event)

    def feed(self, happened: Input) -> tuple[Event, ...]:
        self.history.append(happened)
        decision = self.story.when(happened)
        for event in decision.append:
            self.record.note(event)
        self.check_effects(decision)
        return decision.append

    def check_effects(self, decision: Decision) -> None:
        scheduled = [event for event in decision.append if isinstance(event, TasksScheduled)]
        runs = [effect for effect in decision.effects if isinstance(effect, RunSlice)]
        ends = [effect for effect in decision.effects if isinstance(effect, Finish)]
        assert [(event.slice, event.tasks, event.attempts) for event in scheduled] == [
            (effect.slice, effect.tasks, effect.attempts) for effect in runs
        ]
        assert all(effect.status is self.state.status for effect in ends)
        self.successes += sum(effect.status is Status.SUCCESSFUL for effect in ends)

    def act(self, kind: str, number: int, choice: int) -> None:
        ended = self.state.status is Status.SUCCESSFUL
        if not (ended and kind in ("take", "pend")):
            getattr(self, kind)(number, choice)

    def work(self, number: int, choice: int) -> None:
        costs = {function: float(choice % 4) for function in range(choice % 3)}
        riders_max = choice % 5 * 4
        self.feed(
            self.build.wanted(
                1 + number % 3,
                slice_us=10,
                costs_us=costs,
                riders_max=riders_max,
                after_us=(number % 4) * 1_000_000,
            )
        )

    def arrive(self, number: int, choice: int) -> None:
        self.feed(self.build.arrived("key", number))

    def report(self, number: int, choice: int) -> None:
        """Two bits of ``choice`` per task: it returned, raised, continued or is still at it.

        Nothing runs without its inputs; what the worker is still at it may hand back instead.
        """
        slice_number = self.pick_slice(number)
        if slice_number is None:
            return
        ways: list[list[int]] = [[], [], [], []]
        for position, task in enumerate(self.state.slices[slice_number].outstanding):
            inputs = self.state.graph.inputs(task)
            runs = all(self.state.results[each] is not None or each in ways[0] for each in inputs)
            ways[(choice >> (2 * position % 8)) % 4 if runs else 3].append(task)
        returned, raised, continued, left = ways
        back = left if number % 2 else []
        self.tell(slice_number, returned, raised, continued, choice, back)

    def tell(
        self,
        slice_number: int,
        returned: list[int],
        raised: list[int],
        continued: list[int],
        choice: int,
        handed_back: Sequence[int] = (),
    ) -> None:
        attempts = self.state.attempts
        fragment = self.pool[choice % len(self.pool)]
        report = self.build.report(
            slice_number,
            *returned,
            raised=[
                self.build.raised(task, attempt=attempts[task], retryable=choice % 3 > 0)
                for task in raised
            ],
            continued=[
                self.build.continued(task, fragment, attempt=attempts[task]) for task in continued
            ],
        )
        self.feed(
            replace(
                report,
                epoch=self.state.epoch,
                handed_back=tuple((task, attempts[task]) for task in handed_back),
                attempts=tuple(attempts[task] for task in returned),
                payloads=tuple(self.build.payload([task, attempts[task]]) for task in returned),
            )
        )

    def lose(self, number: int, choice: int) -> None:
        slice_number = self.pick_slice(number)
        if slice_number is not None:
            self.feed(self.build.loss(slice_number, epoch=self.state.epoch))

    def take(self, number: int, choice: int) -> None:
        self.feed(self.build.gained(self.state.epoch + 1 + number % 3))

    def resume(self, number: int, choice: int) -> None:
        """Resumes, or lets a workflow that must wait have its turn, as the host does of its own."""
        if self.state.status is Status.PENDING:
            self.append(self.build.status("RUNNING"))
        self.feed(self.build.resume())

    def pend(self, number: int, choice: int) -> None:
        self.append(self.build.status("PENDING"))

    def repeat(self, number: int, choice: int) -> None:
        """Says once more what was said before; ownership alone is never gained twice."""
        earlier = [
            happened for happened in self.history if not isinstance(happened, OwnershipGained)
        ]
        if earlier:
            self.feed(earlier[number % len(earlier)])

    def pick_slice(self, number: int) -> int | None:
        under_way = list(self.state.slices)
        return under_way[number % len(under_way)] if under_way else None

    def finish(self) -> None:
        """Goes on without faults; every round of this commits something, or the law is broken."""
        wanted = self.build.wanted(
            8, slice_us=10, costs_us={0: 1.0}, riders_max=4, after_us=9_000_000
        )
        for number in range(len(self.state.graph) + 2):
            self.resume(0, 0)
            self.arrive(number, 0)
            while any(isinstance(event, ABOUT_TIME) for event in self.feed(wanted)):
                wanted = replace(wanted, at_us=wanted.at_us + 9_000_000)
            for slice_number, slice_ in list(self.state.slices.items()):
                self.tell(slice_number, list(slice_.outstanding), [], [], 0)
            if self.state.status is Status.SUCCESSFUL:
                return
        raise AssertionError(f"no result: {self.state.status}, {self.state.counts}")


def drive(build: Build, new_story: NewStory, seed: int, length: int) -> Driver:
    """Drives a random workflow through ``length`` acts, after each of which the record is right."""
    chance = Random(seed)
    pool = [draw_fragment(build, chance) for _ in range(4)]
    driver = Driver(build, new_story(), [build.created(pool[0])], pool)
    driver.take(0, 0)
    for kind in chance.choices(list(ACTS), list(ACTS.values()), k=length):
        driver.act(kind, chance.randrange(256), chance.randrange(256))
        driver.record.compare(driver.state)
    return driver


@settings(PATIENT, max_examples=50)
@given(seed=SEEDS, length=LENGTHS)
def test_once_the_faults_stop_every_workflow_comes_to_its_result(
    build: Build, new_story: NewStory, seed: int, length: int
) -> None:
    driver = drive(build, new_story, seed, length)
    driver.finish()
    driver.record.compare(driver.state)
    driver.story.check_replay()
    assert driver.successes == 1
    done = driver.state.counts[TaskState.COMMITTED] + len(driver.record.dropped)
    assert done == len(driver.state.graph) or driver.record.waits


@settings(PATIENT, max_examples=40)
@given(seed=SEEDS, length=LENGTHS, cut=st.integers(0, 255))
def test_whoever_takes_any_prefix_over_comes_to_the_result(
    build: Build, new_story: NewStory, seed: int, length: int, cut: int
) -> None:
    driver = drive(build, new_story, seed, length)
    journal = driver.story.journal
    prefix = journal[: 1 + cut % len(journal)]
    follower = Driver(build, new_story(), prefix, driver.pool)
    kept = dict(follower.record.values)
    if follower.state.status is not Status.SUCCESSFUL:
        follower.take(0, 0)
        follower.finish()
    assert follower.record.values.items() >= kept.items()
    follower.record.compare(follower.state)
    follower.story.check_replay()


@settings(PATIENT, max_examples=15)
@given(seed=SEEDS, length=LENGTHS)
def test_the_same_events_lead_to_the_same_decisions(
    build: Build, new_story: NewStory, seed: int, length: int
) -> None:
    first, second = (drive(build, new_story, seed, length) for _ in range(2))
    assert first.story.journal == second.story.journal
    replayed = fold(map(decode, map(encode, first.story.journal)))
    wanted = build.wanted(8, slice_us=10, costs_us={0: 1.0})
    assert decide(replayed, wanted) == decide(first.state, wanted)
