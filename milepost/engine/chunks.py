"""Values of a map's items, put together into few payloads.

Each value is serialized when it is returned, so that nothing changes it afterwards. Plain values of
neighbours make one msgpack array; if one of them is something else, they make a list of payloads.
A large value is a blob and stands alone, so that no blob names another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from milepost.engine.payloads import Sink, serialize, store
from milepost.replay.mapping import pack_listed
from milepost.replay.payload import Encoding, Payload, inline

CHUNK_BYTES = 256 * 1024
"""A chunk is closed when it has so many: who wants one value loads its chunk."""


class ChunkBuilder:
    """Takes the values of a few runs of items, and gives them back in chunks.

    Attributes:
        starts: With ``stops`` and ``payloads`` the chunks that are closed.
        size: How many bytes the closed chunks have in their payloads.
    """

    def __init__(self, sink: Sink) -> None:
        """Begin with nothing.

        Args:
            sink: Takes what is too large to stand in an event.
        """
        self._sink = sink
        self._parts: list[Payload] = []
        self._plain = True
        self._bytes = 0
        self._stop = -1
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.payloads: list[Payload] = []
        self.size: int = 0

    def pack(self, value: Any) -> Payload:
        """Serializes a value.

        Raises:
            NotSerializableError: If it cannot be.
            StorageUnavailableError: If a large one cannot be stored now.
        """
        return serialize(value, self._sink)

    def add(self, item: int, payload: Payload) -> None:
        """Takes the value of an item."""
        large = bool(payload.digest)
        if item != self._stop or large:
            self.close()
        self._parts.append(payload)
        self._plain = self._plain and payload.encoding == Encoding.PLAIN and not large
        self._bytes += len(payload.data)
        self._stop = item + 1
        if large or self._bytes >= CHUNK_BYTES:
            self.close()

    def close(self) -> None:
        """Closes the chunk that is open, if one is."""
        if not self._parts:
            return
        payload = self._seal()
        self.starts.append(self._stop - len(self._parts))
        self.stops.append(self._stop)
        self.payloads.append(payload)
        self.size += len(payload.data)
        self._parts, self._plain, self._bytes, self._stop = [], True, 0, -1

    def _seal(self) -> Payload:
        if self._plain:
            return store(
                Encoding.PLAIN, join_plain([each.data for each in self._parts]), self._sink
            )
        if self._parts[0].digest:
            return inline(Encoding.LISTED.value, pack_listed(self._parts))
        return store(Encoding.LISTED, [pack_listed(self._parts)], self._sink)


def join_plain(values: Sequence[bytes]) -> list[bytes]:
    """Returns the parts of one plain list of values that are plain already."""
    head: bytes = msgpack.Packer().pack_array_header(len(values))
    return [b"".join((head, *values))]
