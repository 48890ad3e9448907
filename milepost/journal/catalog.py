"""Which workflows a store holds, from nothing but the names of its folders.

A folder appears with the first claim, so a workflow can be listed here whose journal does not exist
(yet): reading it raises :class:`~milepost.errors.WorkflowNotFoundError`.
"""

from __future__ import annotations

from contextlib import suppress

from milepost.journal.layout import WORKFLOWS, decode_workflow_id
from milepost.journal.store import Store


def list_workflows(store: Store) -> list[str]:
    """List the ids of all workflows.

    Args:
        store: Where to look.

    Returns:
        The ids, sorted. Folders that are not a workflow's are passed over.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    found = []
    for name in store.list_folders(WORKFLOWS):
        with suppress(ValueError):
            found.append(decode_workflow_id(name))
    return sorted(found)
