"""A store in this process's memory, for tests and simulation.

It keeps the contract of :mod:`milepost.journal.store` except that nothing survives the process.
With ``appendable=False`` it behaves like an object storage. Never used for real workflows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from milepost.errors import StorageUnavailableError
from milepost.journal.store import (
    Appender,
    ObjectNotFoundError,
    Part,
    StoredObject,
    check_key,
    check_prefix,
)


class MemoryStore:
    """A dictionary as a :class:`~milepost.journal.store.Store`.

    Example:
        >>> store = MemoryStore()
        >>> store.put("a/b", [b"one", b"two"])
        >>> store.get("a/b")
        b'onetwo'

    Attributes:
        name: What the URI calls it.
        appendable: Whether objects can grow.
    """

    def __init__(self, name: str = "", *, appendable: bool = True) -> None:
        self.name = name
        self.appendable = appendable
        self._objects: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """``memory://`` and the name."""
        return f"memory://{self.name}"

    def put(self, key: str, parts: Sequence[Part]) -> None:
        """Store a whole object; see :meth:`Store.put`.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Raises:
            ValueError: If the key is malformed.
        """
        check_key(key)
        content = bytearray().join(parts)
        with self._lock:
            self._objects[key] = content

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        """Store a whole object unless there is one; see :meth:`Store.create`.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Returns:
            Whether this call stored the object.

        Raises:
            ValueError: If the key is malformed.
        """
        check_key(key)
        content = bytearray().join(parts)
        with self._lock:
            return self._objects.setdefault(key, content) is content

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
            ObjectNotFoundError: If there is no such object.
        """
        end = None if length is None else start + length
        with self._lock:
            return bytes(memoryview(self._content(key))[start:end])

    def map(self, key: str) -> memoryview | bytes:
        """Read an object; see :meth:`Store.map`.

        Args:
            key: The object's key.

        Returns:
            A copy: a view would keep the object from growing.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
        """
        return self.get(key)

    def settle(self, key: str) -> int:
        """Give an object's size; see :meth:`Store.settle`.

        Args:
            key: The object's key.

        Returns:
            The number of its bytes.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
        """
        with self._lock:
            return len(self._content(key))

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        """List all objects below a folder; see :meth:`Store.list`.

        Args:
            prefix: The folder.
            after: Leave out all keys up to and including this one.

        Returns:
            The objects, sorted by key.

        Raises:
            ValueError: If the prefix is malformed.
        """
        check_prefix(prefix)
        with self._lock:
            sizes = {key: len(content) for key, content in self._objects.items()}
        keys = sorted(key for key in sizes if key.startswith(prefix) and key > after)
        return [StoredObject(key, sizes[key]) for key in keys]

    def list_folders(self, prefix: str) -> Sequence[str]:
        """List the folders directly in a folder; see :meth:`Store.list_folders`.

        Args:
            prefix: The folder.

        Returns:
            Their names, sorted.

        Raises:
            ValueError: If the prefix is malformed.
        """
        rests = [each.key[len(prefix) :] for each in self.list(prefix)]
        return sorted({rest.split("/", 1)[0] for rest in rests if "/" in rest})

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; see :meth:`Store.delete`.

        Args:
            keys: The objects' keys.

        Raises:
            ValueError: If a key is malformed.
        """
        for key in keys:
            check_key(key)
            with self._lock:
                self._objects.pop(key, None)

    def append(self, key: str) -> Appender | None:
        """Create an empty object that can grow; see :meth:`Store.append`.

        Args:
            key: The object's key.

        Returns:
            The object's end, or None where objects cannot grow.

        Raises:
            ValueError: If the key is malformed.
            StorageUnavailableError: If there is an object of this key.
        """
        if not self.appendable:
            return None
        if not self.create(key, []):
            raise StorageUnavailableError("create", key, "it exists already")
        with self._lock:
            return _MemoryAppender(self._lock, self._content(key))

    def _content(self, key: str) -> bytearray:
        check_key(key)
        if key not in self._objects:
            raise ObjectNotFoundError(key)
        return self._objects[key]


class _MemoryAppender:
    def __init__(self, lock: threading.Lock, content: bytearray) -> None:
        self._lock = lock
        self._content = content

    def write(self, parts: Sequence[Part]) -> None:
        with self._lock:
            self._content += b"".join(parts)

    def sync(self) -> None:
        """Do nothing: memory has no power cuts that it survives."""

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
