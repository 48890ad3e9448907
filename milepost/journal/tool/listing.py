"""``milepost ls``: the workflows of a store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

import click

from milepost.errors import MilepostError
from milepost.journal.catalog import list_summaries
from milepost.journal.claim import list_claims
from milepost.journal.history import History
from milepost.journal.layout import blobs_folder, workflow_folder
from milepost.journal.store import Store
from milepost.journal.summary import WorkflowSummary
from milepost.journal.tool.moment import parse_moment
from milepost.journal.tool.place import chosen_store
from milepost.journal.tool.table import print_table
from milepost.journal.tool.text import print_json, show_size, show_span
from milepost.replay.events import WorkflowCreated
from milepost.replay.payload import Encoding, unpack_plain
from milepost.replay.state import Status, TaskState

TIME_MAX = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How large a workflow is.

    Attributes:
        tasks_done: Tasks that have their value; None if the journal cannot be read.
        tasks: Tasks so far; a continuation brings more.
        bytes: Bytes of everything stored of it.
        items_done: Items of maps that have their value.
        items: Items of maps.
    """

    tasks_done: int | None
    tasks: int | None
    bytes: int
    items_done: int = 0
    items: int = 0


SORTS: dict[str, Callable[[tuple[WorkflowSummary, Extent | None]], Any]] = {
    "created": lambda row: -row[0].created_us,
    "ended": lambda row: -row[0].ended_us,
    "id": lambda row: row[0].workflow_id,
    "status": lambda row: (row[0].status.value, row[0].workflow_id),
    "size": lambda row: -(row[1].bytes if row[1] else 0),
    "tasks": lambda row: -((row[1].tasks if row[1] else 0) or 0),
}


@click.command("ls")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([each.value for each in Status], case_sensitive=False),
    help="Only workflows of this status; may be given again.",
)
@click.option("--since", metavar="TIME", help="Only created since: ISO 8601 (UTC), or as 2d, 3h.")
@click.option("--until", metavar="TIME", help="Only created before.")
@click.option(
    "--where", metavar="KEY=VALUE", multiple=True, help="Only with this in the user's metadata."
)
@click.option("--sort", type=click.Choice(list(SORTS)), default="created", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--quick", is_flag=True, help="Without tasks and size, which cost a reading each.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context,
    statuses: Sequence[str],
    since: str | None,
    until: str | None,
    where: tuple[str, ...],
    sort: str,
    limit: int | None,
    quick: bool,
    as_json: bool,
) -> None:
    """List the workflows, the newest first."""
    store = chosen_store(context)
    now_us = time.time_ns() // 1000
    created = (
        parse_moment(since, now_us, "--since") if since else 0,
        parse_moment(until, now_us, "--until") if until else TIME_MAX,
    )
    # A catalog is never written from here: whoever looks may have no right to, and changes nothing.
    found: Iterable[WorkflowSummary] = list_summaries(
        store,
        statuses={Status(each.upper()) for each in statuses} or None,
        created_us=created if since or until else None,
        newest_first=True,
        stale_max=sys.maxsize,
    )
    wanted = dict(map(_parse_condition, where))
    if wanted:
        found = (each for each in found if _has_metadata(store, each.workflow_id, wanted))
    rows = _sorted(store, found, sort, limit, quick)
    if as_json:
        for each, extent in rows:
            print_json(asdict(each) | (asdict(extent) if extent else {}))
        return
    first = next(rows, None)
    if first is None:
        click.echo("no workflows")
        return
    heads = ("STATUS", "ID", *(() if quick else ("TASKS", "SIZE")))
    heads += ("AGE", "LASTED", "EPOCH", "REMARK")
    print_table(heads, (_row(store, one, extent, now_us) for one, extent in chain([first], rows)))


def _parse_condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--where")
    return key, value


def _has_metadata(store: Store, workflow_id: str, wanted: dict[str, str]) -> bool:
    """Compare with what the workflow was created with; only the first event is read."""
    try:
        event = next(iter(History(store, workflow_id))).event
    except MilepostError:
        return False
    if not isinstance(event, WorkflowCreated) or event.metadata.encoding != Encoding.PLAIN:
        return False
    try:
        metadata = unpack_plain(event.metadata.data)
    except ValueError:
        return False
    return isinstance(metadata, dict) and all(
        key in metadata and str(metadata[key]) == value for key, value in wanted.items()
    )


def _sorted(
    store: Store, found: Iterable[WorkflowSummary], sort: str, limit: int | None, quick: bool
) -> Iterator[tuple[WorkflowSummary, Extent | None]]:
    """Measure as late as can be: only what is shown, if the order does not depend on it."""
    if sort in ("size", "tasks") and not quick:
        measured = ((each, measure(store, each.workflow_id)) for each in found)
        yield from sorted(measured, key=SORTS[sort])[:limit]
        return
    if sort != "created":  # as they come already
        found = sorted(found, key=lambda each: SORTS[sort]((each, None)))
    for each in islice(found, limit):
        yield each, None if quick else measure(store, each.workflow_id)


def measure(store: Store, workflow_id: str) -> Extent:
    """Tell how large a workflow is.

    Args:
        store: Where it is.
        workflow_id: The workflow.

    Returns:
        Its extent.

    Raises:
        StorageUnavailableError: If the storage cannot be listed.
    """
    folders = (workflow_folder(workflow_id), blobs_folder(workflow_id))
    size = sum(each.size for folder in folders for each in store.list(folder))
    try:
        state = History(store, workflow_id).state_at()
    except MilepostError:
        return Extent(tasks_done=None, tasks=None, bytes=size)
    done = state.counts[TaskState.COMMITTED] + state.counts[TaskState.EXTENDED]
    return Extent(
        tasks_done=done,
        tasks=len(state.tasks),
        bytes=size,
        items_done=sum(each.done for each in state.maps.values()),
        items=sum(each.width for each in state.maps.values()),
    )


def _row(
    store: Store, each: WorkflowSummary, extent: Extent | None, now_us: int
) -> tuple[object, ...]:
    lasted_us = (each.ended_us or now_us) - each.started_us if each.started_us else None
    over = each.status in (Status.RUNNING, Status.PENDING) or each.ended_us
    size: tuple[object, ...] = ()
    if extent is not None:
        known = extent.tasks is not None
        items = f" {extent.items_done}/{extent.items} items" if extent.items else ""
        told = f"{extent.tasks_done}/{extent.tasks}{items}" if known else "?"
        size = (told, show_size(extent.bytes))
    return (
        each.status.value,
        each.workflow_id,
        *size,
        show_span(now_us - each.created_us) if each.created_us else "-",
        show_span(lasted_us) if over else "-",
        each.epoch,
        each.error or describe_unsettled(store, each),
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
