"""The campaign's rules notice each kind of breach: histories are doctored, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from campaign.history import Commit, Execution, Record, Stored
from campaign.ledger import Line
from campaign.rules import (
    CANCEL_NS,
    CLAIMS_PER_STRIKE,
    RULES,
    STRAGGLE_NS,
    find_stragglers,
    find_violations,
)

SECOND_NS = 10**9


class Clock:
    """Numbers lines and executions as the ledger's file would, a second apart."""

    def __init__(self) -> None:
        self.place = 0

    def line(self, what: str, **fields: Any) -> Line:
        self.place += 1
        at_ns = self.place * SECOND_NS
        return Line(place=self.place, what=what, at_ns=at_ns, pid=1, fields=fields)

    def execution(self, task: str, attempt: int, epoch: int, **changes: Any) -> Execution:
        self.place += 1
        given: dict[str, Any] = {
            "token": f"token {self.place}",
            "workflow": "w",
            "place": self.place,
            "begun_ns": self.place * SECOND_NS,
            "ended_ns": self.place * SECOND_NS + 1,
            "outcome": "returned",
        }
        return Execution(task=task, attempt=attempt, epoch=epoch, **given | changes)


def make_history(clock: Clock) -> Record:
    """A workflow whose first owner died, and one that was canceled: all as it should be."""
    record = Record()
    record.lines += [
        clock.line("asked", workflow="w", expected=7),
        clock.line("created", workflow="w"),
        clock.line("asked", workflow="c", expected=8),
    ]
    record.executions += [
        clock.execution("a", 1, 1),
        clock.execution("b", 1, 1, ended_ns=None, outcome=""),
        clock.execution("x", 1, 1, workflow="c"),
    ]
    record.lines.append(clock.line("strike", kind="dispatcher", hit=[1]))
    record.executions += [clock.execution("b", 2, 2), clock.execution("root", 1, 2)]
    record.lines += [
        clock.line("status", workflow="w", status="RUNNING"),
        clock.line("result", workflow="w", value=7),
        clock.line("status", workflow="w", status="SUCCESSFUL"),
        clock.line("canceled", workflow="c"),
    ]
    record.stored["w"] = Stored(
        workflow="w",
        status="SUCCESSFUL",
        result=7,
        commits=[
            Commit(task="a", attempt=1, epoch=1, extended=True),
            Commit(task="b", attempt=2, epoch=2),
            Commit(task="root", attempt=1, epoch=2),
        ],
        epochs=[1, 2],
        claims=2,
    )
    record.stored["c"] = Stored(workflow="c", status="CANCELED", epochs=[1], claims=1)
    return record


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def record(clock: Clock) -> Record:
    return make_history(clock)


def test_a_history_that_keeps_every_promise_breaks_no_rule(record: Record) -> None:
    assert find_violations(record) == []
    assert find_stragglers(record) == []


Doctor = Callable[[Record, Clock], object]
CASES: list[tuple[str, str, Doctor]] = []


def breaks(rule: str) -> Callable[[Doctor], Doctor]:
    """Marks what breaks a rule, or none of them."""

    def add(doctor: Doctor) -> Doctor:
        CASES.append((rule, doctor.__name__, doctor))
        return doctor

    return add


@breaks("commit once")
def a_task_is_committed_twice(record: Record, clock: Clock) -> None:
    record.stored["w"].commits.append(Commit(task="b", attempt=2, epoch=2))


@breaks("commit once")
def a_task_is_committed_beside_its_continuation(record: Record, clock: Clock) -> None:
    record.stored["w"].commits.insert(1, Commit(task="a", attempt=1, epoch=1))


@breaks("run no more")
def a_later_owner_runs_what_was_committed(record: Record, clock: Clock) -> None:
    record.executions.insert(3, clock.execution("a", 2, 2, place=0, begun_ns=0))


@breaks("run no more")
def the_same_owner_runs_what_was_committed(record: Record, clock: Clock) -> None:
    record.executions.insert(3, clock.execution("b", 3, 2, place=0, begun_ns=0))


@breaks("run no more")
def a_later_owner_runs_what_had_gone_on_with_a_continuation(record: Record, clock: Clock) -> None:
    assert record.stored["w"].commits[0].extended
    record.executions.append(clock.execution("a", 1, 2, place=0, begun_ns=0, outcome="raised"))


@breaks("straggle briefly")
def an_old_order_is_carried_out_long_after_the_end(record: Record, clock: Clock) -> None:
    clock.place += STRAGGLE_NS // SECOND_NS
    record.executions.append(clock.execution("root", 1, 1))


@breaks("straggle briefly")
def a_task_begins_long_after_the_cancel(record: Record, clock: Clock) -> None:
    clock.place += STRAGGLE_NS // SECOND_NS + CANCEL_NS // SECOND_NS
    record.executions.append(clock.execution("y", 1, 1, workflow="c"))


@breaks("run attempts once")
def an_attempt_runs_twice(record: Record, clock: Clock) -> None:
    record.executions.append(clock.execution("b", 2, 2, place=0, begun_ns=0))


@breaks("commit what ran")
def a_result_is_committed_that_nobody_computed(record: Record, clock: Clock) -> None:
    record.executions = [each for each in record.executions if each.task != "root"]


@breaks("commit what ran")
def an_attempt_that_raised_is_committed(record: Record, clock: Clock) -> None:
    record.executions[0].outcome = "raised"


@breaks("commit what ran")
def an_attempt_of_another_owner_is_committed(record: Record, clock: Clock) -> None:
    record.executions[-1].epoch = 1


@breaks("keep results")
def another_result_is_stored_than_was_told(record: Record, clock: Clock) -> None:
    record.stored["w"].result = 8


@breaks("keep results")
def a_result_is_told_and_then_a_wrong_one(record: Record, clock: Clock) -> None:
    record.lines.append(clock.line("result", workflow="w", value=9))


@breaks("keep results")
def a_wrong_result_is_told_and_stored(record: Record, clock: Clock) -> None:
    record.lines[0] = clock.line("asked", workflow="w", expected=10)


@breaks("keep results")
def a_result_is_told_of_a_workflow_that_runs_on(record: Record, clock: Clock) -> None:
    record.stored["w"].status = "RUNNING"
    record.lines = [line for line in record.lines if line.what != "status"]


@breaks("keep values")
def another_value_of_a_task_is_stored_than_was_told(record: Record, clock: Clock) -> None:
    record.lines.append(clock.line("task", workflow="w", task="a", value=4))
    record.stored["w"].values["a"] = 5


@breaks("delete wholly")
def a_deleted_workflow_is_still_there(record: Record, clock: Clock) -> None:
    record.lines += [clock.line("delete asked", workflow="w"), clock.line("deleted", workflow="w")]


@breaks("")
def a_workflow_is_deleted(record: Record, clock: Clock) -> None:
    record.lines += [
        clock.line("task", workflow="w", task="a", value=4),
        clock.line("delete asked", workflow="w"),
    ]
    record.stored["w"].values["a"] = 4
    assert find_violations(record) == []
    del record.stored["w"]
    record.lines.append(clock.line("deleted", workflow="w"))


@breaks("keep ends")
def a_cancel_is_told_and_the_workflow_runs(record: Record, clock: Clock) -> None:
    record.stored["c"].status = "RUNNING"


@breaks("keep ends")
def a_success_is_told_and_the_workflow_was_canceled(record: Record, clock: Clock) -> None:
    record.lines = [line for line in record.lines if line.what != "result"]
    record.lines.append(clock.line("canceled", workflow="w"))


@breaks("keep creations")
def a_workflow_vanishes_whose_creation_was_told(record: Record, clock: Clock) -> None:
    record.lines += [
        clock.line("asked", workflow="v", expected=1),
        clock.line("created", workflow="v"),
        clock.line("canceled", workflow="v"),
    ]
    record.stored["v"] = Stored(workflow="v", status="CANCELED", claims=1)
    assert find_violations(record) == []
    del record.stored["v"]
    record.lines.pop()
    record.lines.append(clock.line("result", workflow="v", value=1))


@breaks("end all")
def nobody_is_ever_told_how_a_workflow_ended(record: Record, clock: Clock) -> None:
    record.lines.append(clock.line("asked", workflow="v", expected=1))


@breaks("raise epochs")
def an_owner_has_the_epoch_of_its_predecessor(record: Record, clock: Clock) -> None:
    record.stored["w"].epochs = [1, 2, 2]


@breaks("raise epochs")
def an_old_owner_commits_after_its_successor(record: Record, clock: Clock) -> None:
    record.stored["w"].commits.append(Commit(task="z", attempt=1, epoch=1))
    record.executions.append(clock.execution("z", 1, 1, place=0, begun_ns=0))


@breaks("raise epochs")
def somebody_commits_without_having_taken_the_workflow(record: Record, clock: Clock) -> None:
    record.stored["w"].epochs = [2]


@breaks("store whole")
def verify_finds_a_fault(record: Record, clock: Clock) -> None:
    record.stored["w"].faults.append("blobs/w/1/abc: the journal names this blob")


@breaks("claim sparingly")
def claims_pile_up(record: Record, clock: Clock) -> None:
    record.stored["w"].claims = 2 + CLAIMS_PER_STRIKE


@breaks("foresee errors")
def a_driver_meets_an_error_that_it_does_not_know(record: Record, clock: Clock) -> None:
    record.lines.append(clock.line("unforeseen", workflow="w", error="KeyError(3)"))


@breaks("leave nothing")
def a_process_is_left(record: Record, clock: Clock) -> None:
    record.leaks.append("a worker still runs")


@breaks("")
def a_worker_that_was_given_up_begins_late(record: Record, clock: Clock) -> None:
    record.executions.append(clock.execution("b", 1, 2))


@breaks("")
def a_woken_owner_begins_what_another_has_committed(record: Record, clock: Clock) -> None:
    clock.place += STRAGGLE_NS // SECOND_NS
    record.lines.append(clock.line("woken"))
    record.executions.append(clock.execution("root", 1, 1))


@breaks("")
def a_task_is_tried_again_before_it_is_committed(record: Record, clock: Clock) -> None:
    record.executions.append(clock.execution("b", 1, 2, place=0, begun_ns=0, outcome=""))


@breaks("")
def an_owner_that_wrote_nothing_left_a_claim(record: Record, clock: Clock) -> None:
    record.stored["w"].claims = 3


SIDE_EFFECTS = {"keep creations": {"keep results"}, "keep ends": {"keep results"}}
"""Of one breach: what vanishes breaks what was told of it, too."""


@pytest.mark.parametrize(
    ("rule", "doctor"),
    [(rule, doctor) for rule, _, doctor in CASES if rule],
    ids=[name for rule, name, _ in CASES if rule],
)
def test_a_breach_is_noticed_by_its_rule(
    rule: str, doctor: Doctor, record: Record, clock: Clock
) -> None:
    doctor(record, clock)
    broken = {each.rule for each in find_violations(record)}
    assert rule in broken
    assert broken - {rule} <= SIDE_EFFECTS.get(rule, set())


@pytest.mark.parametrize(
    "doctor",
    [doctor for rule, _, doctor in CASES if not rule],
    ids=[name for rule, name, _ in CASES if not rule],
)
def test_what_a_crash_explains_is_no_breach(doctor: Doctor, record: Record, clock: Clock) -> None:
    doctor(record, clock)
    assert find_violations(record) == []


def test_each_rule_is_broken_by_some_case() -> None:
    assert {rule for rule, _, _ in CASES if rule} == set(RULES)
