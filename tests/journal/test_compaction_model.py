"""Compaction and deletion beside the ownership protocol: every interleaving, for a few owners.

As in the model of ownership, an owner that dies or is paused for ever takes no further step, so
every crash is among the states. What is modelled: segments that name the history they go on from,
compacted objects and tombstones; listing, tracing, putting, checking the claims and every single
deletion are steps of their own. Ties of claims are left to the other model.

Checked in every state: whoever lists now finds a whole history, and what was acknowledged since
the newest deletion in it is in there, in order; an acknowledged deletion is never undone. Variants
with a step left out, moved or changed must be caught, or the check would prove nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import pytest

Frame: TypeAlias = tuple[int, int]  # epoch, index
History: TypeAlias = tuple[Frame, ...]
"""Starts with (epoch, -1) if it starts after the tombstone of that epoch."""
Kind: TypeAlias = Literal["segment", "compacted", "tombstone"]
Thing: TypeAlias = tuple[Kind, int, History]
"""A segment: its epoch, and the history with its own frame at the end. A compacted object: the
epoch of its last frame, and its history. A tombstone: its epoch."""

Variant: TypeAlias = Literal[
    "right",
    "no check before delete",
    "tip without epoch",
    "tip ignores what is covered",
    "compacted listed first",
    "tombstone hides all below",
    "tombstone without check",
]


@dataclass(frozen=True, slots=True)
class Owner:
    """Steps to take, in order; the rest is what the owner knows."""

    script: tuple[str, ...]
    epoch: int = 0
    listed: frozenset[Thing] = frozenset()
    kept: frozenset[Thing] = frozenset()
    history: History = ()
    written: int = 0
    doomed: tuple[Thing, ...] = ()
    promised: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    owners: tuple[Owner, ...]
    highest: int = 0
    things: frozenset[Thing] = frozenset()
    told: tuple[Frame, ...] = ()
    deleted: int = 0
    misled: bool = False


class MissingError(Exception):
    """Something that a history needs is not there."""


def newest_end(things: frozenset[Thing], variant: Variant) -> Thing | None:
    segments = [each for each in things if each[0] == "segment"]
    segment = max(segments, key=lambda each: each[2][-1], default=None)
    compacted = max(
        (each for each in things if each[0] == "compacted"),
        key=lambda each: (each[1], len(each[2])),
        default=None,
    )
    tombstone = max((each for each in things if each[0] == "tombstone"), default=None)
    ends = [each for each in (segment, compacted) if each is not None]
    end = max(ends, key=lambda each: each[1], default=None)
    if segment and compacted and segment[1] == compacted[1]:
        # The index in the segment's history is where it starts.
        covered = len(segment[2]) <= len(compacted[2])
        end = compacted if covered and variant != "tip ignores what is covered" else segment
    if variant == "tip without epoch" and segment:
        end = segment
    if tombstone and (end is None or end[1] < tombstone[1]):
        return None
    return end


def trace(things: frozenset[Thing], end: Thing | None, store: frozenset[Thing]) -> list[Thing]:
    """Follow the parents by name in what was listed; what a link names must be stored."""
    if end is None:
        return []
    found, history = [end], end[2][:-1]
    while found[-1][0] == "segment" and history and history[-1][1] >= 0:
        base: Thing = ("compacted", history[-1][0], history)
        found.append(base if base in things else ("segment", history[-1][0], history))
        history = history[:-1]
    if any(piece not in store for piece in found):
        raise MissingError
    return found


def newest_tombstone(things: frozenset[Thing]) -> int:
    return max((each[1] for each in things if each[0] == "tombstone"), default=0)


def history_of(things: frozenset[Thing], end: Thing | None) -> History:
    tombstone = newest_tombstone(things)
    if end is not None:
        return end[2]
    return ((tombstone, -1),) if tombstone else ()


def read(world: World, variant: Variant) -> History:
    """What somebody finds who lists everything at this instant."""
    things = world.things
    end = newest_end(things, variant)
    pieces = trace(things, end, things)
    hidden = newest_tombstone(things) if variant == "tombstone hides all below" else 0
    if any(piece[1] < hidden for piece in pieces):
        raise MissingError
    return history_of(things, end)


def successors(world: World, variant: Variant) -> Iterator[World]:
    for number, owner in enumerate(world.owners):
        if owner.script:
            yield step(world, number, owner, variant)


def put(world: World, thing: Thing) -> World:
    return replace(world, things=world.things | {thing})


def step(world: World, number: int, owner: Owner, variant: Variant) -> World:
    now, rest = owner.script[0], owner.script[1:]
    going = replace(owner, script=rest)
    stopped = Owner(script=())
    fenced = world.highest > owner.epoch
    match now:
        case "claim":
            world = replace(world, highest=world.highest + 1)
            going = replace(going, epoch=world.highest)
        case "list":
            first: Kind = "compacted" if variant == "compacted listed first" else "segment"
            going = replace(going, listed=of_kinds(world, first, "tombstone"))
        case "look":  # of a reader who owns nothing: what was told before must be found
            going = replace(going, promised=world.told, epoch=world.deleted)
        case "believe":
            world = replace(world, misled=world.misled or is_misled(owner))
        case "trace":
            second: Kind = "segment" if variant == "compacted listed first" else "compacted"
            going = after_trace(world, going, owner.listed | of_kinds(world, second), variant)
        case "write":
            history = (*owner.history, (owner.epoch, owner.written))
            world = put(world, ("segment", owner.epoch, history))
            going = replace(going, history=history, written=owner.written + 1)
        case "check write":
            going = stopped if fenced else going
            if not fenced:
                world = replace(world, told=(*world.told, owner.history[-1]))
        case "put compacted":
            world = put(world, ("compacted", owner.epoch, owner.history))
        case "check compacted":
            going = stopped if fenced and variant != "no check before delete" else going
        case "replace":
            going = replace(going, doomed=replaced(world, owner))
        case "sweep":
            going = replace(going, doomed=orphans(world, owner))
        case "delete":
            if owner.doomed:
                world = replace(world, things=world.things - {owner.doomed[0]})
                going = replace(owner, doomed=owner.doomed[1:])
        case "put tombstone":
            world = put(world, ("tombstone", owner.epoch, ()))
        case "check tombstone":
            going = stopped if fenced and variant != "tombstone without check" else going
            if going is not stopped:
                world = replace(world, deleted=max(world.deleted, owner.epoch))
        case "remove":
            doomed = sorted(each for each in world.things if each[1] < owner.epoch)
            going = replace(going, doomed=tuple(doomed))
    if not going.script:
        going = Owner(script=())  # what it knew makes no difference any more
    owners = (*world.owners[:number], going, *world.owners[number + 1 :])
    return replace(world, owners=owners)


def is_misled(reader: Owner) -> bool:
    history = reader.history
    start = history[0][0] if history and history[0][1] < 0 else 0
    told = {frame for frame in reader.promised if frame[0] > start}
    return start < reader.epoch or not told <= set(history)


def of_kinds(world: World, *kinds: Kind) -> frozenset[Thing]:
    return frozenset(each for each in world.things if each[0] in kinds)


def after_trace(world: World, owner: Owner, listed: frozenset[Thing], variant: Variant) -> Owner:
    end = newest_end(listed, variant)
    try:
        kept = trace(listed, end, world.things)
    except MissingError:  # it lists again
        return replace(owner, script=("list", "trace", *owner.script), listed=frozenset())
    history = history_of(listed, end)
    return replace(owner, history=history, kept=frozenset(kept), listed=frozenset())


def replaced(world: World, owner: Owner) -> tuple[Thing, ...]:
    """What the compacted object stands for, and what is left of others."""
    covered = len(owner.history)
    return tuple(
        each
        for each in sorted(world.things)
        if each[1] < owner.epoch
        or (each[0] == "segment" and each[1] == owner.epoch and len(each[2]) <= covered)
        or (each[0] == "compacted" and each[1] == owner.epoch and len(each[2]) < covered)
    )


def orphans(world: World, owner: Owner) -> tuple[Thing, ...]:
    old = (each for each in sorted(world.things) if each[1] < owner.epoch)
    return tuple(each for each in old if each not in owner.kept)


def broken_promise(world: World, variant: Variant) -> str | None:
    if world.misled:
        return "a reader took less than was told for the whole"
    try:
        history = read(world, variant)
    except MissingError:
        return "a reader finds that something is missing"
    start = history[0][0] if history and history[0][1] < 0 else 0
    if start < world.deleted:
        return "what was deleted is back"
    told = [frame for frame in world.told if frame[0] > start]
    if [frame for frame in history if frame in set(told)] != told:
        return "an acknowledged event is lost or out of order"
    return None


TAKE = ("claim", "list", "trace")
FLUSH = ("write", "check write")
SWEEP = ("sweep", "delete")
COMPACT = ("put compacted", "check compacted", "replace", "delete")
CHECK_FIRST = ("check compacted", "put compacted", "replace", "delete")
DELETE = ("claim", "put tombstone", "check tombstone", "remove", "delete")


def owner_of(*parts: tuple[str, ...]) -> Owner:
    return Owner(script=tuple(step for part in parts for step in part))


def explore(owners: tuple[Owner, ...], variant: Variant) -> tuple[int, str | None]:
    """Visit every state breadth first; return how many, and the first broken promise."""
    start = World(owners=owners)
    seen = {start}
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        if broken := broken_promise(world, variant):
            return len(seen), broken
        for successor in successors(world, variant):
            if successor not in seen:
                seen.add(successor)
                waiting.append(successor)
    return len(seen), None


TAKER = owner_of(TAKE, FLUSH, SWEEP, FLUSH)
COMPACTOR = owner_of(TAKE, FLUSH, FLUSH, COMPACT, FLUSH)
SHORT = owner_of(TAKE, FLUSH, COMPACT)
HASTY = owner_of(TAKE, FLUSH, FLUSH, CHECK_FIRST)
EAGER = owner_of(TAKE, SWEEP, FLUSH)
DELETER = owner_of(DELETE)
HEIR = owner_of(TAKE, FLUSH, SWEEP)
WRITER = owner_of(TAKE, FLUSH)
READER = owner_of(("look", "list", "trace", "believe"))

CASES = {
    "two that compact": (COMPACTOR, COMPACTOR),
    "one that compacts, then two heirs": (COMPACTOR, HEIR, SHORT),
    "a reader beside two that compact": (COMPACTOR, SHORT, READER),
    "a deletion between one that compacts and a heir": (SHORT, DELETER, HEIR),
    "a reader beside a deletion and a heir": (WRITER, DELETER, WRITER, READER),
}


@pytest.mark.parametrize("case", CASES)
def test_no_interleaving_and_no_crash_loses_or_revives_anything(case: str) -> None:
    states, broken = explore(CASES[case], "right")
    assert broken is None
    assert states > 1_000


@pytest.mark.parametrize(
    ("variant", "owners"),
    [
        pytest.param("no check before delete", (COMPACTOR, TAKER), id="no check before delete"),
        pytest.param("right", (HASTY, HEIR), id="check before put"),
        pytest.param("tip without epoch", (COMPACTOR, TAKER), id="tip without epoch"),
        pytest.param("tip ignores what is covered", (COMPACTOR,), id="tip ignores the covered"),
        pytest.param("compacted listed first", (COMPACTOR, READER), id="compacted listed first"),
        pytest.param("right", (WRITER, EAGER, HEIR), id="sweep before flush"),
        pytest.param("tombstone without check", (WRITER, DELETER, HEIR), id="unchecked deletion"),
        pytest.param("tombstone hides all below", (WRITER, DELETER, HEIR), id="hiding tombstone"),
    ],
)
def test_the_check_catches_a_protocol_with_a_step_wrong(
    variant: Variant, owners: tuple[Owner, ...]
) -> None:
    _, broken = explore(owners, variant)
    assert broken is not None
