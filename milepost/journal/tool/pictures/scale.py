"""From time to pixels, with long pauses cut short: who waited a night stays readable."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

PAUSE_SHARE_MIN = 0.08
"""A pause this long, as a share of the time in which something happened, is cut short."""

PAUSE_PIXELS = 26.0
STEPS_US = tuple(
    int(step * unit)
    for unit, steps in (
        (1, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (10**3, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (10**6, (1, 2, 5, 10, 15, 30)),
        (60 * 10**6, (1, 2, 5, 10, 15, 30)),
        (3600 * 10**6, (1, 2, 3, 6, 12, 24, 48, 168, 720)),
    )
    for step in steps
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time that is drawn to scale, from one pixel to another."""

    first_us: int
    last_us: int
    left: float
    right: float


class Scale:
    """Tells where a time is drawn.

    Attributes:
        stretches: What is drawn to scale; between two of them lies a pause that was cut short.
    """

    def __init__(self, busy: Iterable[tuple[int, int]], width: float) -> None:
        """Lay out time.

        Args:
            busy: From when to when something happened, in any order.
            width: How many pixels there are.
        """
        runs = _join(sorted(busy)) or [(0, 1)]
        total = sum(last - first for first, last in runs) or 1
        kept: list[tuple[int, int]] = []
        for first, last in runs:
            if kept and first - kept[-1][1] < total * PAUSE_SHARE_MIN:
                kept[-1] = (kept[-1][0], last)
            else:
                kept.append((first, last))
        shown = sum(last - first for first, last in kept) or 1
        room = max(width - PAUSE_PIXELS * (len(kept) - 1), width / 2)
        self._pixels_per_us = room / shown
        self.stretches: list[Stretch] = []
        left = 0.0
        for first, last in kept:
            right = left + (last - first) * self._pixels_per_us
            self.stretches.append(Stretch(first, last, left, right))
            left = right + (width - room) / max(len(kept) - 1, 1)
        self._firsts = [stretch.first_us for stretch in self.stretches]

    def x(self, at_us: int) -> float:
        """Tell where a time is.

        Args:
            at_us: Microseconds since 1970.

        Returns:
            Pixels from the left.
        """
        number = max(0, bisect_right(self._firsts, at_us) - 1)
        stretch = self.stretches[number]
        inside = stretch.left + (at_us - stretch.first_us) * self._pixels_per_us
        if at_us <= stretch.last_us or number + 1 == len(self.stretches):
            return min(max(inside, stretch.left), stretch.right)
        after = self.stretches[number + 1]
        share = (at_us - stretch.last_us) / (after.first_us - stretch.last_us)
        return stretch.right + share * (after.left - stretch.right)

    def ticks(self, pixels_min: float = 80) -> list[tuple[float, str]]:
        """Choose where times are written.

        Args:
            pixels_min: How far apart they are at least.

        Returns:
            Where, and how long after the first time.
        """
        first_us = self._firsts[0]
        apart_us = pixels_min / self._pixels_per_us
        step = next((each for each in STEPS_US if each >= apart_us), STEPS_US[-1])
        found: list[tuple[float, str]] = []
        for stretch in self.stretches:
            start = -(-(stretch.first_us - first_us) // step) * step
            for after in range(start, stretch.last_us - first_us + 1, step):
                x = self.x(first_us + after)
                if not found or x - found[-1][0] >= pixels_min * 0.9:
                    found.append((x, _clock(after, step)))
        return found


def _clock(after_us: int, step_us: int) -> str:
    """Write a time like a stopwatch, as exactly as the step asks for."""
    if not after_us:
        return "0"
    minutes, rest_us = divmod(after_us, 60 * 10**6)
    places = sum(step_us % 10**each != 0 for each in range(1, 7))
    if not minutes and step_us < 1000:
        return f"+{after_us / 1000:g} ms"
    seconds = f"{rest_us / 1e6:0{2 + bool(places) + places if minutes else 0}.{places}f}"
    if not minutes:
        return f"+{seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"+{hours}:{minutes:02}:{seconds}" if hours else f"+{minutes}:{seconds}"


def _join(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
