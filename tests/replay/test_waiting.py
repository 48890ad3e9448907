"""Tasks that no worker runs: what they wait for is in the journal, and when it has come."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from milepost.errors import IllegalEventError
from milepost.replay.codec import decode, encode
from milepost.replay.composing import unpack_split, unpack_tuple
from milepost.replay.decide import NOTHING, CancelSlices, Decision, Finish, RunSlice
from milepost.replay.events import Event, EventReceived, Wait, WaitsBegan, WaitsEnded
from milepost.replay.fold import apply, fold
from milepost.replay.payload import Encoding, Payload, unpack_plain
from milepost.replay.state import State, Status, TaskState

if TYPE_CHECKING:
    from milepost.replay.fragment import Fragment
    from tests.replay.conftest import Build, Story

AT_US = 1_700_000_000_000_000
SECOND = 1_000_000
SLEEP = {9: ("time", [5.0])}


def sleeper(build: Build) -> Fragment:
    """Returns a graph of one task that sleeps five seconds."""
    return build.fragment((), classes=[9], waits=SLEEP)


def tuple_in(payload: Payload | None) -> list[Payload]:
    assert payload is not None
    assert payload.encoding == Encoding.TUPLE
    return unpack_tuple(payload.data)


def plain_in(payload: Payload | None) -> object:
    assert payload is not None
    assert payload.encoding == Encoding.PLAIN
    return unpack_plain(payload.data)


def test_all_that_a_journal_can_say_of_waits_is_legal_and_counts_as_before(
    waits_journal: list[Event], story: Story
) -> None:
    story.given(*waits_journal)
    assert story.state.status is Status.SUCCESSFUL
    assert not story.state.awaited
    assert not story.state.following
    assert not story.state.dues


def test_a_sleep_begins_when_it_is_ready_and_no_worker_gets_it(build: Build, story: Story) -> None:
    story.given(*build.started(build.fragment((), (0,), classes=[0, 9], waits=SLEEP)))
    first = story.when(build.wanted())
    assert [type(effect) for effect in first.effects] == [RunSlice]
    story.when(build.report(0, 0))
    began = story.when(build.wanted(after_us=SECOND))
    wait = Wait(due_us=AT_US + 6 * SECOND)
    assert began == Decision(append=(WaitsBegan(tasks=(1,), waits=(wait,), at_us=AT_US + SECOND),))
    assert story.state.task_state(1) is TaskState.AWAITING


def test_a_sleep_ends_at_its_time_and_not_before(build: Build, story: Story) -> None:
    story.given(*build.started(sleeper(build)))
    story.when(build.wanted())
    assert story.when(build.wanted(after_us=5 * SECOND - 1)) == NOTHING
    end = story.when(build.wanted(after_us=5 * SECOND))
    assert end.append[0] == WaitsEnded(tasks=(0,), at_us=AT_US + 5 * SECOND)
    assert end.effects == (Finish(status=Status.SUCCESSFUL),)
    assert plain_in(story.state.result) is None
    assert story.state.task_ended_us[0] == AT_US + 5 * SECOND


def test_a_new_owner_waits_for_what_is_left(build: Build, story: Story) -> None:
    story.given(*build.started(sleeper(build)))
    story.when(build.wanted())
    story.when(build.gained(2))
    assert story.state.task_state(0) is TaskState.AWAITING
    assert story.when(build.wanted(after_us=4 * SECOND)) == NOTHING
    assert story.when(build.wanted(after_us=6 * SECOND)).effects


def test_a_clock_that_was_ahead_makes_no_sleep_longer(build: Build, story: Story) -> None:
    """The first owner is an hour ahead of the second, and that a second ahead of the third."""
    hour = 3600 * SECOND
    story.given(*build.started(sleeper(build)))
    story.when(build.wanted(after_us=hour))
    story.when(build.gained(2))
    assert story.when(build.wanted(after_us=5 * SECOND - 1)) == NOTHING
    story.when(replace(build.gained(3), at_us=AT_US - SECOND))
    assert story.when(build.wanted(after_us=4 * SECOND - 1)) == NOTHING
    assert story.when(build.wanted(after_us=4 * SECOND)).effects


def test_a_sleep_takes_how_long_from_another_task(build: Build, story: Story) -> None:
    graph = build.fragment((), (0,), classes=[0, 9], waits={9: ("time", [build.input_value])})
    story.given(*build.started(graph), build.scheduled(0, 0))
    story.given(build.committed_as(0, 0, 2.5))
    (began,) = story.when(build.wanted()).append
    assert began == build.began((1, Wait(due_us=AT_US + 2 * SECOND + SECOND // 2)))


def test_sleeps_end_in_any_order_and_the_next_due_is_always_known(
    build: Build, story: Story
) -> None:
    durations = [7.0, 1.0, 5.0, 3.0, 1.0, 9.0]
    graph = build.fragment(
        *[()] * 6,
        range(6),
        classes=[*range(10, 16), 0],
        waits={10 + at: ("time", [duration]) for at, duration in enumerate(durations)},
    )
    story.given(*build.started(graph))
    story.when(build.wanted())
    seen = []
    while story.state.dues:
        due_us = story.state.dues[0][0]
        assert story.when(build.wanted(after_us=due_us - AT_US - 1)) == NOTHING
        (end,) = story.when(build.wanted(after_us=due_us - AT_US)).append
        assert isinstance(end, WaitsEnded)
        seen.append(end.tasks)
    assert seen == [(1, 4), (3,), (2,), (0,), (5,)]
    assert story.state.task_state(6) is TaskState.READY


def test_an_event_ends_the_waits_for_its_key_and_no_others(build: Build, story: Story) -> None:
    graph = build.fragment(
        (),
        (),
        (),
        (0, 1, 2),
        classes=[1, 2, 1, 0],
        waits={1: ("event", ["a"]), 2: ("event", ["b"])},
    )
    story.given(*build.started(graph))
    story.when(build.wanted())
    received = story.when(build.arrived("a", {"yes": 1}))
    (event,) = received.append
    assert isinstance(event, EventReceived)
    assert story.when(build.wanted()).append == (build.ended(0, 2),)
    key, content = tuple_in(story.state.results[0])
    assert (plain_in(key), plain_in(content)) == ("a", {"yes": 1})
    assert story.state.task_state(1) is TaskState.AWAITING


def test_an_event_may_come_before_anybody_waits_for_it(build: Build, story: Story) -> None:
    story.given(*build.started(build.fragment((), classes=[1], waits={1: ("event", ["a"])})))
    story.when(build.arrived("a", 1))
    story.when(build.wanted())
    assert story.when(build.wanted()).effects == (Finish(status=Status.SUCCESSFUL),)


def test_the_first_event_of_a_key_is_the_only_one(build: Build, story: Story) -> None:
    story.given(*build.started(build.fragment((), classes=[1], waits={1: ("event", ["a"])})))
    story.when(build.arrived("a", 1))
    assert story.when(build.arrived("a", 2)) == NOTHING
    with pytest.raises(IllegalEventError, match="comes once"):
        apply(story.state, build.received("a"))
    assert plain_in(story.state.received["a"]) == 1


def test_without_a_key_it_is_the_id_of_the_task(build: Build, story: Story) -> None:
    graph = build.fragment((), names=["ok"], classes=[1], waits={1: ("event", [""])})
    story.given(*build.started(graph))
    assert story.when(build.wanted()).append == (build.began((0, Wait(key="ok"))),)


def race(build: Build, count: int = 1, timeout_s: float | None = None) -> Fragment:
    """Returns three tasks, one that waits for some of them, and one that takes what it gives."""
    return build.fragment(
        (),
        (),
        (),
        (0, 1, 2),
        (3,),
        names="abcwf",
        classes=[0, 0, 0, 7, 0],
        waits={7: ("tasks", [count, timeout_s])},
    )


def split_in(payload: Payload | None) -> tuple[list[object], list[str]]:
    assert payload is not None
    assert payload.encoding == Encoding.SPLIT
    values, left = unpack_split(payload.data)
    return [plain_in(value) for value in values], left


def test_who_waits_for_some_tasks_gets_what_is_there_first(build: Build, story: Story) -> None:
    story.given(*build.started(race(build)))
    begun = story.when(build.wanted())
    assert begun.append[-1] == build.began((3, Wait(count=1)))
    story.when(build.report(1, 1))
    ended = story.when(build.wanted())
    assert ended.append == (build.ended(3),)
    assert split_in(story.state.results[3]) == ([[1, 1]], ["a", "c"])
    (sent,) = story.when(build.wanted()).effects
    assert isinstance(sent, RunSlice)
    assert sent.tasks == (4,)


def test_which_were_ready_stays_so_whatever_comes_later(build: Build, story: Story) -> None:
    story.given(*build.started(race(build, 2)))
    story.when(build.wanted())
    story.when(build.report(2, 2))
    assert story.when(build.wanted()) == NOTHING
    story.when(build.report(0, 0))
    story.when(build.wanted())
    before = story.state.results[3]
    story.when(build.report(1, 1))
    assert story.state.results[3] == before
    assert split_in(before) == ([[0, 1], [2, 1]], ["b"])


def test_of_more_that_are_there_only_so_many_are_taken(build: Build, story: Story) -> None:
    story.given(*build.started(race(build)), build.scheduled(0, 0, 1, 2))
    story.given(build.committed(0, 0, 1, 2))
    story.when(build.wanted())
    story.when(build.wanted())
    assert split_in(story.state.results[3]) == ([[0, 1]], ["b", "c"])


def test_a_wait_with_a_timeout_takes_what_is_there_then(build: Build, story: Story) -> None:
    story.given(*build.started(race(build, 3, 2.0)))
    story.when(build.wanted())
    story.when(build.report(1, 1))
    assert story.when(build.wanted(after_us=2 * SECOND - 1)) == NOTHING
    story.when(build.wanted(after_us=2 * SECOND))
    assert split_in(story.state.results[3]) == ([[1, 1]], ["a", "c"])


def test_what_the_result_did_not_wait_for_ends_with_the_workflow(
    build: Build, story: Story
) -> None:
    story.given(*build.started(race(build)))
    story.when(build.wanted())
    story.when(build.report(1, 1))
    story.when(build.wanted())
    (run,) = story.when(build.wanted()).effects
    assert isinstance(run, RunSlice)
    end = story.when(build.report(run.slice, 4))
    assert end.effects == (CancelSlices(slices=(0, 2)), Finish(status=Status.SUCCESSFUL))
    assert [story.state.task_state(task) for task in (0, 2)] == [TaskState.DROPPED] * 2
    assert not story.state.slices


def test_who_is_left_can_be_waited_for_again(build: Build, story: Story) -> None:
    story.given(*build.started(race(build)))
    story.when(build.wanted())
    story.when(build.report(1, 1))
    story.when(build.wanted())
    (run,) = story.when(build.wanted()).effects
    assert isinstance(run, RunSlice)
    rest = build.fragment(
        (),
        (),
        (0, 1),
        names=["a'", "c'", "w'"],
        classes=[1, 2, 7],
        waits={1: ("task", ["a"]), 2: ("task", ["c"]), 7: ("tasks", [2, None])},
    )
    story.when(build.report(run.slice, continued=[build.continued(4, rest)]))
    waits = build.began((5, Wait(task=0)), (6, Wait(task=2)), (7, Wait(count=2)))
    assert story.when(build.wanted()).append == (waits,)
    story.when(build.report(2, 2))
    assert story.when(build.wanted()).append == (build.ended(6),)
    story.when(build.report(0, 0))
    assert story.when(build.wanted()).append == (build.ended(5),)
    assert story.when(build.wanted()).effects == (Finish(status=Status.SUCCESSFUL),)
    assert split_in(story.state.result) == ([[0, 1], [2, 1]], [])


def test_who_catches_gets_a_pair_from_a_wait_as_well(build: Build, story: Story) -> None:
    story.given(*build.started(build.catcher()), build.scheduled(0, 0))
    story.when(build.report(0, continued=[build.continued(0, sleeper(build))]))
    story.when(build.wanted())
    story.when(build.wanted(after_us=5 * SECOND))
    assert [plain_in(each) for each in tuple_in(story.state.result)] == [None, None]


def test_a_wait_that_nobody_needs_is_forgotten(build: Build, story: Story) -> None:
    story.given(*build.started(build.catcher()), build.scheduled(0, 0))
    inner = build.fragment((), (), (0, 1), classes=[9, 0, 0], waits=SLEEP, max_retries=0)
    story.when(build.report(0, continued=[build.continued(0, inner)]))
    story.when(build.wanted())
    story.when(build.report(1, raised=[build.raised(2, retryable=False)]))
    assert not story.state.awaited
    assert not story.state.dues
    assert story.state.task_state(1) is TaskState.DROPPED


def test_who_has_a_value_catches_no_more(build: Build, story: Story) -> None:
    """A task caught nothing and returned; what its continuation left behind fails later."""
    graph = build.fragment((), (0,), classes=[0, 1], catching=[0], max_retries=0)
    story.given(*build.started(graph), build.scheduled(0, 0))
    inner = build.fragment(
        (), (), (0, 1), classes=[1, 1, 7], waits={7: ("tasks", [1, None])}, max_retries=0
    )
    story.when(build.report(0, continued=[build.continued(0, inner)]))
    story.when(build.wanted())
    story.when(build.report(1, 2))
    story.when(build.wanted())
    value, nothing = tuple_in(story.state.results[0])
    assert split_in(value) == ([[2, 1]], ["f_3"])
    assert plain_in(nothing) is None
    failed = story.when(build.report(2, raised=[build.raised(3, retryable=False)]))
    assert failed.effects == (Finish(status=Status.FAILED),)


LISTENERS: dict[int, tuple[str, list[object]]] = {1: ("poll", []), 2: ("notice", [])}


def test_any_number_of_listeners_is_under_way_each_on_its_own(build: Build, story: Story) -> None:
    graph = build.fragment(*[()] * 9, range(9), classes=[*[1] * 9, 0], waits=LISTENERS)
    story.given(*build.started(graph))
    effects = story.when(build.wanted(1)).effects
    assert [each.tasks for each in effects if isinstance(each, RunSlice)] == [
        (task,) for task in range(9)
    ]


def test_a_listener_is_told_that_its_event_is_durable_only_when_it_is(
    build: Build, story: Story
) -> None:
    story.given(*build.started(build.fragment((), (0,), classes=[1, 2], waits=LISTENERS)))
    (poll,) = story.when(build.wanted()).effects
    story.when(build.report(0, 0))
    (notice,) = story.when(build.wanted()).effects
    assert isinstance(poll, RunSlice)
    assert isinstance(notice, RunSlice)
    assert (poll.sync_first, notice.sync_first) == (False, True)


def test_no_listener_is_blamed_for_the_end_of_their_process(build: Build, story: Story) -> None:
    story.given(*build.started(build.fragment((), classes=[1], waits=LISTENERS, max_retries=0)))
    story.when(build.wanted())
    assert story.when(build.loss(0)).append == (build.lost(0, 0),)
    assert story.state.status is Status.RUNNING


@pytest.mark.parametrize(
    ("wait", "reason"),
    [
        (Wait(), "does not wait for that"),
        (Wait(key="a"), "does not wait for that"),
        (Wait(due_us=5, count=1), "does not wait for that"),
        (Wait(due_us=5, task=0), "does not wait for that"),
        (Wait(due_us=-5), "does not wait for that"),
    ],
)
def test_a_wait_for_something_else_is_refused(build: Build, wait: Wait, reason: str) -> None:
    state = fold(build.started(sleeper(build)))
    before = state.digest()
    with pytest.raises(IllegalEventError, match=reason):
        apply(state, build.began((0, wait)))
    assert state.digest() == before


def test_what_is_not_ready_does_not_wait_and_what_waits_is_not_run(build: Build) -> None:
    state = fold(build.started(sleeper(build)))
    with pytest.raises(IllegalEventError, match="no worker runs"):
        apply(state, build.scheduled(0, 0))
    wait = Wait(due_us=AT_US + SECOND)
    with pytest.raises(IllegalEventError, match="begins to wait once"):
        apply(state, build.began((0, wait), (0, wait)))
    apply(state, build.began((0, wait)))
    with pytest.raises(IllegalEventError, match="not ready"):
        apply(state, build.began((0, wait)))


def test_a_wait_does_not_end_before_its_time_or_twice(build: Build) -> None:
    state = fold([*build.started(sleeper(build)), build.began((0, Wait(due_us=AT_US + SECOND)))])
    for event, reason in (
        (build.ended(0, after_us=SECOND - 1), "has not come"),
        (build.ended(0, 0, after_us=SECOND), "ends once"),
        (build.ended(after_us=SECOND), "ends once"),
        (build.ended(1, after_us=SECOND), "does not wait"),
    ):
        with pytest.raises(IllegalEventError, match=reason):
            apply(state, event)
    apply(state, build.ended(0, after_us=SECOND))
    with pytest.raises(IllegalEventError, match="does not wait"):
        apply(state, build.ended(0, after_us=SECOND))


def test_no_wait_ends_where_the_workflow_does_not_run(build: Build) -> None:
    state: State = fold(
        [
            *build.started(build.fragment((), (), (0, 1), classes=[9, 0, 0], waits=SLEEP)),
            build.began((0, Wait(due_us=AT_US))),
            build.scheduled(0, 1),
            build.failed(0, 1, final=True),
            build.status("FAILED"),
        ]
    )
    for event in (build.ended(0), build.began((2, Wait(due_us=5)))):
        with pytest.raises(IllegalEventError, match="does not run"):
            apply(state, event)
    apply(state, build.received("a"))


def test_many_waits_are_stored_in_columns(build: Build) -> None:
    many = build.began(*((task, Wait(due_us=AT_US + task)) for task in range(1000)))
    assert decode(encode(many)) == many
    assert len(encode(many)) < 40
