"""Journals of every released format are read for ever, to the same state, on every machine.

The file holds a journal's bytes, event by event, with the digest of the state after each. Nothing
in it may ever change: a new shape of an event is a new version, with an upcast and a new file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from milepost.replay.codec import decode, decode_all, encode
from milepost.replay.fold import apply, fold
from milepost.replay.state import State

if TYPE_CHECKING:
    from milepost.replay.events import Event

GOLDEN = Path(__file__).parents[1] / "golden" / "replay-v1.json"
RIDERS = GOLDEN.with_name("replay-v1-riders.json")
WAITS = GOLDEN.with_name("replay-v1-waits.json")
RETRIES = GOLDEN.with_name("replay-v1-retries.json")
MAPS = GOLDEN.with_name("replay-v1-maps.json")
PRINT_DIGEST = """
import json, sys
from milepost.replay.codec import decode
from milepost.replay.fold import fold
rows = json.load(open(sys.argv[1]))
print(fold(decode(bytes.fromhex(row["event"])) for row in rows).digest())
"""


@pytest.fixture(scope="module")
def golden() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(GOLDEN.read_text())
    return rows


def test_the_stored_bytes_mean_what_they_meant(
    golden: list[dict[str, str]], sample_journal: list[Event]
) -> None:
    stored = [bytes.fromhex(row["event"]) for row in golden]
    assert [decode(data) for data in stored] == sample_journal
    assert list(decode_all(b"".join(stored))) == sample_journal


def test_events_are_still_stored_in_the_same_bytes(
    golden: list[dict[str, str]], sample_journal: list[Event]
) -> None:
    assert [encode(event).hex() for event in sample_journal] == [row["event"] for row in golden]


def test_the_state_after_each_event_is_what_it_was(golden: list[dict[str, str]]) -> None:
    state = State()
    for row in golden:
        apply(state, decode(bytes.fromhex(row["event"])))
        assert state.digest() == row["digest"], f"after event {state.next_seq - 1}"


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_digest_does_not_depend_on_the_process(
    golden: list[dict[str, str]], sample_journal: list[Event], seed: str
) -> None:
    """Strings hash differently in every process; the order of sets must not get into a state."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PRINT_DIGEST, str(GOLDEN)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == golden[-1]["digest"] == fold(sample_journal).digest()


def test_riders_and_what_is_handed_back_mean_what_they_meant(riders_journal: list[Event]) -> None:
    check_rows(RIDERS, riders_journal)


def test_waits_and_what_was_received_mean_what_they_meant(waits_journal: list[Event]) -> None:
    check_rows(WAITS, waits_journal)


def test_maps_and_their_items_mean_what_they_meant(map_journal: list[Event]) -> None:
    check_rows(MAPS, map_journal)


def test_retries_that_wait_mean_what_they_meant(retries_journal: list[Event]) -> None:
    check_rows(RETRIES, retries_journal)


def check_rows(file: Path, journal: list[Event]) -> None:
    rows: list[dict[str, str]] = json.loads(file.read_text())
    assert [encode(event).hex() for event in journal] == [row["event"] for row in rows]
    state = State()
    for row in rows:
        apply(state, decode(bytes.fromhex(row["event"])))
        assert state.digest() == row["digest"], f"after event {state.next_seq - 1}"
