"""The ledger: what happened, written down outside the engine by whoever saw it.

One file of JSON lines. Each line is one ``write`` to a file opened with ``O_APPEND``, so that lines
of many processes never mix and a killed process leaves no half line; it is synced before the writer
goes on. Every line has a time of the one clock that all processes of a machine share.

A line that stands *before* another in the file was written before it. That order, not the clock, is
what the rules use wherever they can.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.engine.context import TaskContext, current

BEGIN = "begin"
END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line.

    Attributes:
        place: Its number in the file, from 0.
        what: What happened, in a word.
        at_ns: When, on the machine's monotonic clock.
        pid: The process that wrote it.
        fields: Everything else.
    """

    place: int
    what: str
    at_ns: int
    pid: int
    fields: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """Return one of the fields."""
        return self.fields[name]


def write(ledger: str, what: str, **fields: Any) -> None:
    """Append a line and make it durable."""
    line = {"what": what, "at_ns": time.monotonic_ns(), "pid": os.getpid()} | fields
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        content = json.dumps(line).encode() + b"\n"
        written = os.write(file, content)
        assert written == len(content), (written, line)
        os.fdatasync(file)
    finally:
        os.close(file)


@contextmanager
def execution(ledger: str) -> Iterator[TaskContext]:
    """Note that an execution of the running task begins, and how it ends.

    Args:
        ledger: Path of the file.

    Yields:
        What the task knows of itself.
    """
    task = current()
    token = uuid.uuid4().hex
    write(
        ledger,
        BEGIN,
        token=token,
        workflow=task.workflow_id,
        incarnation=task.incarnation,
        task=task.task_id,
        attempt=task.attempt,
        epoch=task.epoch,
    )
    outcome = "raised"
    try:
        yield task
        outcome = "returned"
    finally:
        write(ledger, END, token=token, outcome=outcome)


class Reader:
    """Reads a ledger that grows, and remembers how far it came."""

    def __init__(self, path: Path) -> None:
        """Begin at the first line of ``path``, which need not exist yet."""
        self._path = path
        self._offset = 0
        self._place = 0

    def read(self) -> list[Line]:
        """Return the lines since the last call; one that is being written counts as not there."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = []
        for text in whole.splitlines():
            fields = json.loads(text)
            what, at_ns, pid = fields.pop("what"), fields.pop("at_ns"), fields.pop("pid")
            lines.append(Line(place=self._place, what=what, at_ns=at_ns, pid=pid, fields=fields))
            self._place += 1
        return lines
