"""Plain data come back equal and of equal type; everything else is left to pickle."""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import IntEnum, StrEnum
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.replay.payload import Payload, inline, is_plain, pack_plain, unpack_plain

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
PLAIN = st.recursive(
    SCALARS, lambda children: st.lists(children) | st.dictionaries(st.text(), children)
)


class Number(int):
    pass


class Text(str):
    __slots__ = ()


class Colour(IntEnum):
    RED = 1


class Mood(StrEnum):
    GOOD = "good"


def shape(value: object) -> object:
    """Returns ``value`` with every type spelt out: 1, 1.0 and True compare equal otherwise."""
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    return type(value).__name__, repr(value)


def nest(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@PATIENT
@given(value=PLAIN)
def test_plain_data_come_back_equal_and_of_equal_type(value: object) -> None:
    packed = pack_plain(value)
    assert packed is not None
    assert is_plain(value)
    assert shape(unpack_plain(packed)) == shape(value)


def test_the_order_of_a_dict_is_kept() -> None:
    packed = pack_plain({"b": 1, "a": 2})
    assert packed is not None
    assert list(unpack_plain(packed)) == ["b", "a"]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_odd_floats_are_kept_bit_by_bit(value: float) -> None:
    packed = pack_plain(value)
    assert packed is not None
    found = unpack_plain(packed)
    assert isinstance(found, float)
    assert (math.copysign(1, found), repr(found)) == (math.copysign(1, value), repr(value))


@pytest.mark.parametrize(
    "value",
    [
        (),
        (1, 2),
        bytearray(b"x"),
        memoryview(b"x"),
        {1, 2},
        1j,
        object(),
        len,
        Number(1),
        Text("x"),
        Colour.RED,
        Mood.GOOD,
        OrderedDict(a=1),
        {1: "int key"},
        {None: 1},
        {b"k": 1},
        {(1,): 1},
        {Text("k"): 1},
        2**64,
        -(2**63) - 1,
        "\ud800",
        {"\udfff": 1},
        msgpack.ExtType(1, b""),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [1, it], lambda it: {"k": [[it]]}])
def test_what_would_come_back_different_is_not_plain(value: object, wrap: Any) -> None:
    assert pack_plain(wrap(value)) is None
    assert not is_plain(wrap(value))


def test_deep_values_are_not_plain() -> None:
    assert pack_plain(nest(100)) is not None
    assert pack_plain(nest(101)) is None
    assert pack_plain(nest(100_000)) is None


def test_cyclic_values_are_not_plain() -> None:
    ring: list[Any] = []
    ring.append(ring)
    table: dict[str, Any] = {}
    table["self"] = [table]
    assert pack_plain(ring) is None
    assert pack_plain(table) is None


def test_a_container_in_two_places_is_not_plain_for_it_would_come_back_as_two() -> None:
    row = [0, 0]
    assert pack_plain([row, row]) is None
    assert pack_plain({"a": row, "b": {"c": row}}) is None
    assert pack_plain([[0, 0], [0, 0]]) is not None


def test_a_value_that_unfolds_without_end_is_told_apart_at_once() -> None:
    value: list[Any] = []
    for _ in range(90):
        value = [value, value]
    assert pack_plain(value) is None


@pytest.mark.parametrize(
    "data", [b"", b"\x01\x02", b"\x92\x01", b"\xc1", b"\xa1\xff", b"\x81\x01\x01"]
)
def test_what_is_not_one_plain_value_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        unpack_plain(data)


def test_an_inline_payload_knows_its_size() -> None:
    assert inline(1, b"abc") == Payload(encoding=1, data=b"abc", digest=b"", size=3)
