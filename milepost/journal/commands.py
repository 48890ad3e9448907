"""The commands that only read a store; :mod:`milepost.__main__` loads them when they are used."""

from __future__ import annotations

from collections.abc import Iterable

import click

from milepost.errors import MilepostError, WorkflowNotFoundError
from milepost.journal.opening import open_store
from milepost.journal.verify import Kind, Verification, verify, verify_all

EXIT_UNREADABLE = 1
"""The storage cannot be used: nothing is known."""

EXIT_DAMAGED = 3
EXIT_NOT_FOUND = 4
EXIT_ORPHANS = 5
"""Only objects that nothing accounts for; nothing is lost."""


def verify_stored(storage: str, workflow_id: str | None, deep: bool, quiet: bool) -> int:
    """Prints what is found in a store.

    Args:
        storage: The store's URI.
        workflow_id: The workflow, or None for all.
        deep: Whether to read and hash every blob.
        quiet: Whether to print faults only.

    Returns:
        The exit code: 0 for no fault, else one of this module's constants.
    """
    try:
        store = open_store(storage, create=False)
        found: Iterable[Verification] = (
            verify_all(store, deep=deep)
            if workflow_id is None
            else [verify(store, workflow_id, deep=deep)]
        )
        return _report(found, quiet)
    except WorkflowNotFoundError as error:
        click.echo(str(error), err=True)
        return EXIT_NOT_FOUND
    except MilepostError as error:
        click.echo(str(error), err=True)
        return EXIT_UNREADABLE


def _report(found: Iterable[Verification], quiet: bool) -> int:
    faults: set[Kind] = set()
    count = faulty = 0
    for each in found:
        count += 1
        faulty += not each.is_clean
        faults.update(fault.kind for fault in each.faults)
        if not quiet or not each.is_clean:
            _print(each, quiet)
    click.echo(f"{count} verified, {faulty} with faults")
    if faults - {Kind.ORPHAN}:
        return EXIT_DAMAGED
    return EXIT_ORPHANS if faults else 0


def _print(each: Verification, quiet: bool) -> None:
    told = "clean" if each.is_clean else "FAULTY"
    hashed = f" ({each.blobs_hashed} hashed)" if each.blobs_hashed else ""
    click.echo(
        f"{told:6} {each.workflow_id}: {each.status or 'no journal'}, {each.events} events, "
        f"{each.epochs} epochs, {each.blobs} blobs{hashed}"
    )
    for finding in each.faults if quiet else each.findings:
        click.echo(
            f"       {finding.kind}: {finding.key} at byte {finding.offset}: {finding.reason}"
        )
