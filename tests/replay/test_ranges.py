"""Sets of neighbours: what is in them is what a plain set would hold."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.replay.ranges import Ranges, are_ascending


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ranges_hold_what_a_set_holds(seed: int) -> None:
    chance, ranges, plain = Random(seed), Ranges(), set[int]()
    for _ in range(60):
        start = chance.randrange(30)
        stop = start + chance.randint(1, 6)
        span = set(range(start, stop))
        assert ranges.covers(start, stop) == (span <= plain)
        if span <= plain:
            ranges.remove(start, stop)
            plain -= span
        elif not span & plain:
            ranges.add(start, stop)
            plain |= span
        found = [item for first, last in ranges for item in range(first, last)]
        assert found == sorted(plain)
        assert len(ranges) == len(plain)
        ends = list(ranges)
        assert all(before[1] < after[0] for before, after in pairwise(ends))


def test_an_empty_range_is_in_no_set() -> None:
    assert not Ranges([(0, 5)]).covers(2, 2)


@pytest.mark.parametrize(
    ("starts", "stops", "expected"),
    [
        ((0,), (3,), True),
        ((0, 3), (3, 5), True),
        ((), (), False),
        ((0,), (0,), False),
        ((0, 2), (3, 5), False),
        ((4, 0), (5, 1), False),
        ((0, 4), (1,), False),
    ],
)
def test_runs_are_disjoint_and_in_order(
    starts: tuple[int, ...], stops: tuple[int, ...], expected: bool
) -> None:
    assert are_ascending(starts, stops) == expected
