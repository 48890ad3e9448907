"""System calls on files and folders, complete: short reads and writes are continued.

Everything here raises :class:`OSError`; :mod:`milepost.journal.local` translates it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from milepost.journal.store import Part

PARTS_MAX = 1024
"""Buffers per ``writev``: the kernel's IOV_MAX on Linux, macOS and the BSDs."""


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a file or a folder for reading, for a while.

    Args:
        path: The file or folder.

    Yields:
        Its descriptor.

    Raises:
        OSError: If it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def file_size(fd: int, path: str) -> int:
    """Give the length of a file, and refuse a folder.

    Args:
        fd: The open file.
        path: Its path, for the error.

    Returns:
        The length in bytes.

    Raises:
        IsADirectoryError: If it is a folder: that opens, and only some calls would then refuse it.
        OSError: If the system does not tell.
    """
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return status.st_size


def read_range(fd: int, start: int, end: int) -> bytes:
    """Read a part of a file.

    Args:
        fd: The open file.
        start: Offset of the first byte.
        end: Offset after the last byte.

    Returns:
        The bytes; fewer if the file ends before.

    Raises:
        OSError: If reading fails.
    """
    chunks = []
    while start < end:
        chunk = os.pread(fd, end - start, start)
        if not chunk:
            break
        chunks.append(chunk)
        start += len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def write_all(fd: int, parts: Sequence[Part]) -> None:
    """Write all parts, in order.

    Args:
        fd: The open file.
        parts: What to write.

    Raises:
        OSError: If writing fails; some bytes may have been written.
    """
    pending = [memoryview(part) for part in parts if len(part)]
    pending.reverse()
    while pending:
        written = os.writev(fd, pending[: -PARTS_MAX - 1 : -1])
        while pending and written >= len(pending[-1]):
            written -= len(pending.pop())
        if written:
            pending[-1] = pending[-1][written:]


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable.

    Args:
        folder: The folder.

    Raises:
        OSError: If the system cannot.
    """
    with opened(folder) as fd:
        os.fsync(fd)


def make_root(root: str) -> None:
    """Create a folder and all that are missing above it, durably.

    Args:
        root: The folder.

    Raises:
        OSError: If one cannot be created.
    """
    parent = os.path.dirname(root)
    if not os.path.isdir(root):
        make_root(parent)
        with suppress(FileExistsError):
            os.mkdir(root)
    # A folder that was there may be in one that only others may read, and is theirs to sync.
    with suppress(PermissionError):
        sync_folder(parent)
