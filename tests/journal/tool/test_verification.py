"""``verify`` tells apart what a crash, a disk and a person do, each with its code and its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.journal import Frame, LocalStore, open_store, read_journal
from milepost.journal.frame import encode_frames
from milepost.replay.codec import encode
from milepost.replay.events import Noted


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = open_store(tmp_path / "store")
    assert isinstance(store, LocalStore)
    tell_story(store, "w", shards=4)
    return store


def run(store: LocalStore, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--storage", store.root, "verify", "w", *arguments])


def place(done: Result) -> tuple[str, str, int]:
    finding = json.loads(done.stdout)["findings"][0]
    return finding["kind"], finding["key"], finding["offset"]


def edit(store: LocalStore, frame: Frame, content: bytes) -> None:
    path = Path(store.root, frame.file)
    whole = path.read_bytes()
    path.write_bytes(whole[: frame.offset] + content + whole[frame.end :])


def test_a_torn_end_is_no_fault_unless_asked(store: LocalStore) -> None:
    last = list(read_journal(store, "w"))[-1]
    path = Path(store.root, last.file)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[last.offset : last.offset + 40])
    assert run(store).exit_code == 0
    done = run(store, "--strict", "--json")
    assert (done.exit_code, place(done)) == (9, ("torn", last.file, last.end))


def test_damage_is_told_with_its_place(store: LocalStore) -> None:
    frame = list(read_journal(store, "w"))[3]
    whole = Path(store.root, frame.file).read_bytes()
    hurt = bytearray(whole[frame.offset : frame.end])
    hurt[-1] ^= 1
    edit(store, frame, bytes(hurt))
    done = run(store, "--json")
    assert (done.exit_code, place(done)) == (3, ("damage", frame.file, frame.offset))


def test_an_edit_that_mends_all_checksums_is_told_apart(store: LocalStore) -> None:
    frames = list(read_journal(store, "w"))
    before, target, after = frames[2:5]
    assert target.file == after.file
    journal_id = Path(store.root, target.file).read_bytes()[16:32]
    (forged,) = encode_frames(
        [encode(Noted(text="nothing happened", who="nobody", at_us=1))] * target.count,
        journal_id=journal_id,
        epoch=target.epoch,
        first_seq=target.first_seq,
        chain=before.chain,
    )
    edit(store, target, forged.head + forged.payload)
    done = run(store, "--json")
    moved = after.offset + forged.size - (target.end - target.offset)
    assert (done.exit_code, place(done)) == (8, ("altered", after.file, moved))
    assert run(store).exit_code == 8
    # Every command that reads so far says the same.
    whole = ["--storage", store.root, "journal", "w", "--json"]
    assert CliRunner().invoke(main, whole).exit_code == 8


def test_a_frame_that_was_cut_out_is_told_apart(store: LocalStore) -> None:
    target, after = list(read_journal(store, "w"))[3:5]
    edit(store, target, b"")
    done = run(store, "--json")
    assert (done.exit_code, place(done)) == (8, ("altered", after.file, target.offset))


def test_a_segment_of_another_journal_is_told_apart(store: LocalStore) -> None:
    tell_story(store, "v", shards=4, seed=2)
    ours, others = (sorted(Path(store.root, f"workflows/{id_}/segments").iterdir()) for id_ in "wv")
    ours[0].write_bytes(others[0].read_bytes())
    done = run(store, "--json")
    assert (done.exit_code, place(done)[0]) == (8, "altered")
