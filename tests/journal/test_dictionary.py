"""The dictionary: small frames get smaller, old ones stay readable, sizes keep their promise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from corpus import make_frames
from milepost.errors import CorruptJournalError, UnsupportedFormatError
from milepost.journal import MemoryStore, read_journal
from milepost.journal import dictionary as dictionaries
from milepost.journal.compression import compress_if_smaller
from milepost.journal.dictionary import DICTIONARY, NO_DICTIONARY, is_known, load_dictionary
from milepost.journal.frame import HEAD_BYTES, Frame
from milepost.journal.layout import SegmentName
from milepost.journal.segment import SegmentHead, encode_segment_head, parse_segment_head
from rehearsal import Rehearsal
from shapes import fan, make_environment
from train_dictionary import make_samples, train

FILE = Path(dictionaries.__file__).parent / "dictionaries" / f"{DICTIONARY}.zstd"
NAME = SegmentName(1, 0, b"nonce__1")


@pytest.fixture
def no_cache() -> Iterator[None]:
    """Read the dictionary anew, and again after the test."""
    load_dictionary.cache_clear()
    yield
    load_dictionary.cache_clear()


def test_every_dictionary_is_the_one_that_was_released() -> None:
    shipped = sorted(file.name for file in FILE.parent.iterdir())
    assert shipped == [f"{number}.zstd" for number in range(1, DICTIONARY + 1)]
    for number in range(1, DICTIONARY + 1):
        assert is_known(number)
        load_dictionary(number)
    assert is_known(NO_DICTIONARY)
    assert not is_known(DICTIONARY + 1)


def test_the_newest_dictionary_is_what_the_script_trains_byte_for_byte() -> None:
    """After a change of the events: ``make dictionary``, with a new number if this was released."""
    assert train(make_samples()) == FILE.read_bytes()


@pytest.mark.usefixtures("no_cache")
def test_a_damaged_dictionary_gets_into_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(FILE.read_bytes())
    content[9000] ^= 1
    monkeypatch.setattr(Path, "read_bytes", lambda self: bytes(content))
    with pytest.raises(CorruptJournalError, match=r"1\.zstd"):
        load_dictionary(DICTIONARY)


def head_with(dictionary: int) -> bytes:
    return encode_segment_head(
        SegmentHead(
            name=NAME,
            journal_id=bytes(16),
            first_seq=0,
            parent=None,
            whole_bytes=0,
            dictionary=dictionary,
        )
    )


@pytest.mark.parametrize("dictionary", [NO_DICTIONARY, DICTIONARY])
def test_a_segment_names_its_dictionary(dictionary: int) -> None:
    parsed = parse_segment_head(head_with(dictionary), NAME, "file")
    assert parsed is not None
    assert parsed.dictionary == dictionary


@pytest.mark.parametrize("dictionary", [DICTIONARY + 1, 2**32 - 1])
def test_a_segment_with_a_dictionary_of_the_future_is_refused_by_name(dictionary: int) -> None:
    with pytest.raises(UnsupportedFormatError, match="dictionary of file") as caught:
        parse_segment_head(head_with(dictionary), NAME, "file")
    assert (caught.value.found, caught.value.supported) == (dictionary, DICTIONARY)


def test_a_quarter_of_the_small_frames_of_other_workflows_is_saved() -> None:
    """Workflows that were not trained on; against zstd without a dictionary."""
    others = [raw for raw in make_frames(99, 60) if len(raw) <= 1024]
    without = sum(len(compress_if_smaller(raw) or raw) for raw in others)
    with_it = sum(len(compress_if_smaller(raw, DICTIONARY) or raw) for raw in others)
    assert len(others) > 500
    assert with_it < without * 3 / 4, (with_it, without)


def test_a_frame_of_a_few_bytes_is_compressed_if_that_makes_it_smaller_and_only_then() -> None:
    known = msgpack.packb("cloudpickle.cloudpickle")
    assert len(compress_if_smaller(known, DICTIONARY) or known) < len(known)
    assert compress_if_smaller(b"\x01", DICTIONARY) is None
    assert compress_if_smaller(b"", DICTIONARY) is None


def stored_bytes(frames: list[Frame]) -> int:
    return sum(frame.end - frame.offset for frame in frames)


def run_no_ops(width: int, *, reports_per_flush: int, tasks_per_slice: int) -> list[Frame]:
    """Run no-op tasks with small results, the schedule and the commit of each in one frame.

    Returns:
        The frames after the workflow's start, and before its end.
    """
    store, rng = MemoryStore(), random.Random(4711)
    told = Rehearsal(store, "no-ops", seed=4711, workers=1)
    told.create(fan(rng, width), make_environment(rng))
    told.run(reports_per_flush=reports_per_flush, tasks_per_slice=tasks_per_slice)
    return list(read_journal(store, "no-ops"))[3:-2]


def test_a_task_alone_takes_at_most_90_bytes() -> None:
    """Also where its number and its slice's take three bytes each, as msgpack stores them."""
    frames = run_no_ops(1500, reports_per_flush=1, tasks_per_slice=1)
    assert {frame.count for frame in frames} == {2}
    assert len(frames) > 1400
    sizes = sorted(frame.end - frame.offset for frame in frames)
    assert sum(sizes) / len(sizes) <= 90, sizes
    assert sizes[0] > HEAD_BYTES


def test_a_task_among_a_hundred_slices_takes_at_most_30_bytes() -> None:
    """A hundred tasks that travel alone, and become durable together."""
    frames = run_no_ops(1500, reports_per_flush=100, tasks_per_slice=1)
    assert {frame.count for frame in frames} == {200}
    assert stored_bytes(frames) / (100 * len(frames)) <= 30


def test_a_task_in_a_slice_of_a_hundred_takes_at_most_30_bytes() -> None:
    frames = run_no_ops(1500, reports_per_flush=1, tasks_per_slice=100)
    assert {frame.count for frame in frames} == {2}
    assert stored_bytes(frames) / (100 * len(frames)) <= 30
