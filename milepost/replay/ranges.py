"""Sets of integers that are mostly runs: the items of a map that are in one condition.

A set of a million neighbours is one pair. Every operation is a bisection and an insertion into a
short list; there is no step per integer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
"""From the first integer to the one behind the last."""


class Ranges:
    """Disjoint ranges in ascending order, none touching the next."""

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        """How many integers there are."""
        return self._total

    def covers(self, start: int, stop: int) -> bool:
        """Tells whether all integers from ``start`` to below ``stop`` are there; no empty range."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and start < stop <= self._stops[at]

    def add(self, start: int, stop: int) -> None:
        """Adds integers of which none is there."""
        at = bisect_right(self._starts, start)
        assert start < stop, (start, stop)
        assert at == 0 or self._stops[at - 1] <= start, (start, stop)
        assert at == len(self._starts) or stop <= self._starts[at], (start, stop)
        self._total += stop - start
        before = at > 0 and self._stops[at - 1] == start
        behind = at < len(self._starts) and self._starts[at] == stop
        if before and behind:
            self._stops[at - 1] = self._stops[at]
            del self._starts[at], self._stops[at]
        elif before:
            self._stops[at - 1] = stop
        elif behind:
            self._starts[at] = start
        else:
            self._starts.insert(at, start)
            self._stops.insert(at, stop)

    def remove(self, start: int, stop: int) -> None:
        """Removes integers that are all there."""
        assert self.covers(start, stop), (start, stop)
        at = bisect_right(self._starts, start) - 1
        first, last = self._starts[at], self._stops[at]
        self._total -= stop - start
        kept = [each for each in ((first, start), (stop, last)) if each[0] < each[1]]
        self._starts[at : at + 1] = [each[0] for each in kept]
        self._stops[at : at + 1] = [each[1] for each in kept]


def are_ascending(starts: tuple[int, ...], stops: tuple[int, ...]) -> bool:
    """Tells whether two columns of one length are ranges, disjoint and in order; at least one."""
    if not starts or len(starts) != len(stops):
        return False
    in_order = all(stop <= start for stop, start in zip(stops, starts[1:], strict=False))
    return in_order and all(start < stop for start, stop in zip(starts, stops, strict=True))
