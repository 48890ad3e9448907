"""Tables of what tests did over and over: printed once, after the results of a whole run."""

from __future__ import annotations

from collections import Counter

import pytest

_KEPT = pytest.StashKey["Tallies"]()


class Tallies:
    """Counted outcomes, by table and row; rows of one name add up."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Counter[str]]] = {}

    @classmethod
    def of(cls, config: pytest.Config) -> Tallies:
        """Return those of a run."""
        return config.stash.setdefault(_KEPT, cls())

    def add(self, table: str, row: str, **outcomes: int) -> None:
        """Count outcomes; a name's underscores are printed as spaces.

        Args:
            table: The headline.
            row: What was done.
            outcomes: How often what came of it, also 0.
        """
        counts = self._tables.setdefault(table, {}).setdefault(row, Counter())
        for outcome, count in outcomes.items():
            counts[outcome.replace("_", " ")] += count

    def lines(self) -> list[str]:
        """Return all tables as text."""
        return [line for title in self._tables for line in self._format(title)]

    def _format(self, title: str) -> list[str]:
        rows = self._tables[title]
        columns = list(dict.fromkeys(name for counts in rows.values() for name in counts))
        label_width = max(map(len, [*rows, title]))
        widths = {name: max(len(name), 8) for name in columns}
        cells = "".join(f"  {name:>{widths[name]}}" for name in columns)
        found = ["", f"{title:<{label_width}}{cells}"]
        for row, counts in rows.items():
            cells = "".join(f"  {counts.get(name, '-'):>{widths[name]}}" for name in columns)
            found.append(f"{row:<{label_width}}{cells}")
        return found
