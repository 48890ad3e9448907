"""What is not legal is refused, with the place and the reason, and changes nothing."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, cast

import pytest

from milepost.errors import IllegalEventError
from milepost.replay.decide import decide
from milepost.replay.events import Event, TasksCommitted
from milepost.replay.fold import apply, fold
from milepost.replay.fragment import Constant, Fragment, find_fault
from milepost.replay.inputs import Input
from milepost.replay.payload import inline
from milepost.replay.state import State, Status

if TYPE_CHECKING:
    from tests.replay.conftest import Build

Case: TypeAlias = "Callable[[Build], tuple[list[Event], Event]]"


def refuse(state: State, event: Event) -> IllegalEventError:
    """Applies an event that must be refused; returns the refusal."""
    before, digest = pickle.dumps(state), state.digest()
    with pytest.raises(IllegalEventError) as caught:
        apply(state, event)
    assert state.digest() == digest
    assert pickle.dumps(state) == before, "the refusal left something changed"
    assert caught.value.seq == state.next_seq
    assert caught.value.event == type(event).__name__
    return caught.value


def busy(build: Build) -> list[Event]:
    """Tasks 0 and 1 under way in slice 0, 2 committed, 3 failed, 4 extended, 5 and 6 ready, 7 not.

    Task 6 is of another class; slice 3, which 4 was in, is over; 8 is the root of what it returned.
    """
    graph = build.fragment(*[()] * 7, range(7), classes=[0] * 6 + [1, 0], max_retries=9)
    return [
        *build.started(graph),
        build.scheduled(0, 0, 1),
        build.scheduled(1, 2),
        build.committed(1, 2),
        build.scheduled(2, 3),
        build.failed(2, 3, final=True),
        build.scheduled(3, 4),
        build.extended(3, 4, build.single()),
    ]


def after(build: Build, *more: Event) -> list[Event]:
    return [*busy(build), *more]


def done(build: Build, status: str) -> list[Event]:
    events = [*build.started(build.single()), build.scheduled(0, 0), build.committed(0, 0)]
    return [*events, build.status(status)]


CASES: dict[str, tuple[Case, str]] = {
    "nothing happens after success": (
        lambda build: (done(build, "SUCCESSFUL"), build.noted()),
        "the workflow has ended .*SUCCESSFUL",
    ),
    "nothing happens after cancellation": (
        lambda build: (done(build, "CANCELED"), build.status("RUNNING")),
        "the workflow has ended .*CANCELED",
    ),
    "an owner of what has ended changes nothing in it": (
        lambda build: ([*done(build, "SUCCESSFUL"), build.taken(9)], build.status("RUNNING")),
        "the workflow has ended .*SUCCESSFUL",
    ),
    "a journal starts with its creation": (
        lambda build: ([], build.taken()),
        "only creation",
    ),
    "a workflow is created once": (
        lambda build: (busy(build), build.created(build.single())),
        "only creation",
    ),
    "a creation brings a well-formed graph": (
        lambda build: ([], build.created(build.fragment())),
        "not well formed: it has no node",
    ),
    "a creation brings the code of its functions": (
        lambda build: ([], build.created(without_code(build))),
        "its function is not in the journal .*app.f",
    ),
    "the same epoch is not taken twice": (
        lambda build: (busy(build), build.taken(1)),
        r"epochs rise \(1, 1\)",
    ),
    "epochs do not fall": (
        lambda build: (after(build, build.taken(5)), build.taken(4)),
        r"epochs rise \(4, 5\)",
    ),
    "epochs start above zero": (
        lambda build: ([build.created(build.single())], build.taken(0)),
        "epochs rise",
    ),
    "only known statuses are entered": (
        lambda build: (busy(build), build.status("running")),
        "no such status .*running",
    ),
    "only an owner changes the status": (
        lambda build: ([build.created(build.single())], build.status("RUNNING")),
        "nobody owns the workflow",
    ),
    "there is no success without a result": (
        lambda build: (busy(build), build.status("SUCCESSFUL")),
        "the result is not committed",
    ),
    "there is no failure without a failed task": (
        lambda build: (build.started(build.single()), build.status("FAILED")),
        "no task has failed",
    ),
    "a workflow that was never started schedules nothing": (
        lambda build: ([build.created(build.single()), build.taken()], build.scheduled(0, 0)),
        "does not run",
    ),
    "a pending workflow schedules nothing": (
        lambda build: (after(build, build.status("PENDING")), build.scheduled(4, 5)),
        "does not run .*PENDING",
    ),
    "a failed workflow schedules nothing": (
        lambda build: (after(build, build.status("FAILED")), build.scheduled(4, 5)),
        "does not run .*FAILED",
    ),
    "no slice is skipped": (
        lambda build: (busy(build), build.scheduled(5, 5)),
        r"numbered densely \(5\)",
    ),
    "no number of a slice is used again": (
        lambda build: (busy(build), build.scheduled(3, 5)),
        r"numbered densely \(3\)",
    ),
    "a slice is not empty": (
        lambda build: (busy(build), build.scheduled(4)),
        "distinct tasks",
    ),
    "a slice holds a task once": (
        lambda build: (busy(build), build.scheduled(4, 5, 5)),
        "distinct tasks",
    ),
    "a slice has an attempt per task": (
        lambda build: (busy(build), replace(build.scheduled(4, 5), attempts=(1, 1))),
        "columns differ in length",
    ),
    "a task beyond the graph is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, 5, 9)),
        r"no such task \(9\)",
    ),
    "a negative task is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, -4)),
        "no such task",
    ),
    "a task under way is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, 0, attempt=2)),
        r"not ready \(0\)",
    ),
    "a committed task is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, 2, attempt=2)),
        r"not ready \(2\)",
    ),
    "a failed task is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, 3, attempt=2)),
        r"not ready \(3\)",
    ),
    "a task that returned a continuation is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, 4, attempt=2)),
        r"not ready \(4\)",
    ),
    "a task that waits for inputs is not scheduled": (
        lambda build: (busy(build), build.scheduled(4, 7)),
        r"not ready \(7\)",
    ),
    "no attempt is skipped": (
        lambda build: (busy(build), build.scheduled(4, 5, attempt=2)),
        r"not the next attempt \(5, 2\)",
    ),
    "no attempt is repeated": (
        lambda build: (
            after(build, build.lost(0, 0, 1)),
            build.scheduled(4, 0, attempt=1),
        ),
        r"not the next attempt \(0, 1\)",
    ),
    "a slice is of one class": (
        lambda build: (busy(build), build.scheduled(4, 5, 6)),
        r"of one class \(6\)",
    ),
    "a commit is not empty": (
        lambda build: (busy(build), build.committed(0)),
        "columns differ in length",
    ),
    "a commit names a task once": (
        lambda build: (busy(build), build.committed(0, 0, 0)),
        "a task commits once",
    ),
    "a task that committed does not commit again": (
        lambda build: (after(build, build.committed(0, 0)), build.committed(0, 0)),
        r"not outstanding in slice 0 \(0\)",
    ),
    "a slice that is over commits nothing": (
        lambda build: (busy(build), build.committed(1, 2)),
        r"no such slice is under way \(1\)",
    ),
    "a slice of a former owner commits nothing": (
        lambda build: (after(build, build.taken(2)), build.committed(0, 0)),
        r"no such slice is under way \(0\)",
    ),
    "a slice commits only its own tasks": (
        lambda build: (busy(build), build.committed(0, 0, 5)),
        r"not outstanding in slice 0 \(5\)",
    ),
    "only the present attempt commits": (
        lambda build: (busy(build), build.committed(0, 0, attempt=2)),
        r"not the present attempt of task 0 \(2\)",
    ),
    "a task not under way is not extended": (
        lambda build: (busy(build), build.extended(0, 5, build.single())),
        "not outstanding",
    ),
    "only the present attempt extends": (
        lambda build: (busy(build), build.extended(0, 0, build.single(), attempt=2)),
        "not the present attempt",
    ),
    "a continuation is well formed": (
        lambda build: (busy(build), build.extended(0, 0, build.fragment())),
        "not well formed",
    ),
    "a continuation brings the code that the journal lacks": (
        lambda build: (busy(build), build.extended(0, 0, without_code(build, "g"))),
        "not in the journal .*app.g",
    ),
    "a task not under way does not fail": (
        lambda build: (busy(build), build.failed(0, 5)),
        "not outstanding",
    ),
    "only the present attempt fails": (
        lambda build: (busy(build), build.failed(0, 0, attempt=0)),
        "not the present attempt",
    ),
    "a slice that is over does not fail": (
        lambda build: (busy(build), build.failed(2, 3)),
        "no such slice",
    ),
    "a loss is not empty": (
        lambda build: (busy(build), build.lost(0)),
        "columns differ in length",
    ),
    "a loss has an attempt per task": (
        lambda build: (busy(build), replace(build.lost(0, 0), attempts=(1, 1))),
        "columns differ in length",
    ),
    "a loss names a task once": (
        lambda build: (busy(build), build.lost(0, 0, 0)),
        "lost once",
    ),
    "what is not under way is not lost": (
        lambda build: (busy(build), build.lost(0, 0, 5)),
        "not outstanding",
    ),
    "only the present attempt is lost": (
        lambda build: (busy(build), build.lost(0, 0, attempt=2)),
        "not the present attempt",
    ),
}


def without_code(build: Build, name: str = "f") -> Fragment:
    fragment = build.fragment((), functions=name)
    return replace(fragment, functions=(build.function(name, code=False),))


@pytest.mark.parametrize(("case", "reason"), CASES.values(), ids=CASES)
def test_is_refused(build: Build, case: Case, reason: str) -> None:
    journal, event = case(build)
    refusal = refuse(fold(journal), event)
    assert re.search(reason, refusal.reason), refusal.reason


@pytest.mark.parametrize("column", ["attempts", "payloads", "started_us", "durations_us"])
def test_a_commit_whose_columns_differ_in_length_is_refused(build: Build, column: str) -> None:
    commit: TasksCommitted = build.committed(0, 0, 1)
    shorter = {column: getattr(commit, column)[:1]}
    refusal = refuse(fold(busy(build)), replace(commit, **shorter))
    assert "columns differ" in refusal.reason


def test_a_journal_that_goes_wrong_names_the_place(build: Build) -> None:
    with pytest.raises(IllegalEventError) as caught:
        fold([*build.started(build.single()), build.committed(0, 0)])
    assert caught.value.seq == 3
    assert str(caught.value).startswith("event 3 (TasksCommitted) is not legal here: ")


def test_what_is_neither_event_nor_input_is_a_mistake_of_the_caller(build: Build) -> None:
    state = fold(build.started(build.single()))
    with pytest.raises(AssertionError):
        apply(state, cast(Event, "an event"))
    with pytest.raises(AssertionError):
        decide(state, cast(Input, "an input"))


WAYS = {
    None: {"RUNNING", "PENDING"},
    "RUNNING": {"RUNNING", "PENDING", "SUCCESSFUL", "FAILED", "CANCELED"},
    "PENDING": {"RUNNING", "PENDING", "SUCCESSFUL", "CANCELED"},
    "FAILED": {"RUNNING", "PENDING", "CANCELED"},
    "SUCCESSFUL": set(),
    "CANCELED": set(),
}


@pytest.mark.parametrize("to", list(Status))
@pytest.mark.parametrize("start", WAYS)
def test_statuses_change_only_along_the_known_ways(
    build: Build, start: str | None, to: str
) -> None:
    """The state is one in which nothing but the status itself stands in the way."""
    state = fold([build.created(build.single()), build.taken()])
    state.status = None if start is None else Status(start)
    state.results[0] = build.payload()
    state.failed[0] = build.error()
    if to in WAYS[start]:
        apply(state, build.status(to))
        assert state.status == to
    else:
        refuse(state, build.status(to))


def test_well_formed_graphs_have_no_fault(build: Build) -> None:
    for fragment in (build.single(), build.fan(3), build.chain(3), build.fragment((), (0, 0))):
        assert find_fault(fragment) is None


FAULTS = {
    "no node": ({"node_functions": ()}, "no node"),
    "a column too short": ({"node_names": (0, 0)}, "node_names has 2 rows, not 3"),
    "a column too long": ({"node_options": (0, 0, 0, 0)}, "node_options has 4 rows"),
    "beyond a table": ({"node_templates": (0, 0, 2)}, "node_templates points outside"),
    "before a table": ({"node_functions": (0, -1, 0)}, "node_functions points outside"),
    "too few counts": ({"input_counts": (0, 2)}, "input_counts does not fit the nodes"),
    "a negative count": ({"input_counts": (0, -1, 3)}, "input_counts does not fit the nodes"),
    "too few inputs": ({"inputs": (0,)}, "do not fit each other"),
    "too many inputs": ({"inputs": (0, 1, 1)}, "do not fit each other"),
    "a node that takes itself": ({"inputs": (0, 2)}, "node 2 takes node 2"),
    "an input before the first": ({"inputs": (0, -1)}, "node 2 takes node -1"),
    "a node nobody needs": ({"inputs": (0, 0)}, "node 1 is not the root"),
    "a constant beyond the graph": (
        {"constants": (Constant(payload=inline(1, b""), nodes=(0, 3)),)},
        "a constant names a node outside",
    ),
    "a constant before the graph": (
        {"constants": (Constant(payload=inline(1, b""), nodes=(-1, 0)),)},
        "a constant names a node outside",
    ),
}


@pytest.mark.parametrize(("changes", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_malformed_graph_is_refused(
    build: Build, changes: dict[str, tuple[int, ...]], fault: str
) -> None:
    fragment = replace(build.fan(2), **changes)  # type: ignore[arg-type]
    refusal = refuse(State(), build.created(fragment))
    assert fault in refusal.reason
