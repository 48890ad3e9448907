"""Lists many workflows without reading many journals.

The truth is in the journals. The catalog is one object that keeps what a listing shows of each
workflow, together with a *fingerprint*: a hash over the names and sizes of all the workflow's
claims and segments. Segments only ever appear, grow or are replaced by others of another name, so a
workflow whose fingerprint is the same says the same. One recursive listing gives all fingerprints;
only workflows whose entry is missing or does not match are read.

The catalog is never the truth: whatever is wrong with it (missing, damaged, old, another version)
costs time and changes no answer. It is written by whoever lists, when enough has changed; the last
writer wins, and nothing is lost with what it overwrites. Only a forged entry with the right
fingerprint would be believed; whoever can forge it can write journals, too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby

from milepost.errors import MilepostError, StorageUnavailableError, WorkflowNotFoundError
from milepost.journal.catalog_codec import CATALOG_KEY, Entries, Entry, pack_catalog, unpack_catalog
from milepost.journal.layout import WORKFLOWS, decode_workflow_id
from milepost.journal.store import ObjectNotFoundError, Store, StoredObject
from milepost.journal.summary import WorkflowSummary, summarize
from milepost.replay.state import Status

STALE_MAX = 32
"""Entries that are read anew at each listing rather than rewriting the catalog for them."""

READERS = 16
"""Threads that read what changed: on object storages, almost all of it is waiting."""

_log = logging.getLogger(__name__)


def list_workflows(store: Store) -> list[str]:
    """List the ids of all workflows, from nothing but the names of their folders.

    A folder appears with the first claim, so a workflow can be listed here whose journal does not
    exist (yet): reading it raises :class:`~milepost.errors.WorkflowNotFoundError`.

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


def list_summaries(
    store: Store,
    *,
    statuses: Collection[Status] | None = None,
    created_us: tuple[int, int] | None = None,
    ended_us: tuple[int, int] | None = None,
    newest_first: bool = False,
    stale_max: int = STALE_MAX,
) -> list[WorkflowSummary]:
    """List all workflows that were ever created.

    A workflow whose journal cannot be read is listed as RESUMABLE, with the reason.

    Args:
        store: Where to look.
        statuses: Only those of these stored statuses; by default all.
        created_us: Only those created from the first time on and before the second.
        ended_us: Likewise, by when they ended or failed; those that have not are left out.
        newest_first: Sort by the time of creation, the latest first; by default by id.
        stale_max: How many entries may be wrong before the catalog is written anew.

    Returns:
        One summary per workflow.

    Raises:
        StorageUnavailableError: If the storage cannot be listed.
    """
    found = [
        each
        for each in _list_current(store, stale_max)
        if (statuses is None or each.status in statuses)
        and _is_within(each.created_us, created_us)
        and _is_within(each.ended_us, ended_us)
    ]
    if newest_first:
        return sorted(found, key=lambda each: (-each.created_us, each.workflow_id))
    return sorted(found, key=lambda each: each.workflow_id)


def _is_within(at_us: int, span: tuple[int, int] | None) -> bool:
    return span is None or (at_us > 0 and span[0] <= at_us < span[1])


def _list_current(store: Store, stale_max: int) -> list[WorkflowSummary]:
    """Give the entries that match, and read the workflows of the others."""
    prints = dict(_take_fingerprints(store.list(WORKFLOWS)))
    kept = _read_catalog(store)
    known = {
        workflow_id: entry
        for workflow_id, entry in kept.items()
        if prints.get(workflow_id) == entry.fingerprint
    }
    changed = [each for each in prints if each not in known]
    summaries, broken = _read_changed(store, changed)
    for workflow_id in changed:
        if workflow_id not in broken:
            entry = Entry(prints[workflow_id], summaries.get(workflow_id))
            known[workflow_id] = entry
    gone = len(kept.keys() - prints.keys())
    if len(changed) - len(broken) + gone > stale_max:
        _write_catalog(store, known)
    readable = [entry.summary for entry in known.values() if entry.summary is not None]
    return [*readable, *broken.values()]


def _take_fingerprints(listing: Collection[StoredObject]) -> Iterator[tuple[str, bytes]]:
    """Hash the names and sizes of each workflow's objects, whatever kinds of them there are."""
    start = len(WORKFLOWS)
    for name, objects in groupby(listing, lambda each: each.key[start:].partition("/")[0]):
        try:
            workflow_id = decode_workflow_id(name)
        except ValueError:
            continue
        text = "".join([f"{each.key}\n{each.size}\n" for each in objects])
        yield workflow_id, hashlib.sha256(text.encode()).digest()[:16]


def _read_changed(
    store: Store, workflow_ids: Collection[str]
) -> tuple[dict[str, WorkflowSummary], dict[str, WorkflowSummary]]:
    """Read workflows; those that cannot be read come second, those without a journal not at all."""
    found: dict[str, WorkflowSummary] = {}
    broken: dict[str, WorkflowSummary] = {}

    def read(workflow_id: str) -> None:
        try:
            found[workflow_id] = summarize(store, workflow_id)
        except WorkflowNotFoundError:
            return  # claimed, and never created
        except MilepostError as error:
            _log.warning("workflow %r cannot be read: %s", workflow_id, error)
            broken[workflow_id] = WorkflowSummary(
                workflow_id=workflow_id, status=Status.RESUMABLE, error=str(error)
            )

    if len(workflow_ids) < READERS:
        for each in workflow_ids:
            read(each)
    else:
        with ThreadPoolExecutor(READERS, "catalog") as readers:
            list(readers.map(read, workflow_ids))
    return found, broken


def _read_catalog(store: Store) -> Entries:
    try:
        return unpack_catalog(store.get(CATALOG_KEY))
    except (ObjectNotFoundError, StorageUnavailableError):
        return {}
    except ValueError as error:
        _log.warning("the catalog of %s is read no further: %s", store.uri, error)
        return {}


def _write_catalog(store: Store, entries: Entries) -> None:
    """Keep what was found; who may only read the store does without."""
    try:
        store.put(CATALOG_KEY, [pack_catalog(entries)])
    except StorageUnavailableError as error:
        _log.info("the catalog was not written: %s", error)
