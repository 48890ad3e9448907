"""Stores to test against: what holds for one has to hold for all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.journal import LocalStore, Location, MemoryStore, RemoteStore, Store
from storage_servers import StorageServer

IN_PROCESS = ["local", "memory", "objects"]
REMOTE = ["s3", "gcs", "azure", "fsspec"]


@pytest.fixture(params=[*IN_PROCESS, *REMOTE])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    storage_server: Callable[[str], StorageServer],
) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    if request.param in IN_PROCESS:
        return MemoryStore(request.param, appendable=request.param == "memory")
    return RemoteStore(Location(storage_server(request.param).uri(secrets.token_hex(8))))


@pytest.fixture(params=["memory", "objects"])
def memory_store(request: pytest.FixtureRequest) -> MemoryStore:
    """An empty store in memory, one that appends and one that does not."""
    return MemoryStore(request.param, appendable=request.param == "memory")


@pytest.fixture(params=REMOTE)
def remote_uri(
    request: pytest.FixtureRequest, storage_server: Callable[[str], StorageServer]
) -> str:
    """The URI of an empty folder on each server."""
    return storage_server(request.param).uri(secrets.token_hex(8))
