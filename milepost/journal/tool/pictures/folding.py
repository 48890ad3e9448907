"""A workflow's graph, folded so that any size can be read: by task while it is small, by function.

Nothing here knows how it is drawn.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from milepost.replay.state import State, TaskState

TASKS_MAX = 40
"""So many tasks are drawn one by one."""

LAYER_TASKS_MAX = 6
"""But no more of them side by side."""

GROUPS_MAX = 60
"""So many functions are told apart; the rest, with the fewest tasks, is put together."""

FOLDS = ("auto", "function", "none")


@dataclass(slots=True)
class Group:
    """One node of the picture.

    Attributes:
        name: The task or the function.
        layer: How deep it lies, from 0, without gaps.
        counts: How many of its tasks are in which state.
        run_us: How long its functions ran, together.
        attempts: How many attempts its tasks took.
        items: How many items of maps they have.
        shares: As ``counts``, but of a map its items; for the bar.
    """

    name: str
    layer: int
    counts: Counter[TaskState] = field(default_factory=Counter)
    run_us: int = 0
    attempts: int = 0
    items: int = 0
    shares: Counter[TaskState] = field(default_factory=Counter)

    @property
    def tasks(self) -> int:
        """How many tasks it stands for."""
        return self.counts.total()


@dataclass(frozen=True, slots=True)
class Folded:
    """A graph to be drawn.

    Attributes:
        groups: Its nodes.
        edges: How often a task of one takes the value of one of the other, by their positions.
        continuations: Likewise, how often one returned the other as its continuation.
        by_function: Whether a node stands for a function.
    """

    groups: list[Group]
    edges: Counter[tuple[int, int]]
    continuations: Counter[tuple[int, int]]
    by_function: bool


def fold_graph(state: State, fold: str = "auto") -> Folded:
    """Fold the graph of a workflow.

    Args:
        state: Its state.
        fold: ``function`` or ``none``; ``auto`` decides by the size.

    Returns:
        The graph to be drawn.
    """
    depths = find_depths(state)
    widest = max(Counter(depths).values(), default=0)
    large = len(depths) > TASKS_MAX or widest > LAYER_TASKS_MAX
    by_function = fold == "function" or (fold == "auto" and large)
    numbers = _by_function(state) if by_function else list(range(len(depths)))
    layers: dict[int, int] = {}
    for number, depth in zip(numbers, depths, strict=True):
        layers[number] = min(depth, layers.get(number, depth))
    ranks = {depth: rank for rank, depth in enumerate(sorted(set(layers.values())))}
    groups = [
        Group(_name(state, number, by_function, numbers), ranks[layers[number]])
        for number in sorted(layers)
    ]
    places = {number: place for place, number in enumerate(sorted(layers))}
    nodes = [places[number] for number in numbers]
    for task, node in enumerate(nodes):
        _count(groups[node], state, task)
    edges = Counter(
        (nodes[source], nodes[task])
        for task in range(len(nodes))
        for source in state.graph.inputs(task)
    )
    created = Counter((nodes[task], nodes[root]) for task, root in state.continuations.items())
    return Folded(groups, edges, created, by_function)


def _by_function(state: State) -> list[int]:
    """Number the tasks by their function; those of the rarest share the last number."""
    functions = state.graph.node_functions
    common = [number for number, _ in Counter(functions).most_common(GROUPS_MAX)]
    kept, rest = set(common), len(state.graph.functions)
    return [each if each in kept else rest for each in functions]


def _name(state: State, number: int, by_function: bool, numbers: list[int]) -> str:
    if not by_function:
        return state.graph.task_id(number)
    if number < len(state.graph.functions):
        return state.graph.functions[number].name
    return f"{len(state.graph.functions) - GROUPS_MAX} more functions"


def _count(group: Group, state: State, task: int) -> None:
    group.counts[TaskState(state.tasks[task])] += 1
    group.attempts += state.attempts[task]
    _share(group, state, task)
    if state.task_ended_us[task]:
        group.run_us += max(0, state.task_ended_us[task] - state.task_started_us[task])


def _share(group: Group, state: State, task: int) -> None:
    map_ = state.maps.get(task)
    if map_ is None:
        group.shares[TaskState(state.tasks[task])] += 1
        return
    group.items += map_.width
    counted = {
        TaskState.COMMITTED: map_.done,
        TaskState.SCHEDULED: map_.under_way,
        TaskState.FAILED: len(map_.failed),
    }
    waiting = map_.width - sum(counted.values())
    group.shares.update(counted | {TaskState.WAITING: waiting})


def find_depths(state: State) -> list[int]:
    """Find how many tasks must end one after the other before each can begin.

    Args:
        state: The state of a workflow.

    Returns:
        A number for each task; of a continuation, more than of the task that returned it.
    """
    graph, size = state.graph, len(state.tasks)
    missing = [graph.input_count(task) for task in range(size)]
    for task in range(size):
        if not missing[task] and _creator(state, task) is not None:
            missing[task] = 1
    depths, waiting = [0] * size, deque(task for task in range(size) if not missing[task])
    while waiting:
        task = waiting.popleft()
        for next_task in _followers(state, task):
            depths[next_task] = max(depths[next_task], depths[task] + 1)
            missing[next_task] -= 1
            if not missing[next_task]:
                waiting.append(next_task)
    return depths


def _creator(state: State, task: int) -> int | None:
    return state.creators.get(state.graph.fragment_of(task)[1])


def _followers(state: State, task: int) -> Iterator[int]:
    """Give what can begin after a task: who takes its value, or what its continuation begins with.

    A value that a continuation makes is there when the continuation's root is done.
    """
    root = state.continuations.get(task)
    if root is not None:
        first, last = state.graph.fragment_of(root)
        yield from (each for each in range(first, last + 1) if not state.graph.input_count(each))
        return
    outputs = [state.graph.outputs(task)]
    while (creator := state.creators.get(task)) is not None:
        outputs.append(state.graph.outputs(creator))
        task = creator
    yield from chain.from_iterable(outputs)
