"""The doctor on a real cluster: every node runs a task and reaches the storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_cluster import LocalCluster
from milepost.doctor import Level
from milepost.doctor.rounds import check_ray
from milepost.engine.checkup import judge


def test_a_cluster_that_is_well_is_found_well(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    found = list(check_ray(str(tmp_path)))
    assert [(each.subject, each.level) for each in found] == [
        ("ray", Level.OK),
        ("worker", Level.OK),
    ], found


def test_a_storage_that_a_node_cannot_use_is_found(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "letters.txt").touch()
    (*_, worker) = check_ray(str(tmp_path))
    assert worker.level is Level.FAULT
    assert "letters.txt" in worker.text


def test_a_node_with_another_milepost_or_another_time_is_found() -> None:
    seen = {"host": "far", "time": 1000.0, "milepost": "0.0.1", "storage": ""}
    assert [level for _, level, _, _ in judge(seen, 1100.0, 1101.0)] == ["fault", "warning"]
