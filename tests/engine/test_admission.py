"""Turns: first come, first served, never more than may, and restored from what others remember."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.engine.admission import RESERVED, Admission, Limits, Turn, check_limits
from milepost.errors import ConflictingInitError, InvalidOptionError


def turn(workflow_id: str, ticket: int = 1, *, since_us: int = 0, running: bool = False) -> Turn:
    return Turn(workflow_id=workflow_id, ticket=ticket, index=0, since_us=since_us, running=running)


def admit(admission: Admission, names: str) -> list[bool | None]:
    return [admission.ask(turn(name)) for name in names]


def called(admission: Admission) -> str:
    return "".join(each.workflow_id for each in admission.call_up())


@pytest.mark.parametrize("value", [1.0, "1", True, [1]])
@pytest.mark.parametrize("which", [0, 1])
def test_a_limit_is_an_int(value: Any, which: int) -> None:
    with pytest.raises(TypeError):
        check_limits(*((value, None) if which == 0 else (None, value)))


@pytest.mark.parametrize(("running", "pending"), [(0, None), (-2, None), (None, -2)])
def test_a_limit_makes_sense(running: int | None, pending: int | None) -> None:
    with pytest.raises(InvalidOptionError, match="or -1 for no limit"):
        check_limits(running, pending)


@pytest.mark.parametrize(("running", "pending"), [(1, 0), (-1, -1), (None, None)])
def test_these_do(running: int | None, pending: int | None) -> None:
    assert check_limits(running, pending) == Limits(max_running=running, max_pending=pending)


def test_whoever_names_a_limit_first_sets_it_and_others_must_agree() -> None:
    first = Limits().merge(Limits(max_running=2))
    both = first.merge(Limits(max_running=2, max_pending=3))
    assert both == both.merge(Limits()) == Limits(max_running=2, max_pending=3)
    with pytest.raises(ConflictingInitError, match="max_pending_workflows=4"):
        both.merge(Limits(max_pending=4))


def test_turns_come_in_the_order_they_were_asked_for() -> None:
    admission = Admission(Limits(max_running=2, max_pending=2))
    assert admit(admission, "abcde") == [True, True, False, False, None]
    assert admit(admission, "ac") == [True, False], "each keeps what it has"
    admission.release("b")
    assert called(admission) == "c"
    assert called(admission) == ""
    assert admit(admission, "e") == [False]
    admission.release("a")
    admission.release("c")
    assert called(admission) == "de"


def test_who_waits_may_leave() -> None:
    admission = Admission(Limits(max_running=1))
    admit(admission, "abc")
    admission.release("b")
    admission.release("a")
    assert called(admission) == "c"


def test_nobody_overtakes_those_who_wait() -> None:
    admission = Admission(Limits(max_running=1))
    admit(admission, "ab")
    admission.release("a")
    assert admit(admission, "c") == [False]
    assert called(admission) == "b"


@pytest.mark.parametrize("pending", [None, -1])
def test_without_a_limit_any_number_waits(pending: int | None) -> None:
    admission = Admission(Limits(max_running=1, max_pending=pending))
    assert admit(admission, "abcdefgh") == [True] + [False] * 7


def test_zero_means_that_none_may_wait_but_what_had_a_place() -> None:
    admission = Admission(Limits(max_running=1, max_pending=0))
    assert admit(admission, "ab") == [True, None]
    assert admission.ask(turn("b"), must=True) is False


def test_only_the_turn_that_is_meant_is_taken_back() -> None:
    admission = Admission(Limits(max_running=1))
    admission.ask(turn("a", RESERVED))
    admission.ask(turn("a", 7))
    admission.release("a", RESERVED)
    assert admit(admission, "b") == [False], "a still runs"
    admission.release("a", 7)
    assert called(admission) == "b"


def test_restored_turns_are_those_that_others_remember_in_their_order() -> None:
    admission = Admission(Limits(max_running=2))
    with admission.restoring():
        admission.restore([turn("late", since_us=9), turn("runs", running=True)])
        admission.restore([turn("early", since_us=5), turn("also runs", running=True)])
    assert called(admission) == ""
    admission.release("runs")
    admission.release("also runs")
    assert [each.workflow_id for each in admission.call_up()] == ["early", "late"]


def test_what_was_given_back_meanwhile_is_not_restored() -> None:
    admission = Admission(Limits(max_running=1))
    with admission.restoring():
        admission.release("gone", 3)
        admission.restore([turn("gone", 3, running=True)])
    assert admit(admission, "b") == [True]


def test_what_was_admitted_meanwhile_stays_so() -> None:
    admission = Admission(Limits(max_running=1))
    with admission.restoring():
        assert admit(admission, "a") == [True]
        admission.restore([turn("a")])
    assert admit(admission, "ab") == [True, False]
