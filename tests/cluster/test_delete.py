"""Deleting workflows: gone for everybody, and the id starts anew."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import ray

import milepost
from milepost import errors


@ray.remote
def make(value: int) -> np.ndarray:
    return np.full(100_000, value)


@ray.remote
def slow() -> int:
    time.sleep(2)
    return 1


def test_a_deleted_workflow_is_gone_and_its_id_starts_anew(workflow_id: str, storage: Path) -> None:
    assert milepost.run(make.bind(1), workflow_id=workflow_id)[0] == 1
    milepost.delete(workflow_id)
    assert workflow_id not in dict(milepost.list_all())
    for call in (milepost.get_status, milepost.get_output, milepost.delete):
        with pytest.raises(errors.WorkflowNotFoundError):
            call(workflow_id)
    with pytest.raises(errors.WorkflowNotResumableError):
        milepost.resume(workflow_id)
    assert list((storage / "workflows" / workflow_id).rglob("blobs/*/*")) == []
    assert milepost.run(make.bind(2), workflow_id=workflow_id)[0] == 2
    assert milepost.get_output(workflow_id)[0] == 2


def test_a_running_workflow_is_not_deleted(workflow_id: str) -> None:
    result = milepost.run_async(slow.bind(), workflow_id=workflow_id)
    with pytest.raises(errors.WorkflowActiveError, match="delete"):
        milepost.delete(workflow_id)
    assert ray.get(result) == 1
    milepost.delete(workflow_id)


def test_an_unknown_workflow_cannot_be_deleted(storage: Path) -> None:
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.delete("nobody")
    assert not (storage / "workflows" / "nobody").exists()


def test_a_workflow_that_was_resumed_ends_as_one_object(
    workflow_id: str, storage: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    @ray.remote
    def pass_gate() -> int:
        if not gate.exists():
            raise ValueError("closed")
        return 4

    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(pass_gate.bind(), workflow_id=workflow_id)
    gate.touch()
    assert milepost.resume(workflow_id) == 4
    folder = storage / "workflows" / workflow_id
    deadline = time.monotonic() + 30
    while list(folder.glob("segments/*")):  # callers are told before the journal is compacted
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(list(folder.glob("compacted/*"))) == 1
    assert milepost.get_status(workflow_id) == milepost.SUCCESSFUL
