"""Leases: how an owner shows that it is alive, so that others know when a takeover is polite.

An owner that runs workflows rewrites one small object every few seconds, however many they are.
**No safety rests on it.** A lease that lies, is late or is gone costs politeness: a workflow is
taken from an owner that was alive, which then finds itself fenced by the claim, as always.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from milepost.journal.layout import LEASES, lease_key, parse_lease_name
from milepost.journal.store import ObjectNotFoundError, Store

FRESH_FACTOR = 3
"""By the clock a lease is fresh for so many times its length: machines' clocks differ a little."""

GONE_FACTOR = 60
"""After so many times its length (ten minutes) its owner is gone, however clocks differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What an owner says of itself.

    Attributes:
        owner: Who, as in the journal's *ownership taken*.
        beat: Rises with every renewal; a lease whose beat stands still runs out.
        written_us: When it was renewed, by its owner's clock, microseconds since 1970.
        lease_us: How long after a renewal the owner may be thought alive, microseconds.
        machine: The machine and its boot, as :func:`describe_machine` gives it.
        process: The owner's process on it: its id and when it started.
    """

    owner: str
    beat: int
    written_us: int
    lease_us: int
    machine: str
    process: str

    @property
    def sign_of_life(self) -> tuple[str, int, int]:
        """What changes with every renewal."""
        return self.process, self.beat, self.written_us

    def is_fresh(self, now_us: int) -> bool:
        """Tells whether the owner seems alive, without waiting.

        Args:
            now_us: The time here, microseconds since 1970.
        """
        return not self._has_died() and now_us - self.written_us < FRESH_FACTOR * self.lease_us

    def is_long_gone(self, now_us: int) -> bool:
        """Tells whether the owner is gone for certain, so that nobody need watch its lease.

        Args:
            now_us: The time here, microseconds since 1970.
        """
        return self._has_died() or now_us - self.written_us >= GONE_FACTOR * self.lease_us

    def _has_died(self) -> bool:
        """Tells whether it was a process of this machine that is no longer there."""
        return self.machine == describe_machine() and not is_running(self.process)


def write_lease(store: Store, lease: Lease) -> None:
    """Renews a lease.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    fields: dict[str, Any] = {
        "owner": lease.owner,
        "beat": lease.beat,
        "written": lease.written_us,
        "lease": lease.lease_us,
        "machine": lease.machine,
        "process": lease.process,
    }
    store.put(lease_key(lease.owner), [msgpack.packb(fields)])


def list_leases(store: Store) -> dict[str, Lease]:
    """Reads all leases, by owner; what cannot be read as one is no lease.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    found = {}
    for each in store.list(LEASES):
        owner = parse_lease_name(each.key[len(LEASES) :])
        if owner is not None:
            with suppress(ObjectNotFoundError, ValueError):
                found[owner] = _unpack(owner, store.get(each.key))
    return found


def end_lease(store: Store, owner: str) -> None:
    """Removes a lease: its owner is gone, or runs nothing.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    store.delete([lease_key(owner)])


def _unpack(owner: str, content: bytes) -> Lease:
    try:
        fields = msgpack.unpackb(content)
        lease = Lease(
            owner=owner,
            beat=fields["beat"],
            written_us=fields["written"],
            lease_us=fields["lease"],
            machine=fields["machine"],
            process=fields["process"],
        )
    except (msgpack.UnpackException, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no lease of {owner}: {error!r}") from error
    numbers = (lease.beat, lease.written_us, lease.lease_us)
    texts = (lease.machine, lease.process)
    if {type(each) for each in numbers} != {int} or {type(each) for each in texts} != {str}:
        raise ValueError(f"no lease of {owner}: a field has another type")
    return lease


def describe_machine() -> str:
    """Returns what tells this machine since its start from others, and from other containers."""
    parts = [socket.gethostname(), _read("/proc/sys/kernel/random/boot_id")]
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def describe_process() -> str:
    """Returns what tells this process from any other on this machine, before or after."""
    return f"{os.getpid()}/{_started(os.getpid())}"


def is_running(process: str) -> bool:
    """Tells whether a process of this machine still runs; if it cannot be known, it does.

    Args:
        process: What :func:`describe_process` gave there.
    """
    pid, _, started = process.partition("/")
    if not pid.isdigit() or not started:
        return True
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """Returns when a process started, in ticks since the boot; nothing if it is not there."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    ended = len(fields) <= 19 or fields[0] in "ZX"
    return "" if ended else fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
