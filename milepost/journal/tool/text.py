"""What commands print: tables and JSON. Nothing a journal holds can drive the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

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


def print_json(value: object) -> None:
    """Print one JSON document in one line.

    Args:
        value: Plain data with finite numbers.
    """
    click.echo(json.dumps(value, allow_nan=False))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns.

    Args:
        heads: The heads of the columns.
        rows: The cells, as many in each row.
    """
    table = [list(heads), *([clean(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
