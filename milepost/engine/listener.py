"""Event listeners: what users write to have a workflow wait for something outside.

A listener is polled once, in a process that all listeners share; its event is durable before it is
told so. Journals name :func:`listen`, so it keeps its name and arguments for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

from ray.dag import FunctionNode

from milepost.engine.options import WAITS_FOR, make_label, read_label
from milepost.errors import InvalidGraphError, SignatureMismatchError


class EventListener:
    """Waits for something outside, on behalf of a workflow; to be subclassed.

    A listener is made anew, without arguments, each time it is needed: keep nothing in it. Its
    methods run on the event loop that all listeners of a cluster share: await what takes time, and
    never block. What they may do costs no worker and no CPU of Ray.
    """

    async def poll_for_event(self, *args: Any, **kwargs: Any) -> Any:
        """Waits for the event and returns it; what it returns is stored before anything follows.

        It is called once, unless it fails and is retried, or whoever waits dies before the event is
        stored.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define poll_for_event")

    async def event_checkpointed(self, event: Any) -> None:
        """Is told when the event is durable, for instance to acknowledge it where it came from.

        It is called at least once for each event, and again if whoever calls it dies meanwhile. If
        it raises, the workflow fails, unless it is retried.
        """


class TimerListener(EventListener):
    """Waits until a time; :func:`milepost.sleep` waits for a while, and costs less."""

    async def poll_for_event(self, timestamp: float) -> None:
        """Returns at that time, in seconds since 1970."""
        await asyncio.sleep(max(0.0, timestamp - time.time()))


class EventNode(FunctionNode):
    """What :func:`wait_for_event` makes: a node like any other, that can be given options."""

    def options(self, **options: Any) -> EventNode:
        """Returns the same node with these options.

        Args:
            **options: ``max_retries`` and ``retry_exceptions``, as of a Ray task (by default three,
                and no exceptions); what :func:`milepost.options` returns. Nothing else has a
                meaning for a listener.

        Raises:
            InvalidGraphError: If there are others.
        """
        unknown = options.keys() - {"max_retries", "retry_exceptions", "_labels"}
        if unknown:
            raise InvalidGraphError(f"an event listener has no option {', '.join(unknown)}")
        label = {**read_label(self._bound_options), **read_label(options), WAITS_FOR: "poll"}
        merged = {**self._bound_options, **options, **make_label(label)}
        return _make_node(self._bound_args, self._bound_kwargs, merged)


def wait_for_event(event_listener_type: type[EventListener], *args: Any, **kwargs: Any) -> Any:
    """Makes a node that waits for an event; its value is the event.

    The listener is polled in a process that all listeners share: waiting takes no worker and no
    CPU. Its ``.options(max_retries=5, retry_exceptions=True, **milepost.options(...))`` says what
    happens if it raises.

    Args:
        event_listener_type: A subclass of :class:`EventListener`.
        *args: For its ``poll_for_event``; tasks among them arrive as their values.
        **kwargs: Likewise.

    Raises:
        InvalidGraphError: If it is no such class.
        SignatureMismatchError: If its ``poll_for_event`` does not take these arguments.

    Example:
        >>> class FileAppears(milepost.EventListener):
        ...     async def poll_for_event(self, path):
        ...         while not os.path.exists(path):
        ...             await asyncio.sleep(1)
        ...         return path
        >>> milepost.run(load.bind(milepost.wait_for_event(FileAppears, "/in/orders.csv")))
    """
    kind: Any = event_listener_type
    if not (isinstance(kind, type) and issubclass(kind, EventListener)):
        raise InvalidGraphError(
            f"wait_for_event() takes a subclass of milepost.EventListener, not {kind!r}"
        )
    try:
        inspect.signature(kind.poll_for_event).bind(None, *args, **kwargs)
    except TypeError as error:
        where = f"{kind.__name__}.poll_for_event"
        raise SignatureMismatchError(f"{where} cannot be called as bound: {error}") from None
    label = make_label({"task_id": "milepost.wait_for_event", WAITS_FOR: "poll"})
    return _make_node((kind, *args), kwargs, {"num_cpus": 0, **label})


def _make_node(args: Any, kwargs: dict[str, Any], options: dict[str, Any]) -> EventNode:
    make: Any = EventNode  # Ray ships it untyped
    node: EventNode = make(listen, args, kwargs, options)
    return node


def listen(listener: type[EventListener], *args: Any, **kwargs: Any) -> Any:
    """Waits for an event in a plain Ray task, outside of a workflow."""

    async def hear() -> Any:
        event = await settle(listener().poll_for_event(*args, **kwargs))
        await settle(listener().event_checkpointed(event))
        return event

    return asyncio.run(hear())


async def settle(answer: Any) -> Any:
    """Returns what a method of a listener comes to; it may have been written without ``async``."""
    return await answer if inspect.isawaitable(answer) else answer


def is_told(listener: type[EventListener]) -> bool:
    """Tells whether a listener wants to know that its event is durable."""
    return listener.event_checkpointed is not EventListener.event_checkpointed
