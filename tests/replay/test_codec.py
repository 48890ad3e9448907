"""Events become bytes and come back as they were; what is not an event is refused as such."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.errors import IllegalEventError, UnsupportedFormatError
from milepost.replay import codec
from milepost.replay.codec import EventFormatError, decode, decode_all, encode
from milepost.replay.columns import (
    COLUMN_ROWS_MAX,
    pack_integers,
    unpack_integers,
    unpack_payload,
)
from milepost.replay.events import Event, Noted, StatusChanged
from milepost.replay.fold import apply, fold
from milepost.replay.invariants import check
from milepost.replay.state import State

if TYPE_CHECKING:
    from tests.replay.conftest import Build

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
THOROUGH = settings(PATIENT, max_examples=300)
INT64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-(2**40), 2**40)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=12))
    | st.just(msgpack.Timestamp(1, 2)),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.integers(0, 9), children),
    max_leaves=12,
)


def read(data: bytes) -> Event | None:
    """Decodes damaged bytes both ways; they give an event, or are refused in the one known way."""
    try:
        event = decode(data)
    except (EventFormatError, UnsupportedFormatError) as error:
        with pytest.raises(type(error)):
            list(decode_all(data))
        return None
    assert [event] == list(decode_all(data))
    return event


def freeze(events: Sequence[Event]) -> bytes:
    """Returns the state after ``events`` in a form that gives a fresh copy quickly."""
    return pickle.dumps(fold(events))


def apply_any(frozen: bytes, event: Event) -> None:
    """Applies an event that may be refused, which then changes nothing, but must break nothing."""
    state: State = pickle.loads(frozen)
    before = state.digest()
    try:
        apply(state, event)
    except IllegalEventError:
        assert state.digest() == before
    check(state)


def test_every_kind_of_event_comes_back_as_it_was(
    sample_journal: list[Event],
    riders_journal: list[Event],
    waits_journal: list[Event],
    map_journal: list[Event],
    retries_journal: list[Event],
) -> None:
    journal = [*sample_journal, *riders_journal, *waits_journal, *map_journal, *retries_journal]
    assert {type(event) for event in journal} == set(codec._CODECS)
    assert [decode(encode(event)) for event in journal] == journal


def test_a_frame_holds_events_one_behind_the_other(sample_journal: list[Event]) -> None:
    assert list(decode_all(b"".join(map(encode, sample_journal)))) == sample_journal
    assert list(decode_all(b"")) == []


def test_each_kind_has_a_number_of_its_own_and_no_name_is_stored(
    sample_journal: list[Event],
) -> None:
    kinds = [kind for kind, *_ in codec._CODECS.values()]
    assert sorted(kinds) == list(range(1, 20))
    for event in sample_journal:
        assert type(event).__name__.encode() not in encode(event)


@PATIENT
@given(column=st.lists(SMALL) | st.lists(INT64, max_size=1))
def test_columns_of_integers_come_back_as_they_were(column: list[int]) -> None:
    assert unpack_integers(pack_integers(column)) == tuple(column)


@PATIENT
@given(first=SMALL, step=SMALL, count=st.integers(2, 50))
def test_runs_are_stored_in_four_numbers(first: int, step: int, count: int) -> None:
    column = [first + step * at for at in range(count)]
    packed = pack_integers(column)
    assert packed == [0, first, step, count]
    assert unpack_integers(packed) == tuple(column)


def test_a_run_longer_than_any_workflow_is_refused_before_it_is_built() -> None:
    assert len(unpack_integers([0, 7, 0, COLUMN_ROWS_MAX])) == COLUMN_ROWS_MAX
    for count in (0, -1, COLUMN_ROWS_MAX + 1, 2**63):
        with pytest.raises(ValueError, match="not a column"):
            unpack_integers([0, 7, 1, count])


@pytest.mark.parametrize(
    "packed", [None, b"\x01\x05", {}, [1, 2.0], [True], [1, None], [2, 1], [0, 1]]
)
def test_what_is_not_a_column_is_refused(packed: object) -> None:
    with pytest.raises(ValueError, match="not a"):
        unpack_integers(packed)


@pytest.mark.parametrize(
    "packed",
    [
        1,
        "text",
        [],
        [0],
        [True, b"data"],
        [0, "text"],
        [0, [b"", 1]],
        [0, [b"digest", -1]],
        [0, [b"digest", True]],
        [0, [b"digest"]],
        msgpack.ExtType(5, b"data"),
    ],
)
def test_what_is_not_a_payload_is_refused(packed: object) -> None:
    with pytest.raises(ValueError, match=r"not a|is of type"):
        unpack_payload(packed)


def test_an_old_version_is_brought_to_the_newest_shape(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if notes had had no author in version 1, and times in milliseconds up to version 2."""
    _, unpack = codec._KINDS[9]
    monkeypatch.setitem(codec._KINDS, 9, (3, unpack))
    monkeypatch.setitem(codec._UPCASTS, (9, 1), lambda fields: [fields[0], "", fields[1]])
    monkeypatch.setitem(
        codec._UPCASTS, (9, 2), lambda fields: [fields[0], fields[1], fields[2] * 1000]
    )
    assert decode(msgpack.packb([9, 1, ["old", 5]])) == Noted(text="old", who="", at_us=5000)
    assert decode(msgpack.packb([9, 2, ["old", "a", 5]])) == Noted(text="old", who="a", at_us=5000)
    assert decode(msgpack.packb([9, 3, ["new", "a", 5]])) == Noted(text="new", who="a", at_us=5)
    with pytest.raises(EventFormatError):
        decode(msgpack.packb([9, 1, []]))


def test_an_old_version_that_cannot_be_brought_up_is_no_event() -> None:
    for version in (0, -1, -(2**63)):
        with pytest.raises(EventFormatError):
            decode(msgpack.packb([9, version, ["text", "who", 1]]))


@pytest.mark.parametrize(("kind", "version"), [(9, 2), (1, 99), (99, 1), (2**64 - 1, 1), (0, 1)])
def test_what_a_newer_milepost_wrote_is_said_to_be_so(kind: int, version: int) -> None:
    data = msgpack.packb([kind, version, []])
    with pytest.raises(UnsupportedFormatError):
        decode(data)
    with pytest.raises(UnsupportedFormatError):
        list(decode_all(data))


def test_every_truncation_is_noticed(sample_journal: list[Event]) -> None:
    for event in sample_journal:
        data = encode(event)
        for length in range(1, len(data)):
            assert read(data[:length]) is None


def test_events_before_a_cut_are_yielded_and_the_cut_is_noticed(build: Build) -> None:
    data = encode(build.noted())
    for length in range(1, len(data)):
        events = decode_all(data + data[:length])
        assert next(events) == build.noted()
        with pytest.raises(EventFormatError, match=f"at byte {len(data)}"):
            next(events)


def test_something_behind_an_event_is_noticed(build: Build) -> None:
    with pytest.raises(EventFormatError):
        decode(encode(build.noted()) * 2)


def flips(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def test_any_flipped_bit_gives_an_event_or_a_refusal_and_breaks_nothing(
    sample_journal: list[Event],
) -> None:
    for seq, event in enumerate(sample_journal):
        before = freeze(sample_journal[:seq])
        for data in flips(encode(event)):
            flipped = read(data)
            if flipped is not None:
                apply_any(before, flipped)


@PATIENT
@given(data=st.binary(min_size=1, max_size=60))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


@THOROUGH
@given(item=JUNK | st.tuples(st.integers(1, 9), st.just(1), JUNK | st.lists(JUNK, max_size=11)))
def test_random_plain_data_are_refused_or_break_nothing(item: object) -> None:
    event = read(msgpack.packb(item))
    if event is not None:
        apply_any(freeze([]), event)


def places(item: object, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yields the path of everything in nested lists."""
    if path:
        yield path
    if isinstance(item, list):
        for at, child in enumerate(item):
            yield from places(child, (*path, at))


def put(item: Any, path: tuple[int, ...], new: object) -> Any:
    """Returns ``item`` with what is at ``path`` replaced."""
    if not path:
        return new
    at, *rest = path
    return [*item[:at], put(item[at], tuple(rest), new), *item[at + 1 :]]


@THOROUGH
@given(data=st.data())
def test_a_field_of_any_other_value_is_refused_or_breaks_nothing(
    sample_journal: list[Event], data: st.DataObject
) -> None:
    seq = data.draw(st.integers(0, len(sample_journal) - 1))
    item = msgpack.unpackb(encode(sample_journal[seq]))
    path = data.draw(st.sampled_from(list(places(item))))
    event = read(msgpack.packb(put(item, path, data.draw(JUNK))))
    if event is not None:
        apply_any(freeze(sample_journal[:seq]), event)


def test_whatever_decodes_has_the_declared_types_all_the_way_down(
    sample_journal: list[Event],
) -> None:
    """One wrong type at a time, at every place of every kind of event."""
    wrong: list[object] = [None, True, 1.5, "text", b"bytes", 7, [], [[]], {}]
    for event in sample_journal:
        item = msgpack.unpackb(encode(event))
        for path in places(item):
            for value in wrong:
                changed = read(msgpack.packb(put(item, path, value)))
                assert changed is None or fits(changed, type(changed)), changed


def fits(value: object, hint: Any) -> bool:
    """Tells whether ``value`` is of the annotated type, exactly."""
    arguments = get_args(hint)
    if isinstance(hint, UnionType):
        return any(fits(value, each) for each in arguments)
    if get_origin(hint) is tuple:
        return type(value) is tuple and all(fits(item, arguments[0]) for item in value)
    if type(value) is not hint:
        return False
    hints = get_type_hints(hint) if is_dataclass(hint) else {}
    return all(fits(getattr(value, name), each) for name, each in hints.items())


def test_an_event_that_comes_twice_is_refused(sample_journal: list[Event]) -> None:
    """All but those that may well be said twice."""
    state = State()
    for event in sample_journal:
        apply(state, event)
        if not isinstance(event, Noted | StatusChanged):
            with pytest.raises(IllegalEventError):
                apply(state, event)


def test_the_size_of_a_thousand_small_commits_stays_near_their_content(build: Build) -> None:
    commit = build.committed(0, *range(1000))
    commit = replace(commit, payloads=(build.payload(7),) * 1000, durations_us=tuple(range(1000)))
    assert len(encode(commit)) < 4000
