"""What commands print: text and JSON. Nothing a journal holds can drive the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta

import click

STYLES: dict[str, tuple[str, bool]] = {
    "SUCCESSFUL": ("green", False),
    "COMMITTED": ("green", False),
    "RUNNING": ("cyan", False),
    "SCHEDULED": ("cyan", False),
    "PENDING": ("yellow", False),
    "READY": ("yellow", False),
    "RESUMABLE": ("magenta", False),
    "EXTENDED": ("blue", False),
    "AWAITING": ("magenta", False),
    "FAILED": ("red", True),
    "LOST": ("red", False),
    "CANCELED": ("bright_black", False),
    "DROPPED": ("bright_black", False),
    "WAITING": ("bright_black", False),
}
"""The colour of a word, and whether it is bold. Colour never tells what words do not."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def clean(text: str) -> str:
    """Escape what does not print, control sequences of terminals among it.

    Args:
        text: Any text.

    Returns:
        One printable line.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode()
        for each in text
    )


def terminal_columns() -> int | None:
    """Tell how wide the terminal is.

    Returns:
        Its columns; None if the output goes elsewhere.
    """
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def paint(text: str, word: str) -> str:
    """Give text the colour of a word; :func:`click.echo` takes it away again in a pipe.

    Args:
        text: The text.
        word: What it is about, as ``FAILED``.

    Returns:
        The text, with colour if the word has one.
    """
    colour, bold = STYLES.get(word, ("", False))
    plain = not colour or "NO_COLOR" in os.environ
    return text if plain else click.style(text, fg=colour, bold=bold or None)


def show_time(at_us: int) -> str:
    """Write a time for people.

    Args:
        at_us: Microseconds since 1970; 0 is unknown.

    Returns:
        The time in UTC, or ``-``; one no calendar has as its number.
    """
    if not at_us:
        return "-"
    try:
        return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%d %H:%M:%S}Z"
    except (OverflowError, ValueError):
        return f"{at_us} us"


def show_span(us: float | None) -> str:
    """Write a duration for people.

    Args:
        us: Microseconds; None is unknown.

    Returns:
        It in the unit that fits, with about three digits, or ``-``.
    """
    if us is None:
        return "-"
    if us < 0:
        return f"-{show_span(-us)}"
    if us < 1000:
        return f"{us:.0f} us"
    if us < 1_000_000:
        return f"{us / 1000:.3g} ms" if us < 999_500 else "1.00 s"
    seconds = us / 1e6
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours / 24:.1f} d"


def show_size(size: float | None) -> str:
    """Write a number of bytes for people.

    Args:
        size: Bytes; None is unknown.

    Returns:
        It in the unit that fits, or ``-``.
    """
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def print_json(value: object) -> None:
    """Print one JSON document in one line.

    Args:
        value: Plain data with finite numbers.
    """
    click.echo(json.dumps(value, allow_nan=False))
