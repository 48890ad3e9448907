"""The start of the engine on a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from local_cluster import LocalCluster

DRIVER = """
import os, time, psutil, ray, milepost

FOLDER = os.path.dirname(os.path.abspath(__file__))
ray.init(log_to_driver=False)

@ray.remote
def tell_process():
    return os.getpid()

def is_ready_for_us(process):
    '''Whether it is a worker that was started for programs of this folder.'''
    try:
        path = process.environ().get("PYTHONPATH", "").split(os.pathsep)
        return process.cmdline()[0].startswith("ray::") and FOLDER in path
    except (psutil.Error, IndexError):
        return False

milepost.init(storage=FOLDER + "/store")
deadline = time.monotonic() + 60
while not any(map(is_ready_for_us, psutil.process_iter())):
    assert time.monotonic() < deadline, "no worker was made ready"
    time.sleep(0.01)
called = time.time()
print(psutil.Process(milepost.run(tell_process.bind())).create_time() < called)
"""


def test_the_first_task_finds_a_worker_ready(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    with LocalCluster(num_cpus=2) as fresh:
        done = subprocess.run(
            [sys.executable, str(driver)],
            env=fresh.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout.split() == ["True"], done.stderr
