"""Tasks run in the runtime environment of the job that submitted their workflow."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

JOB = """
import os, ray, milepost
print("read", flush=True)
ray.init(runtime_env={{"env_vars": {{"TINT": {tint!r}}}, "working_dir": {folder!r}}})

@ray.remote(num_cpus=0.5)
def look():
    import tinted
    return [os.environ["TINT"], tinted.TINT]

@ray.remote(num_cpus=0.5, runtime_env={{"env_vars": {{"SHADE": "dark"}}}})
def look_closer(seen):
    return [*seen, os.environ["TINT"], os.environ["SHADE"]]

dag = look_closer.bind(look.bind())
print(milepost.run(dag, workflow_id={name!r} + {tint!r}), flush=True)
"""


def test_two_jobs_side_by_side_have_each_their_own(
    workflow_id: str, run_driver: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    started = {}
    for tint in ("red", "blue"):
        folder = tmp_path / tint
        folder.mkdir()
        (folder / "tinted.py").write_text(f"TINT = {tint!r}\n")
        job = JOB.format(tint=tint, folder=str(folder), name=workflow_id)
        started[tint] = run_driver(job)
        stdout = started[tint].stdout
        assert stdout is not None
        assert stdout.readline() == "read\n"  # the next job's program takes this one's file
    for tint, process in started.items():
        shown, _ = process.communicate(timeout=120)
        assert shown == f"{[tint, tint, tint, 'dark']}\n"
