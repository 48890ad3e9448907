"""Listeners: any number in one process, polled once, told at least once, whatever dies."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from local_cluster import LocalCluster
from milepost.event_listener import TimerListener

cloudpickle.register_pickle_by_value(sys.modules[__name__])

LISTENERS = 300


class Watched(milepost.EventListener):
    """Tells a ledger what happens to it, and waits until the ledger lets it go on."""

    async def poll_for_event(self, ledger: Path) -> Path:
        note(ledger, "polled")
        await appears(ledger.with_name("event"))
        return ledger

    async def event_checkpointed(self, event: Path) -> None:
        note(event, "told")
        await appears(event.with_name("go"))


class Raises(milepost.EventListener):
    async def poll_for_event(self, ledger: Path, times: int) -> str:
        note(ledger, "polled")
        if len(await asyncio.to_thread(told, ledger)) <= times:
            raise ValueError("not yet")
        return "here"


class RefusesNews(milepost.EventListener):
    async def poll_for_event(self) -> str:
        return "event"

    async def event_checkpointed(self, event: str) -> None:
        raise ValueError("I will not hear of it")


def note(ledger: Path, what: str) -> None:
    with ledger.open("a") as file:
        file.write(f"{what}\n")


async def appears(path: Path) -> None:
    while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110  files tell nobody
        await asyncio.sleep(0.02)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def told(ledger: Path) -> list[str]:
    return ledger.read_text().split()


@pytest.mark.parity("test_events_with_crash.py::test_crash_during_event_checkpointing")
def test_who_dies_before_the_event_is_stored_is_polled_again(
    workflow_id: str, ledger: Path, kill_actor: Callable[[str], int]
) -> None:
    ref = milepost.run_async(milepost.wait_for_event(Watched, ledger), workflow_id=workflow_id)
    wait_for(lambda: told(ledger) == ["polled"])
    assert kill_actor("ListenerHost") == 1
    wait_for(lambda: told(ledger) == ["polled"] * 2)
    for name in ("event", "go"):
        ledger.with_name(name).touch()
    assert ray.get(ref, timeout=60) == ledger
    assert told(ledger) == ["polled"] * 2 + ["told"]


@pytest.mark.parity("test_events_with_crash.py::test_crash_after_commit")
def test_who_dies_while_it_is_told_is_told_again_and_not_polled(
    workflow_id: str, ledger: Path, kill_actor: Callable[[str], int]
) -> None:
    ledger.with_name("event").touch()
    ref = milepost.run_async(milepost.wait_for_event(Watched, ledger), workflow_id=workflow_id)
    wait_for(lambda: told(ledger) == ["polled", "told"])
    assert kill_actor("ListenerHost") == 1
    wait_for(lambda: told(ledger) == ["polled", "told", "told"])
    ledger.with_name("go").touch()
    assert ray.get(ref, timeout=60) == ledger


def test_a_listener_waits_on_while_its_dispatcher_is_replaced(
    workflow_id: str, ledger: Path, kill_actor: Callable[[str], int]
) -> None:
    ref = milepost.run_async(milepost.wait_for_event(Watched, ledger), workflow_id=workflow_id)
    wait_for(lambda: told(ledger) == ["polled"])
    assert kill_actor("Dispatcher") == 1
    for name in ("event", "go"):
        ledger.with_name(name).touch()
    assert ray.get(ref, timeout=60) == ledger
    assert told(ledger).count("polled") == 1


def test_a_listener_that_raises_is_polled_again_as_often_as_its_options_say(
    workflow_id: str, ledger: Path
) -> None:
    node = milepost.wait_for_event(Raises, ledger, 2)
    with pytest.raises(milepost.WorkflowExecutionError, match="not yet"):
        milepost.run(node, workflow_id=workflow_id)
    assert told(ledger) == ["polled"]
    patient = node.options(max_retries=1, retry_exceptions=[ValueError])
    assert milepost.run(patient, workflow_id=f"{workflow_id} patient") == "here"
    assert told(ledger) == ["polled"] * 3


def test_a_failure_to_hear_of_the_event_fails_the_workflow_or_is_caught(workflow_id: str) -> None:
    node = milepost.wait_for_event(RefusesNews)
    with pytest.raises(milepost.WorkflowExecutionError, match="will not hear"):
        milepost.run(node, workflow_id=workflow_id)
    caught = node.options(**milepost.options(catch_exceptions=True))
    value, error = milepost.run(caught, workflow_id=f"{workflow_id} caught")
    assert value is None
    assert isinstance(error, ValueError)


def test_hundreds_of_listeners_share_one_process(
    cluster: LocalCluster, workflow_id: str, tmp_path: Path
) -> None:
    milepost.run(milepost.wait_for_event(TimerListener, 0), workflow_id=workflow_id)
    processes = len(cluster.processes())
    ledger = tmp_path / "many"
    ledger.touch()
    ids = [f"{workflow_id} {number}" for number in range(LISTENERS)]
    ledger.with_name("go").touch()
    refs = [
        milepost.run_async(milepost.wait_for_event(Watched, ledger), workflow_id=each)
        for each in ids
    ]
    wait_for(lambda: told(ledger) == ["polled"] * LISTENERS)
    assert len(cluster.processes()) <= processes
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    ledger.with_name("event").touch()
    assert ray.get(refs, timeout=120) == [ledger] * LISTENERS
    assert sorted(told(ledger)) == ["polled"] * LISTENERS + ["told"] * LISTENERS


def test_a_canceled_workflow_polls_no_more(workflow_id: str, ledger: Path) -> None:
    class Counts(milepost.EventListener):
        async def poll_for_event(self) -> None:
            try:
                note(ledger, "polled")
                await asyncio.sleep(3600)
            finally:
                note(ledger, "ended")

    milepost.run_async(milepost.wait_for_event(Counts), workflow_id=workflow_id)
    wait_for(lambda: told(ledger) == ["polled"])
    milepost.cancel(workflow_id)
    wait_for(lambda: told(ledger) == ["polled", "ended"])


def test_a_listener_knows_its_task_and_takes_values_of_others(workflow_id: str) -> None:
    class Tells(milepost.EventListener):
        async def poll_for_event(self, given: Any, more: Any) -> Any:
            return given, more, milepost.current().task_id

    @ray.remote
    def compute() -> list[int]:
        return [1, 2]

    node = milepost.wait_for_event(Tells, compute.bind(), more={"a": (3,)})
    named = node.options(**milepost.options(task_id="hear"))
    assert milepost.run(named, workflow_id=workflow_id) == ([1, 2], {"a": (3,)}, "hear")
