"""What a running task knows about itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

import milepost
from milepost import errors, workflow_context

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def describe() -> list[Any]:
    here = milepost.current()
    assert workflow_context.in_workflow_execution()
    assert workflow_context.get_current_workflow_id() == here.workflow_id
    assert workflow_context.get_current_task_id() == here.task_id
    return [workflow_context.get_name(), here.attempt, here.idempotency_token]


@ray.remote(max_retries=2, retry_exceptions=True)
def describe_at_third_attempt(ledger: Path) -> list[Any]:
    here = milepost.current()
    with ledger.open("a") as file:
        file.write(f"{here.attempt} {here.idempotency_token}\n")
    if here.attempt == 1:
        raise ValueError("the first attempt")
    if here.attempt == 2:
        os._exit(1)
    return [here.attempt, here.idempotency_token]


@ray.remote
def collect(*parts: Any) -> list[Any]:
    return list(parts)


def test_a_task_knows_its_ids(workflow_id: str) -> None:
    nodes = [describe.options(**milepost.options(task_id="t")).bind() for _ in range(2)]
    first, second = milepost.run(collect.bind(*nodes), workflow_id=workflow_id)
    assert (first[0], second[0]) == (f"{workflow_id}@t", f"{workflow_id}@t_1")
    assert (first[1], second[1]) == (1, 1)
    assert first[2] != second[2]


def test_a_token_is_the_same_for_all_attempts(workflow_id: str, ledger: Path) -> None:
    attempt, token = milepost.run(describe_at_third_attempt.bind(ledger), workflow_id=workflow_id)
    assert attempt == 3
    assert ledger.read_text() == "".join(f"{number} {token}\n" for number in (1, 2, 3))


def test_a_token_is_another_when_an_id_is_used_again(workflow_id: str) -> None:
    first = milepost.run(describe.bind(), workflow_id=workflow_id)
    milepost.delete(workflow_id)
    second = milepost.run(describe.bind(), workflow_id=workflow_id)
    assert first[0] == second[0]
    assert first[2] != second[2]


def test_outside_of_a_task_nothing_is_known() -> None:
    assert not workflow_context.in_workflow_execution()
    asked: list[Any] = [
        milepost.current,
        workflow_context.get_current_workflow_id,
        workflow_context.get_current_task_id,
        workflow_context.get_name,
    ]
    for ask in asked:
        with pytest.raises(errors.OutsideTaskError) as caught:
            ask()
        assert isinstance(caught.value, AssertionError)  # as ray.workflow raised
