"""The table of a campaign: for each kind of strike how often, and what it cost."""

from __future__ import annotations

import statistics
from bisect import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from campaign.history import Record
from campaign.rules import Violation, find_stragglers

SHOWN_MAX = 40
"""Violations that are printed; the rest are like them."""

HEADS = (
    "struck at",
    "times",
    "recovered",
    "lost",
    "run again",
    "median s",
    "p95 s",
    "without Ray's start",
)


@dataclass(slots=True, kw_only=True)
class Row:
    """What is known of all strikes of one kind.

    Attributes:
        times: How many there were.
        recovered: After how many of them everything that was under way came to its end.
        again: Executions that began before, as the strike found them, and had to be repeated.
        seconds: How long each took to recover from; fewer than ``times`` where nothing waited.
        own_seconds: Likewise, without the time until Ray's cluster was up again.
    """

    times: int = 0
    recovered: int = 0
    again: int = 0
    seconds: list[float] = field(default_factory=list)
    own_seconds: list[float] = field(default_factory=list)


def make_rows(record: Record) -> dict[str, Row]:
    """Sum up a history by kinds of strikes.

    Args:
        record: The history.

    Returns:
        A row for each kind.
    """
    rows: dict[str, Row] = defaultdict(Row)
    ended = {line["workflow"] for line in record.lines if line.what in ("result", "canceled")}
    asked = {line["workflow"]: line.at_ns for line in record.of("asked")}
    wasted = _count_wasted(record)
    for strike in record.of("strike"):
        row = rows[strike["kind"]]
        row.times += 1
        row.recovered += all(each in ended for each in asked if asked[each] < strike.at_ns)
        row.again += wasted[strike["number"]]
    for line in record.of("recovered"):
        rows[line["kind"]].seconds.append(line["seconds"])
        rows[line["kind"]].own_seconds.append(line["own_seconds"])
    return dict(rows)


def _count_wasted(record: Record) -> Counter[int]:
    """Count executions that were not in vain by the program's own doing, and had to be repeated.

    Returns:
        How many, by the number of the first strike after they began.
    """
    commits = {
        (stored.workflow, commit.task, commit.epoch, commit.attempt)
        for stored in record.stored.values()
        for commit in stored.commits
    }
    last = {(each.workflow, each.task): each for each in record.executions}
    strikes = sorted((line.at_ns, line["number"]) for line in record.of("strike"))
    wasted: Counter[int] = Counter()
    for each in record.executions:
        counts = (each.workflow, each.task, each.epoch, each.attempt) in commits
        repeated = last[each.workflow, each.task] is not each
        if repeated and not counts and each.outcome != "raised":
            at = bisect(strikes, (each.begun_ns, 0))
            wasted[strikes[at][1] if at < len(strikes) else 0] += 1
    return wasted


def print_report(record: Record, violations: list[Violation]) -> None:
    """Print the table, what it rests on, and the verdict."""
    rows = make_rows(record)
    lost = sum(each.rule.startswith("keep") for each in violations)
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS))
    for kind, row in rows.items():
        took, own = _quantiles(row.seconds), " / ".join(_quantiles(row.own_seconds))
        cells = (kind, row.times, row.recovered, lost, row.again, *took, own)
        print("| " + " | ".join(map(str, cells)) + " |")
    commits = sum(len(stored.commits) for stored in record.stored.values())
    told = sum(line.what in ("result", "canceled", "status") for line in record.lines)
    print(
        f"\n{len(record.stored)} workflows, {len(record.executions)} executions, {commits} commits,"
        f" {told} answers checked; {len(find_stragglers(record))} executions began after an end was"
        f" told."
    )
    for violation in violations[:SHOWN_MAX]:
        print(f"VIOLATION  {violation}")
    print(f"{len(violations)} violations" if violations else "no promise was broken")


def _quantiles(seconds: list[float]) -> tuple[str, str]:
    if not seconds:
        return "-", "-"
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.1f}", f"{p95:.1f}"
