"""The table of a campaign: for each kind of strike how often, and what it cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from campaign.history import Record
from campaign.ledger import Line
from campaign.rules import Violation, find_stragglers

HEADS = ("struck at", "times", "recovered", "lost", "run again", "median s", "p95 s")


@dataclass(slots=True, kw_only=True)
class Row:
    """What is known of all strikes of one kind.

    Attributes:
        times: How many there were.
        recovered: After how many of them everything that was under way came to its end.
        again: Executions of a task that had begun before, until the next strike.
        seconds: How long each took to recover from; fewer than ``times`` where nothing waited.
    """

    times: int = 0
    recovered: int = 0
    again: int = 0
    seconds: list[float] = field(default_factory=list)


def make_rows(record: Record) -> dict[str, Row]:
    """Sum up a history by kinds of strikes.

    Args:
        record: The history.

    Returns:
        A row for each kind.
    """
    rows: dict[str, Row] = defaultdict(Row)
    strikes = list(record.of("strike"))
    ended = {line["workflow"] for line in record.lines if line.what in ("result", "canceled")}
    asked = {line["workflow"]: line.at_ns for line in record.of("asked")}
    for at, strike in enumerate(strikes):
        row = rows[strike["kind"]]
        end_ns = strikes[at + 1].at_ns if at + 1 < len(strikes) else None
        row.times += 1
        row.recovered += all(each in ended for each in asked if asked[each] < strike.at_ns)
        row.again += _count_again(record, strike, end_ns)
    for line in record.of("recovered"):
        rows[line["kind"]].seconds.append(line["seconds"])
    return dict(rows)


def _count_again(record: Record, strike: Line, end_ns: int | None) -> int:
    """Count executions, up to the next strike, of what had begun and not ended before."""
    broken = {
        (each.workflow, each.task)
        for each in record.executions
        if each.begun_ns < strike.at_ns and not each.outcome
    }
    return sum(
        (each.workflow, each.task) in broken
        for each in record.executions
        if each.begun_ns > strike.at_ns and (end_ns is None or each.begun_ns < end_ns)
    )


def print_report(record: Record, violations: list[Violation]) -> None:
    """Print the table, what it rests on, and the verdict."""
    rows = make_rows(record)
    lost = sum(each.rule.startswith("keep") for each in violations)
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS))
    for kind, row in rows.items():
        cells = (kind, row.times, row.recovered, lost, row.again, *_quantiles(row.seconds))
        print("| " + " | ".join(map(str, cells)) + " |")
    commits = sum(len(stored.commits) for stored in record.stored.values())
    told = sum(line.what in ("result", "canceled", "status") for line in record.lines)
    print(
        f"\n{len(record.stored)} workflows, {len(record.executions)} executions, {commits} commits,"
        f" {told} answers checked; {len(find_stragglers(record))} executions began after an end was"
        f" told."
    )
    for violation in violations:
        print(f"VIOLATION  {violation}")
    print(f"{len(violations)} violations" if violations else "no promise was broken")


def _quantiles(seconds: list[float]) -> tuple[str, str]:
    if not seconds:
        return "-", "-"
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.1f}", f"{p95:.1f}"
