"""What to append and what to do, given the state and something that just happened.

:func:`decide` changes nothing. Its host first applies and appends ``append``, then performs
``effects``. **The host appends, and where the effect demands it syncs, BEFORE it performs an
effect**: an effect with ``sync_first`` waits until every event appended so far is durable.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias, TypeVar, assert_never

from milepost.replay import waiting
from milepost.replay.catching import find_catcher, is_below, name_item
from milepost.replay.decide_items import (
    RunItems,
    completes,
    schedule_items,
    take_items,
    take_loss,
)
from milepost.replay.events import (
    AttemptFailed,
    AttemptsLost,
    Event,
    EventReceived,
    GraphExtended,
    ItemFailed,
    ItemsScheduled,
    OwnershipTaken,
    StatusChanged,
    TasksCommitted,
    TasksHandedBack,
    TasksScheduled,
)
from milepost.replay.fragment import AWAITED, LISTENED
from milepost.replay.inputs import (
    CancelAsked,
    Continued,
    EventArrived,
    Input,
    ItemsReported,
    OwnershipGained,
    Raised,
    ResumeAsked,
    SliceLost,
    SliceReported,
    TurnCame,
    WorkWanted,
)
from milepost.replay.retrying import describe_loss, find_due, find_retry_time, is_exhausted
from milepost.replay.state import FINAL, Slice, State, Status, TaskState

Item = TypeVar("Item")
AnyFailure = TypeVar("AnyFailure", AttemptFailed, ItemFailed)

SLICE_TASKS_MAX = 500
"""More tasks per slice save nothing more: one Ray call is then a few microseconds per task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSlice:
    """Hand these tasks to one worker; its reports name the epoch, too."""

    slice: int
    epoch: int
    option: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    sync_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Tell everybody who waits that the workflow has come to ``status``."""

    status: Status
    sync_first: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSlices:
    """End the attempts of these slices: nobody wants their results any more."""

    slices: tuple[int, ...]
    sync_first: bool = True


Failure: TypeAlias = AttemptFailed | ItemFailed
Effect: TypeAlias = RunSlice | RunItems | Finish | CancelSlices


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Append these events, then perform these effects."""

    append: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()


NOTHING = Decision()


def decide(state: State, happened: Input) -> Decision:
    """Returns what follows from ``happened`` in ``state``. Pure; never raises on stale reports."""
    match happened:
        case SliceReported():
            return _take_report(state, happened)
        case WorkWanted():
            return _schedule(state, happened)
        case ItemsReported():
            return _take_items(state, happened)
        case SliceLost():
            return _end_late(_take_loss(state, happened), happened)
        case OwnershipGained():
            return _own(state, happened)
        case ResumeAsked():
            return _resume(state, happened)
        case TurnCame():
            return _begin(state, happened)
        case CancelAsked():
            return _cancel(state, happened)
        case EventArrived():
            return _receive(state, happened)
        case _:
            assert_never(happened)


def _own(state: State, gained: OwnershipGained) -> Decision:
    """Every owner writes the status with its ownership, so that its first frame tells it."""
    assert state.status not in FINAL, (state.workflow_id, state.status)
    taken = OwnershipTaken(
        epoch=gained.epoch, owner=gained.owner, reason=gained.reason, at_us=gained.at_us
    )
    entered = _enter(gained.admitted, gained.reason, gained.owner, gained.at_us)
    ended = () if state.result is None else (_success(gained.owner, gained.at_us),)
    effects = (Finish(status=Status.SUCCESSFUL),) if ended else ()
    return Decision(append=(taken, entered, *ended), effects=effects)


def _resume(state: State, asked: ResumeAsked) -> Decision:
    if state.status is not Status.FAILED:
        return NOTHING
    return Decision(append=(_enter(asked.admitted, "resumed", asked.who, asked.at_us),))


def _enter(admitted: bool, reason: str, who: str, at_us: int) -> StatusChanged:
    return _status(Status.RUNNING if admitted else Status.PENDING, reason, who, at_us)


def _begin(state: State, came: TurnCame) -> Decision:
    if state.status is not Status.PENDING:
        return NOTHING
    return Decision(append=(_status(Status.RUNNING, "its turn", state.owner, came.at_us),))


def _cancel(state: State, asked: CancelAsked) -> Decision:
    if state.status in FINAL:
        return NOTHING
    canceled = _status(Status.CANCELED, "canceled", asked.who, asked.at_us)
    running = CancelSlices(slices=(*state.slices, *state.item_slices))
    return Decision(append=(canceled,), effects=(running, Finish(status=Status.CANCELED)))


def _receive(state: State, arrived: EventArrived) -> Decision:
    """The first event of a key is the only one; who delivers another is told so by its host."""
    if state.status in FINAL or arrived.key in state.received:
        return NOTHING
    received = EventReceived(
        key=arrived.key, payload=arrived.payload, who=arrived.who, at_us=arrived.at_us
    )
    return Decision(append=(received,))


def _schedule(state: State, wanted: WorkWanted) -> Decision:
    if state.status is not Status.RUNNING:
        return NOTHING
    due = find_due(state, wanted.at_us)
    if due is not None:  # what is ready then, the next look finds
        return Decision(append=(due,))
    ended = waiting.find_ended(state, wanted.at_us)
    if ended is not None:  # what is ready then, the next look finds
        return _conclude(state, [ended], ended.tasks, [], wanted.at_us)
    begun = waiting.find_begun(state, wanted.at_us)
    events: list[TasksScheduled | ItemsScheduled] = []
    effects: list[RunSlice | RunItems] = []
    scheduled: Counter[int] = Counter()
    for option in state.ready:
        waits_for = state.graph.options[option].waits_for
        if waits_for in AWAITED:
            continue
        for tasks in _cut_slices(state, option, wanted):
            scheduled[option] += 1
            number = state.next_slice + len(events)
            attempts = tuple(state.attempts[task] + 1 for task in tasks)
            events.append(
                TasksScheduled(slice=number, tasks=tasks, attempts=attempts, at_us=wanted.at_us)
            )
            effects.append(
                RunSlice(
                    slice=number,
                    epoch=state.epoch,
                    option=option,
                    tasks=tasks,
                    attempts=attempts,
                    sync_first=state.durability == "strict" or waits_for == "notice",
                )
            )
    if state.open_maps:
        of_items, runs = schedule_items(state, wanted, scheduled)
        events.extend(of_items)
        effects.extend(runs)
    return Decision(append=(*events, *([begun] if begun else [])), effects=tuple(effects))


def _cut_slices(state: State, option: int, wanted: WorkWanted) -> Iterator[tuple[int, ...]]:
    """Cuts the ready tasks of a class into slices, for as many workers as are free."""
    if state.graph.options[option].waits_for in LISTENED:
        yield from ((task,) for task in _iterate_ready(state, option))
        return
    free = wanted.slices_max - state.slice_counts[option]
    if free <= 0:
        return
    fair_share = min(SLICE_TASKS_MAX, -(-len(state.ready[option]) // free))
    ready = _iterate_ready(state, option)
    for group in islice(_group(state, ready, fair_share, wanted), free):
        yield _add_riders(state, group, wanted)


def _iterate_ready(state: State, option: int) -> Iterator[int]:
    seen: set[int] = set()
    for task in state.ready[option]:
        if state.tasks[task] == TaskState.READY and task not in seen:
            seen.add(task)
            yield task


def _group(
    state: State, ready: Iterator[int], tasks_max: int, wanted: WorkWanted
) -> Iterator[tuple[int, ...]]:
    """Groups tasks up to ``slice_us`` of expected work; unknown and suspect ones travel alone.

    There is at least one: the head of a queue is always ready.
    """
    group: list[int] = []
    load = 0.0
    for task in ready:
        cost = _expect_cost(state, task, wanted)
        if group and (load + cost > wanted.slice_us or len(group) >= tasks_max):
            yield tuple(group)
            group, load = [], 0.0
        group.append(task)
        load += cost
    yield tuple(group)


def _add_riders(state: State, group: tuple[int, ...], wanted: WorkWanted) -> tuple[int, ...]:
    """Lets successors travel with the tasks they wait for, as far as the slice has room.

    Only where nothing could run beside them: a rider is the one successor of each task in the
    slice that it waits for, as in chains and in joins. In "strict" durability none rides.
    """
    if state.durability == "strict" or not wanted.riders_max:
        return group
    tasks_max = min(SLICE_TASKS_MAX, len(group) + wanted.riders_max)
    seated = dict.fromkeys(group)
    load = sum(_expect_cost(state, task, wanted) for task in group)
    queue = deque(group)
    while queue and len(seated) < tasks_max:
        rider = _find_rider(state, queue.popleft(), seated)
        if rider is None:
            continue
        cost = _expect_cost(state, rider, wanted)
        if load + cost <= wanted.slice_us:
            seated[rider] = None
            queue.append(rider)
            load += cost
    return tuple(seated)


def _find_rider(state: State, task: int, seated: Mapping[int, None]) -> int | None:
    graph = state.graph
    outputs = dict.fromkeys(graph.outputs(task))
    if len(outputs) != 1:
        return None
    (rider,) = outputs
    another = graph.node_options[rider] != graph.node_options[task]
    if another or rider in seated or state.tasks[rider] != TaskState.WAITING:
        return None
    if rider in state.maps:
        return None
    for source in graph.inputs(rider):
        alone = source in seated and len(set(graph.outputs(source))) == 1
        if not alone and state.results[source] is None:
            return None
    return rider


def _expect_cost(state: State, task: int, wanted: WorkWanted) -> float:
    timed = state.graph.options[state.graph.node_options[task]].timeout_us
    if timed or task in state.suspects:
        return float(wanted.slice_us) + 1
    return wanted.costs_us.get(state.graph.node_functions[task], float(wanted.slice_us) + 1)


def _take_report(state: State, report: SliceReported) -> Decision:
    slice_ = _find_slice(state, report.slice, report.epoch)
    if slice_ is None:
        return NOTHING
    report = _drop_settled(state, report, slice_.outstanding)
    events: list[Event] = []
    if report.handed_back:  # before what it waits for has a value, or is known to have none
        events.append(_handed_back(report))
    if report.tasks:
        events.append(_committed(state, report))
    events.extend(_extended(state, report, continued) for continued in report.continued)
    failures = _drop_caught(state, [_failed(state, report, each) for each in report.raised])
    events.extend(failures)
    return _conclude(state, events, report.tasks, failures, report.at_us)


def _find_slice(state: State, number: int, epoch: int) -> Slice | None:
    """Returns the slice if anything can still come of it; a canceled workflow wants nothing.

    A former owner's slice of this number is another one, even if it holds the same tasks.
    """
    stale = state.status in FINAL or epoch != state.epoch
    return None if stale else state.slices.get(number)


def _take_items(state: State, report: ItemsReported) -> Decision:
    slice_ = state.item_slices.get(report.slice)
    if slice_ is None or state.status in FINAL or report.epoch != state.epoch:
        return NOTHING
    events = take_items(state, slice_, report)
    return _conclude_items(state, slice_.task, events, report.at_us)


def _conclude_items(state: State, task: int, events: list[Event], at_us: int) -> Decision:
    map_ = state.maps[task]
    all_failed = [] if map_.catches else [each for each in events if isinstance(each, ItemFailed)]
    failures = _drop_caught(state, all_failed)
    needless = [each for each in all_failed if each not in failures]
    kept = [each for each in events if each not in needless] if needless else events
    committed = (task,) if completes(map_, kept) else ()
    return _conclude(state, kept, committed, failures, at_us)


def _conclude(
    state: State,
    events: list[Event],
    committed: tuple[int, ...],
    failures: Sequence[Failure],
    at_us: int,
) -> Decision:
    """Adds the end of the workflow, if this is it, and ends what was in vain."""
    catchers = [find_catcher(state, failure.task) for failure in failures if failure.final]
    caught = {catcher for catcher in catchers if catcher is not None}
    if any(_reaches_root(state, task) for task in (*committed, *caught)):
        left = _find_left(state, events, committed)
        events.append(_success(state.owner, at_us))
        canceled = (CancelSlices(slices=left),) if left else _cancel_below(state, caught)
        end = Finish(status=Status.SUCCESSFUL)
        return Decision(append=tuple(events), effects=(*canceled, end))
    final = _find_uncaught(state, failures)
    if final is not None and state.status is Status.RUNNING:
        reason = f"task {_name_culprit(state, final)}: {final.error.type}"
        events.append(_status(Status.FAILED, reason, state.owner, at_us))
        end = Finish(status=Status.FAILED)
        return Decision(append=tuple(events), effects=(*_cancel_below(state, caught), end))
    return Decision(append=tuple(events), effects=_cancel_below(state, caught))


def _name_culprit(state: State, failure: Failure) -> str:
    if isinstance(failure, ItemFailed):
        return name_item(state, failure.task, failure.item)
    return state.graph.task_id(failure.task)


def _find_left(state: State, events: list[Event], committed: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the slices of which ``events`` leave something that the result does not need."""
    told: set[int] = set()
    for event in events:
        if isinstance(event, TasksCommitted | TasksHandedBack):
            told.update(event.tasks)
        elif isinstance(event, AttemptFailed | GraphExtended):
            told.add(event.task)
    left = [
        number
        for number, slice_ in state.slices.items()
        if any(task not in told for task in slice_.outstanding)
    ]
    maps = state.item_slices.items()
    return (*left, *(number for number, slice_ in maps if slice_.task not in committed))


def _find_uncaught(state: State, failures: Sequence[Failure]) -> Failure | None:
    final = (failure for failure in failures if failure.final)
    return next((each for each in final if find_catcher(state, each.task) is None), None)


def _drop_caught(state: State, failures: Sequence[AnyFailure]) -> list[AnyFailure]:
    """Leaves out failures of tasks that an earlier one of the same report makes needless."""
    kept: list[AnyFailure] = []
    catchers: set[int] = set()
    for failure in failures:
        if catchers and _is_needless(state, failure.task, catchers):
            continue
        kept.append(failure)
        catcher = find_catcher(state, failure.task) if failure.final else None
        if catcher is not None:
            catchers.add(catcher)
    return kept


def _cancel_below(state: State, catchers: set[int]) -> tuple[Effect, ...]:
    """Ends the slices that hold nothing but tasks below ``catchers``, which nobody needs now."""
    if not any(catcher in state.continuations or catcher in state.maps for catcher in catchers):
        return ()
    needless = [
        number
        for number, slice_ in state.slices.items()
        if all(is_below(state, task, catchers) for task in slice_.outstanding)
    ]
    needless += [
        number
        for number, slice_ in state.item_slices.items()
        if _is_needless(state, slice_.task, catchers)
    ]
    return (CancelSlices(slices=tuple(needless)),) if needless else ()


def _is_needless(state: State, task: int, catchers: set[int]) -> bool:
    """Tells whether ``task`` has a value when these have caught, or will never have one."""
    return task in catchers or is_below(state, task, catchers)


def _drop_settled(
    state: State, report: SliceReported, outstanding: Mapping[int, None]
) -> SliceReported:
    """Leaves out what the slice no longer waits for: a report may arrive twice or late."""

    def counts(task: int, attempt: int) -> bool:
        return task in outstanding and state.attempts[task] == attempt

    kept = [counts(task, at) for task, at in zip(report.tasks, report.attempts, strict=True)]
    if not all(kept):
        report = replace(
            report,
            tasks=_keep(report.tasks, kept),
            attempts=_keep(report.attempts, kept),
            payloads=_keep(report.payloads, kept),
            started_us=_keep(report.started_us, kept),
            durations_us=_keep(report.durations_us, kept),
        )
    return replace(
        report,
        raised=tuple(item for item in report.raised if counts(item.task, item.attempt)),
        continued=tuple(item for item in report.continued if counts(item.task, item.attempt)),
        handed_back=tuple(item for item in report.handed_back if counts(*item)),
    )


def _keep(column: tuple[Item, ...], kept: list[bool]) -> tuple[Item, ...]:
    return tuple(item for item, keep in zip(column, kept, strict=True) if keep)


def _reaches_root(state: State, task: int) -> bool:
    """Tells whether the value of ``task`` is the workflow's, through continuations or itself."""
    reached: int | None = task
    while reached is not None and reached != state.root:
        reached = state.creators.get(reached)
    return reached is not None


def _committed(state: State, report: SliceReported) -> TasksCommitted:
    return TasksCommitted(
        slice=report.slice,
        tasks=report.tasks,
        attempts=report.attempts,
        payloads=report.payloads,
        started_us=report.started_us,
        durations_us=report.durations_us,
        node=_name_worker(state, report.node),
    )


def _handed_back(report: SliceReported) -> TasksHandedBack:
    tasks, attempts = zip(*report.handed_back, strict=True)
    return TasksHandedBack(slice=report.slice, tasks=tasks, attempts=attempts, at_us=report.at_us)


def _extended(state: State, report: SliceReported, continued: Continued) -> GraphExtended:
    """Leaves out the code of functions that the journal holds already."""
    functions = tuple(
        replace(function, code=None) if state.graph.knows_function(function.digest) else function
        for function in continued.fragment.functions
    )
    return GraphExtended(
        slice=report.slice,
        task=continued.task,
        attempt=continued.attempt,
        fragment=replace(continued.fragment, functions=functions),
        started_us=continued.started_us,
        duration_us=continued.duration_us,
        node=_name_worker(state, report.node),
    )


def _name_worker(state: State, name: str) -> str | int:
    """Gives a worker's number once the journal holds its name, which is twenty times longer."""
    return state.workers.get(name, name)


def _failed(state: State, report: SliceReported, raised: Raised) -> AttemptFailed:
    final, retry_us = _find_next(state, raised.task, report.at_us)
    final = final or not raised.retryable
    return AttemptFailed(
        slice=report.slice,
        task=raised.task,
        attempt=raised.attempt,
        error=raised.error,
        final=final,
        at_us=report.at_us,
        node=_name_worker(state, report.node),
        retry_us=0 if final else retry_us,
    )


def _find_next(state: State, task: int, at_us: int) -> tuple[bool, int]:
    """Tells whether a task that fails now has no further attempt, and when that is due if so."""
    failures = state.failures.get(task, 0)
    if is_exhausted(state.graph.options[state.graph.node_options[task]], failures):
        return True, 0
    return False, find_retry_time(state, task, -1, failures, at_us)


def _take_loss(state: State, lost: SliceLost) -> Decision:
    """Blames a task that was alone with its worker; of several, none can be blamed.

    Listeners of all workflows share a process: none of them can be blamed either. Nor can a task
    of which an input was lost, so that it never began.
    """
    items = state.item_slices.get(lost.slice)
    if items is not None and state.status not in FINAL and lost.epoch == state.epoch:
        return _conclude_items(state, items.task, [take_loss(state, items, lost)], lost.at_us)
    slice_ = _find_slice(state, lost.slice, lost.epoch)
    if slice_ is None:
        return NOTHING
    tasks = tuple(slice_.outstanding)
    attempts = tuple(state.attempts[task] for task in tasks)
    blameless = state.graph.options[slice_.option].waits_for in LISTENED or lost.kind == "input"
    if blameless or len(tasks) > 1:
        loss = AttemptsLost(
            slice=lost.slice, tasks=tasks, attempts=attempts, reason=lost.reason, at_us=lost.at_us
        )
        return Decision(append=(loss,))
    final, retry_us = _find_next(state, tasks[0], lost.at_us)
    failure = AttemptFailed(
        slice=lost.slice,
        task=tasks[0],
        attempt=attempts[0],
        error=describe_loss(lost),
        final=final,
        at_us=lost.at_us,
        node="",
        retry_us=retry_us,
    )
    return _conclude(state, [failure], (), [failure], lost.at_us)


def _end_late(decision: Decision, lost: SliceLost) -> Decision:
    """Ends the worker of an attempt that ran too long, at once: that is durable or tried again."""
    if lost.kind != "timeout" or not decision.append:
        return decision
    end = CancelSlices(slices=(lost.slice,), sync_first=False)
    return replace(decision, effects=(end, *decision.effects))


def _status(status: Status, reason: str, who: str, at_us: int) -> StatusChanged:
    return StatusChanged(status=status.value, reason=reason, who=who, at_us=at_us)


def _success(who: str, at_us: int) -> StatusChanged:
    return _status(Status.SUCCESSFUL, "", who, at_us)
