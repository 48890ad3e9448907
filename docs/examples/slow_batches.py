"""Twelve batches of two seconds each, and a mean: slow enough to be killed in between.

    python slow_batches.py

Every batch that begins leaves a line in `batches.log`. The tutorial runs this program, kills it and
runs it again.
"""

import os
import time

import ray
from ray.dag import DAGNode

import milepost


@ray.remote
def measure(batch: int, log: str) -> float:
    """Pretends to measure something for two seconds."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"batch {batch}\n")
    time.sleep(2)
    return batch / 2


@ray.remote
def mean(*values: float) -> float:
    """Returns the mean of all batches."""
    return sum(values) / len(values)


if __name__ == "__main__":
    log = os.path.abspath("batches.log")
    batches: list[DAGNode] = [measure.bind(number, log) for number in range(12)]
    print("mean:", milepost.run(mean.bind(*batches), workflow_id="batches"))
