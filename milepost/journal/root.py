"""The root file: says that a folder is a Milepost store, in which format, and which one it is.

It is written once, when the store is first opened, and never changed. The store's id names the
engine's actors, so that several stores can live in one cluster.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime

from milepost.errors import CorruptJournalError, UnsupportedFormatError
from milepost.journal.store import ObjectNotFoundError, Store

ROOT_KEY = "milepost.json"

FORMAT_VERSION = 1
"""The newest layout of a store that this code reads, and the one it writes."""

_STORE_ID = re.compile(r"[0-9a-f]{16}")


def create_root(store: Store) -> str:
    """Make a place a store, unless it is one; of two who do it at once one wins.

    Args:
        store: The place.

    Returns:
        The store's id.

    Raises:
        CorruptJournalError: If there is a root file that cannot be read.
        UnsupportedFormatError: If a newer Milepost made the store.
        StorageUnavailableError: If the storage fails.
    """
    try:
        return read_store_id(store)
    except ObjectNotFoundError:
        pass
    created = datetime.now(UTC).isoformat(timespec="seconds")
    root = {"format": FORMAT_VERSION, "store_id": os.urandom(8).hex(), "created": created}
    store.create(ROOT_KEY, [json.dumps(root).encode() + b"\n"])
    return read_store_id(store)


def read_store_id(store: Store) -> str:
    """Read the id that tells one store from another.

    Args:
        store: The store.

    Returns:
        Sixteen hex digits.

    Raises:
        ObjectNotFoundError: If this is no store (yet).
        CorruptJournalError: If the root file cannot be read.
        UnsupportedFormatError: If a newer Milepost made the store.
        StorageUnavailableError: If the storage fails.
    """
    content = store.get(ROOT_KEY)
    try:
        root = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptJournalError(ROOT_KEY, 0, f"not JSON: {error}") from error
    version = root.get("format") if isinstance(root, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CorruptJournalError(ROOT_KEY, 0, "no format version")
    if version > FORMAT_VERSION:
        raise UnsupportedFormatError(ROOT_KEY, version, FORMAT_VERSION)
    store_id = root.get("store_id")
    if not isinstance(store_id, str) or not _STORE_ID.fullmatch(store_id):
        raise CorruptJournalError(ROOT_KEY, 0, "no store id of sixteen hex digits")
    return store_id
