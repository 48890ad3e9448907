"""From the text a user gives for a storage to an open store.

A local folder is named by a path (relative ones and ``~`` are made absolute) or by a ``file:`` or
``local:`` URI; any other URI that pyarrow takes names a remote storage, which is probed before it
becomes a store. A local folder that holds other files is refused rather than mixed with.
Credentials in a URI never reach an error message.
"""

from __future__ import annotations

import os
import threading
from urllib.parse import unquote, urlsplit

from milepost.errors import StorageUnavailableError, StorageUriError
from milepost.journal.local import LocalStore
from milepost.journal.location import Location
from milepost.journal.memory import MemoryStore
from milepost.journal.probe import probe
from milepost.journal.remote import RemoteStore
from milepost.journal.root import ROOT_KEY, create_root, read_store_id
from milepost.journal.store import ObjectNotFoundError, Store

REMOTE_SCHEMES = frozenset(("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "mock"))
"""And all that begin with ``fsspec+``."""

RENAMED_SCHEMES = {"s3a": "s3", "s3n": "s3", "az": "abfss", "azure": "abfss", "wasbs": "abfss"}

NO_STORE = "there is no Milepost store"
"""Why a place cannot be used that is fine, but no store yet."""

_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(uri: str | os.PathLike[str], *, create: bool = True) -> Store:
    """Open a store, and make it one if nobody has.

    Args:
        uri: A path, a URI of a remote storage, or ``memory://name``, which lives as long as this
            process.
        create: Whether to make a folder a store that is not one yet. Without, nothing is written.

    Returns:
        The store.

    Raises:
        StorageUriError: If the text names no storage, or the place cannot be used; of a remote
            one it names what the probe found wrong.
        CorruptJournalError: If there is a root file that cannot be read.
        UnsupportedFormatError: If a newer Milepost made the store.
        StorageUnavailableError: If the storage fails.
    """
    location = Location(os.fspath(uri))
    if location.scheme == "memory":
        return _open_memory(urlsplit(location.reveal()).netloc, create)
    folder = local_folder(location)
    if folder is not None:
        return _open_local(folder, location.shown, create)
    require_remote(location)
    return _open_remote(location, create)


def local_folder(location: Location) -> str | None:
    """Name the folder of this machine that a storage lies in, if it does.

    Args:
        location: The storage.

    Returns:
        An absolute path, or None for any other kind of storage.

    Raises:
        StorageUriError: If the text can be no folder's name.
    """
    if location.scheme not in ("", "file", "local"):
        return None
    text = location.reveal()
    return _folder(text, location.shown) if location.scheme else _absolute(text)


def require_remote(location: Location) -> None:
    """Refuse a location that names no kind of remote storage there is; nothing is asked of it.

    Args:
        location: The storage.

    Raises:
        StorageUriError: If its kind is unknown; says what to write instead.
    """
    scheme = location.scheme
    if scheme in REMOTE_SCHEMES or scheme.startswith("fsspec+"):
        return
    instead = RENAMED_SCHEMES.get(scheme)
    if instead is not None:
        raise StorageUriError(location.shown, f"write {instead}:// for it, as pyarrow does")
    reason = f"unknown kind of storage {scheme!r}; give the path of a folder"
    raise StorageUriError(location.shown, reason)


def reveal_uri(store: Store) -> str:
    """Give the text that opens a store in another process; never show, log or store it.

    Args:
        store: An open store.

    Returns:
        Its URI, with the credentials that were given in it.
    """
    return store.location.reveal() if isinstance(store, RemoteStore) else store.uri


def _open_remote(location: Location, create: bool) -> RemoteStore:
    store = RemoteStore(location)
    try:
        if create:
            probe(location)
            create_root(store)
        else:
            read_store_id(store)
    except ObjectNotFoundError:
        fault = NO_STORE
    except StorageUnavailableError as error:
        fault = f"it cannot {error.operation} {error.key}: {error.reason}"
    else:
        return store
    raise StorageUriError(location.shown, fault)


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
        raise StorageUriError(shown, NO_STORE)
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
