"""Failures that are caught: by whom, what becomes the value, and which tasks nobody needs any more.

The value of a task that catches exceptions is a pair: its result and None, which the worker makes,
or None and the exception. The latter is made here, from the error as data: nothing is unpickled,
whoever reads the value builds the exception. A failure is caught by the task itself, else by the
task whose continuation it belongs to, and so on. If a task returns a continuation, the root of that
catches as the task does, so that both have one value.
"""

from __future__ import annotations

import msgpack

from milepost.replay.columns import expect_fields, pack_payload, unpack_payload
from milepost.replay.events import TaskError
from milepost.replay.payload import Encoding, Payload, inline
from milepost.replay.state import State


def find_creator(state: State, task: int) -> int | None:
    """Returns the task whose continuation ``task`` belongs to, None in the first fragment."""
    _, root = state.graph.fragment_of(task)
    return state.creators.get(root)


def find_catcher(state: State, task: int) -> int | None:
    """Returns who catches a failure of ``task``, or None if nobody does.

    Who has a value catches no more, though some of its continuation may still be under way.
    """
    if not state.catchers:
        return None
    found: int | None = task
    while found is not None and not (found in state.catchers and state.results[found] is None):
        found = find_creator(state, found)
    return found


def is_below(state: State, task: int, creators: set[int]) -> bool:
    """Tells whether ``task`` belongs to the continuation of one of ``creators``, at any depth."""
    found = find_creator(state, task)
    while found is not None and found not in creators:
        found = find_creator(state, found)
    return found is not None


def list_below(state: State, creator: int) -> list[int]:
    """Returns all tasks of the continuation of ``creator``, at any depth."""
    tasks: list[int] = []
    roots = [state.continuations[creator]] if creator in state.continuations else []
    while roots:
        first, root = state.graph.fragment_of(roots.pop())
        for task in range(first, root + 1):
            tasks.append(task)
            if task in state.continuations:
                roots.append(state.continuations[task])
    return tasks


def list_chain(state: State, task: int) -> list[int]:
    """Returns ``task`` and the tasks whose value is its own: the roots of its continuations."""
    chain = [task]
    while chain[-1] in state.continuations:
        chain.append(state.continuations[chain[-1]])
    return chain


def name_item(state: State, task: int, item: int) -> str:
    """Returns the id of an item of a map, unique in its workflow."""
    return f"{state.graph.task_id(task)}[{item}]"


def pack_caught(task_id: str, error: TaskError) -> Payload:
    """Returns the pair of None and the exception with which the task ``task_id`` failed."""
    exception = pack_payload(error.exception)
    content = [task_id, error.kind, error.type, error.message, error.traceback, exception]
    packed: bytes = msgpack.packb(content, use_bin_type=True)
    return inline(Encoding.CAUGHT.value, packed)


def unpack_caught(data: bytes) -> tuple[str, TaskError]:
    """Reads what :func:`pack_caught` wrote.

    Raises:
        ValueError: If it is not such a value.
    """
    content = msgpack.unpackb(data, raw=False)
    task_id, kind, name, message, traceback, exception = expect_fields(
        content, str, str, str, str, str, object
    )
    error = TaskError(
        kind=kind,
        type=name,
        message=message,
        traceback=traceback,
        exception=unpack_payload(exception),
    )
    return task_id, error
