"""Refs are stored once and loaded once, however many hold them; large arguments go another way."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest
import ray

from milepost.engine import references, supply
from milepost.engine.parcels import MESSAGE_BYTES_MAX, Parcel, ParcelCollector
from milepost.engine.payloads import BlobCollector, serialize
from milepost.engine.references import RefTable, WorkerSink
from milepost.errors import MilepostError, NotSerializableError, StorageUnavailableError
from milepost.replay.payload import Encoding, Payload, inline
from slice_bench import Bench, gather, task

if TYPE_CHECKING:
    from tests.engine.conftest import Disk, Objects

LARGE = Payload(encoding=Encoding.PICKLE.value, digest=bytes(range(32)), size=100_000)
STATE: Any = SimpleNamespace(workflow_id="w", incarnation=3)
REF: Any = ray.ObjectRef(bytes([7]) * 28)


class Remote:
    """Plays one of the two Ray tasks.

    Attributes:
        calls: The arguments of each call.
        answers: What the calls return, in order.
    """

    def __init__(self, *answers: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers = list(answers)

    def options(self, **_: Any) -> Remote:
        return self

    def remote(self, *given: Any) -> Any:
        self.calls.append(given)
        answer = self.answers.pop(0)
        return self._later(answer) if not isinstance(answer, ray.ObjectRef) else answer

    async def _later(self, answer: Any) -> Any:
        await asyncio.sleep(0)
        return answer


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Remote]:
    def put(name: str, *answers: Any) -> Remote:
        remote = Remote(*answers)
        monkeypatch.setattr(references, name, remote)
        monkeypatch.setattr(references, "_options_of", lambda state: {})
        return remote

    return put


def ask(table: RefTable, times: int) -> list[Payload | MilepostError]:
    async def gather_all() -> list[Payload | MilepostError]:
        asks = [table.store("place", STATE, REF) for _ in range(times)]
        return await asyncio.gather(*asks)

    return asyncio.run(gather_all())


def test_a_ref_that_many_ask_for_at_once_is_stored_once(tasks: Callable[..., Remote]) -> None:
    storing = tasks("_store_value", LARGE)
    table = RefTable()
    assert ask(table, 100) == [LARGE] * 100
    assert storing.calls == [("place", "w", 3, [REF])]


def test_a_ref_that_could_not_be_stored_is_tried_again(tasks: Callable[..., Remote]) -> None:
    away = StorageUnavailableError("put", "blobs/x", "it is away")
    tasks("_store_value", away, LARGE)
    table = RefTable()
    assert ask(table, 2) == [away, away]
    assert ask(table, 1) == [LARGE]


def test_a_value_that_many_need_is_loaded_once_and_then_known(
    tasks: Callable[..., Remote],
) -> None:
    loading, storing = tasks("_load_value", REF), tasks("_store_value")
    table = RefTable()
    refs = [table.load("place", STATE, LARGE, f"{n:056x}") for n in range(1, 6)]
    assert refs == [REF] * 5
    assert len(loading.calls) == 1
    assert ask(table, 1) == [LARGE]
    assert not storing.calls, "its payload is known: it came from there"


class Desk:
    """A dispatcher's handle; its two methods answer at once."""

    def __init__(self, stored: object = None, loaded: object = ()) -> None:
        self.asked: list[str] = []
        self.store_ref = self._method("store", stored)
        self.load_ref = self._method("load", loaded)

    def _method(self, name: str, answer: object) -> Any:
        def remote(*_: Any) -> object:
            self.asked.append(name)
            return answer

        return type("Method", (), {"remote": staticmethod(remote)})()


@pytest.fixture
def sink(disk: Disk, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(desk: Desk) -> WorkerSink:
        bench = Bench(disk)
        order = bench.order(gather(task(lambda: 1).bind()), (0,))
        object.__setattr__(order, "dispatcher", desk)
        fetch = objects.get
        answers = (list, tuple, Payload, MilepostError, type(None))
        monkeypatch.setattr(ray, "get", lambda it: it if isinstance(it, answers) else fetch(it))
        context = type("Context", (), {"get_node_id": lambda self: "node"})()
        monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
        return WorkerSink(order)

    return make


def test_a_worker_asks_about_a_ref_once(sink: Callable[[Desk], WorkerSink]) -> None:
    desk = Desk(stored=LARGE)
    made = sink(desk)
    assert [made.store_ref(REF) for _ in range(3)] == [LARGE] * 3
    assert desk.asked == ["store"]


def test_a_worker_stores_a_ref_itself_if_its_workflow_is_not_there_any_more(
    sink: Callable[[Desk], WorkerSink], objects: Objects
) -> None:
    ref = objects.put("x" * 100_000)
    payload = sink(Desk(stored=None)).store_ref(ref)
    assert payload.digest


def test_why_a_ref_cannot_be_stored_reaches_the_worker(sink: Callable[[Desk], WorkerSink]) -> None:
    with pytest.raises(NotSerializableError, match="lost"):
        sink(Desk(stored=NotSerializableError("the value is lost"))).store_ref(REF)


def test_a_ref_that_was_loaded_is_not_stored_again(sink: Callable[[Desk], WorkerSink]) -> None:
    desk = Desk(loaded=[REF])
    made = sink(desk)
    assert made.load_ref(LARGE, None) == REF  # type: ignore[arg-type]
    assert made.store_ref(REF) == LARGE
    assert desk.asked == ["load"]


def test_a_small_value_is_not_asked_for(
    sink: Callable[[Desk], WorkerSink], disk: Disk, objects: Objects
) -> None:
    desk = Desk()
    ref = sink(desk).load_ref(inline(Encoding.PICKLE.value, pickle.dumps("small")), disk)
    assert objects.get(ref) == "small"
    assert desk.asked == []


def test_one_ref_in_a_hundred_values_is_fetched_once(objects: Objects) -> None:
    ref, blobs = objects.put(np.arange(50_000)), BlobCollector()
    for number in range(100):
        serialize((ref, number), blobs)
    assert objects.gets == [ref]
    assert len(blobs.blobs) == 1


def test_large_arguments_leave_the_message(objects: Objects) -> None:
    collector = ParcelCollector()
    large, small = b"l" * (MESSAGE_BYTES_MAX + 1), b"s" * (MESSAGE_BYTES_MAX // 3)
    told = [collector([large[:10], memoryview(large)[10:]]) for _ in range(2)]
    assert told[0] == told[1]
    for number in range(7):
        collector([small, bytes([number])])
    assert sum(map(len, collector.blobs.values())) <= MESSAGE_BYTES_MAX
    sent: list[Parcel] = [objects.get(ref) for ref in collector.parcels]
    contents = [b"".join(parts) for parcel in sent for parts in parcel.blobs.values()]
    assert contents[0] == large
    assert len(contents) + len(collector.blobs) == 8


def test_a_parcel_is_pickled_without_a_copy() -> None:
    array = np.arange(100_000)
    buffers: list[pickle.PickleBuffer] = []
    pickled = cloudpickle.dumps(
        Parcel({b"d": [array.view(np.uint8), b"end"]}),
        protocol=5,
        buffer_callback=buffers.append,
    )
    assert len(pickled) < 1000
    ((one, two),) = pickle.loads(pickled, buffers=buffers).blobs.values()
    assert np.frombuffer(one, np.int64).ctypes.data == array.ctypes.data
    assert bytes(two) == b"end"


def test_a_slice_that_is_over_holds_no_ref(
    disk: Disk, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception's frames may keep the slice itself, in a worker that idles."""
    monkeypatch.setattr(supply, "describe_worker", lambda: "node:1")
    seen: list[Any] = []
    close = supply.Supply.close

    def watch(self: Any) -> None:
        seen.append(dict(self.sink._payloads))
        close(self)
        seen.append(dict(self.sink._payloads))

    monkeypatch.setattr(supply.Supply, "close", watch)
    ref = objects.put("behind")
    Bench(disk).attempt(gather(task(lambda: (ref, 1)).bind()), 0)
    assert [len(each) for each in seen] == [1, 0]
