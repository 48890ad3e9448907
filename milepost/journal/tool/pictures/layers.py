"""Places nodes in layers so that few edges cross: the usual four steps, after Sugiyama.

Layers are given; edges that skip some get a bend in each; sweeps order every layer by what its
nodes hang on; then all get their places. Nothing here knows what is drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SWEEPS = 6
BEND = -1
"""A place where an edge passes through a layer, instead of a node."""


@dataclass(slots=True)
class Spot:
    """One place in a layer.

    Attributes:
        node: The node, or :data:`BEND`.
        layer: The layer.
        x: The middle, in pixels.
        width: In pixels.
        above: Positions of spots one layer up that an edge ties it to.
        below: Likewise one layer down.
    """

    node: int
    layer: int
    width: float
    x: float = 0.0
    above: list[int] | None = None
    below: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything is.

    Attributes:
        xs: The middle of each node.
        width: How wide the whole is.
        routes: For each edge that goes down, the middle of its bends, one for each layer between.
    """

    xs: list[float]
    width: float
    routes: dict[tuple[int, int], list[float]]


def place(
    layers: Sequence[int],
    edges: Iterable[tuple[int, int]],
    *,
    node_width: float,
    bend_width: float,
    gap: float,
) -> Placement:
    """Place nodes and bends.

    Args:
        layers: The layer of each node.
        edges: Pairs of nodes; those that do not go down are left alone.
        node_width: How wide a node is, in pixels.
        bend_width: How wide an edge that passes is.
        gap: What stays free between two.

    Returns:
        The places.
    """
    spots = [Spot(node, layer, node_width, above=[], below=[]) for node, layer in enumerate(layers)]
    routes: dict[tuple[int, int], list[int]] = {}
    for source, target in edges:
        if layers[target] <= layers[source]:
            continue
        before, bends = source, []
        for layer in range(layers[source] + 1, layers[target]):
            spots.append(Spot(BEND, layer, bend_width, above=[], below=[]))
            _tie(spots, before, len(spots) - 1)
            before = len(spots) - 1
            bends.append(before)
        _tie(spots, before, target)
        routes[source, target] = bends
    rows: dict[int, list[int]] = defaultdict(list)
    for number, spot in enumerate(spots):
        rows[spot.layer].append(number)
    ordered = [rows[layer] for layer in sorted(rows)]
    _order(spots, ordered)
    width = _spread(spots, ordered, gap)
    bent = {edge: [spots[each].x for each in bends] for edge, bends in routes.items()}
    return Placement([spot.x for spot in spots[: len(layers)]], width, bent)


def _tie(spots: list[Spot], upper: int, lower: int) -> None:
    below, above = spots[upper].below, spots[lower].above
    assert below is not None, "spots are made with both lists"
    assert above is not None, "spots are made with both lists"
    below.append(lower)
    above.append(upper)


def _order(spots: list[Spot], rows: list[list[int]]) -> None:
    """Sort each row by the mean place of what it hangs on, downwards and upwards in turn."""
    places = {number: float(at) for row in rows for at, number in enumerate(row)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):

            def key(number: int, down: bool = down) -> float:
                tied = (spots[number].above if down else spots[number].below) or [number]
                return sum(places[each] for each in tied) / len(tied)

            row.sort(key=key)
            middle = (len(row) - 1) / 2
            places.update((number, at - middle) for at, number in enumerate(row))


def _spread(spots: list[Spot], rows: list[list[int]], gap: float) -> float:
    """Give each row its places, in the middle of the widest."""
    widths = [sum(spots[each].width for each in row) + gap * (len(row) - 1) for row in rows]
    whole = max(widths, default=0.0)
    for row, width in zip(rows, widths, strict=True):
        x = (whole - width) / 2
        for number in row:
            spots[number].x = x + spots[number].width / 2
            x += spots[number].width + gap
    return whole
