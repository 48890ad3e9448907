"""``milepost stats``: what a workflow cost, and where its time went."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice

import click

from milepost.journal.figures import Figures, read_figures
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.table import print_table
from milepost.journal.tool.text import clean, print_json, show_size, show_span

SHOWN_MAX = 12


@click.command("stats")
@click.argument("workflow_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(context: click.Context, workflow_id: str, as_json: bool) -> None:
    """Say what a workflow cost: bytes, writes, retries, slowest tasks, critical path."""
    found = read_figures(chosen_history(context, workflow_id).store, workflow_id)
    if as_json:
        print_json(asdict(found) | {"requests_max": requests_max(found)})
        return
    for name, value in _lines(found):
        click.echo(f"{name:14} {clean(value)}")
    if found.functions:
        click.echo()
        heads = ("FUNCTION", "ATTEMPTS", "TOTAL", "MEAN", "LONGEST")
        print_table(
            heads,
            (
                (
                    each.name,
                    each.attempts,
                    show_span(each.run_us),
                    show_span(each.run_us / each.attempts),
                    show_span(each.longest_us),
                )
                for each in found.functions
            ),
        )
        click.echo()
        print_table(("SLOWEST", "LASTED"), ((task, show_span(us)) for task, us in found.slowest))
    if found.critical:
        click.echo()
        print_table(
            ("CRITICAL PATH", "LASTED"),
            ((task, show_span(us)) for task, us in islice(found.critical, SHOWN_MAX)),
        )
        if len(found.critical) > SHOWN_MAX:
            click.echo(f"and {len(found.critical) - SHOWN_MAX} more tasks (all with --json)")


def requests_max(found: Figures) -> int:
    """Tell how many calls of the storage writing a journal took at most.

    Args:
        found: The figures.

    Returns:
        A write and a look for rival claims per frame and blob; owners add three each.
    """
    return 2 * found.frames + found.blobs + 3 * found.epochs


def _lines(found: Figures) -> list[tuple[str, str]]:
    tasks = max(found.tasks, 1)
    ratio = found.raw_bytes / found.journal_bytes if found.journal_bytes else 0
    outcomes = ", ".join(f"{count} {name}" for name, count in found.outcomes.items())
    path_us = sum(us for _, us in found.critical)
    busy = found.run_us / found.span_us if found.span_us else 0
    return [
        ("workflow_id", found.workflow_id),
        ("status", found.status),
        ("tasks", f"{found.tasks}"),
        ("attempts", outcomes or "none"),
        ("retries", f"{found.retries}"),
        ("in vain", f"{show_span(found.wasted_us)} at most, in attempts that gave no value"),
        ("journal", f"{show_size(found.journal_bytes)}, {found.journal_bytes / tasks:.1f} B/task"),
        (
            "events",
            f"{found.events}, {show_size(found.raw_bytes)} unpacked ({ratio:.1f}x)",
        ),
        ("frames", f"{found.frames}, {found.events / max(found.frames, 1):.1f} events each"),
        (
            "requests",
            f"{requests_max(found)} of the storage at most, {requests_max(found) / tasks:.3f}/task",
        ),
        ("blobs", f"{found.blobs}, {show_size(found.blob_bytes)}"),
        ("owners", f"{found.epochs}"),
        (
            "span",
            f"{show_span(found.span_us)}; functions ran {show_span(found.run_us)} "
            f"({busy:.2f} at once), waited {show_span(found.queue_us)} at workers",
        ),
        (
            "critical path",
            f"{len(found.critical)} tasks, {show_span(path_us)} of {show_span(found.span_us)}",
        ),
    ]
