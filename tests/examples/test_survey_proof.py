"""The proof of the demonstration notices every way in which a promise can be broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import BEGIN, END, Entry
from survey_proof import Evidence


def ran(key: str, *, from_s: float, to_s: float | None) -> list[Entry]:
    """Lines of one execution; without an end if ``to_s`` is missing."""
    begin = Entry(kind=BEGIN, key=key, pid=1, time_s=from_s)
    return [begin] if to_s is None else [begin, Entry(kind=END, key=key, pid=1, time_s=to_s)]


BEFORE = [
    *ran("done", from_s=990.0, to_s=991.0),
    *ran("ended but not told", from_s=999.0, to_s=999.99),
    *ran("interrupted", from_s=999.5, to_s=None),
]
AFTER = [
    *ran("ended but not told", from_s=1010.0, to_s=1011.0),
    *ran("interrupted", from_s=1010.0, to_s=1011.0),
    *ran("last", from_s=1012.0, to_s=1013.0),
]
KEPT = Evidence(
    tasks=["done", "ended but not told", "interrupted", "last"],
    committed={"done"},
    before=BEFORE,
    after=AFTER,
    report="figures\n",
    report_expected="figures\n",
)


def test_a_run_that_keeps_the_promises_has_no_violations() -> None:
    assert KEPT.violations() == []
    assert KEPT.in_flight == KEPT.run_twice == {"ended but not told", "interrupted"}


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (
            replace(KEPT, after=[*AFTER, *ran("done", from_s=1010.0, to_s=1011.0)]),
            "committed before the kill, yet run again: done",
        ),
        (
            replace(KEPT, after=[*AFTER, *ran("last", from_s=1014.0, to_s=1015.0)]),
            "run twice though the kill did not interrupt it: last",
        ),
        (
            replace(KEPT, before=[*BEFORE, *ran("interrupted", from_s=999.6, to_s=None)]),
            "run twice though the kill did not interrupt it: interrupted",
        ),
        (
            replace(KEPT, committed={"done", "interrupted"}, after=AFTER[:2] + AFTER[4:]),
            "committed though it never ended: interrupted",
        ),
        (replace(KEPT, after=AFTER[:-1]), "never run to its end: last"),
        (replace(KEPT, report="figures"), "the report differs"),
        (replace(KEPT, committed=set()), "the kill proves nothing: 0 of 4"),
    ],
)
def test_a_broken_promise_is_named(broken: Evidence, named: str) -> None:
    assert [text for text in broken.violations() if text.startswith(named)] != []


def test_many_tasks_are_named_in_part() -> None:
    keys = [f"task {number}" for number in range(9)]
    evidence = replace(KEPT, tasks=[*KEPT.tasks, *keys])
    assert evidence.violations() == [
        "never run to its end: task 0, task 1, task 2, task 3, task 4 and 4 more"
    ]
