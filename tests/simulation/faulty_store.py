"""A storage that fails as storages do, as each simulated process sees it.

What a disk holds and what has been synced differ: a power cut takes away some of the rest, and
brings back some of what was deleted. Calls take time, are lost before or after their effect, and
for a while fail all together. In a bucket a call may have its effect long after it was given up.
Who calls may be struck at any call, before or after its effect: it dies there, or is paused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

from milepost.errors import StorageUnavailableError
from milepost.journal import MemoryStore
from milepost.journal.store import Appender, Part, StoredObject
from virtual_time import current_fiber, pause

if TYPE_CHECKING:
    from world import Process, Strike, World

T = TypeVar("T")


class Disk(MemoryStore):
    """The storage itself, one for all processes; knows what would survive a power cut."""

    def __init__(self, *, appendable: bool) -> None:
        super().__init__("simulated", appendable=appendable)
        self._synced: dict[str, int] = {}
        self._deleted: dict[str, bytearray] = {}

    def put(self, key: str, parts: Sequence[Part]) -> None:
        super().put(key, parts)
        self.sync_folder(key)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete; on a disk, the folder only knows for sure once it is synced."""
        for key in keys:
            if self.appendable and key in self._objects:
                self._deleted[key] = self._objects[key]
            super().delete([key])

    def sync_folder(self, key: str) -> None:
        """Make durable which objects there are in the folder of this one."""
        folder = key.rpartition("/")[0]
        for each in [each for each in self._deleted if each.rpartition("/")[0] == folder]:
            del self._deleted[each]

    def append(self, key: str) -> Appender | None:
        appender = super().append(key)
        if appender is not None:
            self._synced[key] = 0
        return appender

    def sync(self, key: str) -> None:
        """Make all that an object holds survive; an object that was deleted has nothing."""
        if key in self._synced:
            self._synced[key] = len(self._objects.get(key, b""))
        self.sync_folder(key)

    def settle(self, key: str) -> int:
        size = super().settle(key)
        self.sync(key)
        return size

    def cut_power(self, random: Random) -> None:
        """Take away some of what was not synced, from the end of each object; undo deletions."""
        for key, deleted in self._deleted.items():
            if key not in self._objects and random.random() < 0.5:
                self._objects[key] = deleted
        self._deleted.clear()
        for key, synced in sorted(self._synced.items()):
            content = self._objects.get(key)
            if content is None:
                continue
            kept = random.randint(synced, len(content)) if len(content) > synced else synced
            if not synced and not kept:
                del self._objects[key]  # not even its name was durable
            else:
                del content[kept:]
            self._synced[key] = min(kept, len(content))


class ProcessStore:
    """The storage as one process sees it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._disk = world.disk
        self.uri = world.disk.uri
        self.appendable = world.disk.appendable

    def put(self, key: str, parts: Sequence[Part]) -> None:
        self._call("put", key, lambda: self._disk.put(key, parts), changes=True)

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        return self._call("create", key, lambda: self._disk.create(key, parts), changes=True)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._call("get", key, lambda: self._disk.get(key, start, length))

    def map(self, key: str) -> memoryview | bytes:
        return self._call("map", key, lambda: self._disk.map(key))

    def settle(self, key: str) -> int:
        return self._call("settle", key, lambda: self._disk.settle(key))

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        return self._call("list", prefix, lambda: self._disk.list(prefix, after))

    def list_folders(self, prefix: str) -> Sequence[str]:
        return self._call("list_folders", prefix, lambda: self._disk.list_folders(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        folders: dict[str, str] = {}
        for key in keys:  # one by one: a crash may come between any two
            self._delete_one(key)
            if self.appendable:
                folders[key.rpartition("/")[0]] = key
        for folder, key in folders.items():
            self._call("sync", folder, partial(self._disk.sync_folder, key), changes=True)

    def _delete_one(self, key: str) -> None:
        self._call("delete", key, lambda: self._disk.delete([key]), changes=True)

    def append(self, key: str) -> Appender | None:
        appender = self._call("append", key, lambda: self._disk.append(key), changes=True)
        return None if appender is None else _ProcessAppender(self, key, appender)

    def write(self, key: str, appender: Appender, whole: bytes) -> None:
        """Add to an object; a fault may leave a part of it there."""

        def tear() -> None:
            appender.write([whole[: self._world.random.randrange(len(whole) + 1)]])

        self._call("write", key, lambda: appender.write([whole]), changes=True, tear=tear)

    def sync(self, key: str) -> None:
        """Make durable what this process and others wrote to an object."""
        self._call("sync", key, lambda: self._disk.sync(key), changes=True)

    def _call(
        self,
        operation: str,
        key: str,
        effect: Callable[[], T],
        *,
        changes: bool = False,
        tear: Callable[[], None] | None = None,
    ) -> T:
        assert current_fiber() is not None, f"{operation} blocks the event loop"
        weather = self._world.weather
        pause(weather.latency_s())
        if self._strike() == "dies" and self._may_be_late(operation):
            self._world.happen_later(effect)  # the request was on its way
        pause(0.0)
        fault = weather.fault(changes)
        self._world.note(self._process.name, operation, key, fault)
        if fault == "torn" and tear is not None:
            tear()
        if fault == "late" and self._may_be_late(operation):
            self._world.happen_later(effect)
        if fault in ("before", "torn", "late"):
            raise StorageUnavailableError(operation, key, "simulated")
        try:
            result = effect()
        except StorageUnavailableError:
            raise
        except Exception:  # the answer is an error, which takes its time like any other
            pause(weather.latency_s())
            raise
        self._strike()
        pause(weather.latency_s())  # a crash may come between the effect and the reply
        if fault == "after":
            raise StorageUnavailableError(operation, key, "simulated: the reply was lost")
        return result

    def _strike(self) -> Strike | None:
        """Whether the process meets its fate right here; if it dies, the next pause is its end."""
        struck = self._world.weather.strike()
        if struck is not None:
            self._world.strike(self._process, struck)
        return struck

    def _may_be_late(self, operation: str) -> bool:
        """A request may be under way for long in a network, never in a file system."""
        return not self.appendable and operation in ("put", "delete")


class _ProcessAppender:
    def __init__(self, store: ProcessStore, key: str, appender: Appender) -> None:
        self._store = store
        self._key = key
        self._appender = appender

    def write(self, parts: Sequence[Part]) -> None:
        self._store.write(self._key, self._appender, b"".join(parts))

    def sync(self) -> None:
        self._store.sync(self._key)

    def close(self) -> None:
        """Nothing to let go of."""
