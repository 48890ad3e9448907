"""Plays many seeds (``make simulate SEEDS=100000``), or one with its trace (``--trace SEED``)."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from play import play
from world import World


def main() -> int:
    """Plays seeds and tells how that went; returns how many broke a promise, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--trace", type=int, metavar="SEED", help="play this one, and print all")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if given.trace is not None:
        return _trace(given.trace)
    broken, counts, objects_most, began = [], Counter[str](), 0, time.monotonic()
    for seed in range(given.first, given.first + given.seeds):
        try:
            record = play(seed).record
            counts += record.counts
            objects_most = max(objects_most, record.objects_most)
        except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
            broken.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            print(f'    all of it: make simulate ARGS="--trace {seed}"', flush=True)
    print(f"{given.seeds} seeds in {time.monotonic() - began:.0f} s; broken: {broken or 'none'}")
    print(", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items())))
    print(f"objects left of one workflow, claims aside: {objects_most} at most")
    return 1 if broken else 0


def _trace(seed: int) -> int:
    worlds: list[World] = []
    try:
        play(seed, worlds.append)
    finally:
        print("\n".join(worlds[0].trace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
