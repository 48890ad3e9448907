"""What the local store asks of the disk, in which order, and what it does when the disk fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from milepost.errors import StorageUnavailableError
from milepost.journal import LocalStore, read_journal, take_ownership


class Calls:
    """Records calls of :mod:`os` with the names of the files they concern, not their numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.made: list[tuple[str, str]] = []
        self._root = str(root)
        self._monkeypatch = monkeypatch
        for name in ("fsync", "fdatasync", "writev", "replace", "link", "mkdir"):
            self._record(name)

    def _record(self, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def recorded(*args: Any) -> Any:
            self.made.append(
                (name, self._name(args[-1] if name in ("replace", "link") else args[0]))
            )
            return real(*args)

        self._monkeypatch.setattr(os, name, recorded)

    def _name(self, file: int | str) -> str:
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file
        relative = os.path.relpath(path, self._root)
        return "temporary" if ".tmp-" in relative else relative


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    (tmp_path / "store").mkdir()
    return Calls(monkeypatch, tmp_path / "store")


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def failing(error: int, after: int = 0) -> Callable[..., Any]:
    """A system call that fails, from the given call on."""
    seen = 0

    def fail(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > after:
            raise OSError(error, os.strerror(error))
        return None

    return fail


def test_a_put_syncs_the_content_before_the_name_and_the_name_before_it_returns(
    local: LocalStore, calls: Calls
) -> None:
    local.put("f/a", [b"1"])
    calls.made.clear()
    local.put("f/b", [b"2"])
    assert calls.made == [
        ("writev", "temporary"),
        ("fsync", "temporary"),
        ("replace", "f/b"),
        ("fsync", "f"),
    ]


def test_a_create_syncs_the_content_before_the_name(local: LocalStore, calls: Calls) -> None:
    local.put("f/a", [b"1"])
    calls.made.clear()
    local.create("f/b", [b"2"])
    assert calls.made == [
        ("writev", "temporary"),
        ("fsync", "temporary"),
        ("link", "f/b"),
        ("fsync", "f"),
    ]


def test_every_new_folder_is_synced_into_its_parent(local: LocalStore, calls: Calls) -> None:
    local.put("a/b/c", [b""])
    synced = [call for call in calls.made if call[0] in ("mkdir", "fsync")]
    assert synced == [
        ("fsync", ".."),
        ("mkdir", "a"),
        ("fsync", "."),
        ("mkdir", "a/b"),
        ("fsync", "a"),
        ("fsync", "temporary"),
        ("fsync", "a/b"),
    ]


def test_a_folder_that_somebody_else_made_is_synced_before_use(
    local: LocalStore, calls: Calls, tmp_path: Path
) -> None:
    (tmp_path / "store" / "a").mkdir()
    calls.made.clear()
    local.put("a/x", [b""])
    assert ("fsync", ".") in calls.made


def test_an_appended_file_has_a_durable_name_before_anything_is_written(
    local: LocalStore, calls: Calls
) -> None:
    local.put("f/a", [b"1"])
    calls.made.clear()
    appender = local.append("f/log")
    appender.write([b"x", b"y"])
    appender.sync()
    appender.close()
    assert calls.made == [("fsync", "f"), ("writev", "f/log"), ("fdatasync", "f/log")]


def test_a_deletion_is_durable_before_it_returns(local: LocalStore, calls: Calls) -> None:
    for key in ("f/a", "f/b", "f/c/d/e", "g/h"):
        local.put(key, [b""])
    calls.made.clear()
    local.delete(["f/a", "f/c/d/e", "g/gone"])
    assert calls.made == [("fsync", "f"), ("fsync", "f")]  # both of its folders went with f/c/d/e
    local.delete(["g/h"])
    assert calls.made[2:] == [("fsync", ".")]


def test_settle_syncs_the_file_and_every_name_on_the_way(local: LocalStore, calls: Calls) -> None:
    local.put("e/f/a", [b"123"])
    calls.made.clear()
    LocalStore(local.root).settle("e/f/a")
    synced = [file for name, file in calls.made if name == "fsync"]
    assert synced[0] == "e/f/a"
    assert {".", "e", "e/f"} <= set(synced)


def test_settled_content_is_read_from_the_disk_and_not_from_the_cache(
    local: LocalStore, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put("a", [b"123"])
    calls.made.clear()

    def record(fd: int, start: int, length: int, advice: int) -> None:
        calls.made.append(("drop" if advice == os.POSIX_FADV_DONTNEED else "?", "a"))

    monkeypatch.setattr(os, "posix_fadvise", record)
    local.settle("a")
    assert calls.made[:2] == [("fsync", "a"), ("drop", "a")]


def test_a_flush_returns_only_after_the_segment_is_synced(local: LocalStore, calls: Calls) -> None:
    writer = take_ownership(local, "w", owner="test")
    writer.flush([b"\x01"])
    calls.made.clear()
    writer.flush([b"\x02"])
    writer.close()
    names = [name for name, _ in calls.made]
    assert names == ["writev", "fdatasync"]
    assert len({file for _, file in calls.made}) == 1


def test_an_owner_settles_the_segment_it_goes_on_from_before_it_writes(
    local: LocalStore, calls: Calls
) -> None:
    first = take_ownership(local, "w", owner="one")
    first.flush([b"\x01"])
    calls.made.clear()
    take_ownership(local, "w", owner="two")
    segment = local.list("workflows/w/segments/")[0].key
    assert ("fsync", segment) in calls.made


def test_a_write_that_comes_back_short_is_continued(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev

    def three_bytes(fd: int, parts: Sequence[memoryview]) -> int:
        return real(fd, [b"".join(parts)[:3]])

    monkeypatch.setattr(os, "writev", three_bytes)
    local.put("a", [b"12", b"", b"345", b"6789", b"0"])
    assert local.get("a") == b"1234567890"


@pytest.mark.parametrize(
    "error", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS]
)
@pytest.mark.parametrize("call", ["writev", "fsync", "replace", "open"])
def test_a_failed_put_says_so_and_leaves_the_old_object(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, error: int, call: str
) -> None:
    local.put("f/a", [b"old"])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(error))
        with pytest.raises(StorageUnavailableError, match=os.strerror(error)) as caught:
            local.put("f/a", [b"new"])
    assert (caught.value.operation, caught.value.key) == ("write", "f/a")
    assert local.get("f/a") == b"old"
    assert os.listdir(f"{local.root}/f") == ["a"]


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_no_os_error_leaves_any_call(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    local.put("f/a", [b"old"])
    with monkeypatch.context() as patch:
        for name in ("open", "scandir", "unlink"):
            patch.setattr(os, name, failing(error))
        for call in (
            lambda: local.get("f/a"),
            lambda: local.map("f/a"),
            lambda: local.settle("f/a"),
            lambda: local.list(""),
            lambda: local.list_folders(""),
            lambda: local.delete(["f/a"]),
            lambda: local.append("f/b"),
            lambda: local.create("f/b", []),
        ):
            with pytest.raises(StorageUnavailableError, match=os.strerror(error)):
                call()


@pytest.mark.parametrize("call", ["writev", "fdatasync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_writer_whose_disk_failed_is_dead_and_the_next_owner_goes_on(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    writer = take_ownership(local, "w", owner="one")
    writer.flush([b"\x01"])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(error))
        with pytest.raises(StorageUnavailableError, match=os.strerror(error)):
            writer.flush([b"\x02"])
    with pytest.raises(StorageUnavailableError, match=os.strerror(error)):
        writer.flush([b"\x03"])
    heir = take_ownership(local, "w", owner="two")
    heir.flush([b"\x04"])
    events = [event for frame in read_journal(local, "w") for event in frame.events()]
    assert events in ([b"\x01", b"\x04"], [b"\x01", b"\x02", b"\x04"])


def test_a_disk_that_fills_up_in_the_middle_of_a_frame_costs_only_that_frame(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = take_ownership(local, "w", owner="one")
    writer.flush([b"\x01"])
    real, full = os.writev, failing(errno.ENOSPC, after=1)

    def half_then_full(fd: int, parts: Sequence[memoryview]) -> int:
        full()
        return real(fd, [b"".join(parts)[:20]])

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", half_then_full)
        with pytest.raises(StorageUnavailableError, match="space"):
            writer.flush([b"\x02"])
    heir = take_ownership(local, "w", owner="two")
    heir.flush([b"\x04"])
    events = [event for frame in read_journal(local, "w") for event in frame.events()]
    assert events == [b"\x01", b"\x04"]
