"""The command line: ``milepost``, or ``python -m milepost``. Never loads Ray by itself."""

from __future__ import annotations

import importlib.metadata

import click


@click.group()
@click.version_option(importlib.metadata.version("milepost"), prog_name="milepost")
def main() -> None:
    """Durable execution for Ray."""


@main.command()
@click.option("--storage", envvar="MILEPOST_STORAGE", help="Path or URI of the store.")
@click.option("--watch", is_flag=True, help="Keep looking, until interrupted: a standby.")
@click.option(
    "--force", "-f", multiple=True, metavar="ID", help="Take this one even from a live owner."
)
@click.option(
    "--wait/--no-wait", default=True, help="Stay until what was resumed has ended (default)."
)
def recover(storage: str | None, watch: bool, force: tuple[str, ...], wait: bool) -> None:
    """Go on with every workflow whose cluster is gone.

    Uses the cluster that RAY_ADDRESS names, or starts one on this machine, which ends with this
    command. Exit code 1: the storage cannot be used, or a workflow cannot go on or did not succeed.
    """
    from milepost.engine.commands import recover_all

    recover_all(storage, force, watch, wait)


@main.group()
def journal() -> None:
    """Look into a store. Needs no Ray, runs no stored code, changes nothing."""


@journal.command()
@click.argument("workflow_id", required=False)
@click.option("--all", "everything", is_flag=True, help="Every workflow in the store.")
@click.option("--deep", is_flag=True, help="Read and hash every blob, too.")
@click.option("--quiet", "-q", is_flag=True, help="Print faults only.")
@click.option(
    "--storage", envvar="MILEPOST_STORAGE", required=True, help="Path or URI of the store."
)
def verify(
    workflow_id: str | None, everything: bool, deep: bool, quiet: bool, storage: str
) -> None:
    """Check checksums, chain, epochs, links, every event, blobs, and that nothing is unexplained.

    Exit codes: 0 no fault; 1 the storage cannot be used; 2 wrong usage; 3 damage, an illegal event,
    something missing, or written by a newer Milepost; 4 no such workflow; 5 only objects that
    nothing accounts for. Torn ends and what fenced owners left are shown, and are no faults.
    """
    from milepost.journal.commands import verify_stored

    if everything == (workflow_id is not None):
        raise click.UsageError("name one workflow, or give --all")
    raise SystemExit(verify_stored(storage, workflow_id, deep, quiet))


if __name__ == "__main__":
    main()
