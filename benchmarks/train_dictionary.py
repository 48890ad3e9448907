"""Trains the zstd dictionary that ships with the package: ``make dictionary``.

The samples are the frames of made-up workflows, so the same seed, code and version of zstd give the
same dictionary byte for byte. With ``--measure``, only prints what dictionaries of several sizes
would save on workflows that they were not trained on.

A dictionary that was released is never trained again: ``--number 2`` makes the next one, and only
then does ``milepost/journal/dictionary.py`` name it as the one to write with.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import zstandard

from corpus import make_frames
from milepost.journal.dictionary import DICTIONARY

SEED = 1
WORKFLOWS = 400
OTHER_SEED = 99
SAMPLE_BYTES_MAX = 4096
"""Larger frames find their repetitions in themselves."""

SMALL_FRAME_BYTES_MAX = 1024

DICTIONARY_BYTES = 16 * 1024
SEGMENT_BYTES = 500
"""What the trainer selects at once, and below what it counts: the best of those tried."""
COUNTED_BYTES = 6
ID_BASE = 2**15
"""zstd leaves the ids from here on to private use. Frames do not carry them."""

FOLDER = Path(__file__).parents[1] / "milepost/journal/dictionaries"


def train(
    samples: list[bytes], dictionary_bytes: int = DICTIONARY_BYTES, number: int = DICTIONARY
) -> bytes:
    """Trains a dictionary.

    Args:
        samples: What frames hold.
        number: The number it gets.
        dictionary_bytes: How long it may be.

    Returns:
        The dictionary.
    """
    trained = zstandard.train_dictionary(
        dictionary_bytes,
        list(samples),  # a list of its own type: the stub wants a wider one
        k=SEGMENT_BYTES,
        d=COUNTED_BYTES,
        dict_id=ID_BASE + number,
        level=19,
    )
    return trained.as_bytes()


def make_samples(seed: int = SEED, workflows: int = WORKFLOWS) -> list[bytes]:
    """Makes what to train on."""
    return [raw for raw in make_frames(seed, workflows) if len(raw) <= SAMPLE_BYTES_MAX]


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="write nothing, compare sizes")
    parser.add_argument("--number", type=int, default=DICTIONARY, help="which one to write")
    given = parser.parse_args()
    if given.measure:
        measure()
        return
    content = train(make_samples(), number=given.number)
    target = FOLDER / f"{given.number}.zstd"
    target.write_bytes(content)
    print(f"{target.name}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")
    print("enter the digest in milepost/journal/dictionary.py")


def measure() -> None:
    """Prints a table: bytes of all frames of other workflows, by the dictionary's size."""
    samples, others = make_samples(), list(make_frames(OTHER_SEED, 100))
    small = [raw for raw in others if len(raw) <= SMALL_FRAME_BYTES_MAX]
    print(f"{len(samples)} samples; {len(others)} other frames, {len(small)} of them small")
    print(f"{'dictionary':>10} {'all frames':>10} {'small ones':>10}")
    print(f"{'raw':>10} {sum(map(len, others)):10} {sum(map(len, small)):10}")
    plain = zstandard.ZstdCompressor(level=3)
    print(f"{'none':>10} {_size(plain, others):10} {_size(plain, small):10}")
    for kilobytes in (4, 8, 16, 32):
        trained = zstandard.ZstdCompressionDict(train(samples, kilobytes * 1024))
        parameters = zstandard.ZstdCompressionParameters.from_level(
            19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_dict_id=False
        )
        packer = zstandard.ZstdCompressor(dict_data=trained, compression_params=parameters)
        print(f"{kilobytes:>6} KiB {_size(packer, others):10} {_size(packer, small):10}")


def _size(packer: zstandard.ZstdCompressor, frames: list[bytes]) -> int:
    return sum(min(len(raw), len(packer.compress(raw))) for raw in frames)


if __name__ == "__main__":
    main()
