"""How many slices each workflow may have under way, so that none keeps the others waiting.

Ray runs what is sent to it in the order it came, so what is sent early stands in the way of what
comes later. The workflows of a dispatcher therefore share the places there are: alone, a workflow
has all; among others each has its part, and whatever the others leave. Each has one place at least,
so that a task that waits for another workflow's result cannot keep that one from running.

A slice that has been under way for long says nothing any more about who is next: its task takes an
hour, or it waits for a GPU that is not there. It takes no place from the others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Protocol

RECENT_S = 1.0
"""How long a slice takes a place; slices are cut to last some 15 ms."""

CALLS_MAX = 4
"""Workflows that are asked for work when a place becomes free. Those that miss out have slices
under way, and ask for themselves when one of these reports."""


class HasPlaces(Protocol):
    """Who runs slices."""

    @property
    def slices_max(self) -> int:
        """How many slices of one scheduling class to have under way at once."""


class Shares:
    """The places that the workflows of one dispatcher share."""

    def __init__(self, workers: HasPlaces) -> None:
        """Begin with all places free.

        Args:
            workers: Who knows how many places there are.
        """
        self._workers = workers
        self._taken = 0
        self._sharing: set[Share] = set()
        self._sent: OrderedDict[tuple[Share, int], float] = OrderedDict()
        self._hungry: OrderedDict[Share, None] = OrderedDict()
        self._call_is_due = False
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def places(self) -> int:
        """How many slices should be under way, of each scheduling class."""
        return self._workers.slices_max

    def allow(self, share: Share) -> int:
        """Returns how many slices of each class a workflow may have under way now."""
        self._forget_old()
        others = self._taken - len(share.recent)
        part = self.places // (len(self._sharing) + (share not in self._sharing))
        return max(1, part, self.places - others)

    def begin(self, share: Share, number: int) -> None:
        """Notes that a slice was sent."""
        share.recent.add(number)
        self._taken += 1
        self._sharing.add(share)
        self._sent[share, number] = asyncio.get_running_loop().time()

    def end(self, share: Share, number: int) -> None:
        """Notes that a slice is over, or does not count any more."""
        if number in share.recent:
            share.recent.remove(number)
            del self._sent[share, number]
            self._taken -= 1
            self._update(share)
            self._call_soon()

    def note_hunger(self, share: Share, hungry: bool) -> None:
        """Notes whether a workflow has work beyond what it may have under way."""
        if hungry:
            self._hungry.setdefault(share)
            self._set_alarm()
        else:
            self._hungry.pop(share, None)
        self._update(share)

    def _update(self, share: Share) -> None:
        if share.recent or share in self._hungry:
            self._sharing.add(share)
        else:
            self._sharing.discard(share)

    def _forget_old(self) -> None:
        before = asyncio.get_running_loop().time() - RECENT_S
        while self._sent:
            (share, number), sent = next(iter(self._sent.items()))
            if sent > before:
                return
            self.end(share, number)

    def _set_alarm(self) -> None:
        if self._alarm is None and self._sent:
            self._alarm = asyncio.get_running_loop().call_later(RECENT_S, self._look)

    def _look(self) -> None:
        """Finds the places of which nothing was heard; nobody else may do so for long."""
        self._alarm = None
        self._forget_old()
        if self._hungry:
            self._set_alarm()

    def _call_soon(self) -> None:
        if self._hungry and not self._call_is_due:
            self._call_is_due = True
            asyncio.get_running_loop().call_soon(self._call)

    def _call(self) -> None:
        self._call_is_due = False
        for share in list(islice(self._hungry, CALLS_MAX)):
            self._hungry.move_to_end(share)
            if self.allow(share) > len(share.recent):
                share.ask_for_work()


class Share:
    """What one workflow has of the places.

    Attributes:
        recent: Its slices that take a place, by number.
        ask_for_work: Called when it may have more under way than it had room for.
    """

    def __init__(self, shares: Shares, ask_for_work: Callable[[], None]) -> None:
        """Begin with nothing under way."""
        self.recent: set[int] = set()
        self.ask_for_work = ask_for_work
        self._shares = shares

    @property
    def allowed(self) -> int:
        """How many slices of each class it may have under way now."""
        return self._shares.allow(self)

    def begin(self, number: int) -> None:
        """Notes that a slice was sent."""
        self._shares.begin(self, number)

    def end(self, number: int) -> None:
        """Notes that a slice is over."""
        self._shares.end(self, number)

    def note_hunger(self, more: bool, allowed: int) -> None:
        """Notes whether there is more work than the places allowed; all of them is no hunger."""
        self._shares.note_hunger(self, more and allowed < self._shares.places)

    def leave(self) -> None:
        """Gives back everything."""
        self._shares.note_hunger(self, hungry=False)
        for number in list(self.recent):
            self._shares.end(self, number)
