"""Every error survives pickling, so that it reaches the caller from wherever it was raised."""

from __future__ import annotations

import inspect
import pickle
from types import FunctionType

import pytest

from milepost import errors
from milepost.errors import MilepostError

CLASSES = sorted(
    (kind for _, kind in inspect.getmembers(errors, inspect.isclass)),
    key=lambda kind: kind.__name__,
)
UNTOLD = "a detail for programs, not for the text"
SAMPLES: dict[str, object] = {
    "details": UNTOLD,
    "found": 9,
    "near": ("f_1",),
    "newer_epoch": 3,
    "offset": 4096,
    "own_epoch": 2,
    "seq": 17,
    "supported": 1,
}
"""Arguments by the name of their parameter; every other parameter takes text."""


def sample(kind: type[MilepostError]) -> MilepostError:
    """Raise-able instance of an error, with every argument given, defaults included."""
    if not isinstance(kind.__init__, FunctionType):
        return kind("what, where and what to do")
    parameters = list(inspect.signature(kind).parameters)
    return kind(*(SAMPLES.get(name, f"some {name}") for name in parameters))


def test_there_is_one_root() -> None:
    assert [kind for kind in CLASSES if not issubclass(kind, MilepostError)] == []


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_pickling(kind: type[MilepostError], protocol: int) -> None:
    error = sample(kind)
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is kind
    assert copy.args == error.args
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_text_of_an_error_names_what_it_was_given(kind: type[MilepostError]) -> None:
    error = sample(kind)
    told = [each for given in error.args for each in (given if type(given) is tuple else [given])]
    missing = {argument for argument in told if str(argument) not in str(error)}
    assert missing <= {UNTOLD}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_keeps_its_cause_apart_from_its_arguments(kind: type[MilepostError]) -> None:
    cause = ValueError("the user's own")
    with pytest.raises(kind) as caught:
        raise sample(kind) from cause
    assert caught.value.__cause__ is cause
    assert caught.value.args == sample(kind).args
