"""Journals of every version of the format are read for ever, to the same state, by two readers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from milepost.journal import dictionary as dictionaries
from milepost.journal import list_summaries, load_state, open_store, read_journal
from milepost.replay.codec import decode_all
from milepost.replay.events import (
    AttemptFailed,
    AttemptsLost,
    Event,
    EventReceived,
    GraphExtended,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
    Noted,
    OwnershipTaken,
    RetriesDue,
    StatusChanged,
    TasksCommitted,
    TasksHandedBack,
    TasksScheduled,
    WaitsBegan,
    WaitsEnded,
    WorkflowCreated,
)
from page_reader import PageReader

GOLDEN = Path(__file__).parent
DICTIONARIES = Path(dictionaries.__file__).parent / "dictionaries"
STORIES: list[tuple[Path, dict[str, Any]]] = [
    (expected.parent / name, told)
    for expected in sorted(GOLDEN.glob("v*/expected.json"))
    for name, told in json.loads(expected.read_text(encoding="utf-8")).items()
]
KINDS: dict[type, int] = {
    WorkflowCreated: 1,
    OwnershipTaken: 2,
    TasksScheduled: 3,
    TasksCommitted: 4,
    AttemptFailed: 5,
    AttemptsLost: 6,
    GraphExtended: 7,
    StatusChanged: 8,
    Noted: 9,
    TasksHandedBack: 10,
    WaitsBegan: 11,
    WaitsEnded: 12,
    EventReceived: 13,
    ItemsScheduled: 14,
    ItemsCommitted: 15,
    ItemFailed: 16,
    ItemsLost: 17,
    ItemsHandedBack: 18,
    RetriesDue: 19,
}

every_story = pytest.mark.parametrize(
    ("folder", "told"), STORIES, ids=[f"{each.parent.name}-{each.name}" for each, _ in STORIES]
)

IN_SEGMENTS = [story for story in STORIES if not list(story[0].rglob("compacted/*"))]
"""What this page reader reads; that of ``tests/journal/test_format.py`` knows compacted objects."""


def test_there_are_stories_and_nothing_else() -> None:
    assert len(STORIES) >= 8
    assert len(IN_SEGMENTS) >= 7
    folders = {folder for version in GOLDEN.glob("v*") for folder in version.iterdir()}
    assert {each for each in folders if each.is_dir()} == {folder for folder, _ in STORIES}


@every_story
def test_a_golden_journal_replays_to_the_state_it_had(folder: Path, told: dict[str, Any]) -> None:
    before = digest_of(folder)
    store = open_store(folder, create=False)
    state = load_state(store, told["workflow_id"])
    found = {"events": state.next_seq, "epoch": state.epoch, "status": state.status}
    assert found == {name: told[name] for name in found}
    assert state.digest() == told["digest"]
    (listed,) = list_summaries(store)
    assert (listed.workflow_id, listed.status) == (told["workflow_id"], told["status"])
    assert digest_of(folder) == before, "reading changed the store"


def digest_of(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("folder", "told"), IN_SEGMENTS)
def test_a_reader_written_from_the_pages_reads_the_same_events(
    folder: Path, told: dict[str, Any]
) -> None:
    reader = PageReader(folder, DICTIONARIES, told["workflow_id"])
    read = reader.read_events()
    assert len(read) == told["events"]
    store = open_store(folder, create=False)
    ours = [
        event
        for frame in read_journal(store, told["workflow_id"])
        for event in decode_all(frame.raw)
    ]
    assert read == [as_the_page_says(event) for event in ours]


def as_the_page_says(event: Event) -> dict[str, Any]:
    return {"kind": KINDS[type(event)], **as_lists(asdict(event))}


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_lists(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_lists(each) for each in value]
    return value


def test_the_stories_hold_what_is_hard_to_read() -> None:
    """Every kind of event but notes, torn ends, late bytes, both kinds of frames and of blobs."""
    folder = GOLDEN / "v1"
    workflow_id = STORIES[0][1]["workflow_id"]
    kinds = set()
    for each, _ in IN_SEGMENTS:
        kinds |= {
            event["kind"] for event in PageReader(each, DICTIONARIES, workflow_id).read_events()
        }
    assert kinds == {1, 2, 3, 4, 5, 6, 7, 8, *range(11, 20)}
    first, _, newest = sorted((folder / "takeover").rglob("segments/*"))
    assert b"too late" in first.read_bytes()
    reader = PageReader(folder / "takeover", DICTIONARIES, workflow_id)
    assert "too late" not in str(reader.read_events())
    assert newest.read_bytes()[-40:].startswith(b"\xf3MP\x9e")
    segments = sorted((folder / "without_dictionary").rglob("segments/*"))
    assert [path.read_bytes()[12] for path in segments] == [0, 1]
    blobs = sorted((folder / "blobs").rglob("blobs/*/*/*"))
    assert {path.read_bytes()[10] for path in blobs} == {0, 1}
    reader = PageReader(folder / "blobs", DICTIONARIES, workflow_id)
    contents = [reader.read_blob(bytes.fromhex(path.name)) for path in blobs]
    assert b"again and again " * 1000 in contents
