"""Values to bytes and back: equal, of the same type, aligned, and large ones without a copy."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import ray
from ray.actor import ActorHandle

from milepost.engine import payloads
from milepost.engine.payloads import (
    ALIGNMENT,
    INLINE_BYTES_MAX,
    BlobCollector,
    RefMemo,
    deserialize,
    load_here,
    serialize,
    serialize_opaque,
)
from milepost.errors import MilepostError, NotSerializableError, StorageUnavailableError
from milepost.replay.payload import Encoding, Payload

if TYPE_CHECKING:
    from tests.engine.conftest import Disk, Objects

Array = npt.NDArray[Any]


class Memory(BlobCollector):
    """Keeps blobs and gives them back; what refers to nodes gets their numbers."""

    def read_blob(self, payload: Payload) -> memoryview:
        return memoryview(self.blobs[payload.digest])

    def load_ref(self, payload: Payload) -> Any:
        return load_here(payload, self)

    def refer(self, position: int) -> Any:
        return f"node {position}"


@pytest.fixture
def memory() -> Memory:
    return Memory()


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


PLAIN: list[object] = [None, True, 0, -(1 << 63), 1.5, "ü", b"\0", [], [[1], {"k": None}], {}]
OPAQUE: list[object] = [
    (),
    (1, [2]),
    {1: 2},
    {"a"},
    frozenset({1}),
    1 << 200,
    1j,
    bytearray(b"abc"),
    Point(1, [2]),
    datetime.timedelta(days=1),
    ValueError("no"),
    slice(1, 2),
    Ellipsis,
    NotImplemented,
    int,
    Point,
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_can_be_read_without_pickle(memory: Memory, value: object) -> None:
    payload = serialize(value, memory)
    assert payload.encoding == Encoding.PLAIN
    assert deserialize(payload, memory) == value


@pytest.mark.parametrize("value", OPAQUE, ids=repr)
def test_other_values_come_back_equal_and_of_the_same_type(memory: Memory, value: object) -> None:
    payload = serialize(value, memory)
    assert payload.encoding == Encoding.PICKLE
    back = deserialize(payload, memory)
    assert type(back) is type(value)
    assert back == value or repr(back) == repr(value)


def test_functions_and_classes_of_the_users_program_come_back(memory: Memory) -> None:
    factor = 3

    class Local:
        def scale(self, by: int) -> int:
            return by * factor

    back = deserialize(serialize((Local, lambda by: by * factor), memory), memory)
    assert back[0]().scale(2) == 6
    assert back[1](2) == 6


def test_one_object_in_two_places_stays_one_object(memory: Memory) -> None:
    shared = [1]
    back = deserialize(serialize([shared, (shared, shared)], memory), memory)
    assert back[0] is back[1][0] is back[1][1]


def test_two_reads_give_two_values(memory: Memory) -> None:
    payload = serialize([1, [2]], memory)
    first = deserialize(payload, memory)
    first[1].append(3)
    assert deserialize(payload, memory) == [1, [2]]


def test_the_same_value_gives_the_same_bytes(memory: Memory) -> None:
    def make() -> object:
        return {"a": np.arange(5), "b": (1, "x", Point(2))}

    assert serialize(make(), memory) == serialize(make(), memory)


def test_an_unknown_encoding_is_an_error_not_a_guess(memory: Memory) -> None:
    with pytest.raises(ValueError, match="encoding 9 is not known"):
        deserialize(Payload(encoding=9, data=b"\x80", size=1), memory)


@pytest.mark.parametrize(
    ("length", "inline"), [(INLINE_BYTES_MAX, True), (INLINE_BYTES_MAX + 1, False)]
)
def test_what_is_longer_than_the_limit_is_a_blob(memory: Memory, length: int, inline: bool) -> None:
    head = len(serialize(b"x" * 60_000, memory).data) - 60_000
    payload = serialize(b"x" * (length - head), memory)
    assert payload.size == length
    assert (payload.digest == b"") is inline
    assert (len(payload.data) == length) is inline
    assert len(memory.blobs) == (0 if inline else 1)


@pytest.mark.parametrize(
    "value",
    ["x" * 100_000, ("x" * 100_000,), np.zeros(20_000)],
    ids=["plain", "pickle", "buffers"],
)
def test_every_encoding_can_be_a_blob(memory: Memory, value: Any) -> None:
    payload = serialize(value, memory)
    assert payload.data == b""
    assert payload.size == len(memory.blobs[payload.digest])
    back = deserialize(payload, memory)
    assert np.array_equal(back, value)


def test_a_blob_is_the_same_wherever_it_is_kept(memory: Memory, disk: Disk) -> None:
    value = {"rows": np.arange(30_000), "name": "x"}
    collected = serialize(value, memory)
    stored = serialize(value, disk)
    assert stored == collected
    assert bytes(disk.read_blob(stored)) == memory.blobs[collected.digest]


def test_arrays_keep_shape_type_and_order(memory: Memory) -> None:
    arrays: list[Any] = [
        np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(100)[::7],
        np.array(5),
        np.empty(0),
        np.empty((3, 0)),
        np.array(["a", "bcd"]),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([None, [1]], dtype=object),
        np.float32(1.5),
    ]
    for array in arrays:
        back = deserialize(serialize(array, memory), memory)
        assert type(back) is type(array)
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert (
            back.flags["F_CONTIGUOUS"] == np.asarray(array).flags["F_CONTIGUOUS"] or back.ndim == 1
        )
        assert back.tolist() == array.tolist()


def test_large_buffers_are_used_in_place_and_aligned(disk: Disk) -> None:
    rng = np.random.default_rng(0)
    value = [rng.integers(0, 1 << 60, size) for size in (1, 7, 30_000, 3, 50_001)]
    payload = serialize(value, disk)
    content = disk.read_blob(payload)

    class Mapped(Memory):
        def read_blob(self, payload: Payload) -> memoryview:
            return content

    whole = np.frombuffer(content, dtype=np.uint8)
    back = deserialize(payload, Mapped())
    for array, original in zip(back, value, strict=True):
        assert np.array_equal(array, original)
        assert address(array) % ALIGNMENT == 0
        assert address(whole) <= address(array) < address(whole) + len(whole), "it was copied"


def test_what_was_read_cannot_be_written_as_with_rays_own_objects(memory: Memory) -> None:
    for size in (10, 100_000):
        back = deserialize(serialize(np.arange(size), memory), memory)
        with pytest.raises(ValueError, match="read-only"):
            back[0] = 1


def test_the_bytes_of_an_array_are_not_copied_on_their_way_to_the_store() -> None:
    array = np.arange(100_000)
    seen: list[int] = []

    class Looking(RefMemo):
        def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
            large = [np.frombuffer(part, np.uint8) for part in parts if len(part) > 100_000]
            seen.extend(map(address, large))
            return bytes(32), sum(map(len, parts))

    serialize(array, Looking())
    assert seen == [address(array)]


def test_a_buffer_that_stands_in_two_places_is_stored_once(memory: Memory) -> None:
    array = np.arange(20_000)
    payload = serialize([array, {"again": array}], memory)
    assert payload.size < 1.1 * array.nbytes
    back = deserialize(payload, memory)
    assert np.array_equal(back[0], back[1]["again"])


def test_a_ref_is_stored_by_its_value_and_comes_back_as_another_ref(
    memory: Memory, objects: Objects
) -> None:
    ref = objects.put({"rows": [1, 2]})
    payload = serialize({"data": ref}, memory)
    (back,) = deserialize(payload, memory).values()
    assert isinstance(back, ray.ObjectRef)
    assert back != ref
    assert objects.get(back) == {"rows": [1, 2]}


def test_refs_inside_the_values_of_refs_are_followed(memory: Memory, objects: Objects) -> None:
    inner = objects.put(np.arange(20_000))
    outer = objects.put([inner])
    payload = serialize(outer, memory)
    back = deserialize(payload, memory)
    (found,) = objects.get(back)
    assert np.array_equal(objects.get(found), np.arange(20_000))
    assert len(memory.blobs) == 1


def test_a_node_in_a_result_is_refused_with_what_to_do_instead(memory: Memory) -> None:
    node: Any = ray.remote(lambda: 1).bind()
    with pytest.raises(NotSerializableError, match="continuation"):
        serialize([node], memory)


def test_nodes_are_replaced_by_what_the_caller_says(memory: Memory) -> None:
    nodes: list[Any] = [ray.remote(lambda: 1).bind(), ray.remote(lambda: 2).bind()]
    payload = serialize_opaque((nodes, Point(nodes[1])), memory, nodes.index)
    assert deserialize(payload, memory) == (["node 0", "node 1"], Point("node 1"))  # type: ignore[arg-type]


def test_an_actor_handle_is_refused(memory: Memory) -> None:
    class Handle(ActorHandle[Any]):
        def __init__(self) -> None:
            """No actor is behind it."""

        def __del__(self) -> None:
            """Nor has one to be let go."""

    with pytest.raises(NotSerializableError, match="do not outlive"):
        serialize([Handle()], memory)


class Hostile:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


@pytest.mark.parametrize("value", [threading.Lock(), Hostile(), (each for each in "ab")])
def test_what_cannot_be_pickled_is_an_error_that_names_its_type(
    memory: Memory, value: object
) -> None:
    with pytest.raises(NotSerializableError, match=type(value).__name__):
        serialize(value, memory)
    with pytest.raises(NotSerializableError):
        serialize({"deep": [value]}, memory)
    assert memory.blobs == {}


def test_a_value_nested_too_deep_is_an_error_not_a_crash(memory: Memory) -> None:
    nested: tuple[Any, ...] = ()
    for _ in range(100_000):
        nested = (nested,)
    with pytest.raises(NotSerializableError, match="recursion"):
        serialize(nested, memory)


def test_a_storage_that_fails_is_not_blamed_on_the_value(memory: Memory, objects: Objects) -> None:
    error = StorageUnavailableError("put", "blobs/x", "the disk is full")

    class Full(RefMemo):
        def __call__(self, parts: object, /) -> tuple[bytes, int]:
            raise error

    ref = objects.put("x" * 100_000)
    values: list[object] = ["x" * 100_000, ("x" * 100_000,), np.zeros(20_000), [ref]]
    for value in values:
        with pytest.raises(MilepostError) as caught:
            serialize(value, Full())
        assert caught.value is error


def test_a_failed_load_leaves_nothing_behind_for_the_next(memory: Memory) -> None:
    class Outer(Memory):
        def refer(self, position: int) -> Any:
            raise KeyError("the node is gone")

    node: Any = ray.remote(lambda: 1).bind()
    payload = serialize_opaque([node], memory, lambda found: 0)
    with pytest.raises(KeyError, match="gone"):
        deserialize(payload, Outer())
    assert deserialize(payload, memory) == ["node 0"]


def test_pickles_name_the_two_functions_that_stay_for_ever(
    memory: Memory, objects: Objects
) -> None:
    node: Any = ray.remote(lambda: 1).bind()
    ref = objects.put(1)
    data = serialize_opaque([node, ref], memory, lambda found: 0).data
    assert b"milepost.engine.payloads" in data
    for name in (b"_restore_node", b"_restore_ref"):
        assert name in data
        assert callable(getattr(payloads, name.decode()))
    assert pickle.loads(serialize((1,), memory).data) == (1,)
