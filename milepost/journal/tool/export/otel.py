"""A workflow as one OpenTelemetry trace: OTLP JSON, as a collector's file receiver reads it.

The workflow is the root span, every attempt a child. A child is linked to the spans that made its
inputs. Ids are hashes, so the same journal gives the same trace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from milepost.journal.attempts import Attempt, Outcome, list_attempts
from milepost.journal.history import History
from milepost.replay.events import OwnershipTaken, StatusChanged
from milepost.replay.state import State, Status

LINKS_MAX = 128
"""What a span may have by OpenTelemetry's own limits; the rest is counted."""

_OK, _ERROR = 1, 2
_ENDS = {Status.SUCCESSFUL: _OK, Status.FAILED: _ERROR, Status.CANCELED: _ERROR}
_INTERNAL = 1


def write_spans(history: History, *, redact: bool) -> Iterator[str]:
    """Write a workflow as an OTLP trace.

    Args:
        history: The workflow.
        redact: Whether to leave out the text of errors.

    Yields:
        The pieces of one JSON document.

    Raises:
        MilepostError: If the workflow cannot be read.
    """
    state = history.state_at()
    service = _attributes({"service.name": "milepost", "milepost.workflow_id": state.workflow_id})
    yield f'{{"resourceSpans":[{{"resource":{{"attributes":{json.dumps(service)}}},'
    yield '"scopeSpans":[{"scope":{"name":"milepost"},"spans":[\n'
    yield json.dumps(_root(history, state))
    for attempt in list_attempts(history):
        yield ",\n" + json.dumps(_child(attempt, state, redact))
    yield "\n]}]}]}\n"


def _trace_id(state: State) -> str:
    seed = f"{state.workflow_id} {state.created_us}".encode("utf-8", "backslashreplace")
    return hashlib.sha256(seed).hexdigest()[:32]


def _span_id(state: State, *parts: object) -> str:
    seed = " ".join(map(str, (_trace_id(state), *parts)))
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def _root(history: History, state: State) -> dict[str, Any]:
    events, last_us = [], state.created_us
    for entry in history:
        event = entry.event
        last_us = max(last_us, getattr(event, "at_us", 0))
        if isinstance(event, OwnershipTaken):
            name = f"epoch {event.epoch}: {event.reason}"
        elif isinstance(event, StatusChanged):
            name = event.status
        else:
            continue
        events.append({"timeUnixNano": _nano(event.at_us), "name": name})
    status = state.status.value if state.status else ""
    return {
        "traceId": _trace_id(state),
        "spanId": _span_id(state, "workflow"),
        "name": f"workflow {state.workflow_id}",
        "kind": _INTERNAL,
        "startTimeUnixNano": _nano(state.created_us),
        "endTimeUnixNano": _nano(state.ended_us or last_us),
        "attributes": _attributes({"milepost.status": status, "milepost.tasks": len(state.tasks)}),
        "events": events,
        "status": {"code": _ENDS[state.status]} if state.status in _ENDS else {},
    }


def _child(each: Attempt, state: State, redact: bool) -> dict[str, Any]:
    graph = state.graph
    inputs = graph.inputs(each.task)
    failed = each.outcome in (Outcome.FAILED, Outcome.LOST)
    began_us = each.started_us or each.scheduled_us
    attributes: dict[str, str | int] = {
        "milepost.task": graph.task_id(each.task),
        "milepost.attempt": each.number,
        "milepost.outcome": each.outcome.value,
        "milepost.worker": each.worker,
        "milepost.queue_us": each.queue_us,
        "milepost.items": each.items,
    }
    trace_id = _trace_id(state)
    message = "(redacted)" if redact else each.error
    return {
        "traceId": trace_id,
        "spanId": _span_id(state, each.task, each.number, each.seq if each.items else ""),
        "parentSpanId": _span_id(state, "workflow"),
        "name": graph.functions[graph.node_functions[each.task]].name,
        "kind": _INTERNAL,
        "startTimeUnixNano": _nano(began_us),
        "endTimeUnixNano": _nano(max(each.ended_us, began_us)),
        "attributes": _attributes({name: value for name, value in attributes.items() if value}),
        "links": [
            {"traceId": trace_id, "spanId": _span_id(state, source, state.attempts[source], "")}
            for source in inputs[:LINKS_MAX]
        ],
        "droppedLinksCount": max(0, len(inputs) - LINKS_MAX),
        "status": {"code": _ERROR, "message": message} if failed else {"code": _OK},
    }


def _nano(us: int) -> str:
    return str(us * 1000)


def _attributes(values: dict[str, str | int]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in values.items()
    ]
