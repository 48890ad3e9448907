"""What a worker needs to run items of a map: what the items share, and their own values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from milepost.engine.arguments import constant_positions
from milepost.engine.messages import ItemChunk, ItemOrder
from milepost.engine.outputs import SealedOutput
from milepost.engine.payloads import INLINE_BYTES_MAX
from milepost.replay.decide_items import RunItems
from milepost.replay.expanding import expand
from milepost.replay.fragment import Constant, MapSpec, RangeItems, ResultItems
from milepost.replay.payload import Payload
from milepost.replay.state import State

if TYPE_CHECKING:
    from milepost.engine.host import WorkflowHost


def build_item_order(
    host: WorkflowHost, slice_: RunItems, storage: str, refs: dict[int, Any]
) -> ItemOrder:
    """Returns the order for a slice of items; ``refs`` gets the inputs that are Ray objects."""
    state, graph, task = host.state, host.state.graph, slice_.task
    map_, inputs = state.maps[task], tuple(graph.inputs(task))
    template = graph.templates[graph.node_templates[task]]
    first_constant = graph.node_constants[task]
    values: dict[int, Payload] = {}
    for node in dict.fromkeys(inputs):
        supply_value(host, node, storage, values, refs)
    return ItemOrder(
        storage=storage,
        workflow_id=state.workflow_id,
        incarnation=state.incarnation,
        epoch=slice_.epoch,
        slice=slice_.slice,
        dispatcher=None,
        task=task,
        task_id=graph.task_id(task),
        runs=tuple(zip(slice_.starts, slice_.stops, slice_.attempts, strict=True)),
        length=map_.spec.length,
        chunk_size=map_.spec.chunk_size,
        items=_select_items(state, map_.spec, slice_),
        catches=map_.catches,
        function=graph.functions[graph.node_functions[task]],
        template=template,
        inputs=inputs,
        first_constant=first_constant,
        constants=_select_constants(state, template, first_constant),
        values=values,
        refs={node: at for at, node in enumerate(refs)},
        retry_errors=graph.options[slice_.option].retry_errors,
        timed=graph.options[slice_.option].timeout_us > 0,
        job=host.job,
    )


def supply_value(
    host: WorkflowHost, node: int, storage: str, values: dict[int, Payload], refs: dict[int, Any]
) -> None:
    """Puts the value of ``node`` among those that travel as payloads, or as Ray objects.

    What a map came to travels with every slice that takes it, so if it is large it becomes an
    object, once.
    """
    state, ref = host.state, host.objects.find(node)
    if ref is None:
        result = state.results[node]
        assert result is not None, (state.workflow_id, node)
        payload = expand(state, result)
        if payload is result or payload.size <= INLINE_BYTES_MAX:
            values[node] = payload
            return
        sealed = SealedOutput(storage, state.workflow_id, state.incarnation, payload)
        ref = ray.put(sealed)
        host.objects.take(state, (), {node: ref})
    refs[node] = ref


def _select_constants(state: State, template: bytes, first: int) -> dict[int, Constant]:
    numbers = [first + position for position in constant_positions(template)]
    return {number: state.graph.constants[number] for number in numbers}


def _select_items(
    state: State, spec: MapSpec, slice_: RunItems
) -> RangeItems | tuple[ItemChunk, ...]:
    """Returns the chunks that the items of a slice are in, and no others."""
    if isinstance(spec.items, RangeItems):
        return spec.items
    found: dict[int, ItemChunk] = {}
    for start, stop in zip(slice_.starts, slice_.stops, strict=True):
        low, high = spec.find_values(start, stop)
        if isinstance(spec.items, ResultItems):
            rows = state.maps[spec.items.task].find_chunks(low, high)
        else:
            rows = state.maps[slice_.task].find_stored(low, high)
        for first, last, payload in rows:
            found[first] = ItemChunk(start=first, stop=last, payload=payload)
    return tuple(found[first] for first in sorted(found))
