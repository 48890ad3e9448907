"""The picture of a graph: boxes in layers, their states as coloured bars, edges with counts."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

from milepost.journal.tool.pictures.folding import Folded, Group, fold_graph
from milepost.journal.tool.pictures.layers import Placement, place
from milepost.journal.tool.pictures.svg import Svg, fit
from milepost.journal.tool.text import show_span
from milepost.replay.state import State, TaskState

BOX = (190, 58)
GAP = 26
LAYER_GAP = 56
MARGIN = 24
TITLE = 56
LEGEND = 36
WIDTH_MIN = 420
MODULE_PIXELS_MIN = 42
"""With less room, the module of a function is not told; who points at the box sees it."""


def draw_graph(state: State, fold: str = "auto") -> str:
    """Draw the graph of a workflow.

    Args:
        state: Its state.
        fold: As of :func:`~milepost.journal.tool.pictures.folding.fold_graph`.

    Returns:
        An SVG document.
    """
    folded = fold_graph(state, fold)
    layers = [group.layer for group in folded.groups]
    edges = [*folded.edges, *folded.continuations]
    placed = place(layers, edges, node_width=BOX[0], bend_width=10, gap=GAP)
    depth = max(layers, default=0) + 1
    width = max(WIDTH_MIN, placed.width + 2 * MARGIN + 40)
    height = TITLE + depth * (BOX[1] + LAYER_GAP) - LAYER_GAP + LEGEND + MARGIN
    svg = Svg(width, height, f"Graph of workflow {state.workflow_id}")
    svg.add(
        "text", fit(state.workflow_id, width - 2 * MARGIN, pixels=8), x=MARGIN, y=22, class_="title"
    )
    svg.add("text", _subtitle(state, folded), x=MARGIN, y=38, class_="dim small")
    left = (width - placed.width) / 2
    with svg.group(transform=f"translate({left:.1f} {TITLE})"):
        _draw_edges(svg, folded.edges, folded.groups, placed, dashed=False)
        _draw_edges(svg, folded.continuations, folded.groups, placed, dashed=True)
        for number, group in enumerate(folded.groups):
            _draw_box(svg, group, placed.xs[number] - BOX[0] / 2, _top(group), folded.by_function)
    _draw_legend(svg, state, height - MARGIN, width)
    return svg.to_text()


def _subtitle(state: State, folded: Folded) -> str:
    status = state.status.value if state.status else "no status"
    shown = "one box per function" if folded.by_function else "one box per task"
    return f"{status} · {len(state.tasks):,} tasks · {shown}"


def _top(group: Group) -> float:
    return group.layer * (BOX[1] + LAYER_GAP)


def _draw_box(svg: Svg, group: Group, x: float, y: float, by_function: bool) -> None:
    module, _, short = group.name.rpartition(".")
    states = ", ".join(f"{n:,} {kind.name.lower()}" for kind, n in sorted(group.counts.items()))
    spent = show_span(group.run_us) if group.run_us else "no time yet"
    tip = f"{group.name}: {states}; {group.attempts:,} attempts, {spent}"
    with svg.group(transform=f"translate({x:.1f} {y:.1f})"):
        svg.add("rect", width=BOX[0], height=BOX[1], rx=7, class_="box", tip=tip)
        svg.add("text", fit(short, BOX[0] - 20), x=10, y=19, class_="bold")
        what = f"{group.tasks:,} task{'s' * (group.tasks != 1)} · " if by_function else ""
        what = f"{group.items:,} items · " if group.items else what
        room = BOX[0] - 38 - 6 * len(what + spent)
        detail = f"{what}{spent}"
        if module and room >= MODULE_PIXELS_MIN:
            detail += f" · {fit(module, room, pixels=6)}"
        svg.add("text", detail, x=10, y=35, class_="dim small")
        _draw_bar(svg, group.shares, 10, BOX[1] - 14, BOX[0] - 20)


def _draw_bar(svg: Svg, counts: Counter[TaskState], x: float, y: float, width: float) -> None:
    """Show how many tasks are in which state; a few of many can be seen, too."""
    total = counts.total()
    least = 4.0
    shares = {kind: max(least, width * n / total) for kind, n in sorted(counts.items()) if n}
    scale = width / sum(shares.values()) if shares else 1
    for kind, share in shares.items():
        fill = f"fill:var(--{kind.name})"
        svg.add("rect", x=x, y=y, width=share * scale, height=6, style=fill)
        x += share * scale


def _draw_edges(
    svg: Svg,
    edges: Counter[tuple[int, int]],
    groups: list[Group],
    placed: Placement,
    *,
    dashed: bool,
) -> None:
    for (source, target), count in edges.items():
        start, end = groups[source], groups[target]
        a = (placed.xs[source], _top(start) + BOX[1])
        b = (placed.xs[target], _top(end))
        if end.layer > start.layer:
            bends = placed.routes[source, target]
            points = [a, *_through(bends, start.layer), (b[0], b[1] - 5)]
            path, middle = _curve(points), _middle(points)
        else:
            path, middle = _around(a, b, source == target)
        width = 1 + min(3.0, math.log10(count) * 0.8)
        more = {"stroke-dasharray": "5 4"} if dashed else {}
        tip = f"{start.name} → {end.name}: {count:,}"
        svg.add("path", d=path, class_="edge", stroke_width=width, tip=tip, **more)
        svg.add("path", d=_arrow(b), class_="arrow")
        if count > 1:
            svg.add("text", f"{count:,}", x=middle[0] + 5, y=middle[1], class_="dim small")


def _through(bends: list[float], layer: int) -> list[tuple[float, float]]:
    """Give two points for each layer that an edge passes, so that it passes beside the boxes."""
    points = []
    for number, x in enumerate(bends, layer + 1):
        top = number * (BOX[1] + LAYER_GAP)
        points += [(x, float(top)), (x, float(top + BOX[1]))]
    return points


def _curve(points: list[tuple[float, float]]) -> str:
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (y1 - y0) / 2
        path += f"C{x0:.1f} {y0 + half:.1f} {x1:.1f} {y1 - half:.1f} {x1:.1f} {y1:.1f}"
    return path


def _middle(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Find where a count stands: halfway to the next layer, where the edges of a node lie apart."""
    (x0, y0), (x1, y1) = points[:2]
    return (x0 + x1) / 2, (y0 + y1) / 2


def _around(
    a: tuple[float, float], b: tuple[float, float], same: bool
) -> tuple[str, tuple[float, float]]:
    """Lead an edge that does not go down around the right side."""
    right = max(a[0], b[0]) + BOX[0] / 2 + (16 if same else 26)
    path = (
        f"M{a[0]:.1f} {a[1]:.1f}C{a[0]:.1f} {a[1] + 26:.1f} {right:.1f} {a[1] + 26:.1f} "
        f"{right:.1f} {(a[1] + b[1]) / 2:.1f}S{b[0]:.1f} {b[1] - 31:.1f} {b[0]:.1f} {b[1] - 5:.1f}"
    )
    return path, (right, (a[1] + b[1]) / 2)


def _arrow(tip: tuple[float, float]) -> str:
    return f"M{tip[0]:.1f} {tip[1]:.1f}l-4 -7h8z"


def _draw_legend(svg: Svg, state: State, y: float, width: float) -> None:
    x = float(MARGIN)
    for kind in TaskState:
        if not state.counts[kind]:
            continue
        label = f"{state.counts[kind]:,} {kind.name.lower()}"
        svg.add("rect", x=x, y=y - 9, width=10, height=10, rx=2, style=f"fill:var(--{kind.name})")
        svg.add("text", label, x=x + 15, y=y, class_="small")
        x += 15 + 7 * len(label) + 14
        if x > width - 100:
            x, y = float(MARGIN), y + 16
