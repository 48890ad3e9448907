"""A store in a bucket, or in whatever else ``pyarrow.fs`` reaches.

Every object is written whole, see :mod:`milepost.journal.bucket`; nothing here can grow. Safety
rests on one promise of the storage, that a listing shows every object put before it; the probe
(:mod:`milepost.journal.probe`) looks whether it is kept. A store is opened in the process that uses
it and never pickled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from milepost.journal.bucket import Bucket
from milepost.journal.location import Location
from milepost.journal.retry import Patience
from milepost.journal.store import (
    ObjectNotFoundError,
    Part,
    StoredObject,
    check_key,
    check_prefix,
)

CREATE_PAUSE_S = 0.1
"""Between creating an object and looking whether it stayed; a rival that looked before it was there
has put its own by then. A storage without conditional writes allows no more."""

DELETIONS_AT_ONCE = 8


class RemoteStore:
    """A folder of a bucket as a :class:`~milepost.journal.store.Store`.

    Attributes:
        location: Where it is, with credentials that it does not show.
        appendable: False.
    """

    appendable = False

    def __init__(self, location: Location, patience: Patience | None = None) -> None:
        """Describe a store; nothing is opened before it is used.

        Args:
            location: Where it is.
            patience: How long to try again what failed; by default under a minute.
        """
        self.location = location
        self._bucket = Bucket(location, patience or Patience())
        self._creating = threading.Lock()

    @property
    def uri(self) -> str:
        """The location without credentials."""
        return self.location.shown

    def __repr__(self) -> str:
        return f"RemoteStore({self.uri!r})"

    def put(self, key: str, parts: Sequence[Part]) -> None:
        """Store a whole object; see :meth:`Store.put`.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Raises:
            ValueError: If the key is malformed.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails; the object may or may not be there.
        """
        check_key(key)
        self._bucket.write(key, b"".join(parts))

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        """Store a whole object unless there is one; see :meth:`Store.create`.

        Exact among the threads of a process. Two processes that create the same object within a
        moment of each other agree on one of them, unless one is held up for long in between.

        Args:
            key: The object's key.
            parts: Its content, in order.

        Returns:
            Whether this call stored the object.

        Raises:
            ValueError: If the key is malformed.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails; the object may or may not be there.
        """
        check_key(key)
        content = b"".join(parts)
        with self._creating:
            if self._bucket.size(key) is not None:
                return False
            self._bucket.write(key, content)
            time.sleep(CREATE_PAUSE_S)
            with suppress(ObjectNotFoundError):
                return self.get(key) == content
            return False

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
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        check_key(key)
        return self._bucket.read(key, start, length)

    def map(self, key: str) -> memoryview | bytes:
        """Read an object; see :meth:`Store.map`.

        Args:
            key: The object's key.

        Returns:
            Its content.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        return self.get(key)

    def settle(self, key: str) -> int:
        """Give an object's size, for what can be read is durable; see :meth:`Store.settle`.

        Args:
            key: The object's key.

        Returns:
            The number of its bytes.

        Raises:
            ValueError: If the key is malformed.
            ObjectNotFoundError: If there is no such object.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        check_key(key)
        size = self._bucket.size(key)
        if size is None:
            raise ObjectNotFoundError(key)
        return size

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        """List all objects below a folder; see :meth:`Store.list`.

        Args:
            prefix: The folder.
            after: Leave out all keys up to and including this one.

        Returns:
            The objects, sorted by key. Names that no key can have are left out.

        Raises:
            ValueError: If the prefix is malformed.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        check_prefix(prefix)
        listed = self._bucket.list(prefix)
        found = [each for each in listed if each.key > after and _is_key(each.key)]
        return sorted(found, key=lambda each: each.key)

    def list_folders(self, prefix: str) -> Sequence[str]:
        """List the folders directly in a folder; see :meth:`Store.list_folders`.

        Args:
            prefix: The folder.

        Returns:
            Their names, sorted; only folders that hold an object.

        Raises:
            ValueError: If the prefix is malformed.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        rests = (each.key[len(prefix) :] for each in self.list(prefix))
        return sorted({rest.split("/", 1)[0] for rest in rests if "/" in rest})

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, several at a time; see :meth:`Store.delete`.

        Args:
            keys: The objects' keys.

        Raises:
            ValueError: If a key is malformed.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails; some objects may be gone.
        """
        pending = list(keys)
        for key in pending:
            check_key(key)
        if len(pending) == 1:
            self._bucket.delete(pending[0])
        elif pending:
            with ThreadPoolExecutor(DELETIONS_AT_ONCE) as threads:
                list(threads.map(self._bucket.delete, pending))

    def append(self, key: str) -> None:
        """Refuse, as objects do not grow; see :meth:`Store.append`.

        Args:
            key: The object's key.

        Raises:
            ValueError: If the key is malformed.
        """
        check_key(key)


def _is_key(text: str) -> bool:
    try:
        check_key(text)
    except ValueError:
        return False
    return True
