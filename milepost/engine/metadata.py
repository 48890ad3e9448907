"""What is told of a workflow and its tasks: a look at their state, as plain data.

Nothing stored is unpickled here: what is not plain data is named, and not shown.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from milepost.errors import TaskNotFoundError
from milepost.replay.fragment import TaskOptions
from milepost.replay.graph import name_node
from milepost.replay.payload import Encoding, Payload, unpack_plain
from milepost.replay.state import State, Status, TaskState

US_PER_S = 1_000_000


def describe_workflow(state: State, status: Status) -> dict[str, Any]:
    """Returns what :func:`milepost.get_metadata` tells of a workflow that has this status."""
    ended = status in (Status.SUCCESSFUL, Status.FAILED)
    counts = {kind.name: state.counts[kind] for kind in TaskState}
    return {
        "status": status.value,
        "user_metadata": _show(state.metadata) or {},
        "stats": _tell_times(state.started_us, state.ended_us if ended else 0),
        "tasks": counts,
        "progress": _measure_progress(state),
    }


def _measure_progress(state: State) -> float:
    """Returns the part of the tasks that has a result; of a map, each item counts."""
    maps = state.maps.values()
    begun = [task for task in state.maps if state.tasks[task] == TaskState.COMMITTED]
    done = state.counts[TaskState.COMMITTED] - len(begun) + sum(each.done for each in maps)
    return done / max(1, len(state.tasks) - len(maps) + sum(each.width for each in maps))


def describe_task(state: State, task_id: str) -> dict[str, Any]:
    """Returns what :func:`milepost.get_metadata` tells of a task.

    Raises:
        TaskNotFoundError: If there is no such task.
    """
    graph = state.graph
    task = graph.find(task_id)
    if task is None:
        raise TaskNotFoundError(state.workflow_id, task_id, graph.find_near(task_id))
    return {
        "task_id": task_id,
        "task_options": _describe_options(graph.options[graph.node_options[task]]),
        "user_metadata": _show(graph.metadata.get(task)) or {},
        "workflow_refs": [graph.task_id(source) for source in graph.inputs(task)],
        "stats": _tell_times(state.task_started_us[task], state.task_ended_us[task]),
        "state": state.task_state(task).name,
        "attempts": state.attempts[task],
        **_describe_items(state, task),
    }


def _describe_items(state: State, task: int) -> dict[str, Any]:
    """Tells of a map how far its items are."""
    if task not in state.maps:
        return {}
    map_ = state.maps[task]
    counts = {"total": map_.width, "committed": map_.done, "failed": len(map_.failed)}
    return {"items": {**counts, "under_way": map_.under_way}}


def _describe_options(options: TaskOptions) -> dict[str, Any]:
    return {
        "task_type": "FUNCTION",
        "max_retries": options.max_retries,
        "catch_exceptions": options.catch_exceptions,
        "retry_exceptions": _show(options.retry_errors),
        "checkpoint": options.checkpoint,
        **_describe_limits(options),
        "ray_options": _show(options.ray),
    }


def _describe_limits(options: TaskOptions) -> dict[str, Any]:
    """Tells of delays and time limits where there are some."""
    told: dict[str, Any] = {}
    if options.timeout_us:
        told["timeout_s"] = options.timeout_us / US_PER_S
    if (backoff := options.backoff) is not None:
        told["retry_delays"] = {
            "delay_s": backoff.delay_us / US_PER_S,
            "backoff": backoff.factor,
            "jitter": backoff.jitter,
            "max_delay_s": backoff.delay_us_max / US_PER_S,
        }
    return told


def _show(payload: Payload | None) -> Any:
    if payload is None:
        return None
    if payload.encoding != Encoding.PLAIN or payload.digest:
        return "(pickled)" if payload.encoding != Encoding.PLAIN else "(in a blob)"
    return unpack_plain(payload.data)


def _tell_times(started_us: int, ended_us: int) -> dict[str, float]:
    times = {"start_time": started_us, "end_time": ended_us}
    return {name: us / US_PER_S for name, us in times.items() if us}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTable:
    """All tasks of a workflow in columns, as they are sent; the receiver makes rows of them."""

    names: list[str]
    node_names: array[int]
    ordinals: array[int]
    states: bytes
    attempts: array[int]
    started_us: array[int]
    ended_us: array[int]

    @classmethod
    def of(cls, state: State) -> TaskTable:
        """Returns a copy of what ``state`` says of its tasks."""
        graph = state.graph
        return cls(
            names=list(graph.names),
            node_names=graph.node_names[:],
            ordinals=graph.node_ordinals[:],
            states=bytes(state.tasks),
            attempts=state.attempts[:],
            started_us=state.task_started_us[:],
            ended_us=state.task_ended_us[:],
        )

    def describe(self) -> list[dict[str, Any]]:
        """Returns what :func:`milepost.list_tasks` tells."""
        return [
            {
                "task_id": name_node(self.names[name], ordinal),
                "state": TaskState(kind).name,
                "attempts": attempts,
                "stats": _tell_times(started, ended),
            }
            for name, ordinal, kind, attempts, started, ended in zip(
                self.node_names,
                self.ordinals,
                self.states,
                self.attempts,
                self.started_us,
                self.ended_us,
                strict=True,
            )
        ]
