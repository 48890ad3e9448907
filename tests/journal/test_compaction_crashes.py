"""A crash before, in or after every mutating call of compactions, takeovers and deletions.

After each, the next owner finds everything that was acknowledged, goes on, tidies up, and leaves
nothing behind that does not belong to the journal. The table is printed by ``pytest -s``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgpack
import pytest

from milepost.errors import WorkflowNotFoundError
from milepost.journal import (
    Compactor,
    JournalWriter,
    MemoryStore,
    Store,
    delete_workflow,
    put_blob,
    read_journal,
    take_ownership,
)
from milepost.journal.store import Appender, Part
from tallies import Tallies

When = Literal["before", "torn", "after"]


class PowerCutError(Exception):
    """The process is gone; no code of the library may catch this and go on."""


class DyingStore(MemoryStore):
    """Counts its mutating calls and dies at one of them; a deletion of each key is one call.

    What is written before a sync may be gone after a power cut: "torn" keeps half of it.
    """

    def __init__(self, *, appendable: bool, dies_at: int = 0, when: When = "before") -> None:
        super().__init__(appendable=appendable)
        self.calls: list[str] = []
        self.dies_at = dies_at
        self.when = when
        self.dead = False

    def survivors(self) -> MemoryStore:
        """What the next process finds."""
        store = MemoryStore(appendable=self.appendable)
        for key, content in self._objects.items():
            store.put(key, [bytes(content)])
        return store

    def mutate(self, call: str) -> When | None:
        """Count a call; tells whether and how to die at it."""
        if self.dead:
            raise PowerCutError
        self.calls.append(call)
        if len(self.calls) != self.dies_at:
            return None
        self.dead = True
        if self.when == "before":
            raise PowerCutError
        return self.when

    def put(self, key: str, parts: Sequence[Part]) -> None:
        death = self.mutate(f"put {kind_of(key)}")
        if death != "torn":  # a put is atomic: torn, it leaves nothing
            super().put(key, parts)
        if death:
            raise PowerCutError

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            death = self.mutate(f"delete {kind_of(key)}")
            super().delete([key])
            if death:
                raise PowerCutError

    def append(self, key: str) -> Appender | None:
        if not self.appendable:
            return None
        death = self.mutate("create segment")
        appender = super().append(key)
        if death:
            raise PowerCutError
        assert appender is not None
        return DyingAppender(self, appender)


class DyingAppender:
    def __init__(self, store: DyingStore, appender: Appender) -> None:
        self._store = store
        self._appender = appender

    def write(self, parts: Sequence[Part]) -> None:
        death = self._store.mutate("append")
        whole = b"".join(parts)
        self._appender.write([whole[: len(whole) // 2] if death == "torn" else whole])
        if death:
            raise PowerCutError

    def sync(self) -> None:
        if self._store.mutate("sync"):
            raise PowerCutError

    def close(self) -> None:
        self._appender.close()


def kind_of(key: str) -> str:
    """Name the kind of an object by its folder."""
    if key.startswith("blobs/"):
        return "blob"
    return "tombstone" if key.endswith(".tombstone") else key.split("/")[2].rstrip("s")


@dataclass
class Told:
    """What somebody outside was told."""

    events: list[bytes] = field(default_factory=list)
    deleted: bool = False
    deleting: bool = False


def read_events(store: Store) -> list[bytes]:
    try:
        return [event for frame in read_journal(store, "w") for event in frame.events()]
    except WorkflowNotFoundError:
        return []


def own(store: Store, owner: str) -> tuple[JournalWriter, Compactor]:
    writer = take_ownership(store, "w", owner=owner)
    return writer, Compactor(writer, segments_max=2, segment_bytes_max=400)


def run(store: Store, told: Told, owner: str, flushes: int, *, end: bool) -> None:
    writer, compactor = own(store, owner)
    put_blob(store, "w", writer.incarnation, [owner.encode()])
    for number in range(flushes):
        events = [msgpack.packb([owner, number, "text" * 9])]
        writer.flush(events)
        told.events += events
        compactor.run()
    if end:
        compactor.run(last=True)
    writer.close()


def delete(store: Store, told: Told) -> None:
    told.deleting = True
    delete_workflow(store, "w", owner="deleter")
    told.deleted = True


def several_compactions(store: Store, told: Told) -> None:
    run(store, told, "one", 12, end=False)


def compaction_at_the_end(store: Store, told: Told) -> None:
    run(store, told, "one", 5, end=True)


def takeovers(store: Store, told: Told) -> None:
    run(store, told, "one", 4, end=False)
    run(store, told, "two", 3, end=True)
    run(store, told, "three", 2, end=True)


def deletion(store: Store, told: Told) -> None:
    run(store, told, "one", 5, end=False)
    run(store, told, "two", 2, end=False)
    delete(store, told)


def deletion_and_a_new_workflow(store: Store, told: Told) -> None:
    run(store, told, "one", 6, end=True)
    delete(store, told)
    told.events, told.deleted, told.deleting = [], False, False
    run(store, told, "new", 6, end=True)


PROGRAMS: list[Callable[[Store, Told], None]] = [
    several_compactions,
    compaction_at_the_end,
    takeovers,
    deletion,
    deletion_and_a_new_workflow,
]


def crash(
    program: Callable[[Store, Told], None], appendable: bool, at: int, when: When
) -> tuple[DyingStore, Told]:
    store, told = DyingStore(appendable=appendable, dies_at=at, when=when), Told()
    try:
        program(store, told)
    except PowerCutError:
        assert store.dead
    return store, told


@pytest.mark.parametrize("appendable", [True, False], ids=["appends", "objects"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_crash_at_any_call_loses_nothing_and_leaves_nothing(
    program: Callable[[Store, Told], None], appendable: bool, tallies: Tallies
) -> None:
    whole, _ = crash(program, appendable, 0, "before")
    calls = whole.calls
    assert {"put compacted", "delete compacted"} & set(calls)
    outcomes: Counter[str] = Counter()
    for at in range(1, len(calls) + 1):
        for when in get_args(When):
            store, told = crash(program, appendable, at, when)
            outcomes[recover(store.survivors(), told)] += 1
    assert sum(outcomes.values()) == 3 * len(calls)
    place = "appends" if appendable else "objects"
    row = f"{program.__name__}, {place}"
    tallies.add(
        "crash before, in, after each call", row, crashes=3 * len(calls), lost=0, **outcomes
    )


def recover(store: MemoryStore, told: Told) -> str:
    found = read_events(store)
    if told.deleted:
        assert found == []
    elif told.deleting:
        assert found in ([], told.events)
    else:
        assert found[: len(told.events)] == told.events
        assert len(found) <= len(told.events) + 1
    heir, compactor = own(store, "heir")
    put_blob(store, "w", heir.incarnation, [b"of the heir"])
    heir.flush([b"\x2a"])
    compactor.run()
    assert read_events(store) == [*found, b"\x2a"]
    require_tidy(store, heir)
    compactor.run(last=True)
    assert read_events(store) == [*found, b"\x2a"]
    require_tidy(store, heir)
    heir.close()
    return (
        "recovered" if found == told.events else "gone" if not found else "recovered and one more"
    )


def require_tidy(store: MemoryStore, writer: JournalWriter) -> None:
    """Every object is part of the journal, a claim, or a blob of this incarnation."""
    used = {frame.file for frame in read_journal(store, "w")}
    stored = [each.key for each in store.list("")]
    pieces = [key for key in stored if kind_of(key) in ("segment", "compacted", "tombstone")]
    assert set(pieces) == used
    blobs = [key for key in stored if kind_of(key) == "blob"]
    assert all(f"/{writer.incarnation:010d}/" in key for key in blobs)


@pytest.mark.parametrize("appendable", [True, False], ids=["appends", "objects"])
def test_an_interrupted_deletion_is_finished_by_the_next(appendable: bool) -> None:
    whole, _ = crash(deletion, appendable, 0, "before")
    first = whole.calls.index("put tombstone") + 1
    for at in range(first, len(whole.calls) + 1):
        dying, _ = crash(deletion, appendable, at, "after")
        store = dying.survivors()
        assert read_events(store) == []
        pieces = [
            each for each in store.list("") if kind_of(each.key) not in ("claim", "tombstone")
        ]
        if pieces:
            delete_workflow(store, "w", owner="again")
        else:
            with pytest.raises(WorkflowNotFoundError):
                delete_workflow(store, "w", owner="again")
        left = Counter(kind_of(each.key) for each in store.list(""))
        assert not pieces or left == {"claim": 1, "tombstone": 1}
        assert set(left) == {"claim", "tombstone"}
