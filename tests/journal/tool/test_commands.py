"""The commands that look, on golden journals: what they print, how they exit, what they leave."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import msgpack
import pytest
from click.testing import CliRunner, Result

from milepost.__main__ import TOOLS, main
from milepost.errors import CorruptJournalError, StorageUnavailableError, UnsupportedFormatError
from milepost.journal import load_state, open_history, open_store, take_ownership
from milepost.journal.lease import Lease
from milepost.journal.plain import to_plain
from milepost.journal.tool.ancestry import find_upstream
from milepost.journal.tool.place import exit_code
from milepost.journal.tool.text import clean
from milepost.journal.tool.waiting import explain
from milepost.replay.codec import encode
from milepost.replay.payload import inline

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
TOLD: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
ID = TOLD["simple"]["workflow_id"]

every_story = pytest.mark.parametrize("story", sorted(TOLD))


def run(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--storage", str(store), *arguments])


def lines(store: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(store, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@every_story
def test_what_is_shown_is_what_the_journal_gives(story: str) -> None:
    told, store = TOLD[story], GOLDEN / story
    (listed,) = lines(store, "ls")
    assert (listed["workflow_id"], listed["status"]) == (told["workflow_id"], told["status"])
    (shown,) = lines(store, "show", told["workflow_id"])
    assert {name: shown[name] for name in ("events", "epoch", "status", "digest")} == {
        name: told[name] for name in ("events", "epoch", "status", "digest")
    }
    assert [each["epoch"] for each in shown["owners"]][-1] == told["epoch"]
    events = lines(store, "journal", told["workflow_id"])
    assert [each["seq"] for each in events] == list(range(told["events"]))
    tasks = lines(store, "tasks", told["workflow_id"])
    assert len(tasks) == sum(shown["tasks"].values())


@every_story
@pytest.mark.parametrize("command", sorted(TOOLS))
def test_looking_changes_nothing_and_people_are_told_too(
    story: str, command: str, tmp_path: Path
) -> None:
    before = contents_of(GOLDEN / story)
    done = run(GOLDEN / story, command, *arguments_of(story, command, tmp_path))
    assert done.exit_code == 0, done.output
    assert done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert contents_of(GOLDEN / story) == before


def arguments_of(story: str, command: str, scratch: Path) -> list[str]:
    more = {
        "bundle": [ID, "-o", str(scratch / "b.tar")],
        "export": [ID, "--to", "jsonl"],
        "ls": [],
        "report": [ID, "-o", "-"],
        "sql": ["select count(*) from workflows"],
    }
    if command != "lineage":
        return more.get(command, [ID])
    return [ID, lines(GOLDEN / story, "tasks", ID)[0]["task"]]


def contents_of(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@every_story
def test_every_point_of_the_past_can_be_rebuilt(story: str) -> None:
    told = TOLD[story]
    history = open_history(GOLDEN / story, told["workflow_id"])
    for seq in range(told["events"]):
        assert history.state_at(seq=seq).next_seq == seq + 1
    assert history.state_at().digest() == told["digest"]
    (shown,) = lines(GOLDEN / story, "state", ID, "--at", str(told["events"] - 1))
    assert shown["digest"] == told["digest"]


def test_a_time_before_the_first_event_gives_an_empty_state() -> None:
    created_us = load_state(open_store(GOLDEN / "simple", create=False), ID).created_us
    history = open_history(GOLDEN / "simple", ID)
    assert history.state_at(at_us=created_us - 1).next_seq == 0
    assert history.state_at(at_us=created_us).next_seq >= 1
    (shown,) = lines(GOLDEN / "simple", "state", ID, "--at", "1970-01-02")
    assert shown["events"] == 0


def test_events_can_be_chosen_by_kind_and_number() -> None:
    chosen = lines(GOLDEN / "fan_out", "journal", ID, "--from", "2", "--to", "5")
    assert [each["seq"] for each in chosen] == [2, 3, 4, 5]
    kinds = {
        each["kind"] for each in lines(GOLDEN / "fan_out", "journal", ID, "--kind", "StatusChanged")
    }
    assert kinds == {"StatusChanged"}


def test_redacted_payloads_and_errors_are_not_printed() -> None:
    whole = run(GOLDEN / "failure", "journal", ID, "--json").stdout
    redacted = run(GOLDEN / "failure", "journal", ID, "--json", "--redact").stdout
    messages = [
        each["event"]["error"]["message"]
        for each in map(json.loads, whole.splitlines())
        if "error" in each["event"]
    ]
    assert messages
    assert not any(json.dumps(message) in redacted for message in messages)
    assert '"value"' in whole
    assert '"value"' not in redacted


def test_an_end_that_another_owner_may_not_keep_is_called_unsettled(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "simple", store)
    epoch = TOLD["simple"]["epoch"]
    take_ownership(open_store(store), ID, owner="late").close()
    (shown,) = lines(store, "show", ID)
    assert shown["unsettled"] == f"unsettled: claimed by epoch {epoch + 1}"
    assert shown["unsettled"] in run(store, "ls").stdout


def test_an_unknown_id_is_answered_with_near_ones() -> None:
    done = run(GOLDEN / "simple", "show", "golden/e")
    assert done.exit_code == 4
    assert f"did you mean {ID}?" in done.stderr


def test_a_store_without_workflows_says_so(tmp_path: Path) -> None:
    open_store(tmp_path / "store")
    assert run(tmp_path / "store", "ls").stdout == "no workflows\n"
    done = run(tmp_path / "store", "show", "w")
    assert (done.exit_code, "the store is empty" in done.stderr) == (4, True)


def test_a_workflow_without_its_journal_is_told_from_an_unknown_one(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "simple", store)
    for path in store.rglob("segments"):
        shutil.rmtree(path)
    done = run(store, "show", ID)
    assert (done.exit_code, "holds no journal" in done.stderr) == (4, True)


def test_a_folder_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for place in (tmp_path, tmp_path / "missing"):
        assert run(place, "ls").exit_code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_without_a_store_the_command_line_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILEPOST_STORAGE", raising=False)
    assert CliRunner().invoke(main, ["ls"]).exit_code == 2
    monkeypatch.setenv("MILEPOST_STORAGE", str(GOLDEN / "simple"))
    assert CliRunner().invoke(main, ["ls"]).exit_code == 0


def test_damage_is_named_with_its_place(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "takeover", store)
    first = min(path for path in store.rglob("segments/*") if path.is_file())
    damaged = bytearray(first.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    first.write_bytes(damaged)
    done = run(store, "journal", ID)
    assert done.exit_code == 3
    assert first.name in done.stderr


def test_verify_names_the_place_of_damage_and_counts_the_clean(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "simple", store)
    first = min(path for path in store.rglob("segments/*") if path.is_file())
    content = bytearray(first.read_bytes())
    done = run(store, "verify", ID)
    assert done.exit_code == 0, done.output
    content[200] ^= 1
    first.write_bytes(content)
    done = run(store, "verify", "--all", "--json")
    assert done.exit_code == 3
    (told,) = map(json.loads, done.stdout.splitlines())
    assert told["clean"] is False
    assert first.name in told["findings"][0]["key"]
    assert run(store, "verify", "golden").exit_code == 4
    assert run(store, "verify").exit_code == 2


def test_each_error_has_its_code() -> None:
    assert exit_code(CorruptJournalError("f", 0, "why")) == 3
    assert exit_code(UnsupportedFormatError("f", 2, 1)) == 6
    assert exit_code(StorageUnavailableError("list", "k", "why")) == 7


def test_nothing_stored_drives_the_terminal_or_breaks_json() -> None:
    assert clean("a\x1b[2J\n\x9b\u202e") == r"a\x1b[2J\n\x9b\u202e"
    value = {"x": float("nan"), "y": [b"\x00", {"z": None}]}
    told = to_plain(inline(0, msgpack.packb(value)))
    assert told["value"] == {"x": "nan", "y": [{"hex": "00"}, {"z": None}]}
    json.dumps(told, allow_nan=False)
    assert "unreadable" in to_plain(inline(0, b"\xc1"))


def test_a_pickle_stays_closed() -> None:
    assert to_plain(inline(1, b"cos\nsystem\n")) == {"encoding": 1, "size": 11}


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").partition("\n")[0] == TOOLS[name][1]
    assert TOOLS[name][1] in " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())


def test_looking_does_not_load_ray() -> None:
    program = "import sys; from milepost.__main__ import main; main(standalone_mode=False)"
    program += "; print('loaded', *sorted({'ray', 'cloudpickle'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program, "--storage", str(GOLDEN / "simple"), "show", ID],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "loaded"


def test_why_names_the_failure_or_who_works_on_what() -> None:
    history = open_history(GOLDEN / "failure", ID)
    failed = explain(history.state_at(seq=13), None, 0)
    assert "task __main__.score_table failed (exception) after 2 attempts" in failed[0]
    running = history.state_at(seq=4)
    lost = explain(running, None, 0)
    assert "seems gone: it has no lease" in lost[0]
    lease = Lease(owner="o", beat=1, written_us=1, lease_us=10, machine="m", process="p")
    alive = explain(running, lease, 2)
    assert alive == lost[2:]
    assert [each.split()[1] for each in alive[:4]] == [
        "__main__.score_table",
        "__main__.score_table_1",
        "steps.parse_chunk",
        "steps.parse_chunk_1",
    ]
    assert explain(running, lease, 1000)[: len(lost)] != alive
    assert explain(history.state_at(), None, 0)[0].startswith("it waits for nothing: SUCCESSFUL")


@every_story
def test_every_task_went_into_the_result_of_the_root(story: str) -> None:
    state = open_history(GOLDEN / story, ID).state_at()
    assert sorted(find_upstream(state, state.root)) == list(range(len(state.tasks)))


def test_lineage_follows_inputs_only() -> None:
    state = open_history(GOLDEN / "fan_out", ID).state_at()
    first = state.graph.task_id(0)
    (alone,) = lines(GOLDEN / "fan_out", "lineage", ID, first)
    assert (alone["task"], alone["inputs"]) == (first, [])
    assert len(alone["code"]) == 64
    assert run(GOLDEN / "fan_out", "lineage", ID, "nobody").exit_code == 4


@every_story
def test_a_folded_graph_keeps_every_task_and_every_input(story: str) -> None:
    state = open_history(GOLDEN / story, ID).state_at()
    (drawn,) = lines(GOLDEN / story, "graph", ID)
    assert len(drawn["nodes"]) == len(set(state.graph.node_functions))
    counted = [
        int(number) for each in drawn["nodes"] for number in re.findall(r"(\d+) [a-z]", each)
    ]
    assert sum(counted) == len(state.tasks)
    inputs = sum(state.graph.input_count(task) for task in range(len(state.tasks)))
    assert sum(each["count"] for each in drawn["edges"]) == inputs
    mermaid = run(GOLDEN / story, "graph", ID).stdout.splitlines()
    dot = run(GOLDEN / story, "graph", ID, "--to", "dot").stdout.splitlines()
    size = len(drawn["nodes"]) + len(drawn["edges"])
    assert (mermaid[0], len(mermaid)) == ("flowchart TD", size + 1)
    assert (dot[0], dot[-1], len(dot)) == ("digraph workflow {", "}", size + 2)


def test_a_head_kept_elsewhere_shows_a_journal_that_was_written_anew(tmp_path: Path) -> None:
    """Two whole journals of one workflow: the second has an event changed and all sums mended."""
    history = [entry.event for entry in open_history(GOLDEN / "simple", ID)]
    forged = [*history[:-1], replace(cast("Any", history[-1]), at_us=1)]
    heads = []
    for name, events in (("first", history), ("second", forged), ("copy", history)):
        writer = take_ownership(open_store(tmp_path / name), ID, owner="o")
        for event in events:
            writer.flush([encode(event)])
        writer.close()
        assert run(tmp_path / name, "verify", ID).exit_code == 0
        heads.append(run(tmp_path / name, "head", ID).stdout.strip())
    assert heads[0] != heads[1]
    assert heads[0] == heads[2], "only the events count"
    assert run(tmp_path / "first", "head", ID, "--check", heads[0]).exit_code == 0
    refused = run(tmp_path / "second", "head", ID, "--check", heads[0])
    assert (refused.exit_code, "no accident" in refused.stderr) == (8, True)
    assert run(tmp_path / "first", "verify", ID, "--head", heads[0]).exit_code == 0
    told = run(tmp_path / "second", "verify", ID, "--head", heads[0])
    assert (told.exit_code, "altered: " in told.stdout) == (8, True)
    assert run(tmp_path / "first", "head", ID, "--check", "x").exit_code == 2


def test_why_says_what_a_task_waits_for_that_no_worker_runs() -> None:
    history = open_history(GOLDEN / "waits", ID)
    seen: set[str] = set()
    for entry in history:
        if history.state_at(seq=entry.seq).status == "RUNNING":
            seen |= set(explain(history.state_at(seq=entry.seq), None, 0))
    (name, *_) = history.state_at().graph.names
    told = " ".join(sorted(each for each in seen if "waits for" in each))
    assert "an event of the key 'approved'" in told
    assert "2 of its inputs, of which 0 are there" in told
    assert f"waits for task {name}" in told
    assert "waits for 20" in told  # a date
