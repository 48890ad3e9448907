"""A small writer of SVG. Whatever text goes in, what comes out is well-formed and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from xml.sax.saxutils import escape, quoteattr

from milepost.journal.tool.text import clean

STYLE = """
.mp{--ink:#1c2430;--dim:#5d6a7b;--line:#b4bdc9;--paper:#ffffff;--box:#f5f7fa;
--COMMITTED:#2b9a66;--SCHEDULED:#2f7de1;--READY:#d09a0b;--WAITING:#a3adba;--FAILED:#d0353b;
--EXTENDED:#8457cf;--AWAITING:#c77fb8;--DROPPED:#d4d9e0;--LOST:#b0483a;--QUEUE:#c9d3df}
@media (prefers-color-scheme:dark){.mp{--ink:#e6eaf0;--dim:#9aa7b8;--line:#5d6a7a;--paper:#14181e;
--box:#1f262f;--COMMITTED:#3fb27f;--SCHEDULED:#559cf5;--READY:#e0b03a;--WAITING:#6d7887;
--FAILED:#f06a6e;--EXTENDED:#a582e6;--AWAITING:#dba0ce;--DROPPED:#3d4652;--LOST:#e08a70;--QUEUE:#39444f}}
.mp text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink)}
.mp .dim{fill:var(--dim)}.mp .small{font-size:11px}.mp .bold{font-weight:600}
.mp .title{font-size:15px;font-weight:600}.mp .end{text-anchor:end}.mp .middle{text-anchor:middle}
.mp .box{fill:var(--box);stroke:var(--line)}.mp .edge{fill:none;stroke:var(--line)}
.mp .paper{fill:var(--paper)}.mp .rule{stroke:var(--line);stroke-width:1}
.mp .mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 3}
.mp .arrow{fill:var(--line)}
"""
"""Colours by what they stand for; they never tell what words do not."""


class Svg:
    """One picture, from its background up."""

    def __init__(self, width: float, height: float, title: str) -> None:
        """Begin a picture.

        Args:
            width: In pixels.
            height: In pixels.
            title: What it shows, for readers of screens.
        """
        size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="mp" role="img" {size}>',
            f"<title>{_text(title)}</title><style>{STYLE}</style>",
        ]
        self.add("rect", width=width, height=height, class_="paper")

    def add(self, tag: str, text: str = "", *, tip: str = "", **attributes: float | str) -> None:
        """Add an element.

        Args:
            tag: Its name.
            text: What is written in it.
            tip: What is shown when a pointer rests on it.
            **attributes: Its attributes; an underscore at the end is dropped, others are hyphens.
        """
        inside = f"<title>{_text(tip)}</title>" if tip else ""
        inside += _text(text)
        start = f"<{tag}{''.join(map(_attribute, attributes.items()))}"
        self._parts.append(f"{start}>{inside}</{tag}>" if inside else f"{start}/>")

    @contextmanager
    def group(self, **attributes: float | str) -> Iterator[None]:
        """Put what is added inside into one group.

        Args:
            **attributes: As of :meth:`add`.

        Yields:
            Nothing.
        """
        self._parts.append(f"<g{''.join(map(_attribute, attributes.items()))}>")
        yield
        self._parts.append("</g>")

    def to_text(self) -> str:
        """Finish the picture.

        Returns:
            The document.
        """
        return "\n".join([*self._parts, "</svg>", ""])


def fit(text: str, width: float, *, pixels: float = 6.6) -> str:
    """Shorten text to a width, keeping its end, by which names differ.

    Args:
        text: The text.
        width: In pixels.
        pixels: How wide a character is.

    Returns:
        The text, perhaps with its middle left out.
    """
    room = max(3, int(width / pixels))
    if len(text) <= room:
        return text
    head = (room - 1) // 3
    return f"{text[:head]}…{text[len(text) - (room - 1 - head) :]}"


def _attribute(item: tuple[str, float | str]) -> str:
    name, value = item
    written = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f" {name.rstrip('_').replace('_', '-')}={quoteattr(clean(written))}"


def _text(text: str) -> str:
    return escape(clean(text))
