"""The public surface, name by name: whoever changes it changes this page, and the changelog."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import milepost
from milepost import WorkflowStatus, errors, exceptions

SIGNATURES = {
    "Retry": (
        "(*, max_attempts: 'int | None' = 3, delay_s: 'float' = 1.0, backoff: 'float' = 2.0, "
        "max_delay_s: 'float' = 300.0, jitter: 'float' = 0.1, "
        "on: 'Sequence[ExceptionType] | None' = None) -> None"
    ),
    "cancel": "(workflow_id: 'str') -> 'None'",
    "continuation": "(dag: 'Any') -> 'Any'",
    "current": "() -> 'TaskContext'",
    "delete": "(workflow_id: 'str') -> 'None'",
    "get_metadata": "(workflow_id: 'str', task_id: 'str | None' = None) -> 'dict[str, Any]'",
    "get_output": "(workflow_id: 'str', *, task_id: 'str | None' = None) -> 'Any'",
    "get_output_async": (
        "(workflow_id: 'str', *, task_id: 'str | None' = None) -> 'ray.ObjectRef[Any]'"
    ),
    "get_status": "(workflow_id: 'str') -> 'Status'",
    "init": (
        "(*, storage: 'str | None' = None, dispatchers: 'int | None' = None, "
        "recover: 'bool' = False, max_running_workflows: 'int | None' = None, "
        "max_pending_workflows: 'int | None' = None) -> 'None'"
    ),
    "list_all": (
        "(status_filter: 'Status | str | set[Status] | set[str] | set[Status | str] | None' = None)"
        " -> 'list[tuple[str, Status]]'"
    ),
    "list_tasks": "(workflow_id: 'str') -> 'list[dict[str, Any]]'",
    "map": (
        "(function: 'Any', items: 'Any', /, *, chunk_size: 'int | None' = None, **shared: 'Any')"
        " -> 'MapNode'"
    ),
    "options": (
        "(*, task_id: 'str | None' = None, metadata: 'dict[str, Any] | None' = None, "
        "catch_exceptions: 'bool | None' = None, checkpoint: 'bool | None' = None, "
        "retry: 'Retry | None' = None, timeout_s: 'float | None' = None, "
        "**unknown: 'Any') -> 'GivenOptions'"
    ),
    "recover": "(force: 'Sequence[str]' = ()) -> 'list[Recovered]'",
    "resume": "(workflow_id: 'str') -> 'Any'",
    "resume_all": ("(include_failed: 'bool' = False) -> 'list[tuple[str, ray.ObjectRef[Any]]]'"),
    "resume_async": "(workflow_id: 'str') -> 'ray.ObjectRef[Any]'",
    "run": (
        "(dag: 'Any', *args: 'Any', workflow_id: 'str | None' = None, "
        "metadata: 'dict[str, Any] | None' = None, durability: 'str' = 'pipelined', "
        "**kwargs: 'Any') -> 'Any'"
    ),
    "run_async": (
        "(dag: 'Any', *args: 'Any', workflow_id: 'str | None' = None, "
        "metadata: 'dict[str, Any] | None' = None, durability: 'str' = 'pipelined', "
        "**kwargs: 'Any') -> 'ray.ObjectRef[Any]'"
    ),
    "sleep": "(duration: 'float | DAGNode') -> 'Any'",
    "wait_for_event": (
        "(event_listener_type: 'type[EventListener]', *args: 'Any', **kwargs: 'Any') -> 'Any'"
    ),
}

CLASSES = ["EventListener", "MapResult"]

ERRORS_AT_HAND = ["WorkflowCancellationError", "WorkflowError", "WorkflowExecutionError"]

STATUSES = ["CANCELED", "FAILED", "PENDING", "RESUMABLE", "RUNNING", "SUCCESSFUL"]

ERRORS = {
    "MilepostError": {
        "UsageError": {
            "ConflictingInitError": {},
            "InvalidGraphError": {},
            "InvalidOptionError": {},
            "InvalidStateTransitionError": {"WorkflowActiveError": {}, "WorkflowEndedError": {}},
            "InvalidWorkflowIdError": {},
            "NotSerializableError": {},
            "OutsideTaskError": {},
            "SignatureMismatchError": {},
            "StorageUriError": {},
        },
        "WorkflowError": {
            "OutputNotAvailableError": {},
            "TaskNotFoundError": {},
            "WorkflowCancellationError": {},
            "WorkflowExecutionError": {},
            "WorkflowNotFoundError": {},
            "WorkflowNotResumableError": {},
        },
        "CorruptBlobError": {},
        "CorruptJournalError": {"AlteredJournalError": {}},
        "EngineUnavailableError": {},
        "IllegalEventError": {},
        "LostOwnershipError": {},
        "StorageUnavailableError": {},
        "TaskCrashedError": {"NodeLostError": {}, "TaskOutOfMemoryError": {}},
        "TaskRaisedError": {},
        "TaskTimeoutError": {},
        "TooManyWorkflowsError": {},
        "UnsupportedFormatError": {},
    },
}
"""What to catch: an error is caught by its own name and by every name above it."""


def test_the_names_are_these() -> None:
    assert sorted(milepost.__all__) == sorted(
        [*SIGNATURES, *CLASSES, *STATUSES, *ERRORS_AT_HAND, "WorkflowStatus", "errors"]
    )


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_is_called_like_this(name: str) -> None:
    assert str(inspect.signature(getattr(milepost, name))) == SIGNATURES[name]


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_says_what_it_does_with_each_of_its_arguments(name: str) -> None:
    text = inspect.getdoc(getattr(milepost, name)) or ""
    assert text.endswith(".") or "Example:" in text
    parameters = inspect.signature(getattr(milepost, name)).parameters
    if "Args:" in text:
        described = {line.strip().lstrip("*").partition(":")[0] for line in text.splitlines()}
        assert set(parameters) <= described


def test_statuses_are_members_and_equal_their_names() -> None:
    assert [status.name for status in sorted(WorkflowStatus)] == STATUSES
    for name in STATUSES:
        assert getattr(milepost, name) is WorkflowStatus[name]
        assert getattr(milepost, name) == name


def test_errors_are_these_and_say_what_to_catch() -> None:
    def tree(kind: type) -> dict[str, object]:
        kinds: list[type] = kind.__subclasses__()
        below = [each for each in kinds if each.__module__ == errors.__name__]
        return {each.__name__: tree(each) for each in below}

    assert {"MilepostError": tree(errors.MilepostError)} == ERRORS
    assert isinstance(milepost.errors, ModuleType)


def test_errors_have_the_names_of_ray_workflow_too() -> None:
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), errors.MilepostError)
    for name in ERRORS_AT_HAND:
        assert getattr(milepost, name) is getattr(errors, name) is getattr(exceptions, name)
    assert exceptions.WorkflowStillActiveError is errors.WorkflowActiveError


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'milepost' has no attribute 'rum'"):
        milepost.rum  # noqa: B018
    assert not hasattr(milepost, "api")


def test_all_names_are_offered_at_a_prompt_before_they_are_loaded() -> None:
    assert set(milepost.__all__) <= set(dir(milepost))


def run_alone(program: str) -> list[str]:
    """Returns what a program prints in a process of its own, word by word."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_ray_is_loaded_with_the_first_function_and_not_before() -> None:
    program = """
import sys, milepost
print("ray" in sys.modules)
milepost.RUNNING, milepost.errors.MilepostError, milepost.WorkflowStatus
print("ray" in sys.modules)
milepost.run
print("ray" in sys.modules)
"""
    assert run_alone(program) == ["False", "False", "True"]


def test_a_star_import_gives_exactly_the_names() -> None:
    program = """
from milepost import *
print(*sorted(name for name in dir() if not name.startswith("__")))
"""
    assert run_alone(program) == sorted(milepost.__all__)
