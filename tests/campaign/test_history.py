"""A campaign's history is what the ledger and the journals say."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from campaign.history import read_record, read_stored
from campaign.ledger import Line, Reader, execution, write
from milepost.engine.context import TaskContext, current_task
from milepost.journal import MemoryStore
from milepost.journal.layout import claims_folder
from rehearsal import Rehearsal
from shapes import fan, make_environment, single

WIDTH = 12


@pytest.fixture
def store() -> MemoryStore:
    """Holds a workflow of two owners, in which tasks failed and went on with continuations."""
    store, rng = MemoryStore("test"), random.Random(7)
    told = Rehearsal(store, "w", seed=3)
    told.create(fan(rng, WIDTH), make_environment(rng))
    told.run(reports_max=WIDTH // 2, tasks_per_slice=1)
    told.take_over()
    told.run(tasks_per_slice=1, loss=0.15, continuation=single, continuations_max=2)
    told.close()
    return store


def test_commits_are_told_with_their_tasks_attempts_and_owners(store: MemoryStore) -> None:
    stored = read_stored(store, "w")
    assert (stored.status, stored.epochs, stored.claims) == ("SUCCESSFUL", [1, 2], 2)
    assert isinstance(stored.result, int)
    assert stored.faults == []
    extended = [commit.task for commit in stored.commits if commit.extended]
    assert len(extended) == 2
    tasks = {commit.task for commit in stored.commits}
    assert len(tasks) == len(stored.commits) == WIDTH + 1 + 2
    assert {commit.epoch for commit in stored.commits} == {1, 2}
    assert max(commit.attempt for commit in stored.commits) > 1


def test_what_verify_finds_is_told(store: MemoryStore) -> None:
    claim = store.list(claims_folder("w"))[0]
    store.delete([claim.key])
    assert [fault for fault in read_stored(store, "w").faults if "claim is not there" in fault]


def test_a_journal_that_cannot_be_read_is_a_fault(store: MemoryStore) -> None:
    for each in store.list("workflows/"):
        if "/claims/" not in each.key:
            content = bytearray(store.get(each.key))
            content[len(content) // 2] ^= 1
            store.put(each.key, [bytes(content)])
    assert read_stored(store, "w").faults


def test_a_claim_without_a_journal_is_no_workflow(store: MemoryStore) -> None:
    store.put(f"{claims_folder('v')}{1:010d}.{'0' * 16}", [b""])
    assert set(read_record([], store).stored) == {"w"}


def context(attempt: int) -> TaskContext:
    return TaskContext(workflow_id="w", incarnation=1, task_id="t", attempt=attempt, epoch=4)


def run(ledger: Path, attempt: int, error: Exception | None = None) -> None:
    token = current_task.set(context(attempt))
    try:
        with execution(str(ledger)):
            if error is not None:
                raise error
    finally:
        current_task.reset(token)


def test_executions_are_told_with_how_they_ended(tmp_path: Path, store: MemoryStore) -> None:
    ledger = tmp_path / "ledger"
    with pytest.raises(KeyError):
        run(ledger, 1, KeyError())
    run(ledger, 2)
    write(str(ledger), "begin", **begun_fields(3))
    write(str(ledger), "result", workflow="w", value=3)
    record = read_record(Reader(ledger).read(), store)
    told = [(e.attempt, e.epoch, e.outcome, e.ended_ns is None) for e in record.executions]
    assert told == [(1, 4, "raised", False), (2, 4, "returned", False), (3, 4, "", True)]
    assert [each.place for each in record.executions] == [0, 2, 4]
    assert [(line.what, line["value"], line.pid) for line in record.lines] == [
        ("result", 3, os.getpid())
    ]


def begun_fields(attempt: int) -> dict[str, object]:
    fields = {"workflow": "w", "incarnation": 1, "task": "t", "attempt": attempt, "epoch": 4}
    return fields | {"token": f"of {attempt}"}


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    ledger, line = tmp_path / "ledger", json.dumps({"what": "x", "at_ns": 5, "pid": 6, "more": 7})
    reader = Reader(ledger)
    assert reader.read() == []
    ledger.write_text(f"{line}\n{line[:9]}")
    assert reader.read() == [Line(place=0, what="x", at_ns=5, pid=6, fields={"more": 7})]
    ledger.write_text(f"{line}\n{line}\n")
    assert [each.place for each in reader.read()] == [1]
