"""What holds for every map and every order of mishaps: each item commits once, to its own value.

A driver plays host and workers of one workflow of maps. First it does random acts, mishaps among
them; then the faults stop and it must come to the result. What it has committed is read from the
events alone and compared with a plain evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, TypeAlias

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from map_building import raised, report, with_maps
from milepost.replay.codec import decode, encode
from milepost.replay.decide import Decision, Finish, decide
from milepost.replay.decide_items import RunItems
from milepost.replay.events import Event, ItemFailed, ItemsCommitted, ItemsScheduled
from milepost.replay.fold import fold
from milepost.replay.fragment import Fragment
from milepost.replay.inputs import Input, ItemRaised, OwnershipGained
from milepost.replay.payload import Encoding
from milepost.replay.ranges import Range
from milepost.replay.state import Status

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

NewStory: TypeAlias = "Callable[[], Story]"

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.integers(10, 120)
CAUGHT = "an exception"
ACTS = {"work": 6, "report": 10, "lose": 2, "take": 1, "resume": 3, "repeat": 2}


def draw_maps(build: Build, chance: Random) -> Fragment:
    """Draws a graph of a few maps, some in one scheduling class, some of which catch."""
    count = chance.randint(1, 3)
    graph = build.fragment(
        *[()] * count,
        range(count),
        classes=[*chance.choices([0, 1], k=count), 0],
        max_retries=chance.choice([2, 1, 0, -1]),
        catching=chance.choice([[], [1]]),
    )
    widths = {node: chance.choice([1, 2, 7, 30, 100]) for node in range(count)}
    return with_maps(graph, widths)


class Record:
    """What was scheduled and committed, told from the events alone."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, int], object] = {}
        self.attempts: dict[tuple[int, int], int] = {}
        self.catching: set[int] = set()

    def note(self, event: Event) -> None:
        match event:
            case ItemsScheduled():
                rows = zip(event.starts, event.stops, event.attempts, strict=True)
                for start, stop, attempt in rows:
                    for item in range(start, stop):
                        key = (event.task, item)
                        assert key not in self.values, "a committed item runs again"
                        assert attempt - self.attempts.get(key, 0) in (0, 1)
                        self.attempts[key] = attempt
            case ItemsCommitted():
                spans = zip(event.starts, event.stops, strict=True)
                for (start, stop), payload in zip(spans, event.payloads, strict=True):
                    values = msgpack.unpackb(payload.data)
                    for item, value in zip(range(start, stop), values, strict=True):
                        self.commit(event.task, item, value)
            case ItemFailed(final=True) if event.task in self.catching:
                self.commit(event.task, event.item, CAUGHT)
            case _:
                pass

    def commit(self, task: int, item: int, value: object) -> None:
        assert (task, item) not in self.values, "an item commits twice"
        self.values[task, item] = value


HOUR_US = 3_600_000_000


class Driver:
    """Plays a host, its workers and their mishaps."""

    def __init__(self, build: Build, story: Story, chance: Random) -> None:
        self.build, self.story, self.chance = build, story, chance
        self.graph = draw_maps(build, chance)
        self.state, self.record = story.state, Record()
        self.history: list[Input] = []
        self.successes = 0
        story.given(build.created(self.graph))
        self.record.catching = {task for task, map_ in self.state.maps.items() if map_.catches}
        self.take()

    def feed(self, happened: Input) -> None:
        self.history.append(happened)
        decision = self.story.when(happened)
        for event in decision.append:
            self.record.note(event)
        self.check_effects(decision)

    def check_effects(self, decision: Decision) -> None:
        scheduled = [event for event in decision.append if isinstance(event, ItemsScheduled)]
        runs = [effect for effect in decision.effects if isinstance(effect, RunItems)]
        told = [(each.slice, each.task, each.starts, each.stops, each.attempts) for each in runs]
        assert told == [
            (each.slice, each.task, each.starts, each.stops, each.attempts) for each in scheduled
        ]
        self.successes += Finish(status=Status.SUCCESSFUL) in decision.effects

    def work(self) -> None:
        cost = self.chance.choice([1.0, 4.0, 0.1])
        costs = {0: cost} if self.chance.random() < 0.8 else {}
        slices = self.chance.randint(1, 4)
        self.feed(self.build.wanted(slices, slice_us=10, costs_us=costs))

    def report(self) -> None:
        """Some items returned, some raised; the worker may give up the rest, or still be at it."""
        number = self.pick_slice()
        if number is None:
            return
        task = self.state.item_slices[number].task
        returned: list[Range] = []
        failed: list[ItemRaised] = []
        left: list[Range] = []
        for start, stop in self.state.item_slices[number].outstanding:
            middle = self.chance.randint(start, stop)
            at = start
            while at < middle:
                end = self.chance.randint(at + 1, middle)
                if self.chance.random() < 0.15:
                    attempt = self.state.maps[task].present_attempt(at)
                    retryable = self.chance.random() < 0.8
                    failed.append(raised(at, attempt=attempt, retryable=retryable))
                    end = at + 1
                else:
                    returned.append((at, end))
                at = end
            if middle < stop:
                left.append((middle, stop))
        back = left if self.chance.random() < 0.5 else []
        epoch = self.state.epoch
        self.feed(report(number, *returned, raised=failed, handed_back=back, epoch=epoch))

    def lose(self) -> None:
        slices = [*self.state.slices, *self.state.item_slices]
        if slices:
            self.feed(self.build.loss(self.chance.choice(slices), epoch=self.state.epoch))

    def take(self) -> None:
        if self.state.status is not Status.SUCCESSFUL:
            self.feed(self.build.gained(self.state.epoch + 1))

    def resume(self) -> None:
        self.feed(self.build.resume())

    def repeat(self) -> None:
        told = [each for each in self.history if not isinstance(each, OwnershipGained)]
        if told:
            self.feed(self.chance.choice(told))

    def pick_slice(self) -> int | None:
        numbers = list(self.state.item_slices)
        return self.chance.choice(numbers) if numbers else None

    def finish(self) -> None:
        """Goes on without faults; every round commits something, or the law is broken."""
        while self.state.status is not Status.SUCCESSFUL:
            before = len(self.record.values), self.state.counts[:]
            self.resume()
            wanted = self.build.wanted(4, slice_us=10, costs_us={0: 0.5}, after_us=HOUR_US)
            self.feed(wanted)  # retries that were put off are due
            self.feed(wanted)
            epoch = self.state.epoch
            for number, slice_ in list(self.state.item_slices.items()):
                self.feed(report(number, *slice_.outstanding, epoch=epoch))
            for number, seated in list(self.state.slices.items()):
                (task,) = seated.outstanding
                attempt = self.state.attempts[task]
                self.feed(self.build.report(number, task, attempt=attempt, epoch=epoch))
            assert (len(self.record.values), self.state.counts) != before, "no way on"

    def check_values(self) -> None:
        """Compares what was committed with what a plain evaluation gives."""
        for spec in self.graph.maps:
            chunks = list(self.state.maps[spec.node].chunks())
            ends = [0, *(stop for _, stop, _ in chunks)]
            assert ends == [*(start for start, _, _ in chunks), spec.width]
            found: list[object] = []
            for _, _, payload in chunks:
                caught = payload.encoding == Encoding.CAUGHT
                found += [CAUGHT] if caught else msgpack.unpackb(payload.data)
            plain = [2 * item for item in range(spec.width)]
            said = [self.record.values[spec.node, item] for item in range(spec.width)]
            assert found == said
            assert all(each in (CAUGHT, due) for each, due in zip(found, plain, strict=True))
            if not self.state.maps[spec.node].catches:
                assert found == plain


def drive(build: Build, story: Story, seed: int, length: int) -> Driver:
    chance = Random(seed)
    driver = Driver(build, story, chance)
    for act in chance.choices(list(ACTS), list(ACTS.values()), k=length):
        getattr(driver, act)()
    return driver


@settings(PATIENT, max_examples=80)
@given(seed=SEEDS, length=LENGTHS)
def test_whatever_happens_a_map_comes_to_what_a_plain_evaluation_gives(
    build: Build, new_story: NewStory, seed: int, length: int
) -> None:
    driver = drive(build, new_story(), seed, length)
    driver.finish()
    driver.check_values()
    driver.story.check_replay()
    assert driver.successes == 1


@settings(PATIENT, max_examples=25)
@given(seed=SEEDS, length=LENGTHS)
def test_the_same_events_lead_to_the_same_decisions(
    build: Build, new_story: NewStory, seed: int, length: int
) -> None:
    first, second = (drive(build, new_story(), seed, length) for _ in range(2))
    assert first.story.journal == second.story.journal
    replayed = fold(map(decode, map(encode, first.story.journal)))
    wanted = build.wanted(8, slice_us=10, costs_us={0: 1.0})
    assert decide(replayed, wanted) == decide(first.state, wanted)


@pytest.mark.parametrize("width", [10_000, 1_000_000])
def test_a_map_takes_as_many_events_as_it_has_slices(
    build: Build, new_story: NewStory, width: int
) -> None:
    """Whatever the width, a slice of items is two events, and no step looks at all items."""
    story = new_story()
    story.given(*build.started(with_maps(build.single(), {0: width})))
    rounds = 0
    while story.state.status is Status.RUNNING and rounds < 12:
        rounds += 1
        story.when(build.wanted(1, slice_us=1000, costs_us={0: 0.1}))
        for number, slice_ in list(story.state.item_slices.items()):
            assert len(slice_.outstanding) == 10_000
            ((start, stop),) = slice_.outstanding
            payloads = (build.payload([None]),)
            told = report(number)
            story.when(replace(told, starts=(start,), stops=(stop,), payloads=payloads))
    assert story.state.next_seq == 3 + 2 * rounds + (width == 10_000)
