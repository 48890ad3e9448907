"""Draws a curve over logarithmic axes as an SVG file, without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN = 560, 320, 60


def draw_curve(points: Sequence[tuple[float, float]], across: str, up: str) -> str:
    """Draws points, joined in order.

    Args:
        points: Pairs of positive numbers.
        across: What the horizontal axis says.
        up: What the vertical axis says.

    Returns:
        The SVG document.
    """
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - x_low) / (x_high - x_low) * (WIDTH - 2 * MARGIN)
        rise = (math.log10(y) - y_low) / (y_high - y_low) * (HEIGHT - 2 * MARGIN)
        return MARGIN + right, HEIGHT - MARGIN - rise

    parts = [_text(WIDTH / 2, HEIGHT - 14, across), _text(MARGIN, 30, up, "start")]
    for decade in range(x_low, x_high + 1):
        x, bottom = place(10.0**decade, 10.0**y_low)
        parts += [_line(x, MARGIN, x, bottom), _text(x, bottom + 18, f"{10.0**decade:,.0f}")]
    for decade in range(y_low, y_high + 1):
        left, y = place(10.0**x_low, 10.0**decade)
        parts += [
            _line(left, y, WIDTH - MARGIN, y),
            _text(left - 6, y + 4, f"{10.0**decade:g}", "end"),
        ]
    placed = [place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>')
    for (x, y), (_, value) in zip(placed, points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f6feb"/>')
        parts.append(_text(x, y - 10, f"{value:.2f}"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
