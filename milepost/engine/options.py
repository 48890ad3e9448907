"""Task options: which are ours, which are Ray's, and how they are stored."""

from __future__ import annotations

from typing import Any

from milepost.engine.payloads import Sink, serialize
from milepost.errors import InvalidOptionError, NotSerializableError
from milepost.replay.fragment import TaskOptions

MAX_RETRIES_DEFAULT = 3
"""As Ray's own default for tasks."""

_ENGINE_OPTIONS = frozenset({"max_retries", "retry_exceptions", "num_returns"})
"""Options of Ray tasks that the engine fulfils itself."""


def pack_options(options: dict[str, Any], task: str, sink: Sink) -> TaskOptions:
    """Returns the options given to ``@ray.remote``, ``.options`` or both, in stored form.

    Raises:
        InvalidOptionError: If an option has a value that a durable task cannot have.
        NotSerializableError: If a value cannot be pickled.
    """
    if options.get("num_returns", 1) not in (None, 1):
        raise InvalidOptionError(
            f"task {task} has num_returns={options['num_returns']!r}; a durable task has one "
            f"result (return a tuple)"
        )
    retries = options.get("max_retries")
    retries = MAX_RETRIES_DEFAULT if retries is None else retries
    try:
        return TaskOptions(
            max_retries=retries,
            retry_errors=serialize(_normalize(options.get("retry_exceptions", False)), sink),
            ray=serialize(_select_ray_options(options), sink),
        )
    except NotSerializableError as error:
        raise NotSerializableError(f"options of task {task}: {error}") from error


def _normalize(retry_exceptions: Any) -> Any:
    if retry_exceptions is None:
        return False
    if isinstance(retry_exceptions, list | tuple):
        return tuple(retry_exceptions)
    return retry_exceptions


def _select_ray_options(options: dict[str, Any]) -> dict[str, Any]:
    selected = {
        name: value
        for name, value in sorted(options.items())
        if name not in _ENGINE_OPTIONS and value is not None
    }
    if "runtime_env" in selected:
        selected["runtime_env"] = dict(selected["runtime_env"])
    return selected
