"""How tasks are tried again, and how long an attempt may run: what users say, as labels carry it.

Labels are text, so exception types travel pickled in them. They are unpickled where they were
pickled, by the process that submits the workflow.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cloudpickle

from milepost.errors import InvalidOptionError
from milepost.replay.fragment import Backoff
from milepost.replay.retrying import ENDLESS

US_PER_S = 1_000_000
TIME_S_MAX = 10**9
"""Thirty years."""

ExceptionType: TypeAlias = type[BaseException]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How a task that fails is tried again; given to :func:`milepost.options`.

    It takes the place of Ray's ``max_retries`` and ``retry_exceptions``. An attempt fails when the
    function raises, runs longer than its time limit, or loses its worker.

    Attributes:
        max_attempts: How many attempts there are in all, the first one included; None for any
            number.
        delay_s: How long the second attempt waits after the first has failed, in seconds. The delay
            takes no worker, is in the journal, and goes on if another cluster takes over.
        backoff: By what factor each further delay is longer than the one before, 1 or more.
        max_delay_s: Delays do not grow beyond this, in seconds.
        jitter: By what part of itself, 0 to 1, each delay is longer or shorter by chance, so that
            tasks which fail together do not come back together.
        on: Which exceptions are worth another attempt; None for all. Attempts that are ended by
            their time limit, or whose worker dies, are repeated in any case.

    Raises:
        InvalidOptionError: If one of them has a value that makes no sense.

    Example:
        >>> patient = milepost.Retry(max_attempts=5, delay_s=2, on=[ConnectionError])
        >>> @milepost.options(retry=patient, timeout_s=60)
        ... @ray.remote
        ... def fetch(url):
        ...     return download(url)
    """

    max_attempts: int | None = 3
    delay_s: float = 1.0
    backoff: float = 2.0
    max_delay_s: float = 300.0
    jitter: float = 0.1
    on: Sequence[ExceptionType] | None = None

    def __post_init__(self) -> None:
        most = self.max_attempts
        if most is not None and (type(most) is not int or most < 1):
            raise InvalidOptionError(f"max_attempts must be 1 or more, or None, not {most!r}")
        check_number("delay_s", self.delay_s, 0, TIME_S_MAX)
        check_number("max_delay_s", self.max_delay_s, 0, TIME_S_MAX)
        check_number("backoff", self.backoff, 1, 1e6)
        check_number("jitter", self.jitter, 0, 1)
        if self.on is not None and not (
            isinstance(self.on, list | tuple) and self.on and all(map(_is_exception_type, self.on))
        ):
            raise InvalidOptionError(f"on must be a list of exception types, not {self.on!r}")

    def to_label(self) -> dict[str, Any]:
        """Returns what :func:`read_retry` reads, as JSON holds it."""
        on = None if self.on is None else base64.b64encode(cloudpickle.dumps(tuple(self.on)))
        return {
            "retries": ENDLESS if self.max_attempts is None else self.max_attempts - 1,
            "delays": [self.delay_s, self.backoff, self.jitter, self.max_delay_s],
            "on": None if on is None else on.decode("ascii"),
        }


def _is_exception_type(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Looks whether an option is a number between two others.

    Raises:
        InvalidOptionError: If it is not.
    """
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise InvalidOptionError(f"{name} must be a number from {least:g} to {most:g}: {value!r}")


def check_timeout(timeout_s: object) -> None:
    """Looks whether a time limit can be one.

    Raises:
        InvalidOptionError: If it cannot.
    """
    check_number("timeout_s", timeout_s, 0, TIME_S_MAX)
    if timeout_s == 0:
        raise InvalidOptionError("timeout_s must be more than 0; leave it out for no limit")


def read_retry(label: dict[str, Any]) -> tuple[int, Any, Backoff]:
    """Returns how often a task is repeated, on which exceptions, and after which delays."""
    delay_s, factor, jitter, max_delay_s = map(float, label["delays"])
    backoff = Backoff(
        delay_us=to_us(delay_s), factor=factor, jitter=jitter, delay_us_max=to_us(max_delay_s)
    )
    on = True if label["on"] is None else pickle.loads(base64.b64decode(label["on"]))
    return label["retries"], on, backoff


def to_us(seconds: float) -> int:
    """Returns a number of seconds in microseconds; what is not 0 is 1 at least."""
    return max(round(seconds * US_PER_S), int(seconds > 0))
