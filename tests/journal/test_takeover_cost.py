"""What a take-over asks of the store, and the first step after it, do not grow with the tasks."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest

from milepost.journal import MemoryStore, take_ownership
from milepost.journal.states import own_state
from milepost.journal.store import StoredObject
from milepost.journal.summary import read_status
from milepost.replay.codec import decode_all, decode_only, encode
from milepost.replay.decide import decide
from milepost.replay.events import Noted, OwnershipTaken, StatusChanged, WorkflowCreated
from milepost.replay.fold import apply
from milepost.replay.inputs import OwnershipGained, WorkWanted
from milepost.replay.payload import Payload
from milepost.replay.state import State, Status
from rehearsal import Rehearsal
from shapes import fan, make_environment

SLICE_TASKS = 50


class CountingStore(MemoryStore):
    """Counts its calls by operation and folder."""

    def __init__(self) -> None:
        super().__init__("counting")
        self.calls: Counter[str] = Counter()

    def _count(self, operation: str, key: str) -> None:
        self.calls[f"{operation} {key.split('/')[2]}"] += 1

    def put(self, key: str, parts: Sequence[Any]) -> None:
        self._count("put", key)
        super().put(key, parts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._count("get", key)
        return super().get(key, start, length)

    def map(self, key: str) -> memoryview | bytes:
        self._count("map", key)
        return super().map(key)

    def settle(self, key: str) -> int:
        self._count("settle", key)
        return super().settle(key)

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        self._count("list", prefix)
        return super().list(prefix, after)


def blob(rng: random.Random, task: int) -> Payload:
    """A value that is stored as a blob, which a take-over has no business with."""
    return Payload(encoding=2, digest=rng.randbytes(32), size=10**6)


def interrupted(tasks: int) -> CountingStore:
    """Runs all tasks of a fan but the last one, which takes them all; then the owner is gone."""
    store = CountingStore()
    told = Rehearsal(store, "w", seed=1, result=blob)
    rng = random.Random(1)
    told.create(fan(rng, tasks), make_environment(rng))
    told.run(tasks_per_slice=SLICE_TASKS, reports_max=tasks // SLICE_TASKS)
    told.close()
    store.calls.clear()
    return store


@pytest.mark.parametrize("tasks", [100, 3000])
def test_a_takeover_makes_the_same_few_calls_however_many_tasks_are_finished(tasks: int) -> None:
    store = interrupted(tasks)
    own_state(store, "w", "somebody")
    assert store.calls == {
        "put claims": 1,
        "list claims": 2,  # before the claim, and after it
        "list segments": 1,
        "list compacted": 1,
        "settle segments": 1,
        "get segments": 2,  # its head, and all of it
    }


def test_a_status_is_read_without_any_blob_and_in_as_many_calls() -> None:
    few, many = interrupted(100), interrupted(3000)
    assert read_status(few, "w").status is read_status(many, "w").status is Status.RUNNING
    assert few.calls == many.calls
    assert not [call for call in many.calls if call.endswith("blobs")]


def test_the_first_work_after_a_takeover_costs_the_same_however_many_tasks_are_finished() -> None:
    assert count_lines_of_first_work(3000) == count_lines_of_first_work(100)


def count_lines_of_first_work(tasks: int) -> int:
    state, writer = own_state(interrupted(tasks), "w", "somebody")
    gained = OwnershipGained(epoch=writer.epoch, owner="o", reason="resume", at_us=1)
    for event in decide(state, gained).append:
        apply(state, event)
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        decision = decide(state, WorkWanted(slices_max=2, slice_us=1, costs_us={}, at_us=2))
        for happened in decision.append:
            apply(state, happened)
    finally:
        sys.settrace(before)
    assert len(decision.effects) == 1
    return lines


def test_the_wanted_events_are_those_that_a_whole_decoding_gives() -> None:
    raw = b"".join(frame_events for frame_events in raw_frames(interrupted(100))) + encode(
        Noted(text="x" * 300, who="w", at_us=1)
    )
    wanted = (WorkflowCreated, OwnershipTaken, StatusChanged)
    whole = [event for event in decode_all(raw) if isinstance(event, wanted)]
    assert list(decode_only(raw, *wanted)) == whole
    assert len(whole) == 3


def raw_frames(store: MemoryStore) -> list[bytes]:
    frames: list[bytes] = []
    take_ownership(store, "w", owner="o", on_frame=lambda frame: frames.append(frame.raw))
    return frames


def test_a_state_is_the_same_whoever_folds_it() -> None:
    state = State()
    for raw in raw_frames(interrupted(500)):
        for event in decode_all(raw):
            apply(state, event)
    assert own_state(interrupted(500), "w", "o")[0].digest() == state.digest()
