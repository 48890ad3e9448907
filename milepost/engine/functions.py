"""The functions of tasks: their names, their stored form, and a cache of loaded ones."""

from __future__ import annotations

import hashlib
import inspect
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import CodeType
from typing import Any

import cloudpickle

from milepost.engine.payloads import Sink, Source, deserialize, store
from milepost.errors import InvalidGraphError, NotSerializableError
from milepost.replay.fragment import Function
from milepost.replay.payload import Encoding

LOADED_MAX = 256
"""Functions a worker keeps loaded; the oldest goes first. They may hold large closures."""

_loaded: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()
_origins: weakref.WeakKeyDictionary[Callable[..., Any], Function] = weakref.WeakKeyDictionary()


def name_task(function: Callable[..., Any]) -> str:
    """Returns the default task id: module and qualified name without angle brackets."""
    qualified = f"{function.__module__}.{function.__qualname__}"
    return qualified.replace("<", "").replace(">", "")


def fingerprint_code(function: Callable[..., Any]) -> str:
    """Returns a digest of what ``function`` itself does, the same in every process.

    The stored form of a function differs from process to process (it holds what the function refers
    to), and with the line it stands in. This does not; nor does it follow what is called.
    """
    code = getattr(function, "__code__", None)
    return hashlib.sha256(repr(_outline(code)).encode("utf-8", "replace")).hexdigest()[:16]


def _outline(code: Any) -> Any:
    if not isinstance(code, CodeType):
        return sorted(map(repr, code)) if isinstance(code, frozenset) else repr(code)
    constants = [_outline(constant) for constant in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, constants]


def describe_function(function: Callable[..., Any], sink: Sink) -> Function:
    """Returns the stored form of ``function``.

    A function that this process loaded from a journal keeps the identity it had there, so that a
    recursion does not store its code once per level.

    Raises:
        InvalidGraphError: If it is a generator function.
        NotSerializableError: If it cannot be pickled.
    """
    known = _origins.get(function)
    if known is not None:
        return known
    name = name_task(function)
    if inspect.isgeneratorfunction(function):
        raise InvalidGraphError(f"task {name} is a generator function; return a list instead")
    try:
        code = cloudpickle.dumps(function, protocol=5)
    except Exception as error:  # whatever the objects in its closure raise
        raise NotSerializableError(
            f"task {name} cannot be stored: {type(error).__name__}: {error} (its function refers "
            f"to something that cannot be pickled)"
        ) from error
    payload = store(Encoding.PICKLE, [code], sink)
    return Function(name=name, digest=hashlib.sha256(code).digest(), code=payload)


def load_function(function: Function, source: Source) -> Callable[..., Any]:
    """Returns the callable of ``function``, loaded at most once per process while it is in use.

    Raises:
        Exception: Whatever loading raises, for instance ModuleNotFoundError.
    """
    loaded = _loaded.get(function.digest)
    if loaded is None:
        assert function.code is not None, function.name
        loaded = deserialize(function.code, source)
        assert callable(loaded), function.name
        _remember(function, loaded)
    _loaded.move_to_end(function.digest)
    return loaded


def _remember(function: Function, loaded: Callable[..., Any]) -> None:
    assert function.code is not None, function.name
    _loaded[function.digest] = loaded
    if len(_loaded) > LOADED_MAX:
        _loaded.popitem(last=False)
    if not function.code.digest:  # a blob belongs to one workflow, inline code goes anywhere
        _origins[loaded] = function
