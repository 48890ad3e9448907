"""A store in a folder of a local disk, with its own ``os`` calls, so that durable means durable.

A whole object is written to a temporary file beside its place, synced, renamed, and the folder
synced. A growing object is created exclusively, appended to and synced with ``fdatasync``. A folder
counts as durable only once its parent was synced by this process: another process may have
created it and died in between. An ``OSError`` never leaves this module.

Not for NFS: its clients cache listings, which breaks the handover of ownership.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote

from milepost.errors import StorageUnavailableError
from milepost.journal.disk import (
    file_size,
    make_root,
    opened,
    read_range,
    sync_folder,
    write_all,
)
from milepost.journal.store import (
    Appender,
    ObjectNotFoundError,
    Part,
    StoredObject,
    check_key,
    check_prefix,
)

FOLDERS_KNOWN_MAX = 16_384
"""Folders remembered as durable; forgetting them costs a few syncs, keeping all costs memory."""

CREATE_TRIES_MAX = 16
"""Tries to create a file in a folder that somebody else keeps deleting because it is empty."""

_APPEND_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
_TEMPORARY_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LocalStore:
    """A folder as a :class:`~milepost.journal.store.Store`.

    The folder is created with the first object in it.

    Attributes:
        root: The folder's absolute path.
        appendable: True.
    """

    appendable = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root: str = os.path.abspath(os.fspath(root))
        self._durable_folders: set[str] = set()

    @property
    def uri(self) -> str:
        """The folder as a ``file://`` URI."""
        return "file://" + quote(self.root)

    def put(self, key: str, parts: Sequence[Part]) -> None:
        """Store a whole object; see :meth:`Store.put`.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If the disk fails.
        """
        path = self._path(key)
        with _translated("write", key), self._temporary(path, parts) as temporary:
            os.replace(temporary, path)
            sync_folder(os.path.dirname(path))

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        """Store a whole object unless there is one; exact, see :meth:`Store.create`.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Returns:
            Whether this call stored the object.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If the disk fails.
        """
        path = self._path(key)
        with _translated("create", key), self._temporary(path, parts) as temporary:
            try:
                os.link(temporary, path)
                created = True
            except FileExistsError:
                created = False
            # Also when somebody else won: the winner may not have synced the name yet.
            sync_folder(os.path.dirname(path))
            return created

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object or a range of it; see :meth:`Store.get`.

        Args:
            key: The object's key.
            start: Offset of the first byte.
            length: How many bytes; None means up to the end.

        Returns:
            The bytes there are in that range.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such file.
            StorageUnavailableError: If the disk fails.
        """
        path = self._path(key)
        with _translated("read", key), opened(path) as fd:
            size = file_size(fd, path)
            end = size if length is None else min(size, start + length)
            return read_range(fd, start, end)

    def map(self, key: str) -> memoryview | bytes:
        """Map a file into memory, read-only; see :meth:`Store.map`.

        Args:
            key: The object's key.

        Returns:
            A view of the file.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such file.
            StorageUnavailableError: If the disk fails.
        """
        path = self._path(key)
        with _translated("map", key), opened(path) as fd:
            size = file_size(fd, path)
            if size == 0:  # an empty file cannot be mapped
                return b""
            return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ))

    def settle(self, key: str) -> int:
        """Sync a file that some other process wrote; see :meth:`Store.settle`.

        Args:
            key: The object's key.

        Returns:
            The number of durable bytes.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such file.
            StorageUnavailableError: If the disk fails.
        """
        path = self._path(key)
        with _translated("settle", key), opened(path) as fd:
            size = file_size(fd, path)
            os.fsync(fd)
            # After a failed write-back the kernel keeps pages that the disk never got and calls
            # them clean. Dropped from the cache, they are read again from where they must be.
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self._make_durable(os.path.dirname(path))
            sync_folder(os.path.dirname(path))
            return size

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        """List all files below a folder; see :meth:`Store.list`.

        Args:
            prefix: The folder.
            after: Leave out all keys up to and including this one.

        Returns:
            The files, sorted by key.

        Raises:
            ValueError: If the prefix is malformed.
            StorageUnavailableError: If the disk fails.
        """
        check_prefix(prefix)
        with _translated("list", prefix):
            found = list(self._walk(prefix, after))
        return sorted(found, key=lambda each: each.key)

    def list_folders(self, prefix: str) -> Sequence[str]:
        """List the folders directly in a folder; see :meth:`Store.list_folders`.

        Args:
            prefix: The folder.

        Returns:
            Their names, sorted; empty folders too.

        Raises:
            ValueError: If the prefix is malformed.
            StorageUnavailableError: If the disk fails.
        """
        check_prefix(prefix)
        with _translated("list", prefix):
            return sorted(entry.name for entry in self._scan(prefix) if entry.is_dir())

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, and folders that this leaves empty; see :meth:`Store.delete`.

        No power cut brings them back, in any order: what tells that a workflow was deleted goes
        last, and only once nothing of it can reappear.

        Args:
            keys: The objects' keys.

        Raises:
            ValueError: If a key is malformed.
            StorageUnavailableError: If the disk fails.
        """
        folders = set()
        for key in keys:
            path = self._path(key)
            with _translated("delete", key), suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
                folders.add(os.path.dirname(path))
        for folder in sorted(folders, key=len, reverse=True):
            left = self._remove_empty(folder)
            with _translated("delete", left), suppress(FileNotFoundError):
                sync_folder(left)

    def append(self, key: str) -> Appender:
        """Create an empty file that can grow; see :meth:`Store.append`.

        Args:
            key: The object's key.

        Returns:
            The file's end.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If the disk fails, or there is a file of this name.
        """
        path = self._path(key)
        with _translated("create", key):
            fd = self._create_file(path, lambda: os.open(path, _APPEND_FLAGS, 0o666))
            try:
                sync_folder(os.path.dirname(path))
            except OSError:
                os.close(fd)
                raise
            return _LocalAppender(key, fd)

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self.root}/{key}"

    @contextmanager
    def _temporary(self, path: str, parts: Sequence[Part]) -> Iterator[str]:
        """Give the name of a synced file beside ``path``; it is gone afterwards."""
        temporary = f"{os.path.dirname(path)}/.tmp-{os.urandom(8).hex()}"
        try:
            fd = self._create_file(path, lambda: os.open(temporary, _TEMPORARY_FLAGS, 0o666))
            try:
                write_all(fd, parts)
                os.fsync(fd)
            finally:
                os.close(fd)
            yield temporary
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def _create_file(self, path: str, create: Callable[[], int]) -> int:
        folder = os.path.dirname(path)
        for _ in range(CREATE_TRIES_MAX - 1):
            try:
                self._make_durable(folder)
                return create()
            except FileNotFoundError:  # a deletion removed a folder because it was empty
                self._durable_folders.clear()
        self._make_durable(folder)
        return create()

    def _make_durable(self, folder: str) -> None:
        """Create a folder of this store, and have every name on the way to it on the disk."""
        if folder in self._durable_folders:
            return
        if folder == self.root:
            make_root(folder)
        else:
            parent = os.path.dirname(folder)
            self._make_durable(parent)
            with suppress(FileExistsError):
                os.mkdir(folder)
            sync_folder(parent)
        if len(self._durable_folders) >= FOLDERS_KNOWN_MAX:
            self._durable_folders.clear()
        self._durable_folders.add(folder)

    def _remove_empty(self, folder: str) -> str:
        """Remove a folder and those above it while they are empty; give the first that is not."""
        while len(folder) > len(self.root):
            try:
                os.rmdir(folder)
            except OSError:  # not empty, or already gone
                return folder
            self._durable_folders.clear()
            folder = os.path.dirname(folder)
        return folder

    def _scan(self, prefix: str) -> Sequence[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.root}/{prefix}") as entries:
                return [entry for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _walk(self, prefix: str, after: str) -> Iterator[StoredObject]:
        for entry in self._scan(prefix):
            key = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(key + "/", after)
            elif key > after:
                with suppress(FileNotFoundError):
                    yield StoredObject(key, entry.stat().st_size)


class _LocalAppender:
    def __init__(self, key: str, fd: int) -> None:
        self._key = key
        self._fd = fd

    def write(self, parts: Sequence[Part]) -> None:
        with _translated("append to", self._key):
            write_all(self._fd, parts)

    def sync(self) -> None:
        with _translated("sync", self._key):
            getattr(os, "fdatasync", os.fsync)(self._fd)  # not every system has the cheaper one

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with _translated("close", self._key):
                os.close(fd)


@contextmanager
def _translated(operation: str, key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if operation in ("read", "map", "settle"):
            raise ObjectNotFoundError(key) from error
        raise StorageUnavailableError(operation, key, _reason(error)) from error
    except OSError as error:
        raise StorageUnavailableError(operation, key, _reason(error)) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
