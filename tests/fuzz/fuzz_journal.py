"""Attacks stored workflows for as long as you like: ``python tests/fuzz/fuzz_journal.py``.

Every attack comes from a seed, which a failure prints. A failure is any exception but this
library's own, more memory than is allowed, or a reading that takes too long. The process limits
its own memory, so that a bomb ends as an error and not as a dead machine.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]

from hostile import attack, look  # noqa: E402  found by the line above
from journal_stories import tell_story  # noqa: E402
from milepost.journal import Compactor, MemoryStore, take_ownership  # noqa: E402

WORKFLOW_ID = "w"
MEMORY_BYTES_MAX = 3 * 2**30
LOOK_S_MAX = 60.0


def make_victims() -> list[MemoryStore]:
    """Makes whole workflows: two owners, one owner, unfinished, compacted."""
    os.urandom = random.Random(0).randbytes  # names of claims and ids, the same in every run
    victims = [MemoryStore() for _ in range(4)]
    tell_story(victims[0], WORKFLOW_ID, shards=6)
    tell_story(victims[1], WORKFLOW_ID, shards=3, troubled=False)
    tell_story(victims[2], WORKFLOW_ID, shards=6, finished=False)
    tell_story(victims[3], WORKFLOW_ID, shards=6)
    writer = take_ownership(victims[3], WORKFLOW_ID, owner="compactor")
    writer.flush([b"\x93\x02\x01\x94\x03\xa1o\xa1r\x00"])
    Compactor(writer).run(last=True)
    writer.close()
    return victims


def copy_of(store: MemoryStore) -> MemoryStore:
    """Copies a store."""
    copy = MemoryStore()
    for each in store.list(""):
        copy.put(each.key, [store.get(each.key)])
    return copy


def play(seed: int, victims: list[MemoryStore]) -> tuple[list[str], list[str]]:
    """Plays one seed; gives the attacks and what was refused."""
    rng = random.Random(seed)
    store = copy_of(rng.choice(victims))
    attacks = [attack(rng, store, WORKFLOW_ID) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    return attacks, look(store, WORKFLOW_ID)


def main() -> int:
    """Plays seeds until the time is over; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one, whatever it raises")
    given = parser.parse_args()
    logging.disable()  # a listing warns of each journal that it cannot read
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    victims = make_victims()
    if given.seed is not None:
        print(*play(given.seed, victims), sep="\n")
        return 0
    began, seed, found, slowest = time.monotonic(), given.first, 0, 0.0
    attacks: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    while time.monotonic() - began < given.seconds:
        start = time.monotonic()
        try:
            played, errors = play(seed, victims)
        except Exception:  # noqa: BLE001  what it looks for
            found += 1
            print(f"seed {seed}:")
            traceback.print_exc(file=sys.stdout)
        else:
            attacks.update(each.partition(" ")[0] for each in played)
            refused.update(errors or ["nothing"])
        slowest = max(slowest, time.monotonic() - start)
        if time.monotonic() - start > LOOK_S_MAX:
            found += 1
            print(f"seed {seed}: {time.monotonic() - start:.0f} s")
        seed += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seed - given.first} seeds, {found} failures; slowest {slowest:.1f} s, {peak:.0f} MiB")
    print("attacks:", dict(attacks.most_common()))
    print("refused:", dict(refused.most_common()))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
