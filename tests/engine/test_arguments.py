"""Templates: marks stand where they stood, and everything else comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from milepost.engine.arguments import (
    CONSTANT,
    REF,
    VALUE,
    NotPlainError,
    constant_positions,
    mark,
    mark_nodes,
    pack_template,
    unpack_template,
)
from milepost.replay.payload import is_plain

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary()
PLAIN = st.recursive(
    SCALARS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)

node: Any = ray.remote(lambda: 1).bind()


def resolve(kind: int, position: int) -> tuple[int, int]:
    return kind, position


@given(st.lists(PLAIN, max_size=4), st.dictionaries(st.text(), PLAIN, max_size=4))
def test_plain_arguments_come_back_as_they_were(
    positional: list[Any], keyword: dict[str, Any]
) -> None:
    assert unpack_template(pack_template(positional, keyword), resolve) == (positional, keyword)


@pytest.mark.parametrize("kind", [VALUE, REF, CONSTANT])
@pytest.mark.parametrize("position", [0, 1, 127, 128, 65_536, 1 << 40])
def test_a_mark_becomes_what_it_stands_for(kind: int, position: int) -> None:
    stands = mark(kind, position)
    template = pack_template([stands, [1, {"k": stands}]], {"x": stands})
    found = (kind, position)
    assert unpack_template(template, resolve) == ([found, [1, {"k": found}]], {"x": found})


def test_marks_are_resolved_one_by_one() -> None:
    template = pack_template([mark(VALUE, 0), mark(VALUE, 0)], {})
    positional, _ = unpack_template(template, lambda kind, position: [])
    assert positional[0] is not positional[1]


def test_the_constants_of_a_template_are_found_however_deep() -> None:
    template = pack_template(
        [mark(CONSTANT, 3), [mark(REF, 1)], mark(VALUE, 2)], {"k": [{"x": mark(CONSTANT, 0)}]}
    )
    assert constant_positions(template) == [3, 0]


def test_nodes_and_plain_parts_are_handed_over_where_they_stand() -> None:
    parts: list[Any] = []

    def encode(part: Any) -> Any:
        parts.append(part)
        return "node" if part is node else part

    value = [1, node, {"a": [node, "x"], "b": [2, 3]}]
    assert mark_nodes(value, encode) == [1, "node", {"a": ["node", "x"], "b": [2, 3]}]
    assert parts == [1, node, node, "x", [2, 3]]
    assert value[1] is node, "the user's list was changed"


@pytest.mark.parametrize(
    "value", [(node,), {node}, {1: node}, [node, object()], {"k": (1, node)}], ids=repr
)
def test_what_is_not_plain_around_nodes_is_left_to_pickle(value: object) -> None:
    with pytest.raises(NotPlainError):
        mark_nodes(value, lambda part: part)


def test_a_container_in_two_places_is_left_to_pickle() -> None:
    inner = [1]
    loop: list[object] = [node]
    loop.append(loop)
    for value in ([inner, inner, node], {"a": [inner], "b": inner, "c": node}, loop):
        with pytest.raises(NotPlainError):
            mark_nodes(value, lambda part: part)


@given(PLAIN)
def test_plain_values_are_one_part(value: Any) -> None:
    if is_plain(value):
        assert mark_nodes(value, lambda part: ("part", part)) == ("part", value)
