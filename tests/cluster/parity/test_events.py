"""Parity with ray.workflow: sleeping and waiting for events."""

from __future__ import annotations

import sys
import time
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
