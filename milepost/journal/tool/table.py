"""Tables: in colour and cut to fit on a terminal, whole and plain for whoever reads a pipe.

Rows are printed as they come, a page at a time, so that a table of a million rows needs no memory.
The first page decides how wide the columns are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter

import click

from milepost.journal.tool.text import STYLES, clean, terminal_columns

PAGE_ROWS = 500
COLUMN_CHARACTERS_MIN = 12
"""Text is not cut below this while there are columns to leave out."""

GAP = 2

_NUMERIC = re.compile(r"-|[-+]?[\d,.]+(?:e[+-]?\d+)?(?:[%x]| [a-zA-Z]{1,3}(?: \d+ [a-z]+)?)?")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Print rows in columns, as they come.

    Args:
        heads: The heads of the columns.
        rows: The cells, as many in each row.

    Returns:
        How many rows there were.
    """
    cells = ([clean(str(cell)) for cell in row] for row in rows)
    first = list(islice(cells, PAGE_ROWS))
    page = [list(heads), *first]
    right = [bool(first) and all(map(_NUMERIC.fullmatch, c)) for c in zip(*first, strict=True)]
    right = right or [False] * len(heads)
    widths = [max(map(_measure, column)) for column in zip(*page, strict=True)]
    if (columns := terminal_columns()) is None:
        return _print_plain(chain(page, cells), widths, right) - 1
    kept = _choose(widths, right, columns)
    picked = itemgetter(*kept) if len(kept) > 1 else lambda row: (row[kept[0]],)
    widths, right = list(picked(widths)), list(picked(right))
    rows_left = map(picked, chain(first, cells))
    count = _print_rich(picked(heads), rows_left, _fit(widths, right, columns), right)
    if len(kept) < len(heads):
        hidden = ", ".join(head for at, head in enumerate(heads) if at not in kept)
        click.echo(click.style(f"not shown, for want of room: {hidden}", dim=True))
    return count


def _measure(text: str) -> int:
    """Count the columns that text takes; without rich, for whoever reads a pipe, its characters."""
    if text.isascii() or not sys.stdout.isatty():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _choose(widths: list[int], right: list[bool], columns: int) -> list[int]:
    """Leave out the last columns of long text while those that stay would be unreadable."""
    kept = list(range(len(widths)))
    while sum(min(widths[at], COLUMN_CHARACTERS_MIN) for at in kept) + GAP * len(kept) > columns:
        wide = [at for at in kept[1:] if not right[at] and widths[at] > COLUMN_CHARACTERS_MIN]
        if not wide:
            break
        kept.remove(wide[-1])
    return kept


def _fit(widths: list[int], right: list[bool], columns: int) -> list[int]:
    """Take from the widest column of text until all fit, and at last from any."""
    widths = list(widths)
    room = columns - GAP * (len(widths) - 1)
    while sum(widths) > room and max(widths) > 1:
        text = [at for at, width in enumerate(widths) if width > COLUMN_CHARACTERS_MIN]
        text = [at for at in text if not right[at]] or text or list(range(len(widths)))
        widest = max(text, key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _print_plain(rows: Iterable[Sequence[str]], widths: list[int], right: list[bool]) -> int:
    count = 0
    for row in rows:
        count += 1
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        click.echo((" " * GAP).join(padded).rstrip())
    return count


def _print_rich(
    heads: Sequence[str], rows: Iterator[Sequence[str]], widths: list[int], right: list[bool]
) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, count = Console(highlight=False, width=terminal_columns()), 0
    while (page := list(islice(rows, PAGE_ROWS))) or not count:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=not count)
        for head, width, to_right in zip(heads, widths, right, strict=True):
            table.add_column(head, width=width, justify="right" if to_right else "left")
        for row in page:
            cut = (_cut(cell, width) for cell, width in zip(row, widths, strict=True))
            styles = (STYLES.get(cell, ("", False)) for cell in row)
            table.add_row(
                *(
                    Text(cell, style=f"{'bold ' * bold}{colour}".strip(), no_wrap=True)
                    for cell, (colour, bold) in zip(cut, styles, strict=True)
                )
            )
        console.print(table)
        count += len(page)
        if not page:
            break
    return count


def _cut(text: str, width: int) -> str:
    """Leave out the middle: names of tasks differ at their ends."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    head = set_cell_size(text, (width - 1) // 2)
    tail = text
    while cell_len(tail) > width - 1 - cell_len(head):
        tail = tail[1:]
    return f"{head}…{tail}"
