"""What Ray tells a process of the engine about its cluster and about itself."""

from __future__ import annotations

from typing import Any

import ray


def count_cpus() -> int:
    """Returns how many CPUs the cluster has now."""
    resources: Any = ray.cluster_resources  # Ray ships it untyped
    return int(resources().get("CPU", 1))


def was_restarted() -> bool:
    """Returns whether Ray restarted this actor, whose former process died."""
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)
