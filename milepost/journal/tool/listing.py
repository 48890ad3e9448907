"""``milepost ls``: the workflows of a store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from milepost.journal.catalog import list_summaries
from milepost.journal.claim import list_claims
from milepost.journal.store import Store
from milepost.journal.summary import WorkflowSummary
from milepost.journal.tool.place import chosen_store
from milepost.journal.tool.text import print_json, print_table, show_time
from milepost.replay.state import Status


@click.command("ls")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([each.value for each in Status], case_sensitive=False),
    help="Only workflows of this status; may be given again.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context, statuses: Sequence[str], limit: int | None, as_json: bool
) -> None:
    """List the workflows, the newest first."""
    store = chosen_store(context)
    wanted = {Status(each.upper()) for each in statuses} or None
    # A catalog is never written from here: whoever looks may have no right to, and changes nothing.
    found = list_summaries(store, statuses=wanted, newest_first=True, stale_max=sys.maxsize)[:limit]
    if as_json:
        for each in found:
            print_json(asdict(each))
    elif found:
        heads = ("STATUS", "ID", "CREATED", "ENDED", "EPOCH", "REMARK")
        print_table(heads, [_row(store, each) for each in found])
    else:
        click.echo("no workflows")


def _row(store: Store, each: WorkflowSummary) -> tuple[object, ...]:
    ended = show_time(each.ended_us)
    remark = each.error or describe_unsettled(store, each)
    return (
        each.status.value,
        each.workflow_id,
        show_time(each.created_us),
        ended,
        each.epoch,
        remark,
    )


def describe_unsettled(store: Store, summary: WorkflowSummary) -> str:
    """Say why what a journal tells last may be lost yet.

    Args:
        store: Where the workflow is.
        summary: What is known of it.

    Returns:
        The reason, or nothing if all is certain.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    if summary.settled:
        return ""
    claims = list_claims(store, summary.workflow_id, summary.epoch + 1)
    newest = max((each.epoch for each in claims), default=0)
    return f"unsettled: claimed by epoch {newest}" if newest else "unsettled"
