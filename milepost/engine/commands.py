"""The commands that act on workflows and so need Ray; :mod:`milepost.__main__` loads it lazily."""

from __future__ import annotations

import logging
import signal
import time
from collections import Counter
from types import FrameType

import click
import ray

from milepost.engine.api import get_output_async, get_status, init, recover
from milepost.engine.leases import read_lease_s
from milepost.engine.recovery import Recovered
from milepost.errors import MilepostError, StorageUnavailableError
from milepost.replay.state import Status as WorkflowStatus

INTERRUPTED = 130
"""The exit code, as shells know it."""


def recover_all(storage: str | None, force: tuple[str, ...], watch: bool, wait: bool) -> None:
    """Goes on with what lost its owner, once or until somebody ends this process.

    Args:
        storage: The store's URI; by default as for ``milepost.init``.
        force: Workflows to take over although their owner seems alive.
        watch: Whether to look again and again.
        wait: Whether to stay until what was resumed has ended.

    Raises:
        click.ClickException: If the storage or the engine cannot be used, or a workflow that should
            go on cannot, or has failed (exit code 1).
        click.exceptions.Exit: If it is interrupted while it waits (exit code 130).
    """
    try:
        if not ray.is_initialized():
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
        init(storage=storage)
        signal.signal(signal.SIGTERM, _interrupt)  # now, since Ray has put its own
        found = _recover_once(force)
        if wait and not watch:
            _wait_for([each.workflow_id for each in found if each.outcome == "resumed"])
        while watch:
            time.sleep(read_lease_s())
            try:
                _recover_once((), quiet=True)
            except StorageUnavailableError as error:
                click.echo(f"the storage does not answer, trying again: {error}", err=True)
    except MilepostError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopped; what was resumed goes on while its cluster lives")
        if not watch:  # somebody waits for what was resumed, and must not think that it ended
            raise click.exceptions.Exit(INTERRUPTED) from None
        return
    refused = sum(each.outcome == "refused" for each in found)
    if refused:
        raise click.ClickException(f"{refused} of the workflows cannot go on")


def _wait_for(workflow_ids: list[str]) -> None:
    """Waits until workflows have ended; their values stay where they are."""
    waiting = {get_output_async(each): each for each in workflow_ids}
    failed = []
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1, fetch_local=False)
        workflow_id = waiting.pop(done)
        status = get_status(workflow_id)
        click.echo(f"{status.value.lower():8} {workflow_id}")
        failed += [workflow_id] * (status is not WorkflowStatus.SUCCESSFUL)
    if failed:
        raise click.ClickException(f"{len(failed)} of the workflows did not succeed")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _recover_once(force: tuple[str, ...], *, quiet: bool = False) -> list[Recovered]:
    """Recovers, and prints what became of each workflow."""
    found = recover(force)
    for each in found:
        if not quiet or each.outcome == "resumed":
            click.echo(_describe(each))
    if not quiet:
        counts = Counter(each.outcome for each in found)
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        click.echo(told or "nothing to recover: no workflow has lost its owner")
    return found


def _describe(each: Recovered) -> str:
    return f"{each.outcome:8} {each.workflow_id}" + (f": {each.detail}" if each.detail else "")
