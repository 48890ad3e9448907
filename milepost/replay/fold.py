"""From events to state.

:func:`apply` takes one event further. It is total and deterministic, and it checks that the event
is legal before it changes anything: no commit of a task that was not scheduled or has committed, no
attempt that is not the next one, no epoch that does not rise, nothing after a final status but a
new owner: who has to make sure of an end takes it over, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import assert_never

from milepost.errors import IllegalEventError
from milepost.replay import retrying, waiting
from milepost.replay.catching import find_catcher, list_below, list_chain, name_item, pack_caught
from milepost.replay.composing import make_value
from milepost.replay.events import (
    WORKER_DIED,
    AttemptFailed,
    AttemptsLost,
    Event,
    EventReceived,
    GraphExtended,
    ItemFailed,
    ItemsCommitted,
    ItemsHandedBack,
    ItemsLost,
    ItemsScheduled,
    Noted,
    OwnershipTaken,
    RetriesDue,
    StatusChanged,
    TaskError,
    TasksCommitted,
    TasksHandedBack,
    TasksScheduled,
    WaitsBegan,
    WaitsEnded,
    WorkflowCreated,
)
from milepost.replay.fold_items import (
    add_maps,
    close_maps,
    commit_items,
    fail_item,
    give_up_items,
    hand_back_items,
    lose_items,
    require_items,
    restate_map,
    revive_map,
    schedule_items,
)
from milepost.replay.fragment import Fragment, find_fault
from milepost.replay.moves import TIME_US_MAX
from milepost.replay.moves import Refused as _Refused
from milepost.replay.moves import clip as _clip
from milepost.replay.moves import complete as _complete
from milepost.replay.moves import make_ready as _make_ready
from milepost.replay.moves import move as _move
from milepost.replay.moves import note_worker as _note_worker
from milepost.replay.moves import queue as _queue
from milepost.replay.moves import require as _require
from milepost.replay.moves import require_known as _require_known
from milepost.replay.state import DURABILITIES, FINAL, Slice, State, Status, TaskState

_STATUS_FROM: dict[Status, frozenset[Status | None]] = {
    Status.PENDING: frozenset({None, Status.RUNNING, Status.PENDING, Status.FAILED}),
    Status.RUNNING: frozenset({None, Status.RUNNING, Status.PENDING, Status.FAILED}),
    Status.SUCCESSFUL: frozenset({Status.RUNNING, Status.PENDING}),
    Status.FAILED: frozenset({Status.RUNNING}),
    Status.CANCELED: frozenset({Status.RUNNING, Status.PENDING, Status.FAILED}),
    Status.RESUMABLE: frozenset(),
}
"""From which statuses each status may be entered. RESUMABLE is never stored."""

_WAITING, _READY, _SCHEDULED = map(int, (TaskState.WAITING, TaskState.READY, TaskState.SCHEDULED))
"""As plain integers, which are quicker to compare and to store a million times."""


def fold(events: Iterable[Event]) -> State:
    """Returns the state after ``events``, the whole journal of one workflow from its start.

    Raises:
        IllegalEventError: If an event contradicts those before it.
    """
    state = State()
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """Changes ``state`` to what it is after ``event``.

    Raises:
        IllegalEventError: If the event is not legal here; ``state`` is then unchanged.
    """
    try:
        ended = state.status in FINAL and not isinstance(event, OwnershipTaken)
        _require(not ended, "the workflow has ended", state.status)
        created = isinstance(event, WorkflowCreated)
        _require(created == (state.next_seq == 0), "a journal starts with its only creation")
        _apply(state, event)
    except _Refused as refusal:
        raise IllegalEventError(state.next_seq, type(event).__name__, str(refusal)) from None
    state.next_seq += 1


def _apply(state: State, event: Event) -> None:
    match event:
        case TasksCommitted():
            _commit(state, event)
        case TasksScheduled():
            _schedule(state, event)
        case GraphExtended():
            _extend(state, event)
        case AttemptFailed():
            _fail(state, event)
        case AttemptsLost():
            _lose(state, event)
        case TasksHandedBack():
            _hand_back(state, event)
        case ItemsCommitted():
            commit_items(state, event)
        case ItemsScheduled():
            schedule_items(state, event)
        case ItemFailed():
            if fail_item(state, event):
                name = name_item(state, event.task, event.item)
                _fail_for_good(state, event.task, name, event.error, event.at_us)
                restate_map(state, event.task)
        case ItemsLost():
            lose_items(state, event)
        case ItemsHandedBack():
            hand_back_items(state, event)
        case StatusChanged():
            _change_status(state, event)
        case OwnershipTaken():
            _take_ownership(state, event)
        case WorkflowCreated():
            _create(state, event)
        case WaitsBegan():
            _begin_waits(state, event)
        case WaitsEnded():
            _end_waits(state, event)
        case EventReceived():
            _receive(state, event)
        case RetriesDue():
            _take_due(state, event)
        case Noted():
            pass
        case _:
            assert_never(event)


def _create(state: State, event: WorkflowCreated) -> None:
    _require_well_formed(state, event.fragment)
    _require(event.durability in DURABILITIES, "there is no such durability", event.durability)
    state.workflow_id = event.workflow_id
    state.created_us = event.at_us
    state.metadata = event.metadata
    state.environment = event.environment
    state.durability = event.durability
    state.versions = event.versions
    state.root = _add_fragment(state, event.fragment)


def _take_ownership(state: State, event: OwnershipTaken) -> None:
    _require(event.epoch > state.epoch, "epochs rise", event.epoch, state.epoch)
    state.epoch = event.epoch
    state.incarnation = state.incarnation or event.epoch
    state.owner = event.owner
    for slice_ in state.slices.values():
        for task in slice_.outstanding:
            _free(state, task)
    give_up_items(state)
    state.slices.clear()
    state.slice_counts.clear()
    waiting.follow_clock(state, event.at_us)
    retrying.follow_clock(state, event.at_us)


def _change_status(state: State, event: StatusChanged) -> None:
    _require(event.status in _STATUS_FROM, "there is no such status", event.status)
    status = Status(event.status)
    _require(
        state.status in _STATUS_FROM[status], "no way between statuses", state.status, event.status
    )
    _require(state.epoch > 0, "nobody owns the workflow")
    if status is Status.SUCCESSFUL:
        _require(state.result is not None, "the result is not committed")
        _abandon(state)
    if status is Status.FAILED:
        _require(bool(state.failed), "no task has failed")
    if status is Status.RUNNING:
        _revive(state)
        state.started_us = event.at_us
    state.ended_us = event.at_us if status in FINAL or status is Status.FAILED else 0
    state.status = status


def _abandon(state: State) -> None:
    """Drops what the result did not have to wait for: who waits for some tasks leaves others."""
    for task in (
        *(each for at in state.slices.values() for each in at.outstanding),
        *state.awaited,
        *retrying.list_put_off(state),
        *{slice_.task: None for slice_ in state.item_slices.values()},
    ):
        _move(state, task, TaskState.DROPPED)
    _forget_dropped(state)


def _revive(state: State) -> None:
    """A resume gives failed tasks a fresh start; their attempt numbers go on."""
    for task in state.failed:
        if task in state.maps:
            revive_map(state, task)
        else:
            _make_ready(state, task)
    state.failed.clear()
    state.failures.clear()


def _schedule(state: State, event: TasksScheduled) -> None:
    tasks, total = event.tasks, len(state.tasks)
    _require(state.status is Status.RUNNING, "the workflow does not run", state.status)
    _require(event.slice == state.next_slice, "slices are numbered densely", event.slice)
    _require(bool(tasks) and len(set(tasks)) == len(tasks), "a slice holds distinct tasks")
    _require(len(event.attempts) == len(tasks), "columns differ in length")
    _require(min(tasks) >= 0 and max(tasks) < total, "there is no such task", max(tasks))
    option = state.graph.node_options[tasks[0]]
    _require(not waiting.is_awaited(state, option), "no worker runs the task", tasks[0])
    plain = not state.maps or state.maps.keys().isdisjoint(tasks)
    _require(plain, "the items of a map are scheduled, not the map")
    _require_schedulable(state, event, option)
    started_us = _clip(event.at_us)
    for task, attempt in zip(tasks, event.attempts, strict=True):
        state.counts[state.tasks[task]] -= 1
        state.tasks[task] = _SCHEDULED
        state.attempts[task] = attempt
        state.task_started_us[task] = started_us
    state.counts[_SCHEDULED] += len(tasks)
    state.slices[event.slice] = Slice(option, dict.fromkeys(tasks))
    state.slice_counts[option] += 1
    state.next_slice += 1
    _drop_stale(state, option)


def _require_schedulable(state: State, event: TasksScheduled, option: int) -> None:
    """Checks row by row without a call per row: a journal holds a row for each attempt."""
    tasks, attempts, options = state.tasks, state.attempts, state.graph.node_options
    earlier: set[int] = set()
    for task, attempt in zip(event.tasks, event.attempts, strict=True):
        if tasks[task] != _READY and not _rides(state, task, earlier):
            raise _Refused(f"the task is not ready ({task})")
        earlier.add(task)
        if attempt != attempts[task] + 1:
            raise _Refused(f"not the next attempt ({task}, {attempt})")
        if options[task] != option:
            raise _Refused(f"a slice is of one class ({task})")


def _rides(state: State, task: int, earlier: Collection[int]) -> bool:
    """Tells whether a waiting task lacks nothing but values of the tasks ``earlier``."""
    return state.tasks[task] == TaskState.WAITING and _lacks_only(state, task, earlier)


def _lacks_only(state: State, task: int, earlier: Collection[int]) -> bool:
    sources = state.graph.inputs(task)
    return all(state.results[each] is not None or each in earlier for each in sources)


def _drop_stale(state: State, option: int) -> None:
    """Keeps the head of the queue fresh, so that readers of it never walk over the past."""
    queue = state.ready[option]
    while queue and state.tasks[queue[0]] != _READY:
        queue.popleft()
    if not queue:
        del state.ready[option]


def _commit(state: State, event: TasksCommitted) -> None:
    size = len(event.tasks)
    columns = (event.attempts, event.payloads, event.started_us, event.durations_us)
    same = all(len(column) == size for column in columns)
    _require(size > 0 and same, "columns differ in length")
    _require(len(set(event.tasks)) == size, "a task commits once")
    _require_outstanding(state, event.slice, event.tasks, event.attempts)
    _require_in_order(state, event.tasks)
    _require_known(state, event.node)
    for task, payload in zip(event.tasks, event.payloads, strict=True):
        _complete(state, task, payload)
    for task, start, spent in zip(event.tasks, event.started_us, event.durations_us, strict=True):
        _note_times(state, task, start, spent)
    _settle(state, event.slice, event.tasks)
    _note_worker(state, event.node)


def _note_times(state: State, task: int, started_us: int, duration_us: int) -> None:
    ended_us = started_us + duration_us
    if not 0 <= started_us <= TIME_US_MAX or not 0 <= ended_us <= TIME_US_MAX:
        started_us, ended_us = _clip(started_us), _clip(ended_us)
    state.task_started_us[task] = started_us
    state.task_ended_us[task] = ended_us


def _require_in_order(state: State, tasks: tuple[int, ...]) -> None:
    """A task that rides commits behind its inputs, so that no prefix knows it without them."""
    earlier: set[int] = set()
    for task in tasks:
        if state.waiting[task]:
            _require(_lacks_only(state, task, earlier), "an input has no value", task)
        earlier.add(task)


def _extend(state: State, event: GraphExtended) -> None:
    _require_outstanding(state, event.slice, (event.task,), (event.attempt,))
    _require(state.waiting[event.task] == 0, "an input has no value", event.task)
    _require_known(state, event.node)
    _require_well_formed(state, event.fragment)
    root = _add_fragment(state, event.fragment)
    state.creators[root] = event.task
    state.continuations[event.task] = root
    if event.task in state.catchers:
        state.catchers.add(root)
    _note_times(state, event.task, event.started_us, event.duration_us)
    _move(state, event.task, TaskState.EXTENDED)
    _settle(state, event.slice, (event.task,))
    _unseat(state, event.slice, (event.task,))
    _note_worker(state, event.node)


def _fail(state: State, event: AttemptFailed) -> None:
    task = event.task
    _require_outstanding(state, event.slice, (task,), (event.attempt,))
    _require(state.waiting[task] == 0, "an input has no value", task)
    _require_known(state, event.node)
    _require(retrying.find_fault(event) is None, "a retry that cannot be", event.retry_us)
    state.failures[task] = state.failures.get(task, 0) + 1
    _settle(state, event.slice, (task,))
    _unseat(state, event.slice, (task,))
    _note_worker(state, event.node)
    if event.retry_us:
        retrying.put_off(state, event)
    elif not event.final:
        _make_ready(state, task)
    elif _fail_for_good(state, task, state.graph.task_id(task), event.error, event.at_us):
        return
    if event.error.kind in WORKER_DIED:
        state.suspects.add(task)


def _take_due(state: State, event: RetriesDue) -> None:
    due = retrying.find_due(state, event.at_us)
    _require(due is not None, "no retry is due", event.at_us)
    for task in retrying.take_due(state, event.at_us):
        restate_map(state, task)


def _fail_for_good(state: State, task: int, name: str, error: TaskError, at_us: int) -> bool:
    """Lets a task or a map fail; tells whether that was caught."""
    catcher = find_catcher(state, task)
    if catcher is None:
        _move(state, task, TaskState.FAILED)
        state.failed.setdefault(task, error)
        return False
    state.task_ended_us[catcher] = _clip(at_us)
    _catch(state, task, name, catcher, error)
    return True


def _catch(state: State, task: int, name: str, catcher: int, error: TaskError) -> None:
    """Makes the error the value of ``catcher`` and of the continuations that were to give it."""
    state.failures.pop(task, None)
    payload = pack_caught(name, error)
    chain = dict.fromkeys(list_chain(state, catcher))
    for each in list_below(state, catcher):
        if each not in chain and state.tasks[each] != TaskState.COMMITTED:
            _move(state, each, TaskState.DROPPED)
    _complete(state, next(reversed(chain)), payload)
    if catcher != task or task in state.maps:
        _forget_dropped(state)


def _forget_dropped(state: State) -> None:
    """Takes tasks that are needed no more off their slices and out of the queues."""
    for number, slice_ in list(state.slices.items()):
        gone = [each for each in slice_.outstanding if state.tasks[each] != TaskState.SCHEDULED]
        _settle(state, number, tuple(gone))
    for option in list(state.ready):
        _drop_stale(state, option)
    waiting.forget_needless(state)
    retrying.forget_needless(state)
    close_maps(state)


def _begin_waits(state: State, event: WaitsBegan) -> None:
    _require(state.status is Status.RUNNING, "no wait begins in what does not run", state.status)
    _require(len(event.waits) == len(event.tasks) > 0, "columns differ in length")
    _require(len(set(event.tasks)) == len(event.tasks), "a task begins to wait once")
    for task, wait in zip(event.tasks, event.waits, strict=True):
        fault = waiting.find_fault_in_begin(state, task, wait)
        _require(fault is None, f"no wait begins: {fault}", task)
    for task, wait in zip(event.tasks, event.waits, strict=True):
        _move(state, task, TaskState.AWAITING)
        state.task_started_us[task] = _clip(event.at_us)
        waiting.note_begun(state, task, wait)
    for option in list(state.ready):
        _drop_stale(state, option)


def _end_waits(state: State, event: WaitsEnded) -> None:
    _require(state.status is Status.RUNNING, "no wait ends in what does not run", state.status)
    _require(len(set(event.tasks)) == len(event.tasks) > 0, "a wait ends once")
    for task in event.tasks:
        fault = waiting.find_fault_in_end(state, task, event.at_us)
        _require(fault is None, f"no wait ends: {fault}", task)
    for task in event.tasks:
        value = make_value(state, task)
        waiting.note_ended(state, task)
        state.task_ended_us[task] = _clip(event.at_us)
        _complete(state, task, value)


def _receive(state: State, event: EventReceived) -> None:
    _require(event.key != "", "an event has a key")
    _require(event.key not in state.received, "an event of a key comes once", event.key)
    state.received[event.key] = event.payload
    waiting.note_received(state, event.key)


def _lose(state: State, event: AttemptsLost) -> None:
    size = len(event.tasks)
    _require(size > 0 and len(event.attempts) == size, "columns differ in length")
    _require(len(set(event.tasks)) == size, "an attempt is lost once")
    _require_outstanding(state, event.slice, event.tasks, event.attempts)
    for task in event.tasks:
        _free(state, task)
    _settle(state, event.slice, event.tasks)
    _unseat(state, event.slice, event.tasks)
    state.suspects.update(event.tasks)


def _hand_back(state: State, event: TasksHandedBack) -> None:
    size = len(event.tasks)
    _require(size > 0 and len(event.attempts) == size, "columns differ in length")
    _require(len(set(event.tasks)) == size, "a task is handed back once")
    _require_outstanding(state, event.slice, event.tasks, event.attempts)
    suspects = state.suspects.intersection(event.tasks)
    for task in event.tasks:
        _give_back(state, task)
    _settle(state, event.slice, event.tasks)
    state.suspects |= suspects  # it has not been tried
    _unseat(state, event.slice, event.tasks)


def _give_back(state: State, task: int) -> None:
    """Takes a task from a worker that never started it: its next attempt has the same number."""
    state.attempts[task] -= 1
    _free(state, task)


def _free(state: State, task: int) -> None:
    if state.waiting[task]:
        _move(state, task, TaskState.WAITING)
    else:
        _make_ready(state, task)


def _unseat(state: State, number: int, tasks: Iterable[int]) -> None:
    """Gives back what rode on ``tasks``, which get no value in this slice; workers do likewise."""
    stack = list(tasks)
    while stack and number in state.slices:
        outstanding = state.slices[number].outstanding
        riders = [each for each in state.graph.outputs(stack.pop()) if each in outstanding]
        for rider in dict.fromkeys(riders):
            _give_back(state, rider)
            _settle(state, number, (rider,))
        stack.extend(riders)


def _require_outstanding(
    state: State, number: int, tasks: tuple[int, ...], attempts: tuple[int, ...]
) -> None:
    slice_ = state.slices.get(number)
    if slice_ is None:
        raise _Refused(f"no such slice is under way ({number})")
    outstanding, present = slice_.outstanding, state.attempts
    for task, attempt in zip(tasks, attempts, strict=True):
        if task not in outstanding:
            raise _Refused(f"the task is not outstanding in slice {number} ({task})")
        if attempt != present[task]:
            raise _Refused(f"not the present attempt of task {task} ({attempt})")


def _require_well_formed(state: State, fragment: Fragment) -> None:
    fault = find_fault(fragment)
    _require(fault is None, f"its graph is not well formed: {fault}")
    require_items(state, fragment)
    for function in fragment.functions:
        known = function.code is not None or state.graph.knows_function(function.digest)
        _require(known, "its function is not in the journal", function.name)


def _settle(state: State, number: int, tasks: tuple[int, ...]) -> None:
    """Takes ``tasks`` off their slice; a slice with nothing outstanding is over."""
    slice_ = state.slices[number]
    for task in tasks:
        del slice_.outstanding[task]
    if not slice_.outstanding:
        del state.slices[number]
        state.slice_counts[slice_.option] -= 1
    if state.suspects:
        state.suspects.difference_update(tasks)


def _add_fragment(state: State, fragment: Fragment) -> int:
    """Adds the nodes of ``fragment``; returns its root."""
    first = state.graph.extend(fragment)
    width = len(fragment.input_counts)
    state.tasks.extend(bytes(width))
    state.attempts.extend([0] * width)
    state.waiting.extend(fragment.input_counts)
    state.results.extend([None] * width)
    state.task_started_us.extend([0] * width)
    state.task_ended_us.extend([0] * width)
    add_maps(state, fragment, first)
    if any(each.catch_exceptions for each in fragment.options):
        for node, at in enumerate(fragment.node_options, first):
            if fragment.options[at].catch_exceptions and node not in state.maps:
                state.catchers.add(node)
    blocking = waiting.count_blocking(fragment)
    for node, count in enumerate(blocking, first):
        if count == 0:
            state.tasks[node] = _READY
            _queue(state, node)
    starting = blocking.count(0)
    state.counts[_WAITING] += width - starting
    state.counts[_READY] += starting
    return first + width - 1
