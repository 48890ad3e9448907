"""Maps: items go out in slices, come back in ranges, and are blamed one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from map_building import (
    committed,
    failed,
    handed_back,
    lost,
    raised,
    report,
    scheduled,
    values_of,
    with_maps,
)
from milepost.errors import IllegalEventError
from milepost.replay.catching import unpack_caught
from milepost.replay.codec import decode, encode
from milepost.replay.decide import CancelSlices, Decision, Finish, RunSlice
from milepost.replay.decide_items import SLICE_ITEMS_MAX, RunItems
from milepost.replay.events import (
    AttemptFailed,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    StatusChanged,
)
from milepost.replay.fragment import ChunkItems, Fragment, MapSpec, ResultItems, find_fault
from milepost.replay.mapping import (
    Chunks,
    Run,
    pack_chunks,
    pack_listed,
    unpack_chunks,
    unpack_listed,
    unpack_mapped,
)
from milepost.replay.payload import Encoding
from milepost.replay.state import Status, TaskState

if TYPE_CHECKING:
    from tests.replay.conftest import Build, Story

CHEAP = {0: 1.0}


def mapped(
    build: Build, width: int, *, max_retries: int = 3, catch: bool = False, **how: Any
) -> Fragment:
    """Returns a graph of one map."""
    catching = [0] if catch else []
    fragment = build.fragment((), max_retries=max_retries, catching=catching)
    return with_maps(fragment, {0: width}, **how)


def runs_of(decision: Decision) -> list[list[Run]]:
    return [
        list(zip(each.starts, each.stops, each.attempts, strict=True))
        for each in decision.effects
        if isinstance(each, RunItems)
    ]


def want(story: Story, build: Build, **how: Any) -> list[list[Run]]:
    how.setdefault("costs_us", CHEAP)
    return runs_of(story.when(build.wanted(**how)))


def test_items_are_spread_over_the_workers_that_are_free(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10)))
    assert want(story, build) == [[(0, 3, 1)], [(3, 6, 1)], [(6, 9, 1)], [(9, 10, 1)]]
    assert want(story, build) == []
    assert story.state.task_state(0) is TaskState.SCHEDULED


def test_items_of_unknown_cost_travel_alone(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 100)))
    assert want(story, build, costs_us={}, slices_max=2) == [[(0, 1, 1)], [(1, 2, 1)]]


def test_a_slice_holds_as_much_work_as_was_asked(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10**6)))
    assert want(story, build, slices_max=1, costs_us={0: 20.0}) == [[(0, 50, 1)]]
    story.when(report(0, (0, 50)))
    assert want(story, build, slices_max=1, costs_us={0: 1e-9}) == [[(50, 50 + SLICE_ITEMS_MAX, 1)]]


def test_what_is_under_way_is_bounded_however_wide_the_map_is(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10**9)))
    assert len(want(story, build, slices_max=4)) == 4
    assert story.state.maps[0].under_way <= 4 * SLICE_ITEMS_MAX
    assert want(story, build, slices_max=4) == []


def test_a_map_has_its_value_when_all_items_have(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 4)))
    want(story, build, slices_max=2)
    story.when(report(1, (2, 4)))
    assert story.state.task_state(0) is TaskState.SCHEDULED
    decision = story.when(report(0, (0, 1), (1, 2)))
    assert Finish(status=Status.SUCCESSFUL) in decision.effects
    assert story.state.result is not None
    assert unpack_mapped(story.state.result) == (0, False)
    chunks = list(story.state.maps[0].chunks())
    assert chunks == [(at, to, values_of(at, to)) for at, to in [(0, 1), (1, 2), (2, 4)]]


def test_a_map_waits_for_its_inputs_and_others_for_it(story: Story, build: Build) -> None:
    story.given(*build.started(with_maps(build.fragment((), (0,), (1,)), {1: 2})))
    assert want(story, build) == []
    story.when(build.report(0, 0))
    assert want(story, build, slices_max=1) == [[(0, 2, 1)]]
    story.when(report(1, (0, 2)))
    story.when(build.wanted())
    assert story.state.task_state(2) is TaskState.SCHEDULED


def test_no_map_rides_and_nothing_rides_on_one(story: Story, build: Build) -> None:
    story.given(*build.started(with_maps(build.fragment((), (0,), (1,)), {1: 2})))
    decision = story.when(build.wanted(costs_us=CHEAP, riders_max=9))
    assert [each.tasks for each in decision.effects if isinstance(each, RunSlice)] == [(0,)]


def test_maps_take_turns_behind_tasks_of_their_class(story: Story, build: Build) -> None:
    graph = with_maps(build.fragment((), (), (), (0, 1, 2)), {0: 100, 1: 100})
    story.given(*build.started(graph))
    decision = story.when(build.wanted(slices_max=5, slice_us=10, costs_us=CHEAP))
    slices = [each for each in decision.effects if isinstance(each, RunItems)]
    assert [each.task for each in slices] == [0, 1, 0, 1]
    assert [each.slice for each in slices] == [1, 2, 3, 4]
    assert story.state.task_state(2) is TaskState.SCHEDULED


def test_in_strict_durability_items_wait_for_the_journal(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 2), "strict"))
    decision = story.when(build.wanted())
    assert all(each.sync_first for each in decision.effects if isinstance(each, RunItems))


def test_a_failed_item_runs_again_and_no_other_does(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 6)))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 2), (3, 6), raised=[raised(2)]))
    assert want(story, build) == [[(2, 3, 2)]]
    story.when(report(1, (2, 3)))
    assert story.state.status is Status.SUCCESSFUL


def test_an_item_without_retries_left_fails_the_workflow(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 6, max_retries=1)))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 2), (3, 6), raised=[raised(2)]))
    want(story, build)
    decision = story.when(report(1, raised=[raised(2, attempt=2)]))
    assert Finish(status=Status.FAILED) in decision.effects
    (_, status) = decision.append
    assert isinstance(status, StatusChanged)
    assert status.reason == "task f[2]: ValueError"
    assert list(story.state.maps[0].failed) == [2]


def test_other_items_of_a_failed_map_still_commit(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 4, max_retries=0)))
    want(story, build, slices_max=2)
    decision = story.when(report(0, raised=[raised(0), raised(1)]))
    assert Finish(status=Status.FAILED) in decision.effects
    story.when(report(1, (2, 4)))
    assert story.state.maps[0].done == 2
    story.when(build.resume())
    assert want(story, build, slices_max=1) == [[(0, 2, 2)]]
    story.when(report(2, (0, 2)))
    assert story.state.status is Status.SUCCESSFUL


def test_an_item_that_catches_has_its_exception_for_a_value(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 3, max_retries=0, catch=True)))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 1), (2, 3), raised=[raised(1)]))
    assert story.state.status is Status.SUCCESSFUL
    _, caught, _ = (payload for _, _, payload in story.state.maps[0].chunks())
    assert caught.encoding == Encoding.CAUGHT
    assert unpack_caught(caught.data)[0] == "f[1]"


def test_the_last_item_may_be_the_one_that_is_caught(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 2, max_retries=0, catch=True)))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 1)))
    decision = story.when(report(0, raised=[raised(1)]))
    assert Finish(status=Status.SUCCESSFUL) in decision.effects


def test_a_map_at_the_end_of_a_caught_continuation_is_caught(story: Story, build: Build) -> None:
    story.given(*build.started(build.catcher()))
    story.when(build.wanted())
    continued = build.continued(0, mapped(build, 100, max_retries=0))
    story.when(build.report(0, continued=[continued]))
    want(story, build, slices_max=2, slice_us=10)
    decision = story.when(report(1, (0, 5), raised=[raised(5), raised(6)]))
    assert [type(each) for each in decision.append] == [ItemsCommitted, ItemFailed, StatusChanged]
    assert CancelSlices(slices=(1, 2)) in decision.effects
    assert story.state.status is Status.SUCCESSFUL
    assert story.state.result is not None
    assert story.state.result.encoding == Encoding.CAUGHT


def test_a_map_at_the_end_of_a_caught_continuation_gives_a_pair(story: Story, build: Build) -> None:
    story.given(*build.started(build.catcher()))
    story.when(build.wanted())
    story.when(build.report(0, continued=[build.continued(0, mapped(build, 2))]))
    want(story, build, slices_max=1)
    story.when(report(1, (0, 2)))
    assert story.state.result is not None
    assert unpack_mapped(story.state.result) == (1, True)


def test_a_map_inside_a_caught_continuation_is_dropped(story: Story, build: Build) -> None:
    story.given(*build.started(build.catcher()))
    story.when(build.wanted())
    graph = with_maps(build.fragment((), (), (0, 1), max_retries=0), {0: 100})
    story.when(build.report(0, continued=[build.continued(0, graph)]))
    story.when(build.wanted(slices_max=3, slice_us=10, costs_us=CHEAP))
    decision = story.when(build.report(1, raised=[build.raised(2)]))
    assert isinstance(decision.append[0], AttemptFailed)
    assert CancelSlices(slices=(2, 3)) in decision.effects
    assert story.state.task_state(1) is TaskState.DROPPED
    assert story.state.item_slices == {}
    assert story.state.open_maps == {}


def test_of_several_items_none_is_blamed_for_a_dead_worker(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 64, max_retries=0)))
    want(story, build, slices_max=1)
    decision = story.when(build.loss(0))
    assert [type(each) for each in decision.append] == [ItemsLost]
    assert want(story, build, slices_max=3) == [[(0, 4, 2)], [(4, 8, 2)], [(8, 12, 2)]]


def test_a_poison_item_is_found_and_blamed_alone(story: Story, build: Build) -> None:
    poison, deaths = 777, 0
    story.given(*build.started(mapped(build, 1000, max_retries=0)))
    while story.state.status is Status.RUNNING:
        want(story, build, slices_max=1)
        (number, slice_) = next(iter(story.state.item_slices.items()))
        if slice_.outstanding.covers(poison, poison + 1):
            deaths += 1
            story.when(build.loss(number))
        else:
            story.when(report(number, *slice_.outstanding))
    assert list(story.state.maps[0].failed) == [poison]
    assert deaths == 4
    assert story.state.maps[0].failures == {poison: 1}


def test_what_a_suspect_slice_hands_back_stays_suspect(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 64)))
    want(story, build, slices_max=1)
    story.when(build.loss(0))
    want(story, build, slices_max=1)
    decision = story.when(report(1, (0, 1), handed_back=[(1, 4)]))
    assert isinstance(decision.append[0], ItemsHandedBack)
    assert (1, 4, 64) in story.state.maps[0].suspects


def test_what_is_handed_back_keeps_its_attempt(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10)))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 2), handed_back=[(3, 10)]))
    assert want(story, build, slices_max=2) == [[(3, 10, 1)]]
    story.when(report(0, (2, 3)))
    story.when(report(1, (3, 10)))
    assert story.state.status is Status.SUCCESSFUL


def test_a_new_owner_sends_out_again_what_was_under_way(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10)))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 4)))
    story.when(build.gained(2))
    assert story.state.task_state(0) is TaskState.READY
    assert want(story, build, slices_max=1) == [[(4, 10, 2)]]
    for number in (0, 1):
        assert story.when(report(number, (4, 10), epoch=1)).append == ()
    assert story.state.maps[0].done == 4, "a former owner's slice counts no more"


def test_a_report_counts_once(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10)))
    want(story, build, slices_max=1)
    said = report(0, (0, 4), raised=[raised(4)])
    assert len(story.when(said).append) == 2
    assert story.when(said).append == ()


def test_lists_of_values_can_be_items(story: Story, build: Build) -> None:
    graph = mapped(build, 10, chunk_size=4)
    (spec,) = graph.maps
    assert spec.width == 3
    assert spec.find_values(2, 3) == (8, 10)
    story.given(*build.started(graph))
    assert want(story, build, slices_max=1) == [[(0, 3, 1)]]


def test_a_map_can_take_the_values_of_an_earlier_one(story: Story, build: Build) -> None:
    story.given(*build.started(with_maps(build.fragment((), (0,)), {0: 6})))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 6)))
    story.when(build.wanted())
    following = mapped(build, 6, items=ResultItems(task=0))
    story.when(build.report(1, continued=[build.continued(1, following)]))
    assert want(story, build, slices_max=1) == [[(0, 6, 1)]]
    assert [each[:2] for each in story.state.maps[0].find_chunks(2, 3)] == [(0, 6)]


@pytest.mark.parametrize("items", [ResultItems(task=1), ResultItems(task=7), ResultItems(task=-1)])
def test_no_map_takes_values_that_are_not_there(
    story: Story, build: Build, items: ResultItems
) -> None:
    story.given(*build.started(with_maps(build.fragment((), (0,)), {0: 6})))
    want(story, build, slices_max=1)
    story.when(report(0, (0, 6)))
    story.given(build.scheduled(1, 1))
    for length in (6, 5):
        graph = mapped(build, length, items=items)
        with pytest.raises(IllegalEventError, match="no such map has a value"):
            story.given(build.extended(1, 1, graph))
    wrong = mapped(build, 5, items=ResultItems(task=0))
    with pytest.raises(IllegalEventError, match="of another width"):
        story.given(build.extended(1, 1, wrong))


def refused(story: Story, event: Any, reason: str) -> None:
    with pytest.raises(IllegalEventError, match=reason):
        story.given(event)


def test_items_are_scheduled_as_they_may_be(story: Story, build: Build) -> None:
    story.given(*build.started(with_maps(build.fragment((), (), (0, 1)), {0: 10})))
    refused(story, scheduled(1, 0, (0, 2, 1)), "numbered densely")
    refused(story, scheduled(0, 1, (0, 2, 1)), "no such map")
    refused(story, scheduled(0, 0, (0, 11, 1)), "not pending")
    refused(story, scheduled(0, 0, (1, 2, 1)), "not pending")
    refused(story, scheduled(0, 0, (-1, 2, 1)), "not pending")
    refused(story, scheduled(0, 0, (0, 2, 2)), "not the next attempt")
    refused(story, scheduled(0, 0, (0, 2, 1), (1, 3, 1)), "disjoint")
    refused(story, replace(scheduled(0, 0, (0, 2, 1)), attempts=(1, 1)), "differ in length")
    refused(story, build.scheduled(0, 0), "not the map")
    story.given(scheduled(0, 0, (0, 4, 1)))
    refused(story, scheduled(1, 0, (2, 4, 1)), "not pending")
    story.given(handed_back(0, 0, (1, 2)), failed(0, 0, 3))
    refused(story, scheduled(1, 0, (1, 2, 2)), "not the next attempt")
    story.given(scheduled(1, 0, (1, 2, 1), (3, 4, 2), (4, 6, 1)))


def test_items_commit_as_they_may(story: Story, build: Build) -> None:
    story.given(*build.started(with_maps(build.fragment((), (), (0, 1)), {0: 10, 1: 3})))
    story.given(scheduled(0, 0, (0, 4, 1)))
    refused(story, committed(1, 0, (0, 4)), "no such slice")
    refused(story, committed(0, 1, (0, 3)), "of another map")
    refused(story, committed(0, 0, (0, 5)), "not outstanding")
    refused(story, committed(0, 0, (2, 4), (0, 2)), "in order")
    refused(story, committed(0, 0, (0, 4), node=3), "not named this worker")
    refused(story, replace(committed(0, 0, (0, 4)), payloads=()), "differ in length")
    story.given(committed(0, 0, (1, 2)))
    refused(story, committed(0, 0, (0, 4)), "not outstanding")
    refused(story, failed(0, 0, 1), "not outstanding")
    refused(story, failed(0, 0, 2, attempt=2), "not the present attempt")
    refused(story, handed_back(0, 0, (0, 2)), "not outstanding")
    refused(story, lost(3, 0), "no such slice")


def test_nothing_of_a_map_that_waits_is_scheduled(story: Story, build: Build) -> None:
    story.given(*build.started(with_maps(build.fragment((), (0,)), {1: 3})))
    refused(story, scheduled(0, 1, (0, 3, 1)), "not ready")


CHUNKS = ChunkItems(counts=(2, 3), payloads=(values_of(0, 2), values_of(2, 5)))


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (MapSpec(node=0, length=5, chunk_size=0, items=CHUNKS), None),
        (MapSpec(node=1, length=5, chunk_size=0, items=CHUNKS), "is node 1 of 1"),
        (MapSpec(node=-1, length=5, chunk_size=0, items=CHUNKS), "is node -1"),
        (MapSpec(node=0, length=0, chunk_size=0, items=CHUNKS), "has no items"),
        (MapSpec(node=0, length=5, chunk_size=-1, items=CHUNKS), "has no items"),
        (MapSpec(node=0, length=6, chunk_size=0, items=CHUNKS), "do not fit"),
        (
            MapSpec(node=0, length=2, chunk_size=0, items=ChunkItems(counts=(2, 0), payloads=())),
            "do not fit",
        ),
    ],
)
def test_maps_are_well_formed_or_refused(build: Build, spec: MapSpec, fault: str | None) -> None:
    found = find_fault(replace(build.single(), maps=(spec,)))
    assert (found is None) if fault is None else (fault in (found or ""))


@pytest.mark.parametrize("items", [CHUNKS, ResultItems(task=3)])
def test_where_items_come_from_is_stored(build: Build, items: Any) -> None:
    graph = with_maps(build.fragment((), (0,)), {0: 5}, chunk_size=2, items=items)
    assert decode(encode(build.created(graph))) == build.created(graph)


def test_a_million_items_take_few_bytes_of_journal(story: Story, build: Build) -> None:
    story.given(*build.started(mapped(build, 10**6)))
    assert len(encode(story.journal[0])) < 400
    want(story, build, slices_max=1)
    assert len(encode(story.journal[-1])) < 40


def test_sequences_by_chunk_come_back_as_they_were() -> None:
    chunks = Chunks(counts=(2, 3), payloads=CHUNKS.payloads, task=4, caught=True)
    assert unpack_chunks(pack_chunks(chunks)) == chunks
    assert unpack_listed(pack_listed(list(CHUNKS.payloads))) == list(CHUNKS.payloads)
    with pytest.raises(ValueError, match="do not fit"):
        unpack_chunks(pack_chunks(replace(chunks, counts=(2,))))
