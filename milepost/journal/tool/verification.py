"""``milepost verify``: whether what is stored is whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import click

from milepost.errors import WorkflowNotFoundError
from milepost.journal.store import Store
from milepost.journal.tool.place import chosen_store, describe_missing, refuse
from milepost.journal.tool.text import clean, print_json
from milepost.journal.verify import Kind, Verification, verify, verify_all

EXIT_DAMAGED = 3
EXIT_ORPHANS = 5
"""Only objects that nothing accounts for; nothing is lost."""

EXIT_UNSUPPORTED = 6


@click.command("verify")
@click.argument("workflow_id", required=False)
@click.option("--all", "everything", is_flag=True, help="Every workflow in the store.")
@click.option("--deep", is_flag=True, help="Read and hash every blob, too.")
@click.option("--quiet", "-q", is_flag=True, help="Tell faults only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per workflow and line.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str | None,
    everything: bool,
    deep: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check that all that is stored is whole, and every event legal.

    Exit codes: 0 no fault; 3 damage, an illegal event, or something missing; 4 no such workflow;
    5 only objects that nothing accounts for; 6 written by a newer Milepost and otherwise without
    fault. Torn ends and what fenced owners left are shown, and are no faults.
    """
    if everything == (workflow_id is not None):
        raise click.UsageError("name one workflow, or give --all")
    store = chosen_store(context)
    found = (
        verify_all(store, deep=deep)
        if workflow_id is None
        else _verify_one(store, workflow_id, deep)
    )
    context.exit(_report(found, quiet, as_json))


def _verify_one(store: Store, workflow_id: str, deep: bool) -> list[Verification]:
    try:
        return [verify(store, workflow_id, deep=deep)]
    except WorkflowNotFoundError as error:
        raise refuse(error, describe_missing(store, workflow_id)) from error


def _report(found: Iterable[Verification], quiet: bool, as_json: bool) -> int:
    faults: set[Kind] = set()
    count = faulty = 0
    for each in found:
        count += 1
        faulty += not each.is_clean
        faults.update(fault.kind for fault in each.faults)
        if not quiet or not each.is_clean:
            _print(each, quiet, as_json)
    if not as_json:
        click.echo(f"{count} verified, {faulty} with faults")
    if faults - {Kind.ORPHAN, Kind.UNSUPPORTED}:
        return EXIT_DAMAGED
    if Kind.UNSUPPORTED in faults:
        return EXIT_UNSUPPORTED
    return EXIT_ORPHANS if faults else 0


def _print(each: Verification, quiet: bool, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(each), "clean": each.is_clean})
        return
    told = "clean" if each.is_clean else "FAULTY"
    hashed = f" ({each.blobs_hashed} hashed)" if each.blobs_hashed else ""
    line = f"{told:6} {each.workflow_id}: {each.status or 'no journal'}, {each.events} events, "
    click.echo(clean(f"{line}{each.epochs} epochs, {each.blobs} blobs{hashed}"))
    for finding in each.faults if quiet else each.findings:
        place = f"{finding.kind}: {finding.key} at byte {finding.offset}: {finding.reason}"
        click.echo(f"       {clean(place)}")
