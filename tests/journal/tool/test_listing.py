"""``ls``: which workflows, in which order, how far and how large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from journal_stories import make_pipeline, tell_story
from milepost.__main__ import main
from milepost.journal import LocalStore, open_store, take_ownership
from milepost.replay.codec import encode
from milepost.replay.events import OwnershipTaken, StatusChanged, WorkflowCreated
from rehearsal import plain


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ls") / "store"
    opened = open_store(folder)
    assert isinstance(opened, LocalStore)
    tell_story(opened, "small", shards=2)
    tell_story(opened, "large", shards=60, seed=2)
    tell_story(opened, "half", shards=4, seed=3, finished=False)
    create(opened, "tagged", {"team": "blue", "night": 7})
    return folder


def create(store: LocalStore, workflow_id: str, metadata: dict[str, Any]) -> None:
    writer = take_ownership(store, workflow_id, owner="o")
    created = WorkflowCreated(
        workflow_id=workflow_id,
        at_us=1_000_000,
        fragment=make_pipeline(2),
        metadata=plain(metadata),
        environment=plain({}),
        durability="pipelined",
        versions="",
    )
    taken = OwnershipTaken(epoch=1, owner="o", reason="created", at_us=1_000_000)
    pending = StatusChanged(status="PENDING", reason="", who="o", at_us=1_000_000)
    writer.flush([encode(each) for each in (created, taken, pending)])
    writer.close()


def run(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--storage", str(store), "ls", *arguments])


def rows(store: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(store, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def ids(store: Path, *arguments: str) -> list[str]:
    return [each["workflow_id"] for each in rows(store, *arguments)]


def test_tasks_and_bytes_are_counted(store: Path) -> None:
    told = {each["workflow_id"]: each for each in rows(store)}
    assert (told["small"]["tasks_done"], told["small"]["tasks"]) == (7, 7)
    assert (told["tagged"]["tasks_done"], told["tagged"]["tasks"]) == (0, 7)
    assert 0 < told["half"]["tasks_done"] < told["half"]["tasks"] == 13
    folder = sum(path.stat().st_size for path in (store / "workflows/small").rglob("*.*"))
    assert told["small"]["bytes"] == folder
    assert "7/7" in run(store).stdout


def test_quick_reads_no_journal_whole(store: Path) -> None:
    assert all("tasks" not in each for each in rows(store, "--quick"))
    assert "7/7" not in run(store, "--quick").stdout


def test_sorted_and_limited(store: Path) -> None:
    assert ids(store, "--sort", "id") == ["half", "large", "small", "tagged"]
    assert ids(store, "--sort", "tasks", "--limit", "1") == ["large"]
    assert ids(store, "--sort", "size", "--limit", "1") == ["large"]
    created = [each["created_us"] for each in rows(store)]
    assert created == sorted(created, reverse=True)


def test_chosen_by_status_time_and_metadata(store: Path) -> None:
    assert ids(store, "--status", "pending") == ["tagged"]
    assert ids(store, "--until", "1970-01-02") == ["tagged"]
    assert "tagged" not in ids(store, "--since", "1970-01-02T00:00:00+00:00")
    assert ids(store, "--where", "team=blue") == ["tagged"]
    assert ids(store, "--where", "team=blue", "--where", "night=7") == ["tagged"]
    assert ids(store, "--where", "team=red") == []
    assert run(store, "--where", "team").exit_code == 2
    assert run(store, "--since", "yesterday").exit_code == 2


def test_a_workflow_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    store = tmp_path / "store"
    opened = open_store(store)
    tell_story(opened, "whole", shards=2)
    tell_story(opened, "hurt", shards=2)
    for path in (store / "workflows/hurt/segments").iterdir():
        path.write_bytes(path.read_bytes()[:150] + b"\xff" * 200)
    told = {each["workflow_id"]: each for each in rows(store)}
    assert (told["whole"]["tasks_done"], told["hurt"]["tasks_done"]) == (7, None)
    assert "damaged" in run(store).stdout
