"""Values by reference, made whole for whoever reads them outside of the state.

A map's value names the map; what it stands for are the chunks of its results. This puts them
together, also inside the values that are made of others. Nothing is unpickled, and what is in
blobs stays there.
"""

from __future__ import annotations

from milepost.replay.composing import pack_split, pack_tuple, unpack_split, unpack_tuple
from milepost.replay.mapping import Chunks, pack_chunks, unpack_mapped
from milepost.replay.payload import Encoding, Payload
from milepost.replay.state import State


def expand(state: State, payload: Payload) -> Payload:
    """Returns ``payload`` without references into ``state``."""
    match payload.encoding:
        case Encoding.MAPPED:
            return _expand_map(state, payload)
        case Encoding.TUPLE:
            return pack_tuple(*(expand(state, each) for each in unpack_tuple(payload.data)))
        case Encoding.SPLIT:
            ready, left = unpack_split(payload.data)
            return pack_split([expand(state, each) for each in ready], left)
        case _:
            return payload


def _expand_map(state: State, payload: Payload) -> Payload:
    task, caught = unpack_mapped(payload)
    rows = list(state.maps[task].chunks())
    chunks = Chunks(
        counts=tuple(stop - start for start, stop, _ in rows),
        payloads=tuple(each for _, _, each in rows),
        task=task,
        caught=caught,
    )
    data = pack_chunks(chunks)
    return Payload(encoding=Encoding.CHUNKED.value, data=data, size=len(data))
