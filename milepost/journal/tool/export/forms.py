"""The forms a workflow can be exported in, and how each is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from milepost.journal.history import History
from milepost.journal.plain import to_plain
from milepost.journal.tables import open_table
from milepost.journal.tool.export.chrome import write_trace
from milepost.journal.tool.export.otel import write_spans

TABULAR = ("parquet", "arrow", "jsonl")
_TEXTS: dict[str, Callable[..., Iterator[str]]] = {"chrome-trace": write_trace, "otel": write_spans}
FORMS = (*TABULAR, *_TEXTS)


def write_export(history: History, form: str, what: str, file: IO[bytes], *, redact: bool) -> int:
    """Write a workflow in one of the forms.

    Args:
        history: The workflow.
        form: One of :data:`FORMS`.
        what: Which table, where the form is a table.
        file: Where to write.
        redact: Whether to leave out what payloads and error texts contain.

    Returns:
        How many rows were written; 0 where the form has none.

    Raises:
        MilepostError: If the workflow cannot be read; what was written then is of no use.
    """
    if form in _TEXTS:
        for piece in _TEXTS[form](history, redact=redact):
            file.write(piece.encode("utf-8", "backslashreplace"))
        return 0
    reader = open_table(history, what, redact=redact)
    if form == "jsonl":
        return _write_lines(reader, file)
    rows = 0
    with _open(form, file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _open(form: str, file: IO[bytes], schema: pa.Schema) -> Any:
    if form == "arrow":
        return pa.ipc.new_stream(file, schema)
    return pq.ParquetWriter(file, schema, compression="zstd")


def _write_lines(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    """One JSON object per row; times in ISO 8601, an event as an object."""
    rows = 0
    for batch in reader:
        for row in batch.to_pylist():
            for name, value in row.items():
                if hasattr(value, "isoformat"):
                    row[name] = value.isoformat()
            if "event" in row:
                row["event"] = json.loads(row["event"])
            file.write(json.dumps(to_plain(row), allow_nan=False).encode() + b"\n")
            rows += 1
    return rows
