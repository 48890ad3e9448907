"""The picture of a workflow's time: attempts by worker, queues, failures, kills and takeovers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from milepost.journal.attempts import Outcome
from milepost.journal.tool.pictures.lanes import NOBODY, Bar, Lanes
from milepost.journal.tool.pictures.scale import Scale
from milepost.journal.tool.pictures.svg import Svg, fit
from milepost.journal.tool.text import show_span, show_time

WIDTH = 1160
NAMES = 168
MARGIN = 24
LANE = 24
BAR = 13
LANES_MAX = 48
BARS_MAX = 2500
"""Up to so many, every attempt is a bar of its own; beyond, bars that touch are drawn as one."""

TITLE = 52
AXIS = 26
LEGEND = 40
STATES = {
    Outcome.COMMITTED: "COMMITTED",
    Outcome.EXTENDED: "EXTENDED",
    Outcome.FAILED: "FAILED",
    Outcome.LOST: "LOST",
    Outcome.HANDED_BACK: "DROPPED",
    Outcome.RUNNING: "SCHEDULED",
}
"""The colour of each outcome, by its name in the style."""

VAGUE = (Outcome.FAILED, Outcome.LOST, Outcome.HANDED_BACK)
"""Of these the journal does not say when they began, only when they were sent."""


def draw_timeline(lanes: Lanes, workflow_id: str, name_task: Callable[[int], str]) -> str:
    """Draw the attempts of a workflow.

    Args:
        lanes: What there is to draw.
        workflow_id: The workflow.
        name_task: Gives a task's id.

    Returns:
        An SVG document.
    """
    shown = lanes.merged(LANES_MAX)
    scale = Scale(_busy(lanes), WIDTH - NAMES - 2 * MARGIN)
    flags = _place_flags(lanes, scale)
    top = TITLE + 15 * (max((row for _, _, row in flags), default=0) + 1)
    height = top + max(1, len(shown)) * LANE + AXIS + LEGEND
    svg = Svg(WIDTH, height, f"Timeline of workflow {workflow_id}")
    svg.add("text", fit(workflow_id, WIDTH - 2 * MARGIN, pixels=8), x=MARGIN, y=22, class_="title")
    svg.add("text", _subtitle(lanes), x=MARGIN, y=39, class_="dim small")
    if not shown:
        svg.add("text", "No attempt was scheduled.", x=MARGIN, y=top + 16, class_="dim")
        return svg.to_text()
    bottom = top + len(shown) * LANE
    with svg.group(transform=f"translate({MARGIN + NAMES} 0)"):
        _draw_axis(svg, scale, top, bottom)
        single = sum(len(bars) for _, bars in shown) <= BARS_MAX
        for number, (_, bars) in enumerate(shown):
            _draw_lane(svg, bars, scale, top + number * LANE, name_task if single else None)
        for x, mark, row in flags:
            _draw_flag(svg, x, mark, TITLE + 15 * row, bottom)
    for number, (name, bars) in enumerate(shown):
        y = top + number * LANE + 15
        svg.add(
            "text", fit(name, NAMES - 14), x=MARGIN, y=y, class_="small", tip=f"{name}: {len(bars)}"
        )
    _draw_legend(svg, lanes, height - 16)
    return svg.to_text()


def _busy(lanes: Lanes) -> Iterator[tuple[int, int]]:
    """Tell when something happened; an attempt may have been lost long before that was noticed."""
    for bars in lanes.bars.values():
        for bar in bars:
            if bar.outcome in VAGUE:
                yield bar.scheduled_us, bar.scheduled_us
                yield bar.ended_us, bar.ended_us
            else:
                yield bar.started_us, bar.ended_us
                yield bar.scheduled_us, bar.scheduled_us
    for mark in lanes.marks:
        yield mark.at_us, mark.at_us


def _subtitle(lanes: Lanes) -> str:
    first, last = lanes.span
    count = sum(map(len, lanes.bars.values()))
    workers = len(lanes.bars.keys() - {NOBODY})
    when = f"from {show_time(first)} for {show_span(last - first)}"
    return f"{count:,} attempts on {workers} workers · {when}"


def _place_flags(lanes: Lanes, scale: Scale) -> list[tuple[float, str, int]]:
    """Give each takeover its place and a row in which its text covers no other."""
    ends: list[float] = []
    placed = []
    for mark in sorted(lanes.marks, key=lambda each: each.at_us):
        if not mark.is_takeover:
            continue
        x, length = scale.x(mark.at_us), min(250.0, 6.6 * len(mark.text)) + 16
        left = x - length if x > WIDTH - NAMES - 260 else x
        row = next((at for at, end in enumerate(ends) if end <= left), len(ends))
        if row >= 4:
            row = 3
        ends[row : row + 1] = [left + length]
        placed.append((x, mark.text, row))
    return placed


def _draw_flag(svg: Svg, x: float, mark: str, y: float, bottom: float) -> None:
    svg.add("line", x1=x, x2=x, y1=y + 3, y2=bottom, class_="mark")
    late = x > WIDTH - NAMES - 260
    where, side = (x - 4, "end") if late else (x + 4, "")
    svg.add("text", fit(mark, 250), x=where, y=y + 9, class_=f"small {side}", tip=mark)


def _draw_axis(svg: Svg, scale: Scale, top: float, bottom: float) -> None:
    for x, label in scale.ticks():
        svg.add("line", x1=x, x2=x, y1=top, y2=bottom, class_="rule", opacity=0.45)
        svg.add("text", label, x=x, y=bottom + 15, class_="dim small middle")
    for before, after in pairwise(scale.stretches):
        pause = f"nothing happened for {show_span(after.first_us - before.last_us)}"
        width = max(4.0, after.left - before.right)
        svg.add(
            "rect", x=before.right, y=top, width=width, height=bottom - top, class_="box", tip=pause
        )
        middle = before.right + width / 2
        svg.add("text", "⋯", x=middle, y=bottom + 15, class_="dim middle", tip=pause)


def _draw_lane(
    svg: Svg, bars: list[Bar], scale: Scale, top: float, name_task: Callable[[int], str] | None
) -> None:
    y = top + (LANE - BAR) / 2
    queued = [(scale.x(bar.scheduled_us), scale.x(bar.started_us)) for bar in bars]
    for left, right in _touching(queued):
        width = max(0.5, right - left)
        svg.add("rect", x=left, y=y + BAR, width=width, height=2.5, style="fill:var(--QUEUE)")
    if name_task is None:
        _draw_merged(svg, bars, scale, y)
        return
    for bar in bars:
        left, right = scale.x(bar.started_us), scale.x(bar.ended_us)
        queue_us = bar.started_us - bar.scheduled_us
        tip = (
            f"{name_task(bar.task)}{f', {bar.items:,} items' if bar.items else ''}, "
            f"attempt {bar.number}: {bar.outcome} after "
            f"{show_span(bar.ended_us - bar.started_us)}, queued {show_span(queue_us)}"
            + (f" · {bar.error}" if bar.error else "")
        )
        _draw_bar(svg, bar.outcome, left, right, y, tip)


def _draw_merged(svg: Svg, bars: list[Bar], scale: Scale, y: float) -> None:
    for outcome in (*VAGUE, *(each for each in STATES if each not in VAGUE)):
        spans = [
            (scale.x(bar.started_us), scale.x(bar.ended_us))
            for bar in bars
            if bar.outcome is outcome
        ]
        for left, right in _touching(spans):
            _draw_bar(svg, outcome, left, right, y, "")


def _draw_bar(svg: Svg, outcome: Outcome, left: float, right: float, y: float, tip: str) -> None:
    width = max(1.2, right - left - 0.4)
    fill = f"fill:var(--{STATES[outcome]})"
    if outcome in VAGUE:
        faint = f"{fill};opacity:.35"
        svg.add("rect", x=left, y=y + 4, width=width, height=BAR - 8, style=faint, tip=tip)
        if outcome is Outcome.LOST:
            cross = f"M{right - 4:.1f} {y + 2:.1f}l8 8m0 -8l-8 8"
            stroke = "stroke:var(--LOST);stroke-width:2;fill:none"
            svg.add("path", d=cross, style=stroke, tip=tip)
        elif outcome is Outcome.FAILED:
            svg.add("rect", x=right - 3, y=y, width=3, height=BAR, style=fill, tip=tip)
        return
    svg.add("rect", x=left, y=y, width=width, height=BAR, rx=1.5, style=fill, tip=tip)


def _touching(spans: list[tuple[float, float]], gap: float = 0.7) -> Iterator[tuple[float, float]]:
    """Join spans that nobody could tell apart."""
    left = right = None
    for start, end in sorted(spans):
        if left is None or right is None:
            left, right = start, end
        elif start <= right + gap:
            right = max(right, end)
        else:
            yield left, right
            left, right = start, end
    if left is not None and right is not None:
        yield left, right


def _draw_legend(svg: Svg, lanes: Lanes, y: float) -> None:
    counts = dict.fromkeys(STATES, 0)
    for bars in lanes.bars.values():
        for bar in bars:
            counts[bar.outcome] += 1
    x = float(MARGIN)
    for outcome, name in STATES.items():
        if counts[outcome]:
            label = f"{counts[outcome]:,} {outcome.value.replace('_', ' ')}"
            svg.add("rect", x=x, y=y - 9, width=10, height=10, rx=2, style=f"fill:var(--{name})")
            svg.add("text", label, x=x + 15, y=y, class_="small")
            x += 15 + 7 * len(label) + 14
    svg.add("rect", x=x, y=y - 5, width=14, height=3, style="fill:var(--QUEUE)")
    svg.add("text", "waiting at a worker", x=x + 19, y=y, class_="small")


def print_lanes(lanes: Lanes, columns: int) -> Iterator[str]:
    """Draw the attempts with characters.

    Args:
        lanes: What there is to draw.
        columns: How wide.

    Yields:
        The lines.
    """
    shown = lanes.merged(LANES_MAX)
    names = min(24, max((len(name) for name, _ in shown), default=0))
    width = max(10, columns - names - 3)
    scale = Scale(_busy(lanes), float(width))
    yield _subtitle(lanes)
    takeovers = {min(width - 1, int(scale.x(m.at_us))) for m in lanes.marks if m.is_takeover}
    pauses = {int(each.right) for each in scale.stretches[:-1]}
    for name, bars in shown:
        cells = [" "] * width
        for at in pauses:
            cells[min(at, width - 1)] = "⋯"
        for at in takeovers:
            cells[at] = "|"
        for character, outcomes, queue in _LAYERS:
            for bar in bars:
                if bar.outcome in outcomes:
                    left = scale.x(bar.scheduled_us if queue else bar.started_us)
                    right = scale.x(bar.started_us if queue else bar.ended_us)
                    start = int(right) if character in "x!" else int(left)
                    for at in range(min(start, width - 1), min(int(right) + 1, width)):
                        cells[at] = character
        yield f"{fit(name, names, pixels=1).ljust(names)} │{''.join(cells)}│"
    first = lanes.span[0]
    axis = [" "] * (width + 12)
    for x, label in scale.ticks(pixels_min=14):
        axis[int(x) : int(x) + len(label)] = label
    yield f"{' ' * names}  {''.join(axis).rstrip()}"
    yield f"{' ' * names}  █ ran  ░ waited at a worker  ! failed  x lost  | new owner  ⋯ pause"
    for mark in lanes.marks:
        yield f"{'+' + show_span(mark.at_us - first):>12}  {mark.text}"


_RAN = (Outcome.COMMITTED, Outcome.EXTENDED, Outcome.RUNNING, Outcome.FAILED)
_LAYERS = (
    ("░", (*_RAN, Outcome.HANDED_BACK), True),
    ("█", (Outcome.COMMITTED, Outcome.EXTENDED, Outcome.RUNNING), False),
    ("x", (Outcome.LOST,), False),
    ("!", (Outcome.FAILED,), False),
)
"""What is drawn over what: the character, of which outcomes, and whether of the waiting."""
