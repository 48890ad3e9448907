"""Task options: which are ours, which are Ray's, and how they are stored.

Ray refuses options that it does not know, so ours travel in one it passes on unseen: a label named
``milepost``, whose text is JSON. Labels of the user's own stay beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ray.remote_function import RemoteFunction

from milepost.engine.payloads import Sink, serialize
from milepost.engine.retry import Retry, check_timeout, read_retry, to_us
from milepost.errors import InvalidOptionError, NotSerializableError
from milepost.replay.fragment import Backoff, TaskOptions
from milepost.replay.payload import Encoding, Payload, inline, pack_plain

Function = TypeVar("Function")

MAX_RETRIES_DEFAULT = 3
"""As Ray's own default for tasks."""

_LABELS = "_labels"
_LABEL = "milepost"

WAITS_FOR = "waits_for"
"""What a task of ours waits for; users' tasks never have it."""

_ENGINE_OPTIONS = frozenset({"max_retries", "retry_exceptions", "num_returns"})
"""Options of Ray tasks that the engine fulfils itself."""


class GivenOptions(dict[str, Any]):
    """Durable options of a task, as :func:`options` returns them: for ``**``, or a decorator."""

    def __call__(self, function: Function) -> Function:
        """Gives these options to a ``@ray.remote`` function, instead of those it had.

        Raises:
            InvalidOptionError: If ``function`` is something else.
        """
        if not isinstance(function, RemoteFunction):
            raise InvalidOptionError(
                f"@milepost.options(...) stands above @ray.remote, not above an object of type "
                f"{type(function).__name__}; f.options(**milepost.options(...)) also works"
            )
        given = function._default_options
        given[_LABELS] = {**(given.get(_LABELS) or {}), **self[_LABELS]}
        return cast(Function, function)


def options(
    *,
    task_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    catch_exceptions: bool | None = None,
    checkpoint: bool | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    **unknown: Any,
) -> GivenOptions:
    """Sets what a durable task has beyond a Ray task.

    Works as a decorator above ``@ray.remote``, as ``f.options(**milepost.options(...))`` and as
    ``@ray.remote(**milepost.options(...))``. Options given later replace all of those given before;
    options of Ray are not touched. (They travel in Ray's option ``_labels``, so a later
    ``.options(_labels=...)`` drops them, and labels of a function's own are to be given again with
    them: ``_labels={**milepost.options(...)["_labels"], "mine": "x"}``.)

    Args:
        task_id: The task's id in its workflow; by default the function's name. Further tasks of an
            id are numbered: ``name``, ``name_1``, ``name_2``.
        metadata: A dict of what JSON can hold, kept with the task.
        catch_exceptions: If true, the task's value is a pair: ``(result, None)``, or
            ``(None, exception)`` if it failed for good, or something in its continuation did.
        checkpoint: False says that the value need not be stored; by default as for the task whose
            continuation it belongs to. So far every value is stored all the same, so that nothing
            that has finished runs again.
        retry: How often and when a task that failed is tried again, instead of Ray's
            ``max_retries`` and ``retry_exceptions``.
        timeout_s: How long an attempt may run, in seconds from when its worker begins. One that
            runs longer is ended by force, with the Ray tasks it started, and has failed with a
            TaskTimeoutError. Such tasks travel to their workers one by one.
        **unknown: There are no others; options of Ray are given to Ray.

    Returns:
        A dict to be unpacked, which can also be called with a ``@ray.remote`` function.

    Raises:
        InvalidOptionError: If there is no such option, or it cannot have this value.

    Example:
        >>> @milepost.options(task_id="load", catch_exceptions=True)
        ... @ray.remote(max_retries=2)
        ... def load(path):
        ...     return open(path).read()
    """
    if unknown:
        raise InvalidOptionError(
            f"milepost.options() has no {', '.join(map(repr, unknown))}, but task_id, metadata, "
            f"catch_exceptions, checkpoint, retry and timeout_s; options of Ray go to f.options() "
            f"or @ray.remote()"
        )
    _check(task_id, metadata, catch_exceptions, checkpoint, retry, timeout_s)
    chosen = {
        "task_id": task_id,
        "metadata": metadata,
        "catch_exceptions": catch_exceptions,
        "checkpoint": checkpoint,
        "retry": None if retry is None else retry.to_label(),
        "timeout_s": timeout_s,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return make_label(given)


def make_label(given: dict[str, Any]) -> GivenOptions:
    """Returns options of ours in the form in which Ray carries them."""
    return GivenOptions({_LABELS: {_LABEL: json.dumps(given)}})


def read_label(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of ours among those of a task, as :func:`make_label` took them."""
    given: dict[str, Any] = json.loads((options.get(_LABELS) or {}).get(_LABEL, "{}"))
    return given


def _check(
    task_id: object,
    metadata: object,
    catch_exceptions: object,
    checkpoint: object,
    retry: object,
    timeout_s: object,
) -> None:
    if task_id is not None:
        _require_task_id(task_id)
    _require_bool("catch_exceptions", catch_exceptions)
    _require_bool("checkpoint", checkpoint)
    if metadata is not None:
        pack_metadata(metadata)
    if not isinstance(retry, Retry | None):
        raise InvalidOptionError(f"retry must be a milepost.Retry, not {retry!r}")
    if timeout_s is not None:
        check_timeout(timeout_s)


def _require_task_id(task_id: object) -> None:
    if not isinstance(task_id, str) or not task_id:
        raise InvalidOptionError(f"task_id must be text that is not empty, not {task_id!r}")


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool | None):
        raise InvalidOptionError(f"{name} must be True or False, not {value!r}")


def pack_metadata(metadata: object) -> Payload:
    """Returns a user's metadata in stored form.

    Raises:
        InvalidOptionError: If it is not a dict of what JSON can hold.
    """
    if not isinstance(metadata, dict):
        raise InvalidOptionError(f"metadata must be a dict, not {type(metadata).__name__}")
    try:
        packed = pack_plain(json.loads(json.dumps(metadata)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOptionError(f"metadata must be what JSON can hold: {error}") from error
    if packed is None:
        raise InvalidOptionError("metadata may hold integers of 64 bits, and text that is UTF-8")
    return inline(Encoding.PLAIN.value, packed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedOptions:
    """The options of a task, as its graph stores them.

    Attributes:
        task_id: The id that was asked for, or None.
        metadata: The user's metadata, or None.
        how: How it is run.
    """

    task_id: str | None
    metadata: Payload | None
    how: TaskOptions


def pack_options(options: dict[str, Any], task: str, sink: Sink) -> PackedOptions:
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
    given = read_label(options)
    retries, retry_on, backoff = _read_retries(options, given)
    try:
        how = TaskOptions(
            max_retries=retries,
            retry_errors=serialize(_normalize(retry_on), sink),
            ray=serialize(_select_ray_options(options), sink),
            catch_exceptions=given.get("catch_exceptions", False),
            checkpoint=given.get("checkpoint"),
            waits_for=given.get(WAITS_FOR, ""),
            backoff=backoff,
            timeout_us=to_us(given.get("timeout_s", 0)),
        )
    except NotSerializableError as error:
        raise NotSerializableError(f"options of task {task}: {error}") from error
    metadata = given.get("metadata")
    return PackedOptions(
        task_id=given.get("task_id"),
        metadata=None if metadata is None else pack_metadata(metadata),
        how=how,
    )


def _read_retries(
    options: dict[str, Any], given: dict[str, Any]
) -> tuple[int, Any, Backoff | None]:
    """Returns how often a task is repeated, on which exceptions, and after which delays if any."""
    if "retry" in given:
        return read_retry(given["retry"])
    retries = options.get("max_retries")
    retries = MAX_RETRIES_DEFAULT if retries is None else retries
    return retries, options.get("retry_exceptions", False), None


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
    labels = {key: text for key, text in selected.pop(_LABELS, {}).items() if key != _LABEL}
    return {**selected, _LABELS: labels} if labels else selected
