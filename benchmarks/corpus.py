"""The frames of many made-up workflows: what the dictionary is trained on, and what tests it.

Another seed gives other workflows of the same kinds: those to train on and those to measure with
have nothing in common but how journals are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from milepost.journal import MemoryStore, read_journal
from milepost.replay.fragment import Fragment
from milepost.replay.payload import Payload, inline
from rehearsal import Rehearsal, plain, small_integer
from shapes import chain, fan, layers, make_environment, single

IDS = ("nightly-{}", "{:08x}", "order-{}", "train/{}", "user.{}")


def make_frames(seed: int, workflows: int) -> Iterator[bytes]:
    """Runs made-up workflows and gives what their frames hold, uncompressed.

    Args:
        seed: Decides everything.
        workflows: How many.

    Yields:
        The events of one frame.
    """
    rng = random.Random(seed)
    for number in range(workflows):
        store = MemoryStore(str(number))
        workflow_id = rng.choice(IDS).format(rng.randrange(10**6))
        rehearse(store, workflow_id, rng)
        for frame in read_journal(store, workflow_id):
            yield frame.raw


def rehearse(store: MemoryStore, workflow_id: str, rng: random.Random) -> None:
    """Runs one workflow of a kind that chance decides."""
    told = Rehearsal(
        store,
        workflow_id,
        seed=rng.getrandbits(64),
        result=rng.choice((small_integer, small_integer, _some_value)),
        workers=rng.choice((1, 2, 4, 16)),
        task_us=rng.choice((20, 300, 5_000, 1_000_000)),
    )
    told.create(_shape(rng), make_environment(rng), strict=rng.random() < 0.2)
    told.run(
        reports_per_flush=rng.choice((1, 1, 1, 3, 20)),
        reports_max=rng.choice((10**9, 10**9, 10)),
        tasks_per_slice=rng.choice((1, 1, 1, 10, 500)),
        failure=rng.choice((0.0, 0.0, 0.1)),
        loss=rng.choice((0.0, 0.0, 0.02)),
        continuation=single if rng.random() < 0.5 else None,
        continuations_max=rng.randrange(4),
    )
    told.close()
    if rng.random() < 0.2 and told.state.result is None:
        told.take_over()
        told.run()
        told.close()


def _shape(rng: random.Random) -> Fragment:
    size = rng.choice((2, 5, 20, 60))
    return rng.choice(
        (
            lambda: single(rng),
            lambda: chain(rng, size),
            lambda: fan(rng, size),
            lambda: fan(rng, size * 10),
            lambda: layers(rng, 4, size),
        )
    )()


def _some_value(rng: random.Random, task: int) -> Payload:
    """Returns what tasks return besides small integers."""
    kind = rng.randrange(6)
    if kind == 0:
        return plain(None)
    if kind == 1:
        return plain({"name": f"item-{task}", "score": rng.random(), "ok": True})
    if kind == 2:
        return plain([rng.randrange(1000) for _ in range(5)])
    if kind == 3:
        return Payload(encoding=2, digest=rng.randbytes(32), size=rng.randrange(10**5, 10**8))
    if kind == 4:
        pickled = b"\x80\x05\x95\x20\x00\x00\x00\x00\x00\x00\x00\x8c\x08__main__\x94\x8c\x06Record"
        return inline(
            1, pickled + b"\x94\x93\x94)\x81\x94}\x94\x8c\x01x\x94K%cs\x62." % (task % 256)
        )
    return plain(f"result of {task}")
