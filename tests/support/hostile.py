"""Hostile stores: what a disk, a bug or an enemy can make of a journal, from a seed.

Each attack changes one object of a workflow in a memory store. Some know the format, and mend
checksums and chain, so that what they plant is not stopped at the first gate.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack

from milepost.errors import MilepostError
from milepost.journal import MemoryStore, list_summaries, verify
from milepost.journal.attempts import list_attempts
from milepost.journal.figures import read_figures
from milepost.journal.following import Follower
from milepost.journal.frame import EncodedFrame, encode_frames
from milepost.journal.head import read_head
from milepost.journal.history import History
from milepost.journal.layout import SegmentName
from milepost.journal.segment import HEAD_BYTES, parse_segment_head, scan_frames
from milepost.journal.story import read_story
from milepost.journal.tool.events import describe_entry
from milepost.journal.tool.text import clean
from milepost.journal.tool.workflow import describe_state

Attack = Callable[[random.Random, bytes], bytes]

_NAME = struct.Struct("<II8s")
_FRAME_HEAD = struct.Struct("<4sIIHHQ16sI")
_CRC = struct.Struct("<I")


def flip(rng: random.Random, content: bytes) -> bytes:
    """Flips a few bits."""
    hurt = bytearray(content)
    for _ in range(rng.randrange(1, 9) if hurt else 0):
        hurt[rng.randrange(len(hurt))] ^= 1 << rng.randrange(8)
    return bytes(hurt)


def cut(rng: random.Random, content: bytes) -> bytes:
    """Drops a range."""
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.randrange(1, 400) :]


def splice(rng: random.Random, content: bytes) -> bytes:
    """Copies a range to another place."""
    start, at = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    return content[:at] + content[start : start + rng.randrange(1, 400)] + content[at:]


def noise(rng: random.Random, content: bytes) -> bytes:
    """Writes random bytes over a range, or over everything."""
    length = rng.choice((4, 30, 200, 5000))
    at = rng.choice((0, rng.randrange(len(content) + 1)))
    return content[:at] + rng.randbytes(length) + content[at + length :]


def huge_number(rng: random.Random, content: bytes) -> bytes:
    """Puts a huge number where a length may be, and mends the CRC of a segment's head."""
    hurt = bytearray(content)
    if len(hurt) < HEAD_BYTES:
        return content
    at = rng.randrange(len(hurt) - 8)
    value = rng.choice((2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
    hurt[at : at + 8] = struct.pack("<Q", value)
    _CRC.pack_into(hurt, HEAD_BYTES - 4, zlib.crc32(hurt[: HEAD_BYTES - 4]))
    return bytes(hurt)


def forge(rng: random.Random, content: bytes) -> bytes:
    """Adds a frame whose checksums and chain are right, with hostile events in it."""
    return _append(content, _hostile_raw(rng), rng)


def bomb(rng: random.Random, content: bytes) -> bytes:
    """Adds a frame that is small and unfolds to very much."""
    size = rng.choice((2**20, 2**24, 2**27 - 4096))
    unit = rng.choice((b"\x90", b"\xc0", b"\x91\x90", b"\x80", b"\x92\xc0\xa1a", b"\xa2ab"))
    count = size // len(unit)
    prefix = b"\x93" + bytes([rng.randrange(12)]) + b"\x01" + b"\xdd" + struct.pack(">I", count)
    return _append(content, prefix + unit * count, rng)


def _hostile_raw(rng: random.Random) -> bytes:
    kinds = rng.choice((rng.randrange(14), rng.randrange(2**40), -1, "x", None))
    fields: Any = _hostile_value(rng, 0)
    shapes: list[Any] = [
        [kinds, 1, [_hostile_value(rng, 0) for _ in range(rng.randrange(12))]],
        [kinds, rng.randrange(300), fields],
        fields,
    ]
    raw = b"".join(msgpack.packb(rng.choice(shapes)) for _ in range(rng.randrange(1, 4)))
    return rng.choice((raw, raw[: rng.randrange(len(raw)) + 1], b"\x91" * rng.randrange(1, 3000)))


def _hostile_value(rng: random.Random, depth: int) -> Any:
    scalars = (
        0,
        1,
        -1,
        2**63,
        2**64 - 1,
        -(2**63),
        1e308,
        float("nan"),
        None,
        True,
        "",
        "é\x1b[2J",
    )
    choice = rng.randrange(5 if depth < 3 else 2)
    if choice == 0:
        return rng.choice(scalars)
    if choice == 1:
        return rng.randbytes(rng.randrange(40))
    if choice == 2:
        return {str(at): _hostile_value(rng, depth + 1) for at in range(rng.randrange(4))}
    return [_hostile_value(rng, depth + 1) for _ in range(rng.randrange(6))]


def _append(content: bytes, raw: bytes, rng: random.Random) -> bytes:
    """Puts a frame at the end that every sum speaks for."""
    name = SegmentName(*_NAME.unpack_from(content, 32))
    head = None
    with suppress(MilepostError):
        head = parse_segment_head(content, name, "")
    if head is None:
        return content
    seq, chain, end = head.first_seq, head.chain, HEAD_BYTES
    with suppress(MilepostError):
        for frame in scan_frames(content, head, "", sealed=False):
            seq, chain, end = frame.next_seq, frame.chain, frame.end
    (frame_,) = encode_frames(
        [raw],
        journal_id=head.journal_id,
        epoch=name.epoch,
        first_seq=seq,
        chain=chain,
        dictionary=head.dictionary,
    )
    if rng.random() < 0.2:
        return content[:end] + _mend(flip(rng, frame_.payload), frame_, head.journal_id)
    return content[:end] + frame_.head + frame_.payload


def _mend(payload: bytes, frame: EncodedFrame, journal_id: bytes) -> bytes:
    """Gives a frame another payload, and right checksums."""
    fields = list(_FRAME_HEAD.unpack_from(frame.head))
    fields[1], fields[-1] = len(payload), zlib.crc32(payload)
    head = _FRAME_HEAD.pack(*fields)
    return head + _CRC.pack(zlib.crc32(journal_id + head)) + payload


ATTACKS: tuple[Attack, ...] = (flip, cut, splice, noise, huge_number, forge, bomb)
WEIGHTS = (12, 6, 6, 6, 6, 12, 1)
"""How often each is chosen."""


def attack(rng: random.Random, store: MemoryStore, workflow_id: str, *, bombs: bool = True) -> str:
    """Changes one object, or its name.

    Args:
        rng: Decides.
        store: Where the workflow is.
        workflow_id: The workflow.
        bombs: Whether to plant bombs, too, which are slow.

    Returns:
        What was done.
    """
    objects = store.list(f"workflows/{workflow_id}/") or store.list("")
    key = rng.choice(objects).key
    chosen = rng.choices(ATTACKS, (*WEIGHTS[:-1], WEIGHTS[-1] * bombs))[0]
    if chosen in (forge, bomb):
        segments = [each.key for each in objects if "/segments/" in each.key]
        key = segments[-1] if segments else key
    content = store.get(key)
    if chosen in (forge, bomb) and len(content) < HEAD_BYTES:
        chosen = noise
    if rng.random() < 0.05:
        name = rng.choice(("9" * 10 + "." + "0" * 16, "x", "0" * 300, key.rpartition("/")[2][::-1]))
        store.put(f"{key.rpartition('/')[0]}/{name}", [content])
        return f"doubled {key} as {name}"
    store.put(key, [chosen(rng, content)])
    return f"{chosen.__name__} of {key}"


def look(store: MemoryStore, workflow_id: str) -> list[str]:
    """Reads all that can be read; nothing but this library's errors may come out.

    Returns:
        What was refused, by the name of the error.
    """
    history = History(store, workflow_id)

    def events() -> None:
        for entry in history:
            clean(json.dumps(describe_entry(entry, False), allow_nan=False))

    readings: tuple[Callable[[], object], ...] = (
        events,
        lambda: json.dumps(describe_state(history.state_at()), allow_nan=False),
        lambda: list(read_story(history).tasks()),
        lambda: list(list_attempts(history)),
        lambda: read_figures(store, workflow_id),
        lambda: read_head(store, workflow_id),
        lambda: Follower(store, workflow_id).poll(),
        lambda: verify(store, workflow_id, deep=True),
        lambda: list_summaries(store),
    )
    refused = []
    for reading in readings:
        try:
            reading()
        except MilepostError as error:
            str(error)
            refused.append(type(error).__name__)
    return refused
