"""The programs in the documents run, and print what is said of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import local_cluster
from local_cluster import LocalCluster

EXAMPLES = Path(local_cluster.__file__).parent


def test_the_first_workflow_prints_its_result_and_does_so_again(tmp_path: Path) -> None:
    with LocalCluster() as cluster:
        storage = {"MILEPOST_STORAGE": tmp_path.as_uri()}
        printed = [
            subprocess.run(
                [sys.executable, str(EXAMPLES / "first_workflow.py")],
                env=os.environ | cluster.environment | storage,
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            ).stdout
            for _ in range(2)
        ]
    assert printed == ["7.5\n", "7.5\n"]


def test_the_map_of_words_prints_what_its_page_shows(tmp_path: Path) -> None:
    with LocalCluster() as cluster:
        printed = subprocess.run(
            [sys.executable, str(EXAMPLES / "mapped_words.py")],
            env=os.environ | cluster.environment | {"MILEPOST_STORAGE": tmp_path.as_uri()},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
    page = (EXAMPLES.parent / "how-to" / "map.md").read_text(encoding="utf-8")
    assert f"```text\n{printed}```" in page
