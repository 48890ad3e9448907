"""The ownership protocol, every interleaving of it, for a few owners that may die anywhere.

An owner that dies, or is paused for ever, is one that takes no further step. Every state is
checked, so the states in which any of the owners stopped at any step are among them. A frame
appended to a segment is a segment of its own here, with the one before it as parent: a sealed
length says the same.

The model keeps what matters: claims with ties, segments with parents, the order of the steps. An
owner lists the claims, puts its own, lists again, reads the newest segment, then writes and checks
in turn. A reader reads the newest segment, lists the claims, and tells what it read only if none is
of a later epoch. Checked in every state that can be reached: what was acknowledged or told stays in
the history that the newest segment gives, acknowledged ones in the order of acknowledgement, and no
two owners proceed in one epoch. Variants with one step left out or moved must be caught, or the
check would prove nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import pytest

Key: TypeAlias = tuple[int, int, int]  # epoch, index, owner
Step: TypeAlias = Literal["look", "claim", "relook", "read", "write", "check", "stopped"]

EPOCH_MAX = 3
"""Ties are followed by higher claims; without a bound there would be no last state."""


@dataclass(frozen=True, slots=True)
class Owner:
    step: Step = "look"
    epoch: int = 0
    parent: Key | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Reader:
    step: Literal["look", "check", "stopped"] = "look"
    found: Key | None = None
    highest: int = 0


@dataclass(frozen=True, slots=True)
class World:
    owners: tuple[Owner, ...]
    readers: tuple[Reader, ...] = ()
    claims: frozenset[tuple[int, int]] = frozenset()
    segments: frozenset[tuple[Key, Key | None]] = frozenset()
    acknowledged: tuple[Key, ...] = ()
    told: frozenset[Key] = frozenset()
    proceeded: frozenset[tuple[int, int]] = frozenset()


Variant: TypeAlias = Literal[
    "right",
    "no check",
    "read first",
    "adopt lowest",
    "no relook",
    "ties proceed",
    "reuse epoch",
    "reader tells at once",
    "reader checks first",
]


def successors(world: World, flushes: int, variant: Variant) -> Iterator[World]:
    for number, owner in enumerate(world.owners):
        if owner.step != "stopped":
            yield step(world, number, owner, flushes, variant)
    for number, reader in enumerate(world.readers):
        if reader.step != "stopped":
            yield read(world, number, reader, variant)


def read(world: World, number: int, reader: Reader, variant: Variant) -> World:
    highest = max((epoch for epoch, _ in world.claims), default=0)
    told = world.told
    if reader.step == "look":
        reader = Reader("check", newest(world), highest)
    else:
        found = newest(world) if variant == "reader checks first" else reader.found
        highest = reader.highest if variant == "reader checks first" else highest
        if found and (highest <= found[0] or variant == "reader tells at once"):
            told |= {found}
        reader = Reader("stopped")
    readers = (*world.readers[:number], reader, *world.readers[number + 1 :])
    return replace(world, readers=readers, told=told)


def with_owner(world: World, number: int, owner: Owner) -> World:
    owners = (*world.owners[:number], owner, *world.owners[number + 1 :])
    return replace(world, owners=owners)


def step(world: World, number: int, owner: Owner, flushes: int, variant: Variant) -> World:
    highest = max((epoch for epoch, _ in world.claims), default=0)
    match owner.step:
        case "look":
            epoch = highest + (0 if variant == "reuse epoch" and highest else 1)
            parent = newest(world, variant) if variant == "read first" else None
            alive = epoch <= EPOCH_MAX
            return with_owner(
                world, number, Owner("claim" if alive else "stopped", epoch=epoch, parent=parent)
            )
        case "claim":
            claimed = replace(world, claims=world.claims | {(owner.epoch, number)})
            return with_owner(claimed, number, replace(owner, step="relook"))
        case "relook":
            return with_owner(world, number, after_relook(world, number, owner, variant))
        case "read":
            parent = owner.parent if variant == "read first" else newest(world, variant)
            proceeding = replace(world, proceeded=world.proceeded | {(owner.epoch, number)})
            return with_owner(proceeding, number, replace(owner, step="write", parent=parent))
        case "write":
            key = (owner.epoch, owner.index, number)
            written = replace(world, segments=world.segments | {(key, owner.parent)})
            return with_owner(written, number, replace(owner, step="check"))
        case _:
            return after_check(world, number, owner, highest, flushes, variant)


def after_relook(world: World, number: int, owner: Owner, variant: Variant) -> Owner:
    rivals = [claim for claim in world.claims if claim[0] >= owner.epoch and claim[1] != number]
    if variant == "no relook" or not rivals:
        return replace(owner, step="read")
    if max(rivals)[0] > owner.epoch:
        return Owner(step="stopped")
    return replace(owner, step="read") if variant in ("ties proceed", "reuse epoch") else Owner()


def after_check(
    world: World, number: int, owner: Owner, highest: int, flushes: int, variant: Variant
) -> World:
    if highest > owner.epoch and variant != "no check":
        return with_owner(world, number, Owner(step="stopped"))
    key = (owner.epoch, owner.index, number)
    told = replace(world, acknowledged=(*world.acknowledged, key))
    more = owner.index + 1 < flushes
    going_on = Owner("write" if more else "stopped", owner.epoch, key, owner.index + 1)
    return with_owner(told, number, going_on)


def newest(world: World, variant: Variant = "right") -> Key | None:
    keys = [key for key, _ in world.segments]
    if not keys:
        return None
    return min(keys) if variant == "adopt lowest" else max(keys)


def history(world: World) -> list[Key]:
    """The segments that happened, as a reader finds them: oldest first."""
    parents = dict(world.segments)
    found: list[Key] = []
    key = newest(world)
    while key is not None:
        found.append(key)
        key = parents[key]
    return found[::-1]


def broken_promise(world: World) -> str | None:
    acknowledged, happened = set(world.acknowledged), history(world)
    if [key for key in happened if key in acknowledged] != list(world.acknowledged):
        return "an acknowledged segment is lost or out of order"
    if not world.told <= set(happened):
        return "what a reader told is lost"
    epochs = [epoch for epoch, _ in world.proceeded]
    if len(epochs) != len(set(epochs)):
        return "two owners proceed in one epoch"
    return None


def explore(
    owners: int, flushes: int, variant: Variant, readers: int = 0
) -> tuple[int, str | None]:
    """Visit every state breadth first; return how many, and the first broken promise."""
    start = World(owners=(Owner(),) * owners, readers=(Reader(),) * readers)
    seen = {start}
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        if broken := broken_promise(world):
            return len(seen), broken
        for successor in successors(world, flushes, variant):
            if successor not in seen:
                seen.add(successor)
                waiting.append(successor)
    return len(seen), None


@pytest.mark.parametrize(("owners", "flushes", "states_min"), [(2, 5, 4_000), (3, 2, 200_000)])
def test_no_interleaving_and_no_crash_loses_an_acknowledged_event(
    owners: int, flushes: int, states_min: int
) -> None:
    states, broken = explore(owners, flushes, "right")
    assert broken is None
    assert states > states_min


@pytest.mark.parametrize(
    ("variant", "owners", "flushes"),
    [
        ("no check", 2, 2),
        ("read first", 2, 2),
        ("adopt lowest", 2, 2),
        ("no relook", 2, 2),
        ("ties proceed", 2, 2),
        ("reuse epoch", 2, 2),
    ],
)
def test_the_check_catches_a_protocol_with_a_step_missing(
    variant: Variant, owners: int, flushes: int
) -> None:
    _, broken = explore(owners, flushes, variant)
    assert broken is not None


def test_what_a_reader_tells_is_known_to_every_later_owner() -> None:
    states, broken = explore(2, 3, "right", readers=2)
    assert broken is None
    assert states > 10_000


@pytest.mark.parametrize("variant", ["reader tells at once", "reader checks first"])
def test_the_check_catches_a_reader_that_does_not_ask_after_reading(variant: Variant) -> None:
    assert explore(2, 2, variant, readers=1)[1] == "what a reader told is lost"
