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


if __name__ == "__main__":
    main()
