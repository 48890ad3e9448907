"""Refs of users: whatever is behind one is stored once, and loaded once, per workflow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import ray

import milepost
from milepost.engine.parcels import MESSAGE_BYTES_MAX
from milepost.journal import open_store

HOLDERS = 60


class Noted:
    """A large value that writes to a ledger when it is pickled, and when it comes back."""

    def __init__(self, ledger: Path, content: bytes) -> None:
        self.ledger = ledger
        self.content = content

    def __reduce__(self) -> Any:
        note(self.ledger, "pickled")
        return restore, (self.ledger, self.content)


def restore(ledger: Path, content: bytes) -> Noted:
    note(ledger, "unpickled")
    return Noted(ledger, content)


def note(ledger: Path, what: str) -> None:
    with ledger.open("a") as file:
        file.write(f"{what}\n")


@ray.remote
def make(ledger: Path) -> Any:
    return {"made": ray.put(Noted(ledger, b"m" * 200_000))}


@ray.remote
def hold(box: Any, number: int) -> Any:
    return [box, number]


@ray.remote
def count(*held: Any) -> Any:
    """How many different refs there are, and what is behind them."""
    refs = Counter(box["made"].hex() if isinstance(box, dict) else box[0].hex() for box, _ in held)
    first: Any = held[0][0]
    (ref,) = first.values() if isinstance(first, dict) else first
    behind: Any = ray.get(ref)
    return len(refs), len(behind.content)


def test_a_ref_in_many_arguments_and_results_is_stored_once_and_loaded_once(
    storage: Path, workflow_id: str, ledger: Path
) -> None:
    ref = ray.put(Noted(ledger, b"g" * 200_000))
    dag = count.bind(*[hold.bind([ref], number) for number in range(HOLDERS)])
    assert milepost.run(dag, workflow_id=workflow_id) == (1, 200_000)
    noted = Counter(ledger.read_text().split())
    # By ray.put here, for the blob, and by the one task that loads it from there.
    assert noted["pickled"] == 3
    # By the driver for the blob, from the blob, and by the last task.
    assert noted["unpickled"] == 3
    assert len(blobs_of(storage, workflow_id)) == 1


def test_a_ref_that_a_task_made_is_stored_once_however_many_return_it(
    storage: Path, workflow_id: str, ledger: Path
) -> None:
    made = make.bind(ledger)
    dag = count.bind(*[hold.bind(made, number) for number in range(HOLDERS)])
    assert milepost.run(dag, workflow_id=workflow_id) == (1, 200_000)
    noted = Counter(ledger.read_text().split())
    assert noted["pickled"] == 3
    assert len(blobs_of(storage, workflow_id)) == 1


def test_an_argument_larger_than_a_message_is_a_blob_like_any_other(
    storage: Path, workflow_id: str
) -> None:
    array = np.arange(MESSAGE_BYTES_MAX // 2)

    @ray.remote
    def add_up(rows: Any) -> int:
        return int(rows.sum())

    assert milepost.run(add_up.bind(array), workflow_id=workflow_id) == int(array.sum())
    assert len(blobs_of(storage, workflow_id)) == 1


def blobs_of(storage: Path, workflow_id: str) -> list[str]:
    stored = open_store(str(storage)).list(f"blobs/{workflow_id}/")
    return [each.key for each in stored]
