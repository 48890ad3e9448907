"""Where a command looks, and what becomes of its errors: text for people, a code for scripts."""

from __future__ import annotations

from difflib import get_close_matches

import click

from milepost.errors import (
    AlteredJournalError,
    CorruptBlobError,
    CorruptJournalError,
    IllegalEventError,
    MilepostError,
    StorageUnavailableError,
    TaskNotFoundError,
    UnsupportedFormatError,
    UsageError,
    WorkflowNotFoundError,
)
from milepost.journal.bundle import open_to_look
from milepost.journal.catalog import list_workflows
from milepost.journal.history import History
from milepost.journal.store import Store
from milepost.journal.tool.text import clean

EXIT_CODES: tuple[tuple[type[MilepostError], int], ...] = (
    (UsageError, 2),
    (AlteredJournalError, 8),
    (CorruptJournalError, 3),
    (CorruptBlobError, 3),
    (IllegalEventError, 3),
    (WorkflowNotFoundError, 4),
    (TaskNotFoundError, 4),
    (UnsupportedFormatError, 6),
    (StorageUnavailableError, 7),
)
"""The first that fits counts; any other error is 1. docs/reference/cli.md is their page."""


def refuse(error: MilepostError, text: str = "") -> click.exceptions.Exit:
    """Tell an error on stderr.

    Args:
        error: The error.
        text: What to say instead of its own text.

    Returns:
        What ends the command with the error's exit code.
    """
    click.echo(f"Error: {text or clean(str(error))}", err=True)
    return click.exceptions.Exit(exit_code(error))


def exit_code(error: MilepostError) -> int:
    """Tell the exit code of an error.

    Args:
        error: The error.

    Returns:
        Its code.
    """
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def chosen_store(context: click.Context) -> Store:
    """Open the store that the command line names.

    Args:
        context: That of the command.

    Returns:
        The store; it is not changed.

    Raises:
        click.UsageError: If none is named.
        StorageUriError: If there is no store.
        MilepostError: As of :func:`~milepost.journal.opening.open_store`.
    """
    storage = context.find_root().params.get("storage")
    if not storage:
        raise click.UsageError("name the store: milepost --storage URI ..., or MILEPOST_STORAGE")
    return open_to_look(storage)


def chosen_history(context: click.Context, workflow_id: str) -> History:
    """Open the history of a workflow that must exist.

    Args:
        context: That of the command.
        workflow_id: The workflow.

    Returns:
        Its history.

    Raises:
        click.exceptions.Exit: If there is none (exit code 4), once ids that are near were named.
        MilepostError: As of :func:`chosen_store`.
    """
    store = chosen_store(context)
    history = History(store, workflow_id)
    try:
        next(iter(history))
    except WorkflowNotFoundError as error:
        raise refuse(error, describe_missing(store, workflow_id)) from error
    return history


def describe_missing(store: Store, workflow_id: str) -> str:
    """Say of a workflow that is not there what is.

    Args:
        store: Where it was looked for.
        workflow_id: What was looked for.

    Returns:
        One line.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    known = list_workflows(store)
    said = f"no workflow {clean(workflow_id)!r} in {store.uri}"
    if workflow_id in known:
        return f"{said}: its folder holds no journal, as while it is created or deleted"
    if not known:
        return f"{said}: the store is empty"
    near = get_close_matches(workflow_id, known, n=3)
    return f"{said}; did you mean {', '.join(map(clean, near))}?" if near else said
