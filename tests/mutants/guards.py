"""The guards of the code, each with an exact edit that removes it and the tests that must notice.

They stand in ``guards.toml``. ``run.py`` beside this file applies them one at a time;
``test_guards.py`` makes sure that each still fits the code.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One guard.

    Attributes:
        name: What it makes sure of, in a few words.
        file: Where it is, below ``milepost/``.
        old: Text that stands there exactly once.
        new: The same without the guard.
        tests: What must fail then, as arguments of pytest; files are below ``tests/``.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


_ROWS = tomllib.loads(Path(__file__).with_name("guards.toml").read_text())["guard"]

GUARDS = tuple(Guard(**row) for row in _ROWS)
