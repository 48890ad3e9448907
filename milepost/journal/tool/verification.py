"""``milepost verify``: whether what is stored is whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import click

from milepost.errors import AlteredJournalError, WorkflowNotFoundError
from milepost.journal.bundle import BundleStore, check_manifest, is_bundle
from milepost.journal.head import Head
from milepost.journal.layout import blobs_folder
from milepost.journal.store import Store
from milepost.journal.tool.chain_head import read_noted
from milepost.journal.tool.place import chosen_store, describe_missing, refuse
from milepost.journal.tool.text import clean, print_json
from milepost.journal.verify import Finding, Kind, Verification, verify, verify_all

EXIT_DAMAGED = 3
EXIT_ORPHANS = 5
"""Only objects that nothing accounts for; nothing is lost."""

EXIT_UNSUPPORTED = 6
EXIT_ALTERED = 8
EXIT_TORN = 9
"""Only with ``--strict``: every crash leaves a torn end, and the next owner drops it."""

EXIT_CODES = (
    (Kind.ALTERED, EXIT_ALTERED),
    (Kind.DAMAGE, EXIT_DAMAGED),
    (Kind.ILLEGAL, EXIT_DAMAGED),
    (Kind.MISSING, EXIT_DAMAGED),
    (Kind.UNSUPPORTED, EXIT_UNSUPPORTED),
    (Kind.ORPHAN, EXIT_ORPHANS),
    (Kind.TORN, EXIT_TORN),
)
"""The first kind that was found counts."""


@click.command("verify")
@click.argument("workflow_id", metavar="[ID|BUNDLE]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every workflow in the store.")
@click.option("--deep", is_flag=True, help="Read and hash every blob, too.")
@click.option("--head", metavar="HEAD", help="That it goes on from this noted head or file.")
@click.option(
    "--key",
    metavar="PEM",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --head: whose signature counts.",
)
@click.option("--strict", is_flag=True, help="Exit with 9 if there is a torn end.")
@click.option("--quiet", "-q", is_flag=True, help="Tell faults only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per workflow and line.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str | None,
    everything: bool,
    deep: bool,
    head: str | None,
    key: Path | None,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check that all that is stored is whole, and every event legal.

    Exit codes: 0 no fault; 8 altered: checksums are right, but the hash chain or the noted head is
    not; 3 damage, an illegal event, or something missing; 4 no such workflow; 5 only objects that
    nothing accounts for; 6 written by a newer Milepost and otherwise without fault. Torn ends and
    what fenced owners left are shown, and are no faults; with --strict, 9 tells of a torn end.
    """
    if workflow_id is not None and is_bundle(workflow_id):
        found = _verify_bundle(Path(workflow_id), deep, head, key)
        context.exit(_report([found], quiet, strict, as_json))
    if everything == (workflow_id is not None) or (everything and head):
        raise click.UsageError("name one workflow, or give --all without --head")
    noted = read_noted(head, key, workflow_id or "", "--head") if head else None
    store = chosen_store(context)
    verified = (
        verify_all(store, deep=deep)
        if workflow_id is None
        else _verify_one(store, workflow_id, deep, noted)
    )
    context.exit(_report(verified, quiet, strict, as_json))


def _verify_one(
    store: Store, workflow_id: str, deep: bool, noted: Head | None
) -> list[Verification]:
    try:
        return [verify(store, workflow_id, deep=deep, noted=noted)]
    except WorkflowNotFoundError as error:
        raise refuse(error, describe_missing(store, workflow_id)) from error


def _verify_bundle(path: Path, deep: bool, head: str | None, key: Path | None) -> Verification:
    """Check a bundle: every object by its manifest, and the workflow in it."""
    bundle = BundleStore(path)
    manifest = bundle.manifest
    noted = read_noted(head, key, manifest.workflow_id, "--head") if head else manifest.head
    found = verify(bundle, manifest.workflow_id, deep=deep, noted=noted)
    differing = [
        Finding(
            kind=Kind.ALTERED if isinstance(each, AlteredJournalError) else Kind.DAMAGE,
            key=each.file,
            offset=each.offset,
            reason=each.reason,
        )
        for each in check_manifest(bundle)
    ]
    blobs = blobs_folder(manifest.workflow_id)
    kept = [
        each
        for each in found.findings
        if manifest.has_blobs or each.kind is not Kind.MISSING or not each.key.startswith(blobs)
    ]
    return replace(found, findings=(*differing, *kept))


def _report(found: Iterable[Verification], quiet: bool, strict: bool, as_json: bool) -> int:
    kinds: set[Kind] = set()
    count = faulty = 0
    for each in found:
        count += 1
        faulty += not each.is_clean
        kinds.update(finding.kind for finding in each.findings)
        if not quiet or not each.is_clean:
            _print(each, quiet, as_json)
    if not as_json:
        click.echo(f"{count} verified, {faulty} with faults")
    codes = (code for kind, code in EXIT_CODES if kind in kinds)
    return next((code for code in codes if strict or code != EXIT_TORN), 0)


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
