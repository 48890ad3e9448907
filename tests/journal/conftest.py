"""Stores to test against: what holds for one has to hold for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.journal import LocalStore, MemoryStore, Store


@pytest.fixture(params=["local", "memory", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return MemoryStore(request.param, appendable=request.param == "memory")


@pytest.fixture(params=["memory", "objects"])
def memory_store(request: pytest.FixtureRequest) -> MemoryStore:
    """An empty store in memory, one that appends and one that does not."""
    return MemoryStore(request.param, appendable=request.param == "memory")
