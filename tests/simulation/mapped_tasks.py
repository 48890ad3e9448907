"""Maps of random programs: what an item does, what a map is worth, what a worker tells of items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING

import msgpack

from milepost.engine.host import Delivery, SliceLostError, WorkflowHost
from milepost.engine.messages import ItemReport
from milepost.journal import Store, get_blob
from milepost.replay.decide_items import RunItems
from milepost.replay.events import TaskError
from milepost.replay.inputs import ItemRaised
from milepost.replay.mapping import unpack_chunks
from milepost.replay.payload import Encoding, Payload

if TYPE_CHECKING:
    from programs import Node
    from world import Process, World

WIDTHS = (1, 2, 5, 40)
MODULUS = 1_000_003
CAUGHT = 7
"""What a failure is worth that is caught."""

ERROR = TaskError(kind="exception", type="ValueError", message="no", traceback="", exception=None)


def run_item(node: Node, item: int, attempt: int, inputs: Sequence[int]) -> int | None:
    """Returns what an attempt of an item comes to, None if it raises.

    Every third item raises ``fails`` times, or for good where failures of items are caught.
    """
    if item % 3 == 1 and (node.catches or attempt <= node.fails):
        return None
    return (node.own + 17 * item + sum(inputs)) % MODULUS


def evaluate_map(node: Node, inputs: Sequence[int]) -> int:
    """Evaluates a map plainly."""
    caught = [CAUGHT if node.catches and item % 3 == 1 else None for item in range(node.width)]
    values = [run_item(node, item, node.fails + 1, inputs) for item in range(node.width)]
    return combine_items(
        [each if kept is None else kept for kept, each in zip(caught, values, strict=True)]
    )


def combine_items(values: Sequence[int | None]) -> int:
    """Returns what a map is worth: depends on each item and on their order."""
    total = 0
    for value in values:
        assert value is not None
        total = (31 * total + value) % MODULUS
    return total


def read_map(store: Store, workflow_id: str, incarnation: int, payload: Payload) -> int:
    """Returns what a map is worth whose items' values are stored.

    Raises:
        CorruptBlobError: If a blob is missing or damaged.
    """
    values: list[int | None] = []
    chunks = unpack_chunks(payload.data)
    for count, chunk in zip(chunks.counts, chunks.payloads, strict=True):
        if chunk.encoding == Encoding.CAUGHT:
            values.append(CAUGHT)
            continue
        data = chunk.data
        if chunk.digest:
            data = get_blob(store, workflow_id, incarnation, chunk.digest.hex())
        found = msgpack.unpackb(data)
        assert len(found) == count, (len(found), count)
        values += [value for value, _ in found]
    return combine_items(values)


class ItemWorker:
    """Runs one slice of items: slow, repeating itself, dying now and then."""

    def __init__(
        self,
        world: World,
        process: Process,
        host: WorkflowHost,
        slice_: RunItems,
        worker: str,
        put: Callable[[WorkflowHost, Payload], Awaitable[Payload]],
    ) -> None:
        self._world, self._process, self._host = world, process, host
        self._slice, self._worker, self._put = slice_, worker, put
        self._report = ItemReport(node=worker)
        self._run: list[tuple[int, list[int]]] = []

    async def run(self, inputs: Sequence[int]) -> AsyncIterator[Delivery]:
        """Yields reports, some of them twice."""
        random, weather = self._world.random, self._world.weather
        said: list[ItemReport] = []
        runs = zip(self._slice.starts, self._slice.stops, self._slice.attempts, strict=True)
        items = [(item, attempt) for start, stop, attempt in runs for item in range(start, stop)]
        kept = random.randint(1, len(items)) if random.random() < 0.1 else len(items)
        self._report.handed_back = join([item for item, _ in items[kept:]])
        for item, attempt in items[:kept]:
            await self._process.gate()
            self._world.record.item_started(self._host, self._slice.task, item, attempt)
            if random.random() < 0.2:
                await asyncio.sleep(weather.task_s())
            if weather.stormy and random.random() < 0.01:
                await self._process.gate()
                raise SliceLostError("killed")
            self._attempt(item, attempt, inputs)
            if random.random() < 0.15:
                said.append(await self._close())
                yield said[-1], {}
            if said and random.random() < 0.05:  # the same again, perhaps much later
                await self._process.gate()
                yield copy(random.choice(said)), {}
        last = await self._close()
        last.last = True
        yield last, {}

    def _attempt(self, item: int, attempt: int, inputs: Sequence[int]) -> None:
        program = self._world.record.program_of(self._host)
        node = program.node(self._host.state.graph.task_id(self._slice.task))
        outcome = run_item(node, item, attempt, inputs)
        if outcome is None:
            again = not node.catches  # else it is luck whether the retries suffice
            raised = ItemRaised(item=item, attempt=attempt, error=ERROR, retryable=again)
            self._report.raised.append(raised)
        else:
            # No two attempts return the same: whose commit counted can be told from the value.
            self._run.append((item, [outcome, self._world.random.getrandbits(32)]))

    async def _close(self) -> ItemReport:
        """Returns what was done since the last report."""
        report, self._report = self._report, ItemReport(node=self._worker)
        values, self._run = dict(self._run), []
        for start, stop in join(list(values)):
            data = msgpack.packb([values[item] for item in range(start, stop)])
            payload = Payload(encoding=Encoding.PLAIN.value, data=data, size=len(data))
            if self._world.random.random() < 0.1:
                payload = await self._put(self._host, payload)
            report.starts.append(start)
            report.stops.append(stop)
            report.payloads.append(payload)
        await self._process.gate()
        return report


def join(items: Sequence[int]) -> list[tuple[int, int]]:
    """Returns ascending integers as ranges."""
    runs: list[tuple[int, int]] = []
    for item in items:
        if runs and runs[-1][1] == item:
            runs[-1] = (runs[-1][0], item + 1)
        else:
            runs.append((item, item + 1))
    return runs
