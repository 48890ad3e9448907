"""What is left over after a campaign is found: each kind is planted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from campaign import leaks
from campaign.leaks import find_leaks, find_lost_objects
from campaign.ledger import Line

TITLES = {"Manager": 1, "Dispatcher": 1, "run_slice": 0}


class FakeStage:
    """A cluster as the search sees it: processes by title, and the anchors' command lines."""

    def __init__(self) -> None:
        self.open_files: list[str] = []
        self.anchors = 1
        self.counts = dict(TITLES)

    @property
    def cluster(self) -> Any:
        return SimpleNamespace(processes=self._anchors)

    def _anchors(self) -> list[Any]:
        command = ["python", "-m", "milepost.engine.anchor"]
        return [SimpleNamespace(pid=each, cmdline=lambda: command) for each in range(self.anchors)]

    def find(self, title: str) -> list[Any]:
        files = [SimpleNamespace(path=path) for path in self.open_files]
        return [
            SimpleNamespace(pid=pid, open_files=lambda: files) for pid in range(self.counts[title])
        ]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "SETTLE_S_MAX", 0.0)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases/one").touch()
    (tmp_path / "workflows/w/segments").mkdir(parents=True)
    return tmp_path


def look(stage: FakeStage, storage: Path) -> list[str]:
    found: Callable[..., list[str]] = find_leaks
    return found(stage, str(storage))


def test_a_cluster_at_rest_leaks_nothing(storage: Path) -> None:
    assert look(FakeStage(), storage) == []


@pytest.mark.parametrize(
    ("title", "count"), [("run_slice", 1), ("Manager", 0), ("Manager", 2), ("Dispatcher", 2)]
)
def test_processes_too_many_or_too_few_are_found(storage: Path, title: str, count: int) -> None:
    stage = FakeStage()
    stage.counts[title] = count
    assert len(look(stage, storage)) == 1


def test_a_second_anchor_is_found(storage: Path) -> None:
    stage = FakeStage()
    stage.anchors = 2
    assert len(look(stage, storage)) == 1


def test_an_open_file_of_an_ended_workflow_is_found(storage: Path) -> None:
    stage = FakeStage()
    stage.open_files = [f"{storage}/workflows/w/segments/1", os.devnull]
    assert look(stage, storage) == [f"{storage}/workflows/w/segments/1 is open"]


def test_temporary_files_and_old_leases_are_found(storage: Path) -> None:
    (storage / "workflows/w/segments/.tmp-0123").touch()
    (storage / "leases/two").touch()
    assert len(look(FakeStage(), storage)) == 2


def finished(object_bytes: int) -> Line:
    return Line(place=0, what="finished", at_ns=0, pid=1, fields={"object_bytes": object_bytes})


def test_objects_that_are_left_in_ray_are_found() -> None:
    assert find_lost_objects([finished(9), finished(0)]) == []
    assert len(find_lost_objects([finished(0), finished(9)])) == 1
