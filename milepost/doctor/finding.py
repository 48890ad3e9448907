"""What the doctor says of one thing: whether it is well, what was seen, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How well something is."""

    OK = "ok"
    """Nothing to do."""
    WARNING = "warning"
    """It works, and somebody should know this."""
    FAULT = "fault"
    """Workflows will not run, or are not safe, until this is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        subject: The thing, in a word.
        level: How well it is.
        text: What was seen.
        cure: What to do; empty if there is nothing to do.
    """

    subject: str
    level: Level
    text: str
    cure: str = ""
