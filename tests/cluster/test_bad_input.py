"""What users can get wrong, and what disks can: each has an error of its own and no debris."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from milepost import errors
from milepost.engine.session import connect

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def add(a: int, b: int = 0) -> int:
    return a + b


@ray.remote
def fail(path: Path) -> str:
    if not path.exists():
        raise RuntimeError("not yet")
    return path.read_text()


@ray.remote(num_cpus=0)
class Actor:
    def method(self) -> int:
        return 1


def wrong_calls() -> dict[str, tuple[type[Exception], Any]]:
    actor_node: Any = Actor.bind()  # type: ignore[attr-defined]
    return {
        "a value": (errors.InvalidGraphError, 3),
        "a list": (errors.InvalidGraphError, [add.bind(1)]),
        "a function": (errors.InvalidGraphError, add),
        "an actor": (errors.InvalidGraphError, actor_node),
        "an actor method": (errors.InvalidGraphError, actor_node.method.bind()),
        "an actor method inside": (errors.InvalidGraphError, add.bind(actor_node.method.bind())),
        "too few arguments": (errors.SignatureMismatchError, add.bind()),
        "too many arguments": (errors.SignatureMismatchError, add.bind(1, 2, 3)),
        "an unknown keyword": (errors.SignatureMismatchError, add.bind(1, c=2)),
        "two results": (errors.InvalidOptionError, add.options(num_returns=2).bind(1)),
    }


@pytest.mark.parametrize("case", wrong_calls())
def test_a_wrong_graph_is_refused_and_leaves_nothing(storage: Path, case: str) -> None:
    kind, dag = wrong_calls()[case]
    with pytest.raises(kind):
        milepost.run(dag, workflow_id=f"wrong {case}")
    assert f"wrong {case}" not in dict(milepost.list_all())
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.get_status(f"wrong {case}")


def test_a_function_that_cannot_be_pickled_is_named(workflow_id: str) -> None:
    import threading

    lock = threading.Lock()

    @ray.remote
    def use_lock() -> bool:
        return lock.locked()

    with pytest.raises(errors.NotSerializableError, match="use_lock"):
        milepost.run(use_lock.bind(), workflow_id=workflow_id)


@pytest.mark.parametrize("bad_id", ["", 7, "x" * 300, None.__class__])
def test_an_impossible_id_is_refused(storage: Path, bad_id: Any) -> None:
    with pytest.raises(errors.InvalidWorkflowIdError):
        milepost.run(add.bind(1), workflow_id=bad_id)
    with pytest.raises(errors.InvalidWorkflowIdError):
        milepost.get_status(bad_id)


@pytest.mark.parametrize("bad", [[1], "x", {"a": object()}, {"a": {1, 2}}, {"a": 2**80}])
def test_metadata_must_be_what_json_can_hold(workflow_id: str, bad: Any) -> None:
    with pytest.raises(errors.InvalidOptionError, match="metadata"):
        milepost.run(add.bind(1), workflow_id=workflow_id, metadata=bad)


def test_another_durability_is_refused(workflow_id: str) -> None:
    with pytest.raises(errors.InvalidOptionError, match="durability"):
        milepost.run(add.bind(1), workflow_id=workflow_id, durability="none")


def test_a_second_store_in_one_process_is_refused(storage: Path, tmp_path: Path) -> None:
    milepost.init(storage=str(storage))
    milepost.init(storage=f"file://{storage}")
    with pytest.raises(errors.ConflictingInitError):
        milepost.init(storage=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("bad_filter", ["NONE", {"RUNNING", "GONE"}])
def test_a_filter_of_no_status_is_refused(storage: Path, bad_filter: Any) -> None:
    with pytest.raises(errors.InvalidOptionError):
        milepost.list_all(bad_filter)


def test_a_filter_of_a_wrong_type_is_refused(storage: Path) -> None:
    wrong: Any = ["RUNNING"]
    with pytest.raises(TypeError):
        milepost.list_all(wrong)
    assert milepost.list_all(set()) == []


def make_failed(workflow_id: str, storage: Path, path: Path) -> Path:
    """Runs a workflow that fails; returns its only segment once nobody has it in memory."""
    with pytest.raises(errors.WorkflowExecutionError):
        milepost.run(fail.bind(path), workflow_id=workflow_id)
    dispatcher = connect().dispatcher(workflow_id)
    deadline = time.monotonic() + 30
    while workflow_id in ray.get(dispatcher.live.remote()):
        assert time.monotonic() < deadline, "a failed workflow stays with its dispatcher"
        time.sleep(0.01)
    (segment,) = (storage / "workflows" / workflow_id / "segments").iterdir()
    return segment


def test_a_flipped_byte_is_refused_with_file_and_offset_and_not_touched(
    workflow_id: str, storage: Path, tmp_path: Path
) -> None:
    segment = make_failed(workflow_id, storage, tmp_path / "missing")
    intact = segment.read_bytes()
    damaged = bytearray(intact)
    damaged[len(damaged) // 3] ^= 0x10
    segment.write_bytes(damaged)
    with pytest.raises(errors.CorruptJournalError) as caught:
        milepost.resume(workflow_id)
    assert caught.value.file.endswith(segment.name)
    assert 0 < caught.value.offset < len(intact)
    assert segment.read_bytes() == bytes(damaged)
    segment.write_bytes(intact)
    (tmp_path / "missing").write_text("now")
    assert milepost.resume(workflow_id) == "now"


def test_a_journal_of_a_newer_format_is_refused(
    workflow_id: str, storage: Path, tmp_path: Path
) -> None:
    segment = make_failed(workflow_id, storage, tmp_path / "missing")
    content = bytearray(segment.read_bytes())
    content[8:10] = (99).to_bytes(2, "little")  # the format version in the segment head
    segment.write_bytes(content)
    with pytest.raises(errors.UnsupportedFormatError, match="99"):
        milepost.resume(workflow_id)
    with pytest.raises(errors.UnsupportedFormatError, match="99"):
        milepost.get_status(workflow_id)
