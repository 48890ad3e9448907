"""What the journal needs of a storage: a handful of blocking calls on named objects.

A key is text, its parts separated by ``/``, relative to the root of the store. No part is empty or
starts with a dot: dotted names belong to the store itself (temporary files), and no listing shows
them. A prefix is ``""`` or a folder's key with a slash at its end.

Two things are asked of every store, and all safety rests on them: once ``put`` or ``create`` has
returned, the object survives a power cut and every later ``list`` shows it; and no reader ever sees
a part of an object that was ``put``. Nothing here needs a conditional write.

A store may be used from many threads at once. This module holds no code for any one storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Part: TypeAlias = bytes | bytearray | memoryview
"""One piece of an object's content; a memoryview must be contiguous, with items of one byte."""


class ObjectNotFoundError(KeyError):
    """No object has this key (any more)."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"no object {self.key!r}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing.

    Attributes:
        key: The object's key.
        size: Its length in bytes.
    """

    key: str
    size: int


class Appender(Protocol):
    """An object that grows at its end; used by one thread at a time."""

    def write(self, parts: Sequence[Part]) -> None:
        """Add the parts, in order. They are durable only after :meth:`sync`.

        Args:
            parts: What to add.

        Raises:
            StorageUnavailableError: If the storage fails; what was added is then unknown.
        """

    def sync(self) -> None:
        """Return once all that was written survives a power cut.

        Raises:
            StorageUnavailableError: If the storage fails. Then nothing written since the last
                successful sync may be trusted, not even after a later sync that succeeds.
        """

    def close(self) -> None:
        """Let go of the object; a second call does nothing.

        Raises:
            StorageUnavailableError: If the storage fails.
        """


class Store(Protocol):
    """A place that keeps objects under keys."""

    @property
    def uri(self) -> str:
        """Where the store is, without any credentials."""

    @property
    def appendable(self) -> bool:
        """Whether objects can grow; where not, every object is written whole."""

    def put(self, key: str, parts: Sequence[Part]) -> None:
        """Store a whole object, in place of the one that had this key.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If the storage fails; the object may or may not be there.
        """

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        """Store a whole object unless there is one.

        The safety of a journal does not rest on this call; a storage without conditional writes
        may look first and then put.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Returns:
            Whether this call stored the object.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If the storage fails; the object may or may not be there.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object or a range of it; a range past the end is cut off there.

        Args:
            key: The object's key.
            start: Offset of the first byte.
            length: How many bytes; None means up to the end.

        Returns:
            The bytes there are in that range.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
            StorageUnavailableError: If the storage fails.
        """

    def map(self, key: str) -> memoryview | bytes:
        """Read an object without copying it, where the store can.

        Args:
            key: The object's key.

        Returns:
            The whole content, read-only. A view keeps the object's bytes alive.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
            StorageUnavailableError: If the storage fails.
        """

    def settle(self, key: str) -> int:
        """Make what an object holds now survive a power cut, whoever wrote it.

        A process can die between writing and syncing; the bytes it left can be read, and are gone
        after a power cut. Whoever builds on them settles them first.

        Args:
            key: The object's key.

        Returns:
            How many bytes, from the start, are durable.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
            StorageUnavailableError: If the storage fails.
        """

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        """List all objects below a folder, deep, sorted by key.

        Args:
            prefix: The folder.
            after: Leave out all keys up to and including this one.

        Returns:
            The objects; none if there is no such folder.

        Raises:
            ValueError: If the prefix is malformed.
            StorageUnavailableError: If the storage fails.
        """

    def list_folders(self, prefix: str) -> Sequence[str]:
        """List the names of the folders directly in a folder, sorted.

        Args:
            prefix: The folder.

        Returns:
            The names, without slashes. A store with real folders may also name empty ones.

        Raises:
            ValueError: If the prefix is malformed.
            StorageUnavailableError: If the storage fails.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; keys that are not there are fine.

        Args:
            keys: The objects' keys.

        Raises:
            ValueError: If a key is malformed.
            StorageUnavailableError: If the storage fails; some objects may be gone.
        """

    def append(self, key: str) -> Appender | None:
        """Create an empty object that can grow.

        Args:
            key: The object's key.

        Returns:
            The object's end, or None where :attr:`appendable` is false.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If the storage fails, or there is an object of this key.
        """


def check_key(key: str) -> None:
    """Refuse a key that is not plain relative text.

    Args:
        key: The key to look at.

    Raises:
        ValueError: If a part of it is empty or starts with a dot, or if it holds a NUL.
    """
    if "\0" in key or any(not part or part.startswith(".") for part in key.split("/")):
        raise ValueError(f"malformed key {key!r}")


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that is neither empty nor a folder's key and a slash.

    Args:
        prefix: The prefix to look at.

    Raises:
        ValueError: If it is malformed.
    """
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"malformed prefix {prefix!r}: no slash at its end")
    if prefix:
        check_key(prefix[:-1])
