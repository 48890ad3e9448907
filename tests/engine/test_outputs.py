"""Results and failures on their way to callers: the user's own value or exception comes out."""

from __future__ import annotations

import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest

from milepost.engine.outputs import SealedOutput, describe_failure
from milepost.engine.payloads import BlobCollector, Sink, serialize, serialize_opaque
from milepost.errors import (
    CorruptBlobError,
    TaskCrashedError,
    TaskRaisedError,
    WorkflowExecutionError,
)
from milepost.replay.events import (
    AttemptFailed,
    OwnershipTaken,
    StatusChanged,
    TaskError,
    TasksScheduled,
    WorkflowCreated,
)
from milepost.replay.fold import fold
from milepost.replay.payload import Payload
from milepost.replay.state import State

if TYPE_CHECKING:
    from tests.engine.conftest import Disk

Creation = Callable[..., WorkflowCreated]


class CodedError(Exception):
    """An exception that has more to it than its text."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> Any:
        return _make_coded, (self.args[0], self.code)


def _make_coded(message: str, code: int) -> CodedError:
    return CodedError(message, code=code)


class UnloadableError(Exception):
    """It can be pickled, and what comes out of that does not load."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(left + right)


def fail(creation: Creation, error: TaskError) -> State:
    """Returns the state of a workflow whose only task failed like this."""
    return fold(
        [
            creation(()),
            OwnershipTaken(epoch=1, owner="o", reason="", at_us=0),
            StatusChanged(status="RUNNING", reason="", who="o", at_us=0),
            TasksScheduled(slice=0, tasks=(0,), attempts=(1,), at_us=0),
            AttemptFailed(slice=0, task=0, attempt=1, error=error, final=True, at_us=0, node="n"),
            StatusChanged(status="FAILED", reason="", who="o", at_us=0),
        ]
    )


def describe(error: BaseException, sink: Sink | None = None) -> TaskError:
    payload = None if sink is None else serialize_opaque(error, sink)
    kind = type(error)
    return TaskError(
        kind="exception",
        type=f"{kind.__module__}.{kind.__qualname__}",
        message=str(error),
        traceback="line 7, in the user's code",
        exception=payload,
    )


def deliver(
    disk: Disk, creation: Creation, error: TaskError, hops: int = 1
) -> WorkflowExecutionError:
    """Sends a failure to its caller, through so many processes."""
    failure = describe_failure(disk.uri, fail(creation, error), 0)
    for hop in range(hops):
        failure = pickle.loads((pickle, cloudpickle)[hop % 2].dumps(failure))
    assert type(failure) is WorkflowExecutionError
    assert (failure.workflow_id, failure.task_id) == ("w", "f")
    return failure


@pytest.mark.parametrize("hops", [1, 2, 5])
def test_the_users_own_exception_is_the_cause(disk: Disk, creation: Creation, hops: int) -> None:
    error = describe(CodedError("no such row", code=7), disk)
    failure = deliver(disk, creation, error, hops)
    cause = failure.__cause__
    assert isinstance(cause, CodedError)
    assert (cause.code, str(cause)) == (7, "no such row")
    assert "CodedError: no such row" in str(failure)
    assert "milepost.resume('w')" in str(failure)


def test_the_cause_tells_where_it_was_raised_once(disk: Disk, creation: Creation) -> None:
    failure = deliver(disk, creation, describe(ValueError("no"), disk), hops=3)
    assert failure.__cause__ is not None
    notes = failure.__cause__.__notes__
    assert len(notes) == 1
    assert "'f'" in notes[0]
    assert "line 7, in the user's code" in notes[0]


def test_the_exception_is_opened_where_it_arrives_not_on_the_way(
    disk: Disk, creation: Creation
) -> None:
    state = fail(creation, describe(CodedError("x", code=1), disk))
    failure = describe_failure(disk.uri, state, 0)
    assert failure.__cause__ is None


def test_a_large_exception_is_read_from_its_blob(disk: Disk, creation: Creation) -> None:
    error = describe(CodedError("x" * 100_000, code=1), disk)
    assert error.exception is not None
    assert error.exception.digest
    cause = deliver(disk, creation, error).__cause__
    assert isinstance(cause, CodedError)
    assert len(str(cause)) == 100_000


def test_a_crash_is_a_crash(disk: Disk, creation: Creation) -> None:
    error = TaskError(
        kind="crash", type="WorkerDied", message="out of memory", traceback="", exception=None
    )
    cause = deliver(disk, creation, error, hops=2).__cause__
    assert isinstance(cause, TaskCrashedError)
    assert (cause.task_id, cause.reason) == ("f", "out of memory")


def test_an_exception_that_could_not_be_pickled_is_told_in_words(
    disk: Disk, creation: Creation
) -> None:
    cause = deliver(disk, creation, describe(CodedError("the text", code=1))).__cause__
    assert isinstance(cause, TaskRaisedError)
    assert "CodedError: the text" in str(cause)
    assert "line 7, in the user's code" in cause.__notes__[0]


def test_an_exception_that_does_not_load_is_told_in_words(disk: Disk, creation: Creation) -> None:
    cause = deliver(disk, creation, describe(UnloadableError("a", "b"), disk)).__cause__
    assert isinstance(cause, TaskRaisedError)
    assert "UnloadableError" in str(cause)


def test_an_exception_whose_module_is_missing_here_is_told_in_words(
    disk: Disk, creation: Creation, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = types.ModuleType("users_own_module")
    exec("class TheirError(Exception): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "users_own_module", module)
    error = describe(module.TheirError("what they say"), disk)
    monkeypatch.delitem(sys.modules, "users_own_module")
    cause = deliver(disk, creation, error).__cause__
    assert isinstance(cause, TaskRaisedError)
    assert "users_own_module.TheirError: what they say" in str(cause)


def test_an_exception_whose_blob_is_gone_is_told_in_words(disk: Disk, creation: Creation) -> None:
    error = describe(CodedError("x" * 100_000, code=1), BlobCollector())
    cause = deliver(disk, creation, error).__cause__
    assert isinstance(cause, TaskRaisedError)
    assert "CodedError" in str(cause)


def test_an_exception_of_a_program_that_asks_to_exit_does_not_end_the_caller(
    disk: Disk, creation: Creation
) -> None:
    assert isinstance(deliver(disk, creation, describe(SystemExit(3), disk)).__cause__, SystemExit)


@pytest.mark.parametrize("size", [1, 200_000])
def test_a_failure_that_a_program_sends_on_keeps_its_cause(size: int) -> None:
    """A driver inside a task may catch the error, and raise it again with a cause of its own."""
    failure = WorkflowExecutionError("w", "f", "ValueError", "no")
    failure.__cause__ = CodedError("x" * size, code=9)
    copy = pickle.loads(pickle.dumps(failure))
    assert isinstance(copy.__cause__, CodedError)
    assert copy.__cause__.code == 9
    assert copy.args == failure.args


def test_a_failure_whose_cause_cannot_be_sent_is_sent_without() -> None:
    failure = WorkflowExecutionError("w", "f", "ValueError", "no")
    failure.__cause__ = ValueError(threading.Lock())
    copy = pickle.loads(pickle.dumps(failure))
    assert copy.__cause__ is None
    assert str(copy) == str(failure)


@pytest.mark.parametrize("value", [None, {"a": [1]}, (1, 2), CodedError], ids=repr)
def test_a_result_is_the_users_value_where_it_arrives(disk: Disk, value: object) -> None:
    sealed = SealedOutput(disk.uri, "w", 1, serialize(value, disk))
    assert pickle.loads(pickle.dumps(sealed)) == value


def test_a_large_result_is_read_from_its_blob(disk: Disk) -> None:
    array = np.arange(50_000)
    sealed = pickle.dumps(SealedOutput(disk.uri, "w", 1, serialize(array, disk)))
    assert len(sealed) < 1000
    assert np.array_equal(pickle.loads(sealed), array)


def test_a_result_whose_blob_is_gone_says_so(disk: Disk) -> None:
    payload = Payload(encoding=0, digest=b"d" * 32, size=100_000)
    sealed = pickle.dumps(SealedOutput(disk.uri, "w", 1, payload))
    with pytest.raises(CorruptBlobError, match="missing"):
        pickle.loads(sealed)
