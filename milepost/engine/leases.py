"""A dispatcher's own lease, and its look at those of others.

A lease says that its owner is alive; see :mod:`milepost.journal.lease`. It is there as long as the
owner runs anything, and costs one small object every few seconds. Whether another owner is gone is
judged by this process's own clock: its lease did not change for as long as it says.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from milepost.engine.threads import InThread
from milepost.errors import InvalidOptionError, StorageUnavailableError
from milepost.journal import Store
from milepost.journal.lease import (
    Lease,
    describe_machine,
    describe_process,
    end_lease,
    list_leases,
    write_lease,
)

_log = logging.getLogger(__name__)

LEASE_VARIABLE = "MILEPOST_LEASE_S"
"""Of the cluster's processes: how long a lease lasts, in seconds."""

LEASE_S = 10.0
BEATS_PER_LEASE = 3
LOOKS_PER_LEASE = 4

IDLE_LEASES = 6.0
"""So many leases' time an owner keeps renewing after it has nothing left to run: a first renewal
keeps the next workflow waiting for a request."""


def read_lease_s() -> float:
    """Returns how long a lease lasts here.

    Raises:
        InvalidOptionError: If the environment says something that is not a positive number.
    """
    text = os.environ.get(LEASE_VARIABLE, "")
    try:
        lease_s = float(text) if text else LEASE_S
    except ValueError:
        lease_s = -1.0
    if not 0 < lease_s < float("inf"):
        raise InvalidOptionError(f"{LEASE_VARIABLE} must be a number of seconds, not {text!r}")
    return lease_s


class LeaseKeeper:
    """Renews the lease of one owner while it is needed."""

    def __init__(
        self,
        store: Store,
        owner: str,
        lease_s: float,
        in_thread: InThread,
        is_needed: Callable[[], bool],
        look_round: Callable[[bool], Coroutine[Any, Any, None]],
    ) -> None:
        """Begin without a lease.

        Args:
            store: Where it lies.
            owner: Whose it is.
            lease_s: How long it lasts after a renewal, seconds.
            in_thread: Runs a function that blocks.
            is_needed: Tells whether the owner runs anything.
            look_round: Looks whether others took over; called after each renewal, with whether
                that came too late, as after a pause of this process.
        """
        self._store = store
        self._owner = owner
        self._lease_s = lease_s
        self._in_thread = in_thread
        self._is_needed = is_needed
        self._look_round = look_round
        self._looking: asyncio.Task[None] | None = None
        self._renewed_s: tuple[float, float] | None = None
        self._beat = 0
        self._keeping: asyncio.Task[None] | None = None
        self._first: asyncio.Task[None] | None = None

    async def hold(self) -> None:
        """Returns when there is a lease, which is then renewed while it is needed.

        A storage that fails is no reason to wait: the lease is a courtesy.
        """
        if self._keeping is None:
            self._renewed_s = None
            self._first = asyncio.create_task(self._renew())
            self._keeping = asyncio.create_task(self._keep(self._first))
        if self._first is not None:
            await asyncio.shield(self._first)

    async def _keep(self, first: asyncio.Task[None]) -> None:
        await first
        pause_s = self._lease_s / BEATS_PER_LEASE
        idle_s = 0.0
        while idle_s < IDLE_LEASES * self._lease_s:
            await asyncio.sleep(pause_s)
            idle_s = 0.0 if self._is_needed() else idle_s + pause_s
            await self._renew()
        self._keeping = self._first = None
        with suppress(StorageUnavailableError):
            await self._in_thread(end_lease, self._store, self._owner)
        if self._is_kept():  # held again while it was removed
            await self._renew()

    def _is_kept(self) -> bool:
        return self._keeping is not None

    async def _renew(self) -> None:
        self._beat += 1
        lease = Lease(
            owner=self._owner,
            beat=self._beat,
            written_us=_now_us(),
            lease_us=round(self._lease_s * 1e6),
            machine=describe_machine(),
            process=describe_process(),
        )
        try:
            await self._in_thread(write_lease, self._store, lease)
        except StorageUnavailableError as error:
            _log.info("the lease of %s was not renewed: %s", self._owner, error)
        else:
            late = self._look_back()
            if late or self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_round(late))

    def _look_back(self) -> bool:
        """Tells whether this renewal came too late, by two clocks: each may miss some pauses."""
        former_s = self._renewed_s
        self._renewed_s = asyncio.get_running_loop().time(), _now_us() / 1e6
        if former_s is None:
            return False
        passed_s = max(now - then for now, then in zip(self._renewed_s, former_s, strict=True))
        if passed_s > self._lease_s:
            _log.warning("the lease of %s was renewed after %.1f s only", self._owner, passed_s)
        return passed_s > self._lease_s


class OwnerWatch:
    """Finds out which owners are gone."""

    def __init__(self, store: Store, in_thread: InThread) -> None:
        self._store = store
        self._in_thread = in_thread

    async def find_fresh(self) -> frozenset[str]:
        """Returns the owners that seem alive by the clock, without waiting; good for showing only.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        leases = await self._list()
        return frozenset(owner for owner, lease in leases.items() if lease.is_fresh(_now_us()))

    async def find_alive(self, owners: Collection[str]) -> frozenset[str]:
        """Returns which of ``owners`` are alive; waits until each has shown it or has run out.

        Only what stands still for as long as it says, by the clock of this process, is gone; other
        machines' clocks may be minutes off. Leases that ran out long ago are removed on the way.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        clock = asyncio.get_running_loop().time
        began, before = clock(), await self._list()
        waiting = {
            owner: before[owner]
            for owner in owners
            if owner in before and not before[owner].is_long_gone(_now_us())
        }
        await self._clear_away(before, keep=waiting)
        alive: set[str] = set()
        while waiting:
            await asyncio.sleep(min(_lease_s(each) for each in waiting.values()) / LOOKS_PER_LEASE)
            now = await self._list()
            for owner, lease in list(waiting.items()):
                if owner not in now or now[owner].is_long_gone(_now_us()):
                    del waiting[owner]
                elif now[owner].sign_of_life != lease.sign_of_life:
                    alive.add(owner)
                    del waiting[owner]
                elif clock() - began > _lease_s(lease):
                    del waiting[owner]
        return frozenset(alive)

    async def _clear_away(self, leases: Mapping[str, Lease], keep: Collection[str]) -> None:
        """Removes what dead owners left; a paused one that wakes up writes its lease again."""
        for owner, lease in leases.items():
            if owner not in keep and lease.is_long_gone(_now_us()):
                with suppress(StorageUnavailableError):
                    await self._in_thread(end_lease, self._store, owner)

    async def _list(self) -> dict[str, Lease]:
        leases: dict[str, Lease] = await self._in_thread(list_leases, self._store)
        return leases


def _lease_s(lease: Lease) -> float:
    return lease.lease_us / 1e6


def _now_us() -> int:
    return time.time_ns() // 1000
