"""Workflows whose storage failed go on by themselves once it answers again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from front_desk import FrontDesk
from milepost.engine.healing import PATIENCE_S, PAUSE_MAX_S, Healer
from milepost.errors import StorageUnavailableError

FAN = ((), (), (), (0, 1, 2))


async def test_who_waits_while_the_storage_fails_is_told_so_and_can_resume(desk: FrontDesk) -> None:
    await desk.submit(*FAN)
    waiting = asyncio.create_task(desk.refused(desk.output()))
    await desk.finish(0)
    desk.stage.store.fail_next()
    await desk.finish(1)
    desk.stage.store.plan = lambda number: "before"
    assert isinstance(await waiting, StorageUnavailableError)
    assert await desk.dispatcher.status("w") == "RESUMABLE"
    desk.stage.store.plan = lambda number: None
    assert await desk.dispatcher.resume("w") == "resumed"
    await desk.stage.settle()
    await desk.finish(1, 2, 3)
    assert await desk.output() == 3


@pytest.mark.parametrize("away_s", [0, 20, 55])
async def test_a_workflow_goes_on_by_itself_when_its_storage_is_back(
    desk: FrontDesk, away_s: int
) -> None:
    """And who waits for it never learns that it was away."""
    await desk.submit(*FAN)
    waiting = asyncio.create_task(desk.output())
    await desk.finish(0)
    desk.stage.store.plan = lambda number: "before"
    await desk.finish(1)
    await asyncio.sleep(away_s)
    assert desk.notes.hosted == {"w": 1}  # a manager has a dispatcher that dies now take it up
    assert await desk.dispatcher.live() == {}
    desk.stage.store.plan = lambda number: None
    await asyncio.sleep(PAUSE_MAX_S)
    assert await desk.dispatcher.live() == {"w": "RUNNING"}
    await desk.finish(1, 2, 3)
    assert await waiting == 3
    assert desk.stage.stored().attempts[1] == 2


async def test_one_journal_that_cannot_be_read_keeps_no_other_waiting(desk: FrontDesk) -> None:
    """While the storage is away only one workflow knocks; it must not always be the same."""
    for each in ("a", "b", "c"):
        await desk.submit(*FAN, workflow_id=each, nonce=each)
    store = desk.stage.store
    store.plan = lambda number: "before"
    for slice_ in list(desk.stage.workers.desks):
        slice_.returns()
    await desk.stage.settle()
    assert await desk.dispatcher.live() == {}
    store.plan = lambda number: None
    put = store.put

    def put_all_but_a(key: str, parts: Any) -> None:
        if key.startswith("workflows/a/"):
            raise StorageUnavailableError("put", key, "this one alone")
        put(key, parts)

    store.put = put_all_but_a  # type: ignore[method-assign]
    await asyncio.sleep(2 * PAUSE_MAX_S)
    assert set(await desk.dispatcher.live()) == {"b", "c"}
    store.put = put  # type: ignore[method-assign]
    await asyncio.sleep(PAUSE_MAX_S)
    assert set(await desk.dispatcher.live()) == {"a", "b", "c"}


async def test_a_start_that_failed_is_not_gone_on_with(desk: FrontDesk) -> None:
    """Who asked for it was told so; the workflow may be in the journal, and is resumable then."""
    desk.stage.store.plan = lambda number: "after" if number > 2 else None
    assert isinstance(await desk.refused(desk.submit(())), StorageUnavailableError)
    desk.stage.store.plan = lambda number: None
    await asyncio.sleep(10 * PAUSE_MAX_S)
    assert await desk.dispatcher.live() == {}
    assert desk.notes.hosted == {"w": 0}


async def test_a_workflow_that_its_storage_fails_again_while_it_is_healed_stays_in_care() -> None:
    """It may stop again before its takeover has returned to the healer."""
    tries: list[str] = []

    async def go_on(workflow_id: str) -> None:
        tries.append(workflow_id)
        if len(tries) == 1:
            healer.begin([workflow_id])

    ended: list[str] = []
    healer = Healer(go_on, ended.append)
    healer.begin(["w"])
    assert await healer.wait("w", PATIENCE_S)
    assert (tries, ended) == (["w", "w"], ["w"])
    assert not healer.busy
