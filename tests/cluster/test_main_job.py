"""A real job outlives the death of its whole cluster, at whatever moment that comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stdlib_survey import run
from survey import standard_library
from survey_job import Job


@pytest.mark.parametrize("kill_at", [0.1, 0.5, 0.9])
def test_nothing_committed_runs_again_after_the_cluster_was_killed(
    kill_at: float, tmp_path: Path
) -> None:
    job = Job.create(tmp_path, standard_library(), files_max=400)
    evidence = run(job, kill_at=kill_at)
    assert evidence.violations() == []
