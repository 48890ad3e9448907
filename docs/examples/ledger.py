"""An append-only file in which every execution of a task leaves two lines.

It is how the demonstration and the tests know what really ran, whatever the engine says: a line
when an execution begins, a line when it ends. Each line is one ``write`` to a file opened with
``O_APPEND``, so that lines of many processes never mix and a killed process leaves no half line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BEGIN = "begin"
END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: the execution of task ``key`` in process ``pid`` began or ended at ``time_s``."""

    kind: str
    key: str
    pid: int
    time_s: float

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line.

        Raises:
            ValueError: The line is not one that :func:`write_entry` wrote.
        """
        kind, key, pid, time_s = line.split("\t")
        return cls(kind=kind, key=key, pid=int(pid), time_s=float(time_s))


@contextmanager
def execution(ledger: str, key: str) -> Iterator[None]:
    """Note in the ledger that a task's execution begins, and, if it succeeds, that it ended.

    Args:
        ledger: Path of the file; its folder exists.
        key: What is executed; without tabs and line breaks.
    """
    write_entry(ledger, BEGIN, key)
    yield
    write_entry(ledger, END, key)


def write_entry(ledger: str, kind: str, key: str) -> None:
    """Append one line in one system call."""
    line = f"{kind}\t{key}\t{os.getpid()}\t{time.time():.6f}\n".encode()
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(file, line)
    finally:
        os.close(file)
    if written != len(line):
        raise OSError(f"wrote {written} of {len(line)} bytes to {ledger}")


def read_entries(ledger: Path) -> list[Entry]:
    """Return all lines in the order in which they were written; none if there is no file yet."""
    if not ledger.exists():
        return []
    return [Entry.parse(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


def keys_of(entries: Sequence[Entry], kind: str) -> list[str]:
    """Return the keys of all lines of one kind, in order, as often as they occur."""
    return [entry.key for entry in entries if entry.kind == kind]
