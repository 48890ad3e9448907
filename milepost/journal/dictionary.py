"""The zstd dictionaries that ship with the package: what journals have in common, known in advance.

A frame that becomes durable at once holds one or two events, too few for a compressor to find
repetitions in. A dictionary, trained on journals, lets it refer to repetitions it never saw. A
segment's head names its dictionary by number. A dictionary that was ever released never changes and
stays here for ever: without it nobody can read the journals that name it. A better one gets the
next number. ``make dictionary`` trains one.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import zstandard

from milepost.errors import CorruptJournalError

NO_DICTIONARY = 0
"""What a segment names whose frames need none."""

DICTIONARY = 1
"""The dictionary that this code writes with, and the newest that it reads."""

_DIGESTS = {1: "ed933a0a41cc0f0d4e8af6b9522a31a68e79c0995a9d6043e8433f5e664e0bfc"}
"""SHA-256 of each. A file that was damaged in an installation must not get into a journal."""


def is_known(number: int) -> bool:
    """Tell whether frames of this dictionary can be read.

    Args:
        number: What the segment's head says.

    Returns:
        Whether it is :data:`NO_DICTIONARY` or one that ships with this package.
    """
    return number == NO_DICTIONARY or number in _DIGESTS


@cache
def load_dictionary(number: int) -> zstandard.ZstdCompressionDict:
    """Read a dictionary from the package.

    Args:
        number: Its number, one that is known and not :data:`NO_DICTIONARY`.

    Returns:
        The dictionary.

    Raises:
        CorruptJournalError: If the installed file is not the one that was released.
    """
    file = files("milepost.journal") / "dictionaries" / f"{number}.zstd"
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != _DIGESTS[number]:
        raise CorruptJournalError(str(file), 0, "it is not the dictionary of this version")
    return zstandard.ZstdCompressionDict(content)
