"""What users say of retries and time limits, and how it is stored."""

from __future__ import annotations

from typing import Any

import pytest
import ray

import milepost
from milepost.engine.compiler import compile_dag
from milepost.engine.payloads import BlobCollector, deserialize
from milepost.errors import InvalidOptionError
from milepost.replay.fragment import Backoff, TaskOptions


class FlakyError(Exception):
    """One that is worth another attempt."""


@ray.remote(max_retries=7)
def work() -> None: ...


def stored(**options: Any) -> TaskOptions:
    (found,) = compile_dag(
        work.options(**milepost.options(**options)).bind(), BlobCollector()
    ).options
    return found


def read(options: TaskOptions) -> object:
    source: Any = None
    return deserialize(options.retry_errors, source)


def test_retries_take_the_place_of_those_of_ray() -> None:
    found = stored(retry=milepost.Retry(max_attempts=4, delay_s=0.5, backoff=3, max_delay_s=60))
    assert found.max_retries == 3
    assert read(found) is True
    assert found.backoff == Backoff(
        delay_us=500_000, factor=3.0, jitter=0.1, delay_us_max=60_000_000
    )
    assert stored().max_retries == 7


def test_none_is_for_any_number_of_attempts() -> None:
    assert stored(retry=milepost.Retry(max_attempts=None)).max_retries == -1


def test_exception_types_come_back_as_they_were_given() -> None:
    class LocalError(FlakyError): ...

    found = stored(retry=milepost.Retry(on=[FlakyError, LocalError, OSError]))
    assert read(found) == (FlakyError, LocalError, OSError)


def test_a_time_limit_is_stored_in_microseconds() -> None:
    assert stored(timeout_s=1.5).timeout_us == 1_500_000
    assert stored(timeout_s=1e-9).timeout_us == 1
    assert stored().timeout_us == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.0},
        {"delay_s": -1},
        {"delay_s": "1"},
        {"delay_s": float("nan")},
        {"delay_s": float("inf")},
        {"backoff": 0.5},
        {"jitter": 1.5},
        {"jitter": True},
        {"max_delay_s": -1},
        {"on": []},
        {"on": [1]},
        {"on": ValueError},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(wrong))):
        milepost.Retry(**wrong)


@pytest.mark.parametrize("wrong", [0, -1, "1", float("inf"), True], ids=str)
def test_a_time_limit_is_a_number_of_seconds(wrong: Any) -> None:
    with pytest.raises(InvalidOptionError, match="timeout_s"):
        milepost.options(timeout_s=wrong)


def test_retry_is_one() -> None:
    wrong: Any = {"max_attempts": 3}
    with pytest.raises(InvalidOptionError, match=r"milepost\.Retry"):
        milepost.options(retry=wrong)
