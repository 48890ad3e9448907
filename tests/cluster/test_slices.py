"""What travels together does not wait for each other."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import ray

import milepost
from milepost.journal import load_state, open_store, read_journal
from milepost.replay.codec import decode_all
from milepost.replay.events import AttemptFailed, AttemptsLost, TasksCommitted

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TASKS = 1000


@ray.remote
def work(number: int, slow: int, ledger: Path, sleep_s: float) -> int:
    if number == slow:
        with ledger.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(sleep_s)
    return number


@ray.remote
def gather(*numbers: int) -> int:
    return len(numbers)


def test_nothing_waits_for_a_slow_companion(storage: Path, workflow_id: str, ledger: Path) -> None:
    slow = random.Random(workflow_id).randrange(100, TASKS)
    dag: Any = gather.bind(*[work.bind(number, slow, ledger, 5.0) for number in range(TASKS)])
    assert milepost.run(dag, workflow_id=workflow_id) == TASKS
    store = open_store(storage, create=False)
    events = [
        event for frame in read_journal(store, workflow_id) for event in decode_all(frame.raw)
    ]
    commits = [event for event in events if isinstance(event, TasksCommitted)]
    order = [task for event in commits for task in event.tasks]
    assert order[-2:] == [slow, TASKS], "others waited until the slow one had ended"
    assert not any(isinstance(event, AttemptFailed | AttemptsLost) for event in events)
    state = load_state(store, workflow_id)
    assert set(state.attempts) == {1}
    began = state.task_started_us[slow]
    others = [state.task_ended_us[task] for task in range(TASKS) if task != slow]
    assert max(others) - began < 4_000_000
    assert ledger.read_text() == f"{slow}\n"
