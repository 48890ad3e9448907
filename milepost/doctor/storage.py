"""Can workflows be kept in this storage, and do its clock and ours agree?

A folder of this machine is written to, synced, listed and cleared again; a bucket goes through the
same probe that a driver sends. A place that is no store yet does not become one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress

from milepost.doctor.finding import Finding, Level
from milepost.errors import MilepostError
from milepost.journal import Location, open_store
from milepost.journal.opening import local_folder, require_remote
from milepost.journal.probe import probe, storage_time

FREE_BYTES_MIN = 2**30
SKEW_S_MAX = 20.0
"""From half a minute on statuses are told wrong; from a quarter of an hour on buckets refuse."""

SHARED_KINDS = ("nfs", "cifs", "smb", "fuse", "9p", "afs")
MEMORY_KINDS = ("tmpfs", "ramfs")


def check_storage(uri: str) -> Iterator[Finding]:
    """Try a storage as far as a workflow needs it.

    Args:
        uri: A path or a URI.

    Yields:
        A finding about the storage, and one about the clock if the storage has one.
    """
    location = Location(uri)
    try:
        folder = local_folder(location)
        findings = _check_bucket(location) if folder is None else _check_folder(folder)
        yield from findings
    except (MilepostError, OSError) as error:
        cure = "correct its name, or the rights to it; the page on storage lists what can be wrong"
        yield Finding("storage", Level.FAULT, location.scrub(str(error)), cure)


def _check_folder(folder: str) -> Iterator[Finding]:
    there = os.path.isdir(folder)
    if there and os.listdir(folder):
        open_store(folder, create=False)
        what = "is a store"
    else:
        what = "is empty, and may become a store" if there else "can be made"
    place = folder if there else _nearest(folder)
    began = time.perf_counter()
    try:
        written = _write_and_clear(place)
    except OSError as error:
        reason = error.strerror or str(error)
        cure = "give this user the rights to write there, or name another folder"
        yield Finding("storage", Level.FAULT, f"nothing can be written in {place}: {reason}", cure)
        return
    took_ms = (time.perf_counter() - began) * 1000
    kind, free = file_system_kind(place), shutil.disk_usage(place).free
    text = f"{folder} {what}: wrote and synced in {took_ms:.1f} ms, {free / 2**30:.1f} GiB free"
    yield _judge_folder(text + f", {kind}" * bool(kind), kind, free)
    yield check_clock(written)


def _nearest(folder: str) -> str:
    """Name the nearest folder above that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _judge_folder(text: str, kind: str, free: int) -> Finding:
    if kind.startswith(SHARED_KINDS):
        cure = "use it from one cluster at a time: such file systems show old listings"
    elif kind in MEMORY_KINDS:
        cure = "choose a disk: this is gone when the machine is switched off"
    elif free < FREE_BYTES_MIN:
        cure = "make room: workflows stop when the disk is full"
    else:
        return Finding("storage", Level.OK, text)
    return Finding("storage", Level.WARNING, text, cure)


def _write_and_clear(folder: str) -> float:
    """Write a file durably, see it in a listing, and delete it; returns its time."""
    name = f".tmp-doctor-{secrets.token_hex(8)}"
    path = os.path.join(folder, name)
    try:
        with open(path, "xb") as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
            written = os.fstat(file.fileno()).st_mtime
        if name not in os.listdir(folder):
            raise OSError("a file that was just written is not listed")
        return written
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def file_system_kind(folder: str, mounts: str = "/proc/self/mounts") -> str:
    """Name the kind of file system that a folder is on; empty where that cannot be known.

    Args:
        folder: An absolute path.
        mounts: Where the system lists what is mounted.

    Returns:
        For instance ``ext4`` or ``nfs4``.
    """
    best, kind = "", ""
    try:
        with open(mounts, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return ""
    real = os.path.realpath(folder)
    for _, place, found, *_ in lines:
        if len(place) >= len(best) and os.path.commonpath([place, real]) == place:
            best, kind = place, found
    return kind


def _check_bucket(location: Location) -> Iterator[Finding]:
    require_remote(location)
    began = time.perf_counter()
    probe(location)
    took_ms = (time.perf_counter() - began) * 1000
    text = f"{location} passed the probe in {took_ms:.0f} ms: write, read, list, overwrite, delete"
    yield Finding("storage", Level.OK, text)
    written = storage_time(location)
    if written is not None:
        yield check_clock(written)


def check_clock(storage_s: float, own_s: float | None = None) -> Finding:
    """Compare the storage's clock with that of this machine.

    Args:
        storage_s: The time that the storage gave to what was just written, in seconds since 1970.
        own_s: This machine's time then; now if not given.

    Returns:
        The finding.
    """
    ahead_s = (time.time() if own_s is None else own_s) - storage_s
    if abs(ahead_s) <= SKEW_S_MAX:
        return Finding("clock", Level.OK, "this machine and the storage agree")
    side = "ahead of" if ahead_s > 0 else "behind"
    text = f"this machine is {abs(ahead_s):.0f} s {side} the storage"
    cure = "set the clock (NTP): no result is at risk, but statuses are told wrong"
    return Finding("clock", Level.WARNING, text, cure)
