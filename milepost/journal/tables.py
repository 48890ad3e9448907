"""Workflows as Arrow tables, a batch at a time: events, tasks, attempts; and a store's workflows.

Times are timestamps in UTC with microseconds, null where the journal has none. Numbers that do not
fit, as only a hostile journal has them, are cut to what does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from milepost.errors import MilepostError, UsageError
from milepost.journal.attempts import list_attempts
from milepost.journal.catalog import list_summaries
from milepost.journal.history import History
from milepost.journal.layout import blobs_folder, workflow_folder
from milepost.journal.plain import to_plain
from milepost.journal.store import Store
from milepost.journal.story import TaskRecord, read_story
from milepost.replay.state import State, TaskState

BATCH_ROWS = 8192
_TIME_US_MAX = 253_402_300_799_999_999
"""The last microsecond of the year 9999: later ones no calendar has."""

_TIME = pa.timestamp("us", tz="UTC")
_TEXT, _INT = pa.string(), pa.int64()

SCHEMAS: dict[str, pa.Schema] = {
    "events": pa.schema(
        {
            "workflow_id": _TEXT,
            "seq": _INT,
            "epoch": _INT,
            "kind": _TEXT,
            "at": _TIME,
            "file": _TEXT,
            "offset": _INT,
            "event": _TEXT,
        }
    ),
    "tasks": pa.schema(
        {
            "workflow_id": _TEXT,
            "task": _TEXT,
            "function": _TEXT,
            "code": _TEXT,
            "state": _TEXT,
            "attempts": _INT,
            "scheduled": _TIME,
            "started": _TIME,
            "ended": _TIME,
            "queue_us": _INT,
            "run_us": _INT,
            "worker": _TEXT,
            "bytes": _INT,
            "blob": pa.bool_(),
            "items": _INT,
            "items_done": _INT,
        }
    ),
    "attempts": pa.schema(
        {
            "workflow_id": _TEXT,
            "task": _TEXT,
            "function": _TEXT,
            "attempt": _INT,
            "outcome": _TEXT,
            "scheduled": _TIME,
            "started": _TIME,
            "ended": _TIME,
            "queue_us": _INT,
            "run_us": _INT,
            "worker": _TEXT,
            "epoch": _INT,
            "slice": _INT,
            "items": _INT,
            "error": _TEXT,
            "seq": _INT,
        }
    ),
    "workflows": pa.schema(
        {
            "workflow_id": _TEXT,
            "status": _TEXT,
            "owner": _TEXT,
            "epoch": _INT,
            "created": _TIME,
            "started": _TIME,
            "ended": _TIME,
            "settled": pa.bool_(),
            "tasks": _INT,
            "tasks_done": _INT,
            "bytes": _INT,
            "error": _TEXT,
        }
    ),
}
"""What each table holds."""

OF_A_WORKFLOW = ("events", "tasks", "attempts")


def open_table(history: History, what: str, *, redact: bool = False) -> pa.RecordBatchReader:
    """Read one workflow as a table.

    Args:
        history: The workflow.
        what: ``events``, ``tasks`` or ``attempts``.
        redact: Whether to leave out what payloads and error texts contain.

    Returns:
        Its rows, read as they are asked for; errors of the journal come then, too. Events take no
        memory to speak of, the others a few numbers per task.

    Raises:
        UsageError: If there is no such table.
    """
    if what not in OF_A_WORKFLOW:
        raise UsageError(f"there is no table {what!r}; there are {', '.join(OF_A_WORKFLOW)}")
    rows: dict[str, Callable[[History, bool], Iterator[list[Any]]]] = {
        "events": _event_rows,
        "tasks": _task_rows,
        "attempts": _attempt_rows,
    }
    return _read(SCHEMAS[what], rows[what](history, redact))


def open_workflows(store: Store) -> pa.RecordBatchReader:
    """Read what a store holds as a table, one row for each workflow.

    Args:
        store: The store.

    Returns:
        Its rows, the newest workflow first. Each costs a reading of its journal.

    Raises:
        StorageUnavailableError: If the storage cannot be listed.
    """
    return _read(SCHEMAS["workflows"], _workflow_rows(store))


def open_all(store: Store, what: str, *, redact: bool = False) -> pa.RecordBatchReader:
    """Read a table of all workflows of a store, one after the other.

    Args:
        store: The store.
        what: A name of :data:`SCHEMAS`.
        redact: Whether to leave out what payloads and error texts contain.

    Returns:
        The rows. Of a workflow whose journal cannot be read there are those up to the damage.

    Raises:
        UsageError: If there is no such table.
        StorageUnavailableError: If the storage cannot be listed.
    """
    if what == "workflows":
        return open_workflows(store)
    if what not in SCHEMAS:
        raise UsageError(f"there is no table {what!r}; there are {', '.join(SCHEMAS)}")

    def batches() -> Iterator[pa.RecordBatch]:
        for summary in list_summaries(store, newest_first=True, stale_max=sys.maxsize):
            try:
                yield from open_table(History(store, summary.workflow_id), what, redact=redact)
            except (MilepostError, pa.ArrowException):
                continue  # the table of workflows says why

    return pa.RecordBatchReader.from_batches(SCHEMAS[what], batches())


def _read(schema: pa.Schema, rows: Iterable[list[Any]]) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        left = iter(rows)
        while page := list(islice(left, BATCH_ROWS)):
            columns = zip(*page, strict=True)
            yield pa.record_batch(
                [
                    pa.array(list(map(_FIT.get(field.type, _same), column)), field.type)
                    for field, column in zip(schema, columns, strict=True)
                ],
                schema=schema,
            )

    return pa.RecordBatchReader.from_batches(schema, batches())


def _same(value: Any) -> Any:
    return value


def _fit_time(at_us: int | None) -> int | None:
    return at_us if at_us and 0 < at_us <= _TIME_US_MAX else None


def _fit_int(value: int | None) -> int | None:
    return value if value is None else max(-(2**63), min(value, 2**63 - 1))


def _fit_text(value: str | None) -> str | None:
    """Replace half of a character, which Arrow's text cannot hold."""
    return value if value is None else value.encode("utf-8", "backslashreplace").decode()


_FIT: dict[pa.DataType, Callable[[Any], Any]] = {_TIME: _fit_time, _INT: _fit_int, _TEXT: _fit_text}


def _event_rows(history: History, redact: bool) -> Iterator[list[Any]]:
    id_ = history.workflow_id
    for entry in history:
        told = to_plain(entry.event, redact=redact)
        if redact and "error" in told:
            told["error"] |= {"message": "(redacted)", "traceback": "(redacted)"}
        kind, at_us = type(entry.event).__name__, getattr(entry.event, "at_us", 0)
        place = (entry.file, entry.offset)
        yield [id_, entry.seq, entry.epoch, kind, at_us, *place, json.dumps(told, allow_nan=False)]


def _task_rows(history: History, redact: bool) -> Iterator[list[Any]]:
    story = read_story(history)
    for number, each in enumerate(story.tasks()):
        yield [history.workflow_id, each.task, each.function, *_task_row(story.state, number, each)]


def _task_row(state: State, number: int, each: TaskRecord) -> list[Any]:
    code = state.graph.functions[state.graph.node_functions[number]].digest.hex()
    times = (each.scheduled_us, each.started_us, each.ended_us, each.queue_us, each.run_us)
    rest = (each.worker or None, each.bytes, each.blob, each.items, each.items_done)
    return [code, each.state, each.attempts, *times, *rest]


def _attempt_rows(history: History, redact: bool) -> Iterator[list[Any]]:
    graph = history.state_at().graph
    for each in list_attempts(history):
        function = graph.functions[graph.node_functions[each.task]].name
        known = bool(each.started_us)
        error = "(redacted)" if redact and each.error else each.error
        yield [
            *(history.workflow_id, graph.task_id(each.task), function, each.number),
            *(each.outcome.value, each.scheduled_us, each.started_us, each.ended_us),
            *(each.queue_us if known else None, each.run_us if known else None),
            *(each.worker or None, each.epoch, each.slice, each.items or None, error or None),
            each.seq,
        ]


def _workflow_rows(store: Store) -> Iterator[list[Any]]:
    for each in list_summaries(store, newest_first=True, stale_max=sys.maxsize):
        folders = (workflow_folder(each.workflow_id), blobs_folder(each.workflow_id))
        size = sum(found.size for folder in folders for found in store.list(folder))
        tasks = done = None
        error = each.error
        try:
            state = History(store, each.workflow_id).state_at()
        except MilepostError as problem:
            error = error or str(problem)
        else:
            tasks = len(state.tasks)
            done = state.counts[TaskState.COMMITTED] + state.counts[TaskState.EXTENDED]
        yield [
            *(each.workflow_id, each.status.value, each.owner, each.epoch),
            *(each.created_us, each.started_us, each.ended_us, each.settled),
            *(tasks, done, size, error or None),
        ]
