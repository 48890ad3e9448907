"""How the engine's actors are called, and which dispatcher a workflow belongs to."""

from __future__ import annotations

import zlib

NAMESPACE = "milepost"
"""The Ray namespace of all actors of the engine, whatever the job's own is."""

CALLS_MAX = 100_000
"""Calls that may wait inside one actor at once; each costs a few kilobytes."""

_MANAGER_PREFIX = "manager-"


def manager_name(store_id: str) -> str:
    """Returns the name of the manager of a store."""
    return f"{_MANAGER_PREFIX}{store_id}"


def is_manager_name(name: str) -> bool:
    """Tells whether an actor of this name is a manager."""
    return name.startswith(_MANAGER_PREFIX)


def dispatcher_name(store_id: str, index: int) -> str:
    """Returns the name of a dispatcher of a store."""
    return f"dispatcher-{store_id}-{index}"


def listeners_name(uri: str, environment: str) -> str:
    """Returns the name of the process in which a store's listeners of an environment wait."""
    return f"listeners-{zlib.crc32(uri.encode()):08x}-{environment}"


def route(workflow_id: str, dispatchers: int) -> int:
    """Returns which of so many dispatchers a workflow belongs to."""
    return zlib.crc32(workflow_id.encode()) % dispatchers
