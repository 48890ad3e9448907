"""The large parts of a submission, on their way to the storage past the dispatcher.

A driver cannot write the blobs of its arguments itself: where they belong is known only once the
workflow has an owner. Large ones travel as Ray objects, and Ray tasks write them from there, so
that the message to the dispatcher stays small and the dispatcher never holds their bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import Any

import ray

from milepost.engine.outputs import open_known
from milepost.engine.payloads import RefMemo
from milepost.errors import CorruptBlobError, MilepostError
from milepost.journal import put_blob

MESSAGE_BYTES_MAX = 4 * 2**20
"""Of blobs in the message itself; what comes to more leaves as a parcel."""

WRITTEN_AT_ONCE = 4
"""Parcels of one submission; each is held in memory by its task while it is compressed."""


class Parcel:
    """Blobs by digest, each in parts; pickled without a copy of the parts."""

    def __init__(self, blobs: dict[bytes, list[Any]]) -> None:
        self.blobs = blobs

    def __reduce_ex__(self, protocol: Any) -> Any:
        wrapped = {
            digest: [PickleBuffer(part) for part in parts] for digest, parts in self.blobs.items()
        }
        return Parcel, (wrapped,)


class ParcelCollector(RefMemo):
    """The sink of a driver.

    Attributes:
        blobs: By digest, what goes with the message.
        parcels: Refs to the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[bytes, bytes] = {}
        self.parcels: list[ray.ObjectRef[Any]] = []
        self._gone: set[bytes] = set()
        self._held = 0

    def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
        """Takes a blob, unless it has it already."""
        hashed, size = hashlib.sha256(), 0
        for part in parts:
            hashed.update(part)
            size += memoryview(part).nbytes
        digest = hashed.digest()
        if digest in self._gone or digest in self.blobs:
            return digest, size
        if size > MESSAGE_BYTES_MAX:
            self._send({digest: list(parts)})
            return digest, size
        if self._held + size > MESSAGE_BYTES_MAX:
            self._send({each: [content] for each, content in self.blobs.items()})
            self.blobs, self._held = {}, 0
        self.blobs[digest] = b"".join(parts)
        self._held += size
        return digest, size

    def _send(self, blobs: dict[bytes, list[Any]]) -> None:
        self.parcels.append(ray.put(Parcel(blobs)))
        self._gone.update(blobs)


async def write_parcels(
    storage: str, workflow_id: str, incarnation: int, parcels: Sequence[Any]
) -> None:
    """Has parcels written by Ray tasks, a few at a time; returns when all are durable.

    Raises:
        StorageUnavailableError: If the storage fails.
        CorruptBlobError: If the bytes of a blob are not those that were sent.
    """
    free = asyncio.Semaphore(WRITTEN_AT_ONCE)

    async def write(parcel: Any) -> None:
        async with free:
            error = await _write_parcel.remote(storage, workflow_id, incarnation, [parcel])
        if error is not None:
            raise error

    await asyncio.gather(*map(write, parcels))


@ray.remote(num_cpus=0)
def _write_parcel(
    storage: str, workflow_id: str, incarnation: int, box: list[ray.ObjectRef[Any]]
) -> MilepostError | None:
    parcel: Parcel = ray.get(box[0])
    try:
        for due, parts in parcel.blobs.items():
            views = [memoryview(part) for part in parts]
            digest, _ = put_blob(open_known(storage), workflow_id, incarnation, views)
            if digest != due.hex():
                return CorruptBlobError(due.hex(), "it changed on its way to the storage")
    except MilepostError as error:
        return error
    return None
