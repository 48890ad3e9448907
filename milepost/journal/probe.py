"""A look at a remote storage before it is trusted: does it do what the journal rests on?

Many servers speak the protocol of a large one, and some of them almost. What they do wrong is found
here, in about a dozen requests, and named; found later it would be damage. A probe's object has
a name that no listing of the store shows, and is deleted again. One process asks in sequence, so a
storage whose listings lag only under load is not caught: see ``docs/storage.md``.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from milepost.errors import StorageUnavailableError, StorageUriError
from milepost.journal.bucket import Bucket
from milepost.journal.location import Location
from milepost.journal.retry import Patience
from milepost.journal.store import ObjectNotFoundError

PROBE_FOLDER = ".probe/"

PATIENCE = Patience(tries_max=3, total_s_max=15.0)
"""Somebody waits at a prompt for this."""

_CHUNK = re.compile(rb"[0-9a-f]+(;[^\r]*)?\r\n", re.IGNORECASE)


def probe(location: Location) -> None:
    """Write, read, list, overwrite and delete an object, and compare what comes back.

    Args:
        location: The storage to try.

    Raises:
        StorageUriError: If the storage cannot be used, or does something wrong; names the fault.
    """
    trial = _Trial(Bucket(location, PATIENCE))
    try:
        fault = _find_fault(trial)
    except StorageUnavailableError as error:
        fault = f"it cannot {error.operation} objects: {error.reason}"
    if fault is not None:
        with suppress(StorageUnavailableError):
            trial.delete()
        raise StorageUriError(location.shown, fault)


def storage_time(location: Location) -> float | None:
    """Ask a storage for its time, by writing an object and deleting it.

    Args:
        location: The storage.

    Returns:
        The time that it gave to the object, in seconds since 1970; None if it gives none.

    Raises:
        StorageUriError: If the storage cannot be used.
        StorageUnavailableError: If it fails.
    """
    trial = _Trial(Bucket(location, PATIENCE))
    trial.put(b"what time is it?")
    try:
        return trial.time()
    finally:
        trial.delete()


class _Trial:
    """One object of a bucket, under a name that no store can use."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._key = PROBE_FOLDER + os.urandom(8).hex()

    def put(self, content: bytes) -> None:
        self._bucket.write(self._key, content)

    def read(self) -> bytes | None:
        try:
            return self._bucket.read(self._key)
        except ObjectNotFoundError:
            return None

    def listed_sizes(self) -> list[int]:
        return [each.size for each in self._bucket.list(PROBE_FOLDER) if each.key == self._key]

    def time(self) -> float | None:
        return self._bucket.written(self._key)

    def delete(self) -> None:
        self._bucket.delete(self._key)


def _find_fault(trial: _Trial) -> str | None:
    first, second = os.urandom(100), os.urandom(40)
    trial.put(first)
    return (
        _compare(trial.read(), first)
        or _check_listing(trial.listed_sizes(), first)
        or _check_overwriting(trial, second)
        or _check_deleting(trial)
    )


def _compare(read: bytes | None, written: bytes) -> str | None:
    if read == written:
        return None
    if read is None:
        return "an object that was just written cannot be read"
    if written in read and _CHUNK.match(read):
        return (
            "it stores chunk framing as data (checksum trailers that it does not understand); set "
            "AWS_REQUEST_CHECKSUM_CALCULATION=when_required on every node, or use a newer server"
        )
    return f"it returned {len(read)} other bytes than the {len(written)} that were written"


def _check_listing(sizes: list[int], written: bytes) -> str | None:
    if not sizes:
        return (
            "it does not list what was put; ownership of workflows rests on listings that show "
            "every object at once (is there a cache in front of it?)"
        )
    if sizes != [len(written)]:
        return f"its listing says {sizes} bytes of an object of {len(written)}"
    return None


def _check_overwriting(trial: _Trial, content: bytes) -> str | None:
    trial.put(content)
    if trial.read() != content:
        return "an overwrite is not visible to the next read (is there a cache in front of it?)"
    return _check_listing(trial.listed_sizes(), content)


def _check_deleting(trial: _Trial) -> str | None:
    trial.delete()
    if trial.read() is not None or trial.listed_sizes():
        return "it cannot delete: the object is still there after it was deleted"
    return None
