"""Made-up workflows for the tests and pictures of the tool: through the real core, without Ray.

A pipeline that loads shards, parses and scores each, and merges them: with attempts that fail,
workers that die, and an owner that is succeeded.
"""

from __future__ import annotations

import hashlib

import msgpack

from milepost.journal import Store
from milepost.replay.fragment import Fragment, Function, TaskOptions
from milepost.replay.payload import inline
from rehearsal import Rehearsal, Result, small_integer

STEPS = ("pipeline.load_shard", "pipeline.parse", "pipeline.score", "pipeline.merge")


def make_pipeline(shards: int) -> Fragment:
    """Makes the graph: three tasks for each shard, and one that takes all scores."""
    node_functions, counts, inputs = [], [], []
    for shard in range(shards):
        node_functions += [0, 1, 2]
        counts += [0, 1, 2]
        inputs += [3 * shard, 3 * shard, 3 * shard + 1]
    node_functions.append(3)
    counts.append(shards)
    inputs += [3 * shard + 2 for shard in range(shards)]
    arities = sorted(set(counts))
    return Fragment(
        names=STEPS,
        functions=tuple(map(_make_function, STEPS)),
        options=(
            TaskOptions(max_retries=9, retry_errors=inline(0, b"\xc3"), ray=inline(0, b"\x80")),
        ),
        templates=tuple(
            msgpack.packb([[msgpack.ExtType(1, msgpack.packb(at)) for at in range(arity)], {}])
            for arity in arities
        ),
        node_names=tuple(node_functions),
        node_functions=tuple(node_functions),
        node_options=(0,) * len(node_functions),
        node_templates=tuple(map(arities.index, counts)),
        input_counts=tuple(counts),
        inputs=tuple(inputs),
    )


def _make_function(name: str) -> Function:
    code = b"\x80\x05 the code of " + name.encode()
    return Function(name=name, digest=hashlib.sha256(code).digest(), code=inline(1, code))


def tell_story(
    store: Store,
    workflow_id: str,
    *,
    shards: int = 8,
    seed: int = 1,
    finished: bool = True,
    troubled: bool = True,
    workers: int = 4,
    task_us: int = 200_000,
    result: Result = small_integer,
) -> Rehearsal:
    """Runs the pipeline under two owners.

    Args:
        store: Where to write it.
        workflow_id: Its id.
        shards: How wide it is.
        seed: Decides everything.
        finished: Whether it ends; else it stops two thirds through.
        troubled: Whether attempts fail, workers die, and an owner is succeeded.
        workers: How many slices are under way at once.
        task_us: How long a task takes, on average.
        result: Makes the values.

    Returns:
        What wrote it, as far as it got.
    """
    told = Rehearsal(store, workflow_id, seed=seed, workers=workers, task_us=task_us, result=result)
    environment = inline(0, msgpack.packb({"import_paths": [], "runtime_env": {}}))
    told.create(make_pipeline(shards), environment)
    size = max(1, shards // 40)
    if troubled:
        told.run(tasks_per_slice=size, failure=0.1, loss=0.05, reports_max=3 * shards // size // 2)
        told.take_over("its cluster was killed")
    if finished:
        told.run(tasks_per_slice=size, failure=0.05 * troubled)
    else:
        told.run(tasks_per_slice=size, reports_max=shards // size // 2 or 1)
    told.close()
    return told
