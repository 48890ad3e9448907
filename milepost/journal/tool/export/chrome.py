"""A workflow as a trace for Perfetto and ``chrome://tracing`` (the Trace Event format, JSON).

A node is a process, a worker one of its threads. What the journal does not tell the beginning of,
failed and lost attempts, are instants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from milepost.journal.attempts import Attempt, Outcome, list_attempts
from milepost.journal.history import History
from milepost.replay.events import OwnershipTaken, StatusChanged
from milepost.replay.graph import Graph


def write_trace(history: History, *, redact: bool) -> Iterator[str]:
    """Write a workflow as a trace.

    Args:
        history: The workflow.
        redact: Whether to leave out the text of errors.

    Yields:
        The pieces of one JSON document.

    Raises:
        MilepostError: If the workflow cannot be read.
    """
    graph = history.state_at().graph
    lanes = _Lanes()
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    yield json.dumps(_name("process_name", 0, 0, f"workflow {history.workflow_id}"))
    for entry in history:
        event = entry.event
        if isinstance(event, OwnershipTaken):
            yield ",\n" + json.dumps(_instant(f"epoch {event.epoch}: {event.reason}", event.at_us))
        elif isinstance(event, StatusChanged):
            yield ",\n" + json.dumps(_instant(event.status, event.at_us))
    for attempt in list_attempts(history):
        for each in (*lanes.introduce(attempt.worker), _describe(attempt, graph, lanes, redact)):
            yield ",\n" + json.dumps(each)
    yield "\n]}\n"


class _Lanes:
    """Numbers nodes and workers as they come."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {"": 0}
        self._workers: dict[str, tuple[int, int]] = {"": (0, 0)}

    def place(self, worker: str) -> tuple[int, int]:
        return self._workers[worker]

    def introduce(self, worker: str) -> Iterator[dict[str, Any]]:
        if worker in self._workers:
            return
        node = worker.rpartition(":")[0] or worker
        if node not in self._nodes:
            self._nodes[node] = len(self._nodes)
            yield _name("process_name", self._nodes[node], 0, f"node {node}")
        self._workers[worker] = (self._nodes[node], len(self._workers))
        yield _name("thread_name", *self._workers[worker], f"worker {worker}")


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _instant(name: str, at_us: int) -> dict[str, Any]:
    return {"ph": "i", "s": "g", "name": name, "ts": at_us, "pid": 0, "tid": 0, "cat": "workflow"}


def _describe(each: Attempt, graph: Graph, lanes: _Lanes, redact: bool) -> dict[str, Any]:
    process, thread = lanes.place(each.worker)
    told: dict[str, Any] = {
        "name": graph.functions[graph.node_functions[each.task]].name.rpartition(".")[2],
        "cat": each.outcome.value,
        "pid": process,
        "tid": thread,
        "args": {
            "task": graph.task_id(each.task),
            "attempt": each.number,
            "outcome": each.outcome.value,
            "epoch": each.epoch,
            **({"items": each.items} if each.items else {}),
            **({"error": "(redacted)" if redact else each.error} if each.error else {}),
        },
    }
    if each.outcome is Outcome.RUNNING:
        return told | {"ph": "B", "ts": each.scheduled_us}
    if not each.started_us:
        return told | {"ph": "i", "s": "t", "ts": each.ended_us}
    told["args"]["queue_us"] = each.queue_us
    return told | {"ph": "X", "ts": each.started_us, "dur": each.run_us}
