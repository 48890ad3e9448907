"""Refuses events that would unfold to far more memory than their bytes.

A journal is bounded in bytes per frame, but a byte of msgpack can stand for a container of sixty:
a small compressed frame could become gigabytes of empty lists. Honest events keep what is many in
packed columns. Only large frames are looked at, since small ones cannot hurt.
"""

from __future__ import annotations

from typing import Any

import msgpack

UNCHECKED_BYTES_MAX = 4 * 2**20
"""Frames up to this length are not looked at: they cannot become more than a few hundred MiB."""

CONTAINERS_MAX = 4 * 2**20
"""Lists and dicts in one frame: about four for each task of a graph of a million."""

ITEMS_MAX = 2**24
"""Items of one list or dict."""


def require_modest(raw: bytes) -> None:
    """Looks through a frame without building it.

    Raises:
        ValueError: If it holds more containers than any honest frame, or is no msgpack.
    """
    if len(raw) <= UNCHECKED_BYTES_MAX:
        return
    count = 0

    def drop(container: Any) -> None:
        nonlocal count
        count += 1
        if count > CONTAINERS_MAX:
            raise ValueError(f"a frame of more than {CONTAINERS_MAX} containers")

    unpacker = msgpack.Unpacker(
        raw=True,
        strict_map_key=False,
        list_hook=drop,
        object_hook=drop,
        max_buffer_size=len(raw),
        max_array_len=ITEMS_MAX,
        max_map_len=ITEMS_MAX,
    )
    unpacker.feed(raw)
    for _ in unpacker:
        pass
