"""Leases of dispatchers in virtual time, and who is recovered from whom."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from front_desk import FrontDesk
from milepost.engine import dispatcher, leases
from milepost.engine.healing import PAUSE_MAX_S
from milepost.engine.leases import LeaseKeeper, OwnerWatch, read_lease_s
from milepost.engine.recovery import Candidate, choose_candidates, recover_all
from milepost.errors import (
    CorruptJournalError,
    InvalidOptionError,
    LostOwnershipError,
    OutputNotAvailableError,
    WorkflowActiveError,
)
from milepost.journal import MemoryStore, Store, WorkflowSummary, read_status
from milepost.journal.lease import Lease, end_lease, list_leases, write_lease
from milepost.replay.state import Status

FAN = ((), (), (), (0, 1, 2))
LEASE_S = 9.0
START_US = 1_700_000_000_000_000
LATE_US = 300_000_000
T = TypeVar("T")


async def at_once(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    def now_ns() -> int:
        return START_US * 1000 + round(asyncio.get_running_loop().time() * 1e9)

    monkeypatch.setattr(time, "time_ns", now_ns)
    return MemoryStore()


def foreign(owner: str, **changes: Any) -> Lease:
    lease = Lease(
        owner=owner,
        beat=1,
        written_us=START_US,
        lease_us=round(LEASE_S * 1e6),
        machine="another machine",
        process="1/2",
    )
    return replace(lease, **changes)


def keep_renewing(store: Store, owner: str, late_us: int = 0) -> None:
    """Plays an owner elsewhere that lives on for a while; its clock is late."""
    loop = asyncio.get_running_loop()

    def renew(beat: int) -> None:
        written_us = leases._now_us() - late_us
        write_lease(store, foreign(owner, beat=beat, written_us=written_us))

    renew(1)
    for beat in range(2, 20):
        loop.call_later((beat - 1) * LEASE_S / 3, renew, beat)


async def look_round(late: bool) -> None:
    assert not late


async def test_a_lease_is_there_before_hold_returns_and_renewed_while_it_is_needed(
    store: MemoryStore,
) -> None:
    needed = True
    keeper = LeaseKeeper(store, "c/0", LEASE_S, at_once, lambda: needed, look_round)
    assert list_leases(store) == {}
    await asyncio.gather(keeper.hold(), keeper.hold())
    beats = [list_leases(store)["c/0"].beat]
    for _ in range(5):
        await asyncio.sleep(LEASE_S)
        beats.append(list_leases(store)["c/0"].beat)
        assert list_leases(store)["c/0"].is_fresh(leases._now_us())
    assert beats[0] == 1
    assert all(later >= earlier + 2 for earlier, later in pairwise(beats))
    needed = False
    await asyncio.sleep(20 * LEASE_S)
    assert list_leases(store) == {}
    needed = True
    await keeper.hold()
    assert list_leases(store)["c/0"].beat > beats[-1]
    needed = False
    await asyncio.sleep(20 * LEASE_S)


async def test_a_lease_that_is_held_again_while_it_is_removed_is_there(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = LeaseKeeper(store, "c/0", LEASE_S, at_once, lambda: False, look_round)
    removed = asyncio.Event()

    async def slowly(function: Callable[..., Any], *given: Any) -> None:
        if function is end_lease:
            await keeper.hold()
            removed.set()
        function(*given)

    monkeypatch.setattr(keeper, "_in_thread", slowly)
    await keeper.hold()
    await removed.wait()
    await asyncio.sleep(LEASE_S / 100)  # long before the next renewal
    assert "c/0" in list_leases(store)


async def test_an_owner_shows_that_it_lives_before_it_claims_anything(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[int] = []

    async def hold(keeper: object) -> None:
        claims.append(len(desk.stage.store.list("workflows/w/claims/")))

    monkeypatch.setattr(type(desk.dispatcher._hosting._leases), "hold", hold)
    await desk.submit(())
    assert claims == [0]
    desk.restart("another")
    assert await desk.dispatcher.resume("w") == "resumed"
    assert claims == [0, 1]


@pytest.mark.parametrize(("pause_s", "gaps"), [(LEASE_S / 3, 0), (2 * LEASE_S, 1)])
async def test_an_owner_that_renewed_too_late_looks_whether_it_was_succeeded(
    store: MemoryStore, pause_s: float, gaps: int
) -> None:
    loop, told, needed = asyncio.get_running_loop(), [], True
    until = loop.time() + LEASE_S + pause_s

    async def pausing(function: Callable[..., T], /, *given: Any) -> T:
        if loop.time() >= LEASE_S:
            await asyncio.sleep(max(0.0, until - loop.time()))
        return function(*given)

    async def note(late: bool) -> None:
        told.append(late)

    keeper = LeaseKeeper(store, "c/0", LEASE_S, pausing, lambda: needed, note)
    await keeper.hold()
    await asyncio.sleep(10 * LEASE_S)
    needed = False
    await asyncio.sleep(10 * LEASE_S)
    assert told.count(True) == gaps
    assert told.count(False) > 20, "in good times, too: somebody may have used force"


@pytest.mark.parametrize("late", [True, False])
async def test_an_owner_that_was_succeeded_stops_though_its_tasks_run_on(
    desk: FrontDesk, store: MemoryStore, late: bool
) -> None:
    await desk.submit(())
    await desk.submit((), workflow_id="other", nonce="o")
    paused, (task, _) = desk.dispatcher, desk.stage.workers.desks
    waiting = asyncio.create_task(desk.refused(paused.output("w")))
    desk.restart("another")
    assert await desk.dispatcher.take_up("w", "cluster/0") == "resumed"
    await desk.stage.settle()
    assert not waiting.done()
    await paused._hosting._check_ownership(late)
    while not late and len(await paused.live()) > 1:
        await paused._hosting._check_ownership(late)
        await desk.stage.settle()
    await desk.stage.settle()
    assert isinstance(await waiting, LostOwnershipError)
    assert task.closed
    assert list(await paused.live()) == ["other"]


async def test_who_renews_lives_and_who_does_not_is_gone_after_one_lease(
    store: MemoryStore,
) -> None:
    """Clocks do not matter: the dead owner's is an hour ahead, the living one's is late."""
    write_lease(store, foreign("dead/0", written_us=START_US + 3_600_000_000))
    write_lease(store, foreign("late/0", written_us=START_US - LATE_US))
    write_lease(store, foreign("long dead/0", written_us=START_US - 3_600_000_000))
    loop = asyncio.get_running_loop()
    began = loop.time()
    loop.call_later(
        4, lambda: write_lease(store, foreign("late/0", written_us=START_US - LATE_US, beat=2))
    )
    watch = OwnerWatch(store, at_once)
    assert await watch.find_fresh() == {"dead/0"}
    owners = ["dead/0", "late/0", "long dead/0", "without a lease/0"]
    assert await watch.find_alive(owners) == {"late/0"}
    assert LEASE_S < loop.time() - began < 1.5 * LEASE_S
    assert set(list_leases(store)) == {"dead/0", "late/0"}


async def test_nobody_waits_for_owners_that_are_known_to_be_gone(store: MemoryStore) -> None:
    write_lease(store, foreign("long dead/0", written_us=START_US - 3_600_000_000))
    began = asyncio.get_running_loop().time()
    assert await OwnerWatch(store, at_once).find_alive(["long dead/0", "none/0"]) == set()
    assert asyncio.get_running_loop().time() == began


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_lease_of_no_length_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(leases.LEASE_VARIABLE, text)
    with pytest.raises(InvalidOptionError, match=leases.LEASE_VARIABLE):
        read_lease_s()


async def test_a_workflow_of_a_live_cluster_is_running_and_is_neither_taken_nor_deleted(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit(*FAN)
    await desk.submit(*FAN, workflow_id="mine", nonce="m")
    desk.restart("another")
    write_lease(desk.stage.store, foreign("cluster/0"))
    assert await desk.dispatcher.status("w") == "RUNNING"
    assert (await desk.dispatcher.stored_statuses())["w"] == "RUNNING"
    refused = await desk.refused(desk.output())
    assert isinstance(refused, OutputNotAvailableError)
    assert refused.status == "RUNNING"
    assert "takes it over" in str(refused)
    keep_renewing(desk.stage.store, "cluster/0")
    stored = len(desk.stage.store.list(""))
    assert isinstance(await desk.refused(desk.dispatcher.delete("w")), WorkflowActiveError)
    assert len(desk.stage.store.list("")) == stored, "refused before anything is claimed"
    found = await desk.dispatcher.find_candidates({"mine"}, set())
    assert found == [Candidate(workflow_id="w", owner="cluster/0", owner_alive=True)]
    (forced,) = await desk.dispatcher.find_candidates({"mine"}, {"w"})
    assert not forced.owner_alive
    assert await desk.dispatcher.take_up("w", "cluster/0") == "resumed"
    assert await desk.dispatcher.take_up("w", "cluster/0") == "owned"


async def test_a_workflow_whose_owner_does_not_renew_its_lease_can_be_deleted(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit(*FAN)
    desk.restart("another")
    write_lease(desk.stage.store, foreign("cluster/0"))
    await desk.dispatcher.delete("w")
    assert await desk.dispatcher.stored_statuses() == {}


async def test_an_owner_whose_clock_is_minutes_late_is_not_robbed(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit(*FAN)
    desk.restart("another")
    keep_renewing(desk.stage.store, "cluster/0", late_us=LATE_US)
    assert isinstance(await desk.refused(desk.dispatcher.delete("w")), WorkflowActiveError)
    (found,) = await desk.dispatcher.find_candidates(set(), set())
    assert found.owner_alive


async def test_who_runs_or_resumes_what_a_recovery_has_taken_up_joins_it(
    desk: FrontDesk, store: MemoryStore
) -> None:
    """As a job that is tried again does, whose program recovers and then runs the same id."""
    await desk.submit(*FAN)
    desk.restart("another")
    desk.stage.workers.desks.clear()
    assert await desk.dispatcher.take_up("w", "cluster/0") == "resumed"
    assert await desk.submit(*FAN, nonce="again") == "resumed"
    assert await desk.dispatcher.resume("w") == "resumed"
    await desk.finish(0, 1, 2, 3)
    assert desk.stage.workers.sent == [(0,), (1,), (2,), (3,)]
    assert await desk.output() == 3


async def test_nobody_joins_what_was_started_anew_after_a_recovery(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit(())
    desk.restart("another")
    assert await desk.dispatcher.take_up("w", "cluster/0") == "resumed"
    await desk.stage.settle()
    desk.stage.workers.find(0).raises()
    await desk.stage.settle()
    assert await desk.submit((), nonce="again") == "resumed"
    assert isinstance(await desk.refused(desk.dispatcher.resume("w")), WorkflowActiveError)


async def test_a_recovered_workflow_that_its_storage_let_down_can_still_be_joined(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit((), (0,))
    desk.restart("another")
    assert await desk.dispatcher.take_up("w", "cluster/0") == "resumed"
    await desk.stage.settle()
    desk.stage.store.fail_next()
    desk.stage.workers.find(0).returns()
    await asyncio.sleep(PAUSE_MAX_S)
    assert await desk.dispatcher.live() == {"w": "RUNNING"}
    assert read_status(desk.stage.store, "w").epoch == 3
    assert await desk.submit((), (0,), nonce="again") == "resumed"


async def test_nobody_joins_what_was_lost_to_another_cluster_and_taken_back(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit((), (0,))
    desk.restart("another")
    former = desk.dispatcher
    assert await former.take_up("w", "cluster/0") == "resumed"
    await desk.stage.settle()
    desk.stage.store.fail_next()
    desk.stage.workers.find(0).returns()
    await desk.stage.settle()
    desk.restart("third")
    assert await desk.dispatcher.resume("w") == "resumed"
    await asyncio.sleep(PAUSE_MAX_S)
    assert await former.live() == {}
    assert await former.resume("w") == "resumed"
    assert isinstance(await desk.refused(former.resume("w")), WorkflowActiveError)


async def test_who_forces_a_workflow_hears_what_became_of_it(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit((), workflow_id="ended")
    await desk.finish(0)
    await desk.submit((), workflow_id="here")
    forced = await desk.dispatcher.find_candidates({"here"}, {"ended", "here", "nowhere"})
    found = await recover_all(
        forced, lambda each: desk.dispatcher.take_up(each.workflow_id, each.owner)
    )
    told = [(each.workflow_id, each.outcome) for each in found]
    assert told == [("ended", "ended"), ("here", "owned"), ("nowhere", "refused")]
    assert all(each.detail for each in found)


def test_a_lease_is_renewed_while_every_flush_waits_for_the_storage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, stuck = MemoryStore(), threading.Event()
    monkeypatch.setattr(dispatcher, "open_store", lambda storage, create: store)
    monkeypatch.setattr(dispatcher, "RayWorkers", lambda *given: None)
    monkeypatch.setattr(dispatcher, "count_cpus", lambda: 2)

    async def play() -> None:
        busy = dispatcher.Dispatcher("slow", "cluster", 0, None)
        in_thread = busy._hosting._in_thread
        flushes = [
            asyncio.ensure_future(in_thread(stuck.wait)) for _ in range(2 * dispatcher.THREADS)
        ]
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(busy._hosting._leases.hold(), 20)
            assert list(list_leases(store)) == ["cluster/0"]
        finally:
            stuck.set()
            await asyncio.gather(*flushes)

    asyncio.run(play())


async def test_a_workflow_of_a_dead_cluster_is_resumable_and_taken_once(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit(*FAN)
    desk.restart("another")
    write_lease(desk.stage.store, foreign("cluster/0"))
    (found,) = await desk.dispatcher.find_candidates(set(), set())
    assert not found.owner_alive
    rival = desk.dispatcher
    desk.restart("third")
    assert await rival.take_up("w", found.owner) == "resumed"
    assert await desk.dispatcher.take_up("w", found.owner) == "owned"
    assert read_status(desk.stage.store, "w").owner == "another/0"


async def test_a_workflow_that_ended_meanwhile_is_left_alone(
    desk: FrontDesk, store: MemoryStore
) -> None:
    await desk.submit(())
    await desk.finish(0)
    assert await desk.dispatcher.find_candidates(set(), set()) == []
    desk.restart("another")
    assert await desk.dispatcher.take_up("w", "cluster/0") == "ended"


async def test_one_workflow_that_cannot_go_on_keeps_no_other_from_it() -> None:
    outcomes: dict[str, str | Exception] = {
        "a": "resumed",
        "b": LostOwnershipError("b", 1, 2),
        "c": CorruptJournalError("file", 3, "why"),
        "d": "owned",
    }
    asked = []

    async def take_up(candidate: Candidate) -> str:
        asked.append(candidate.workflow_id)
        outcome = outcomes[candidate.workflow_id]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    candidates = [Candidate(workflow_id=each, owner="o", owner_alive=False) for each in outcomes]
    alive = Candidate(workflow_id="e", owner="o", owner_alive=True)
    found = await recover_all([*candidates, alive], take_up)
    told = [(each.workflow_id, each.outcome) for each in found]
    assert told == [
        ("a", "resumed"),
        ("b", "owned"),
        ("c", "refused"),
        ("d", "owned"),
        ("e", "owned"),
    ]
    assert found[2].error == outcomes["c"]
    assert asked == ["a", "b", "c", "d"]


def test_what_ran_comes_before_what_waited_and_older_before_younger() -> None:
    def stored(name: str, status: Status, created_us: int) -> WorkflowSummary:
        return WorkflowSummary(workflow_id=name, status=status, created_us=created_us, owner="o")

    found = choose_candidates(
        [
            stored("waits", Status.PENDING, 1),
            stored("younger", Status.RUNNING, 9),
            stored("older", Status.RUNNING, 5),
        ],
        alive=set(),
        force=set(),
    )
    assert [each.workflow_id for each in found] == ["older", "younger", "waits"]
