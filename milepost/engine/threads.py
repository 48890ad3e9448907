"""Runs what blocks, storage calls and folding, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class InThread(Protocol):
    """Runs a function that blocks; returns what it returns, raises what it raises."""

    def __call__(self, function: Callable[..., Result], /, *arguments: Any) -> Awaitable[Result]:
        """Run ``function`` with ``arguments``."""


def in_pool(pool: ThreadPoolExecutor) -> InThread:
    """Returns what runs functions in the threads of a pool."""

    async def run(function: Callable[..., Result], /, *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    return run


def own_thread() -> InThread:
    """Returns what runs functions in one thread that nothing else uses.

    Among the flushes of many workflows a lease's renewal would wait for all that came before it. A
    storage that is slow must not make its owner look dead.
    """
    return in_pool(ThreadPoolExecutor(1, thread_name_prefix="milepost-lease"))
