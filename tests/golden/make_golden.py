"""Makes the golden journals of the present format: ``python tests/golden/make_golden.py``.

Each story is a small store of its own below ``v1``, with what it must replay to in
``v1/expected.json``. Once a version is released its folder never changes; until then this command
makes it anew. A further story is one more function in ``STORIES``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgpack

FOLDER = Path(__file__).parent / "v1"
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from milepost.errors import LostOwnershipError  # noqa: E402
from milepost.journal import (  # noqa: E402
    Compactor,
    LocalStore,
    open_store,
    put_blob,
    read_journal,
)
from milepost.journal.claim import claim_epoch  # noqa: E402
from milepost.journal.dictionary import NO_DICTIONARY  # noqa: E402
from milepost.journal.frame import CHAIN_START, encode_frames  # noqa: E402
from milepost.journal.layout import SegmentName, segments_folder  # noqa: E402
from milepost.journal.segment import SegmentHead, encode_segment_head  # noqa: E402
from milepost.journal.states import load_state, own_state  # noqa: E402
from milepost.replay.codec import decode, encode  # noqa: E402
from milepost.replay.events import Noted, OwnershipTaken, WorkflowCreated  # noqa: E402
from milepost.replay.fragment import Fragment  # noqa: E402
from milepost.replay.payload import Payload  # noqa: E402
from rehearsal import Rehearsal, Result, small_integer  # noqa: E402  found by the line above
from shapes import chain, fan, make_environment, make_graph, single  # noqa: E402

WORKFLOW_ID = "golden/é"
"""One that shows how ids are encoded."""


def start(
    store: LocalStore, make: Callable[[random.Random], Fragment], result: Result = small_integer
) -> Rehearsal:
    """Creates a workflow."""
    told = Rehearsal(store, WORKFLOW_ID, seed=1, result=result)
    rng = random.Random(1)
    told.create(make(rng), make_environment(rng))
    return told


def simple(store: LocalStore) -> None:
    """One task."""
    start(store, single).run()


def fan_out(store: LocalStore) -> None:
    """Thirty tasks in slices, two reports per frame, and one task that takes them all."""
    start(store, lambda rng: fan(rng, 30)).run(tasks_per_slice=5, reports_per_flush=2)


def continuation(store: LocalStore) -> None:
    """Tasks that return more tasks."""
    start(store, single).run(continuation=lambda rng: chain(rng, 3), continuations_max=2)


def failure(store: LocalStore) -> None:
    """Every attempt fails until the workflow does; a resume, a dead worker, and success."""

    def stubborn(rng: random.Random) -> Fragment:
        fragment = fan(rng, 4)
        return replace(fragment, options=(replace(fragment.options[0], max_retries=1),))

    told = start(store, stubborn)
    told.run(failure=1.0)
    told.resume()
    told.run(loss=1.0, reports_max=1)
    told.run()


def takeover(store: LocalStore) -> None:
    """Three owners: a torn end, bytes that a fenced owner wrote too late, a torn end at the end."""
    told = start(store, lambda rng: chain(rng, 6))
    told.run(reports_max=2, tasks_per_slice=1)
    zombie = told.writer
    tear(store, epoch=1)
    told.take_over()
    told.run(reports_max=2, tasks_per_slice=1)
    with suppress(LostOwnershipError):
        zombie.flush([encode(Noted(text="too late", who="zombie", at_us=told.at_us))])
    told.take_over()
    told.run()
    tear(store, epoch=3)


def tear(store: LocalStore, epoch: int) -> None:
    """Leaves a part of a frame's head at the end of an owner's segment, as a crash does."""
    folder = Path(store.root, segments_folder(WORKFLOW_ID))
    (file,) = folder.glob(f"{epoch:010d}.*")
    last = [frame for frame in read_journal(store, WORKFLOW_ID) if frame.epoch == epoch][-1]
    content = file.read_bytes()[last.offset : last.end]
    with file.open("ab") as segment:
        segment.write(content[:40])


def without_dictionary(store: LocalStore) -> None:
    """The first segment is whole and names no dictionary; its successor names one."""
    draft = LocalStore(store.root + ".draft")
    start(draft, lambda rng: fan(rng, 5)).run(reports_max=2, tasks_per_slice=2)
    batches = [frame.events() for frame in read_journal(draft, WORKFLOW_ID)]
    shutil.rmtree(draft.root)
    claim = claim_epoch(store, WORKFLOW_ID, "by hand")
    journal_id, seq, chained, parts = os.urandom(16), 0, CHAIN_START, []
    for events in batches:
        (frame,) = encode_frames(
            events,
            journal_id=journal_id,
            epoch=claim.epoch,
            first_seq=seq,
            chain=chained,
            dictionary=NO_DICTIONARY,
        )
        seq, chained = frame.next_seq, frame.chain
        parts += [frame.head, frame.payload]
    name = SegmentName(claim.epoch, 0, claim.nonce)
    head = SegmentHead(
        name=name,
        journal_id=journal_id,
        first_seq=0,
        parent=None,
        whole_bytes=108 + sum(map(len, parts)),
        dictionary=NO_DICTIONARY,
    )
    store.put(segments_folder(WORKFLOW_ID) + str(name), [encode_segment_head(head), *parts])
    told = Rehearsal(store, WORKFLOW_ID, seed=1)
    told.take_over()
    told.run()


def blobs(store: LocalStore) -> None:
    """Results beside the journal, one that is compressed and one that is not."""

    def result(rng: random.Random, task: int) -> Payload:
        content = rng.randbytes(2000) if task else b"again and again " * 1000
        digest, size = put_blob(store, WORKFLOW_ID, 1, [content])
        return Payload(encoding=1, digest=bytes.fromhex(digest), size=size)

    start(store, lambda rng: chain(rng, 2), result).run()


def compacted(store: LocalStore) -> None:
    """Two owners' segments in one object, and behind it an owner that made the end certain."""
    told = start(store, lambda rng: fan(rng, 60))
    told.run(reports_max=20, tasks_per_slice=2)
    told.take_over()
    told.run()
    Compactor(told.writer).run(last=True)
    _, writer = own_state(store, WORKFLOW_ID, "a reader")
    taken = OwnershipTaken(epoch=writer.epoch, owner="a reader", reason="certain", at_us=told.at_us)
    writer.flush([encode(taken)])
    writer.close()


def waits(store: LocalStore) -> None:
    """Tasks that wait for a time, an event, two of three tasks, and for the one that was left."""

    def graph(rng: random.Random) -> Fragment:
        return make_waiting(
            make_graph(rng, [(), (), (), (0, 1, 2), (3,)]),
            {0: ("time", [3.5]), 1: ("event", ["approved"]), 3: ("tasks", [2, None])},
        )

    def rest(rng: random.Random) -> Fragment:
        (name, *_) = told.state.graph.names
        return make_waiting(make_graph(rng, [(), (0,)]), {0: ("task", [name])})

    told = start(store, graph)
    told.run()
    told.receive("approved")
    told.take_over()
    told.at_us += 2**24
    told.run(continuation=rest, continuations_max=1)


def make_waiting(fragment: Fragment, waits: dict[int, tuple[str, list[object]]]) -> Fragment:
    """Returns a graph some of whose nodes wait, each for what is said here."""
    ordinary, *_ = fragment.options
    kinds = sorted({kind for kind, _ in waits.values()})
    templates = [msgpack.packb([arguments, {}]) for _, arguments in waits.values()]
    options, called = list(fragment.node_options), list(fragment.node_templates)
    for place, (node, (kind, _)) in enumerate(waits.items()):
        options[node] = 1 + kinds.index(kind)
        called[node] = len(fragment.templates) + place
    return replace(
        fragment,
        options=(ordinary, *(replace(ordinary, waits_for=kind) for kind in kinds)),
        templates=(*fragment.templates, *templates),
        node_options=tuple(options),
        node_templates=tuple(called),
    )


def maps(store: LocalStore) -> None:
    """Maps of numbers, of chunks and of a map's values; items that fail, are lost, come back."""
    retell(store, "replay-v1-maps.json")


def retries(store: LocalStore) -> None:
    """Tasks and items that are put off, a time-out and a lost node, two clocks that differ."""
    retell(store, "replay-v1-retries.json")


def retell(store: LocalStore, name: str) -> None:
    """Writes the events of a journal of the replayer's golden files, each owner its own."""
    folder = Path(__file__).parent
    rows = json.loads((folder / name).read_text(encoding="utf-8"))
    told = [decode(bytes.fromhex(row["event"])) for row in rows]
    taken = [at for at, event in enumerate(told) if isinstance(event, OwnershipTaken)]
    assert isinstance(told[0], WorkflowCreated)
    events = [encode(event) for event in (replace(told[0], workflow_id=WORKFLOW_ID), *told[1:])]
    for start, end in ((0, taken[1]), (taken[1], len(events))):
        _, writer = own_state(store, WORKFLOW_ID, f"owner {start}")
        for at in range(start, end, 3):
            writer.flush(events[at : min(at + 3, end)])
        writer.close()


STORIES = (
    *(simple, fan_out, continuation, failure, takeover, without_dictionary, blobs, compacted),
    *(waits, maps, retries),
)


def main() -> None:
    """Makes the stories that are named, or all; what was released is never made again."""
    file = FOLDER / "expected.json"
    expected = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for story in STORIES:
        if sys.argv[1:] and story.__name__ not in sys.argv[1:]:
            continue
        shutil.rmtree(FOLDER / story.__name__, ignore_errors=True)
        store = open_store(FOLDER / story.__name__)
        assert isinstance(store, LocalStore)
        story(store)
        state = load_state(store, WORKFLOW_ID)
        expected[story.__name__] = {
            "workflow_id": WORKFLOW_ID,
            "events": state.next_seq,
            "epoch": state.epoch,
            "status": state.status,
            "digest": state.digest(),
        }
        print(f"{story.__name__:20} {state.status} {state.next_seq} events, epoch {state.epoch}")
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
