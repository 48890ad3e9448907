"""``tail``: the newest events, those to come, and those that a new owner did not keep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.journal import MemoryStore, open_store, read_journal, take_ownership
from milepost.journal.following import Follower
from milepost.journal.reader import JournalWalk
from milepost.journal.writer import JournalWriter


def test_a_follower_gets_every_frame_once() -> None:
    store = MemoryStore()
    follower, seen = Follower(store, "w"), []
    for batch in range(5):
        writer = take_ownership(store, "w", owner=f"{batch}")
        for number in range(3):
            writer.flush([bytes([number]), bytes([number])])
            changed, frames = follower.poll()
            assert changed is None
            seen += frames
        writer.close()
    assert follower.poll() == (None, [])
    assert [frame.chain for frame in seen] == [frame.chain for frame in read_journal(store, "w")]
    assert follower.next_seq == 30


def test_a_follower_is_told_what_was_taken_back() -> None:
    store = MemoryStore()
    writer = take_ownership(store, "w", owner="first")
    writer.flush([b"\x01"])
    walk = JournalWalk(store, "w")
    list(walk)
    follower = Follower(store, "w")
    writer.flush([b"\x02"])
    assert [frame.first_seq for frame in follower.poll()[1]] == [0, 1]
    # Somebody who read before the second frame goes on without it, as a claimant may.
    claim = take_ownership(store, "w", owner="second")._claim
    assert walk.tip is not None
    JournalWriter(store, "w", claim, walk.tip).flush([b"\x03", b"\x04"])
    changed, frames = follower.poll()
    assert changed == 1
    assert [(frame.first_seq, frame.count) for frame in frames] == [(1, 2)]


def test_tail_prints_the_last_events(tmp_path: Path) -> None:
    tell_story(open_store(tmp_path / "store"), "w", shards=3)
    arguments = ["--storage", str(tmp_path / "store")]
    whole = CliRunner().invoke(main, [*arguments, "journal", "w", "--json"]).stdout.splitlines()
    for count in (0, 1, 7, 10_000):
        done = CliRunner().invoke(main, [*arguments, "tail", "w", "-n", str(count), "--json"])
        assert done.stdout.splitlines() == (whole[-count:] if count else [])
    done = CliRunner().invoke(main, [*arguments, "tail", "w", "-f"])
    assert done.exit_code == 0, "a workflow that has ended is not followed"


def test_tail_follows_until_the_end(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    told = tell_story(store, "w", shards=3, finished=False, troubled=False)
    command = [sys.executable, "-m", "milepost", "--storage", str(tmp_path / "store")]
    command += ["tail", "w", "-f", "-n", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        first = json.loads(tail.stdout.readline())
        assert first["seq"] == told.state.next_seq - 1
        told.take_over()
        told.run()
        told.close()
        rest = [json.loads(line) for line in tail.stdout]
        assert tail.wait(60) == 0
    assert [each["seq"] for each in rest] == list(range(first["seq"] + 1, told.state.next_seq))
    assert rest[-1]["event"]["status"] == "SUCCESSFUL"
