"""Starts the dispatchers of a store in the job of this process. Brings all of the engine along."""

from __future__ import annotations

from typing import Any

import ray

from milepost.engine.dispatcher import Dispatcher
from milepost.engine.names import CALLS_MAX, NAMESPACE, dispatcher_name


def start_dispatcher(storage: str, store_id: str, cluster_id: str, index: int, manager: Any) -> Any:
    """Starts a dispatcher in the job of this process, or finds the one that runs."""
    return (
        ray.remote(Dispatcher)
        .options(
            name=dispatcher_name(store_id, index),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=CALLS_MAX,
            enable_task_events=False,
        )
        .remote(storage, cluster_id, index, manager)
    )
