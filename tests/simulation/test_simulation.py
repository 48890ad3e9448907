"""The simulation: promises hold under every seed, one seed makes one trace, and it has teeth.

Guards that no play of a few hundred seeds misses have model checks: what a reader asks before it
tells, for instance, is in ``tests/journal/test_ownership_model.py``.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from faulty_store import Disk
from milepost.engine import host, inquiries
from milepost.engine.admission import Admission
from milepost.errors import LostOwnershipError
from milepost.journal import claim, states, writer
from milepost.journal.claim import claim_epoch
from milepost.journal.reader import JournalWalk
from milepost.replay.decide import RunSlice
from play import play

decide = import_module("milepost.replay.decide")
fold = import_module("milepost.replay.fold")  # the packages show functions of the same names

SEEDS = 300
SEEDS_PER_TEST = 25

FOUND: dict[int, str] = {
    4: "a cluster told the result of a deleted workflow whose id was used again: it remembered it",
    393: "a power cut brought back a compacted journal that had been deleted, without its claim",
    937: "readers made an end certain in turns, and each one's claim was the next one's doubt",
    1261: "an owner whose last flush hung told RUNNING after a reader had told SUCCESSFUL",
}
"""Seeds that broke a promise once, and how. The generator of plays may have changed since, so each
finding has a test of its own as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_promise_is_broken_whatever_the_weather(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        play(seed)


@pytest.mark.parametrize("seed", sorted(FOUND))
def test_what_was_found_once_stays_mended(seed: int) -> None:
    play(seed)


def test_one_seed_makes_one_trace() -> None:
    """In another process, with other hashes, too: no set, no clock and no thread decides."""
    script = "import logging; logging.disable(50)\n"
    script += "from play import play\nfor seed in range(12): print(play(seed).digest)"
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.splitlines()
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(set(told[0])) == 12


def never(*given: Any, **named: Any) -> None:
    """Stands for a guard that is gone."""


async def never_async(*given: Any, **named: Any) -> None:
    """Likewise."""


def _claim_after_reading(store: Any, workflow_id: str, **named: Any) -> Any:
    """Reads first, and then claims."""
    walk = JournalWalk(store, workflow_id, settle=True)
    for frame in walk:
        named["on_frame"](frame)
    assert walk.tip is not None
    taken = claim_epoch(store, workflow_id, named["owner"])
    return writer.JournalWriter(store, workflow_id, taken, walk.tip)


def _adopt_without_syncing(self: Disk, key: str) -> int:
    return len(self._objects[key])


def _require_only_the_own_claim(store: Any, workflow_id: str, own: Any) -> None:
    """Compares no epochs."""
    if own not in claim.list_claims(store, workflow_id, own.epoch):
        raise LostOwnershipError(workflow_id, own.epoch, own.epoch)


@contextmanager
def _commit_as_often_as_reported() -> Iterator[None]:
    """Neither the decision nor the fold asks whether an attempt is still to be reported."""
    with (
        patch.object(decide, "_drop_settled", lambda state, report, outstanding: report),
        patch.object(fold, "_require_outstanding", never),
    ):
        yield


GUARDS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "look at the claims after a write": lambda: patch.object(writer, "require_ownership", never),
    "a later epoch is a loss": lambda: patch.object(
        writer, "require_ownership", _require_only_the_own_claim
    ),
    "commit once": _commit_as_often_as_reported,
    "claim before reading": lambda: patch.object(states, "take_ownership", _claim_after_reading),
    "look at the claims after a claim": lambda: patch.object(claim, "_rivals", lambda *given: []),
    "sync what another owner left": lambda: patch.object(Disk, "settle", _adopt_without_syncing),
    "durable before it is told": lambda: patch.object(host.WorkflowHost, "sync", never_async),
    "what is remembered may be of a deleted workflow": lambda: patch.object(
        inquiries, "is_settled", lambda *given: True
    ),
    "reports that come twice": lambda: patch.object(
        decide, "_drop_settled", lambda state, report, outstanding: report
    ),
    "no more run than may": lambda: patch.object(Admission, "_has_room", lambda self: True),
    "a listener is told of what is durable": lambda: patch.object(
        decide, "RunSlice", lambda **given: RunSlice(**{**given, "sync_first": False})
    ),
    "attempts of former owners are lost": lambda: patch.object(fold, "_make_ready", never),
}


@pytest.mark.parametrize("guard", sorted(GUARDS))
def test_a_guard_that_is_removed_is_missed(guard: str) -> None:
    with GUARDS[guard]():
        for seed in range(SEEDS):
            try:
                play(seed)
            except Exception:  # noqa: BLE001  a broken promise, or the engine noticed by itself
                return
    raise AssertionError(f"without this guard nothing was noticed: {guard}")
