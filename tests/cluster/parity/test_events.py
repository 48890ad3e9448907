"""Parity with ray.workflow: sleeping and waiting for events."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def now(*_: Any) -> float:
    return time.time()


@ray.remote
def go_on() -> Any:
    return milepost.continuation(now.bind(milepost.sleep(1), now.bind()))


@pytest.mark.parity("test_events.py::test_sleep")
def test_a_sleep_in_a_continuation_takes_its_time(workflow_id: str) -> None:
    began = time.time()
    ended = milepost.run(go_on.bind(), workflow_id=workflow_id)
    assert 1.0 < ended - began < 3.0


@pytest.mark.parity("test_events.py::test_sleep_checkpointing")
def test_the_clock_of_a_sleep_starts_when_the_workflow_runs(workflow_id: str) -> None:
    node = now.bind(milepost.sleep(1.5))
    time.sleep(1.0)
    began = time.time()
    ended = milepost.run(node, workflow_id=workflow_id)
    assert 1.5 <= ended - began < 3.0


class FileAppears(milepost.EventListener):
    """Waits for a file, and returns what is in it."""

    async def poll_for_event(self, path: Path) -> str:
        while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110  files tell nobody
            await asyncio.sleep(0.02)
        return await asyncio.to_thread(path.read_text)


@ray.remote
def join(*texts: str) -> str:
    return " ".join(texts)


@ray.remote
def note(path: Path, text: str) -> str:
    path.with_suffix(".begun").touch()
    while not path.exists():
        time.sleep(0.02)
    return text


def wait_until_running(workflow_id: str, states: set[str]) -> None:
    deadline = time.monotonic() + 30
    while {task["state"] for task in milepost.list_tasks(workflow_id)} != states:
        assert time.monotonic() < deadline, milepost.list_tasks(workflow_id)
        time.sleep(0.02)


@pytest.mark.parity("test_events.py::test_wait_for_multiple_events")
def test_several_events_are_waited_for_at_once(workflow_id: str, tmp_path: Path) -> None:
    """None of them comes before all of them are waited for."""
    paths = [tmp_path / name for name in "abc"]
    waits = [milepost.wait_for_event(FileAppears, path) for path in paths]
    ref = milepost.run_async(join.bind(*waits), workflow_id=workflow_id)
    wait_until_running(workflow_id, {"SCHEDULED", "WAITING"})
    for path in reversed(paths):
        path.write_text(path.name)
    assert ray.get(ref, timeout=30) == "a b c"


@pytest.mark.parity("test_events.py::test_event_after_arg_resolution")
def test_other_arguments_are_computed_while_an_event_is_waited_for(
    workflow_id: str, tmp_path: Path
) -> None:
    path = tmp_path / "event"
    dag = join.bind(milepost.wait_for_event(FileAppears, path), join.bind("argument"))
    ref = milepost.run_async(dag, workflow_id=workflow_id)
    wait_until_running(workflow_id, {"SCHEDULED", "COMMITTED", "WAITING"})
    path.write_text("event")
    assert ray.get(ref, timeout=30) == "event argument"


@pytest.mark.parity("test_events.py::test_event_during_arg_resolution")
def test_an_event_may_come_while_an_argument_is_computed(workflow_id: str, tmp_path: Path) -> None:
    event, done = tmp_path / "event", tmp_path / "done"
    event.write_text("event")
    dag = join.bind(milepost.wait_for_event(FileAppears, event), note.bind(done, "argument"))
    ref = milepost.run_async(dag, workflow_id=workflow_id)
    wait_until_running(workflow_id, {"SCHEDULED", "COMMITTED", "WAITING"})
    done.touch()
    assert ray.get(ref, timeout=30) == "event argument"


@pytest.mark.parity("test_events.py::test_event_as_workflow")
def test_an_event_can_be_the_whole_workflow(workflow_id: str, tmp_path: Path) -> None:
    path = tmp_path / "event"
    waiting = milepost.wait_for_event(FileAppears, path)
    ref = milepost.run_async(waiting, workflow_id=workflow_id)
    assert milepost.get_status(workflow_id) == milepost.RUNNING
    path.write_text("event")
    assert ray.get(ref, timeout=30) == "event"


@pytest.mark.parity("test_events.py::test_types")
def test_only_a_class_of_listeners_can_be_waited_for() -> None:
    kind: Any
    for kind in ("FileAppears", FileAppears(), ValueError, None):
        with pytest.raises(TypeError):
            milepost.wait_for_event(kind)
