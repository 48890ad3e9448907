"""From the text a user gives for a storage to an open store.

A local folder is named by a path (relative ones and ``~`` are made absolute) or by a ``file:`` or
``local:`` URI. A folder that holds other files is refused rather than mixed with. Credentials in a
URI never reach an error message.
"""

from __future__ import annotations

import os
import re
import threading
from urllib.parse import unquote, urlsplit

from milepost.errors import StorageUnavailableError, StorageUriError
from milepost.journal.local import LocalStore
from milepost.journal.memory import MemoryStore
from milepost.journal.root import ROOT_KEY, create_root, read_store_id
from milepost.journal.store import ObjectNotFoundError, Store

REMOTE_SCHEMES = frozenset(
    ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "azure", "hdfs", "viewfs", "http", "https")
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=/)")
_SECRETS = re.compile(r"(?<=://)[^/]*@|\?.*", re.DOTALL)

_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(uri: str | os.PathLike[str], *, create: bool = True) -> Store:
    """Open a store, and make it one if nobody has.

    Args:
        uri: A path, a ``file:`` URI, or ``memory://name``, which lives as long as this process.
        create: Whether to make a folder a store that is not one yet. Without, nothing is written.

    Returns:
        The store.

    Raises:
        StorageUriError: If the text names no storage that this version supports, or the place
            cannot be used.
        CorruptJournalError: If there is a root file that cannot be read.
        UnsupportedFormatError: If a newer Milepost made the store.
        StorageUnavailableError: If the storage fails.
    """
    text = os.fspath(uri)
    shown = _SECRETS.sub("", text)
    match = _SCHEME.match(text)
    scheme = match[1].lower() if match else "file"
    if scheme == "memory":
        return _open_memory(urlsplit(text).netloc, create)
    if scheme in ("file", "local"):
        return _open_local(_folder(text, shown) if match else _absolute(text), shown, create)
    if scheme in REMOTE_SCHEMES:
        reason = f"this version supports local folders only, {scheme}:// will come later"
        raise StorageUriError(shown, reason)
    raise StorageUriError(shown, f"unknown kind of storage {scheme!r}; give the path of a folder")


def _open_memory(name: str, create: bool) -> MemoryStore:
    with _memory_lock:
        if name not in _memory_stores and not create:
            raise StorageUriError(f"memory://{name}", "this process has no such store")
        store = _memory_stores.setdefault(name, MemoryStore(name))
    create_root(store)
    return store


def _absolute(path: str) -> str:
    if not path or "\0" in path:
        raise StorageUriError(path, "it must be a path and not empty")
    return os.path.abspath(os.path.expanduser(path))


def _folder(uri: str, shown: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StorageUriError(shown, "a file URI has three slashes before an absolute path")
    if parts.query or parts.fragment:
        raise StorageUriError(shown, "a file URI takes no options; write ? as %3F and # as %23")
    return _absolute(unquote(parts.path))


def _open_local(root: str, shown: str, create: bool) -> LocalStore:
    if not _is_store(root, shown) and not create:
        raise StorageUriError(shown, "there is no Milepost store")
    store = LocalStore(root)
    try:
        if create:
            create_root(store)
            _require_writable(root, shown)
        else:
            read_store_id(store)
    except ObjectNotFoundError as error:
        raise StorageUriError(shown, "its root file is gone") from error
    except StorageUnavailableError as error:
        raise StorageUriError(shown, error.reason) from error
    return store


def _is_store(root: str, shown: str) -> bool:
    """Tell a store from an empty or missing folder, and refuse everything else."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageUriError(shown, error.strerror or str(error)) from error
    others = [name for name in names if not name.startswith(".tmp-")]
    if others and ROOT_KEY not in others:
        reason = f"the folder holds other files ({min(others)!r}) and no {ROOT_KEY}"
        raise StorageUriError(shown, reason)
    return bool(others)


def _require_writable(root: str, shown: str) -> None:
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise StorageUriError(shown, "no permission to write there")
