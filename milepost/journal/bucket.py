"""Whole objects on a ``pyarrow`` file system: what a remote store and its probe are made of.

An object is built in memory and put with one request. A put whose outcome is unknown is read back
and compared: a lost reply is no failure, and a failure is no success. Where a storage would show an
object before it is whole, a temporary one is written and copied or moved into its place. Listings
are always deep: not every storage shows a folder that was never made.

The file system is made on first use, once per process. No stream outlives the call that opened it,
and the interpreter does not end in the middle of one: either would hang it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from milepost.errors import StorageUnavailableError
from milepost.journal.filesystem import Place, open_place
from milepost.journal.location import Location
from milepost.journal.retry import Patience, advise, retrying
from milepost.journal.store import ObjectNotFoundError, StoredObject

Result = TypeVar("Result")

COPY_BYTES_MAX = 200 * 2**20
"""Azure copies up to 256 MiB at once. Longer ones are blobs, whose length is checked when read."""

EXIT_WAIT_S = 10.0
"""How long the end of the process waits for writes under way in other threads."""

TEMPORARY_FOLDER = ".tmp"


class Bucket:
    """The objects below a location; names are not checked here.

    Attributes:
        location: Where it is.
        patience: How long to try again what failed.
    """

    def __init__(self, location: Location, patience: Patience) -> None:
        self.location = location
        self.patience = patience
        self._place: tuple[int, Place] | None = None

    def __reduce__(self) -> NoReturn:
        """Refuse: a file system carries its credentials. Send the location instead."""
        raise TypeError("a remote store cannot be pickled; send its location and open it there")

    def write(self, key: str, content: bytes) -> None:
        """Put an object.

        Args:
            key: Its name.
            content: All of it.

        Raises:
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails; the object may or may not be there.
        """

        def attempt() -> None:
            try:
                self._publish(key, content)
            except Exception as error:
                if advise(error) is None and self._holds(key, content):
                    return  # only the reply was lost
                raise

        try:
            self._retry("write", key, attempt)
        except FileNotFoundError:
            missing = True
        else:
            missing = False
        if missing:
            reason = "the bucket or folder does not exist; create it, or correct its name"
            raise StorageUnavailableError("write", key, reason)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object or a range of it.

        Args:
            key: Its name.
            start: Offset of the first byte.
            length: How many bytes; None means up to the end.

        Returns:
            The bytes there are in that range.

        Raises:
            ObjectNotFoundError: If there is no such object.
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        return self._retry("read", key, lambda: self._read(key, start, length))

    def size(self, key: str) -> int | None:
        """Look for an object.

        Args:
            key: Its name.

        Returns:
            Its length in bytes, or None if there is none.

        Raises:
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        info = self._look_for(key)
        return info.size if info.is_file else None

    def written(self, key: str) -> float | None:
        """Tell when an object was put, by the storage's own clock.

        Args:
            key: Its name.

        Returns:
            Seconds since 1970; None if there is no such object, or the storage does not say.

        Raises:
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        info = self._look_for(key)
        return info.mtime_ns / 1e9 if info.is_file and info.mtime_ns is not None else None

    def list(self, prefix: str) -> list[StoredObject]:
        """List all objects below a folder, hidden ones too, in no order.

        Args:
            prefix: The folder.

        Returns:
            The objects; none if there is no such folder.

        Raises:
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails.
        """
        place = self._opened()
        cut = len(place.root) + 1
        selector = place.select(f"{place.root}/{prefix}".rstrip("/"))

        def attempt() -> list[StoredObject]:
            place.forget()
            try:
                infos = place.file_system.get_file_info(selector)
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [StoredObject(each.path[cut:], each.size) for each in infos if each.is_file]

        return self._retry("list", prefix, attempt)

    def delete(self, key: str) -> None:
        """Delete an object, if it is there.

        Args:
            key: Its name.

        Raises:
            StorageUriError: If the location cannot be used.
            StorageUnavailableError: If the storage fails; it may or may not be there.
        """
        place = self._opened()
        path = f"{place.root}/{key}"

        def attempt() -> None:
            try:
                place.file_system.delete_file(path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return
            except OSError:
                # Some servers delete it and refuse the empty folder that pyarrow then puts.
                (info,) = place.file_system.get_file_info([path])
                if info.is_file:
                    raise

        self._retry("delete", key, attempt)

    def _opened(self) -> Place:
        """Open the file system, or after a fork the one of this process."""
        pid = os.getpid()
        if self._place is None or self._place[0] != pid:
            self._place = pid, open_place(self.location)
            _writes.watch_exit()
        return self._place[1]

    def _retry(self, operation: str, key: str, attempt: Callable[[], Result]) -> Result:
        return retrying(operation, key, attempt, location=self.location, patience=self.patience)

    def _look_for(self, key: str) -> Any:
        place = self._opened()

        def attempt() -> Any:
            place.forget()
            (info,) = place.file_system.get_file_info([f"{place.root}/{key}"])
            return info

        return self._retry("look for", key, attempt)

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        place = self._opened()
        try:
            with place.file_system.open_input_file(f"{place.root}/{key}") as stream:
                size = stream.size()
                end = size if length is None else min(size, start + length)
                if end <= start:
                    return b""
                content: bytes = stream.read_at(end - start, start)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectNotFoundError(key) from None
        if len(content) != end - start:
            raise OSError(f"the storage sent {len(content)} bytes of {end - start}")
        return content

    def _holds(self, key: str, content: bytes) -> bool:
        try:
            return self._read(key, 0, None) == content
        except Exception:  # noqa: BLE001 - not known to be there is enough to try again
            return False

    def _publish(self, key: str, content: bytes) -> None:
        place = self._opened()
        path = f"{place.root}/{key}"
        if place.pipe is not None:
            with _writes.one():
                place.pipe(path, content)
        elif place.publishing == "put" or len(content) > COPY_BYTES_MAX:
            _write_whole(place.file_system, path, content)
        else:
            temporary = f"{place.root}/{TEMPORARY_FOLDER}/{os.urandom(8).hex()}/object"
            _write_aside(place, temporary, path, content)


def _write_aside(place: Place, temporary: str, path: str, content: bytes) -> None:
    file_system = place.file_system
    if place.publishing == "move":  # real folders
        for each in (temporary, path):
            file_system.create_dir(os.path.dirname(each), recursive=True)
        _write_whole(file_system, temporary, content)
        file_system.move(temporary, path)
        file_system.delete_dir(os.path.dirname(temporary))
        return
    try:
        _write_whole(file_system, temporary, content)
        file_system.copy_file(temporary, path)
    finally:
        with suppress(Exception):  # what stays there is in nobody's way
            file_system.delete_dir(os.path.dirname(temporary))  # cheaper than to lease one object


def _write_whole(file_system: Any, path: str, content: bytes) -> None:
    """Write an object with one stream.

    Closing a stream publishes what was written so far, even after an error, and dropping it closes
    it. So after an interrupt the whole is written once more before the interrupt goes on.
    """
    with _writes.one():
        stream = file_system.open_output_stream(path)
        try:
            stream.write(content)
        except (KeyboardInterrupt, SystemExit):
            with suppress(Exception):
                stream.close()
                with file_system.open_output_stream(path) as again:
                    again.write(content)
            raise
        finally:
            stream.close()


class _Writes:
    """The writes under way in this process, which its end waits for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._watching = False

    def watch_exit(self) -> None:
        """Wait when the interpreter ends; registered after pyarrow's part, so it comes before."""
        with self._changed:
            if not self._watching:
                self._watching = True
                atexit.register(self.wait)

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, EXIT_WAIT_S)


_writes = _Writes()
