"""Whatever lies in a store, looking at it ends, with an answer or an error of this library.

``tests/fuzz/fuzz_journal.py`` does the same for as long as you like, with memory measured.
"""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import attack, bomb, look
from journal_stories import tell_story
from milepost.errors import UnsupportedFormatError
from milepost.journal import MemoryStore
from milepost.replay.bombs import CONTAINERS_MAX, UNCHECKED_BYTES_MAX, require_modest
from milepost.replay.codec import EventFormatError, decode, decode_all

FUZZ = Path(__file__).parents[2] / "fuzz" / "fuzz_journal.py"
WHOLE = MemoryStore()
tell_story(WHOLE, "w", shards=3)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_no_attack_gets_anything_but_an_error_of_ours(rng: random.Random, attacks: int) -> None:
    store = MemoryStore()
    for each in WHOLE.list(""):
        store.put(each.key, [WHOLE.get(each.key)])
    for _ in range(attacks):
        attack(rng, store, "w", bombs=False)
    look(store, "w")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_no_events(raw: bytes) -> None:
    with suppress(EventFormatError, UnsupportedFormatError):
        list(decode_all(raw))


@pytest.mark.parametrize("unit", [b"\x90", b"\x80", b"\x91\xc0"])
def test_a_frame_that_would_fill_the_memory_is_refused(unit: bytes) -> None:
    count = CONTAINERS_MAX + 1
    raw = b"\x93\x02\x01\xdd" + struct.pack(">I", count) + unit * count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (decode, lambda raw: list(decode_all(raw)), require_modest):
        with pytest.raises(ValueError, match=r"more than .* containers"):
            read(raw)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 256 * 1024, "KiB"


def test_a_large_honest_frame_is_read() -> None:
    honest = msgpack.packb([[b"x" * 20] for _ in range(250_000)])
    assert len(honest) > UNCHECKED_BYTES_MAX
    require_modest(honest)


def test_a_bomb_in_a_frame_with_right_sums_is_refused() -> None:
    store = MemoryStore()
    tell_story(store, "w", shards=2, finished=False, troubled=False)
    key = store.list("workflows/w/segments/")[-1].key
    store.put(key, [bomb(random.Random(5), store.get(key))])
    assert "CorruptJournalError" in look(store, "w")


def test_the_fuzzer_runs_and_tells_what_it_did() -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--seconds", "2"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert " 0 failures" in done.stdout
