"""Maps through the whole engine but Ray: where items come from, what they come to, what fails."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import ray

import milepost
from milepost.engine import item_orders
from milepost.engine.compiler import compile_dag
from milepost.engine.mapped import MapResult
from milepost.engine.metadata import describe_task, describe_workflow
from milepost.engine.recent import RecentStates
from milepost.errors import (
    InvalidGraphError,
    InvalidOptionError,
    NotSerializableError,
    SignatureMismatchError,
)
from milepost.replay.decide import RunSlice
from milepost.replay.decide_items import RunItems
from milepost.replay.fragment import ChunkItems, RangeItems, ResultItems
from milepost.replay.state import Status

if TYPE_CHECKING:
    from local_engine import Engine
    from tests.engine.conftest import Disk


def task(function: Callable[..., Any], **options: Any) -> Any:
    return ray.remote(**options)(function) if options else ray.remote(function)


square = task(lambda number: number * number)
total = task(lambda values: sum(values))
double = task(lambda item: [item, item])
SQUARES = [number * number for number in range(100)]


@pytest.mark.parametrize(
    "items",
    [
        range(100),
        list(range(100)),
        tuple(range(100)),
        np.arange(100),
        [*range(99), 99.0],
    ],
    ids=["range", "list", "tuple", "array", "mixed"],
)
def test_the_value_is_the_list_of_what_each_item_returned(engine: Engine, items: Any) -> None:
    result = engine.run(milepost.map(square, items))
    assert result == SQUARES
    assert isinstance(result, MapResult)
    assert (len(result), result[7], result[-1], result[3:5]) == (100, 49, 99**2, [9, 16])


def test_ranges_are_counted_and_not_stored(engine: Engine) -> None:
    assert engine.run(milepost.map(square, range(10, 0, -3))) == [100, 49, 16, 1]
    assert engine.stored().maps[0].spec.items == RangeItems(first=10, step=-3)


def test_a_generator_is_drained_once_in_chunks(engine: Engine) -> None:
    drawn: list[int] = []

    def draw() -> Iterator[bytes]:
        for number in range(1000):
            drawn.append(number)
            yield bytes(1000) + number.to_bytes(2, "big")

    node = milepost.map(task(lambda item: int.from_bytes(item, "big")), draw())
    assert drawn == []
    assert engine.run(node) == list(range(1000))
    assert drawn == list(range(1000))
    items = engine.stored().maps[0].spec.items
    assert isinstance(items, ChunkItems)
    assert 2 <= len(items.payloads) <= 12
    assert max(payload.size for payload in items.payloads) < 2**20
    with pytest.raises(InvalidGraphError, match="was drained when the node was first run"):
        engine.run(node)


def test_items_that_turn_out_large_are_cut_smaller(disk: Disk) -> None:
    items = [bytes(10)] * 100 + [bytes([at]) * 300_000 for at in range(20)]
    fragment = compile_dag(milepost.map(square, items), disk)
    found = fragment.maps[0].items
    assert isinstance(found, ChunkItems)
    assert sum(found.counts) == 120
    assert max(payload.size for payload in found.payloads) <= 2**20


def test_rows_of_a_table_are_items(engine: Engine) -> None:
    table = pa.table({"a": range(5), "b": list("vwxyz")})
    show = task(lambda row, times: row["b"] * row["a"] * times)
    assert engine.run(milepost.map(show, table, times=2)) == ["", "ww", "xxxx", "y" * 6, "z" * 8]


def test_a_worker_gets_only_its_part_of_a_table(engine: Engine) -> None:
    table = pa.table({"a": range(200_000), "b": ["text"] * 200_000})
    measure = task(lambda part: (type(part).__name__, part.num_rows, part["a"][0].as_py()))
    result = engine.run(milepost.map(measure, table, chunk_size=30_000))
    assert result[1] == ("Table", 30_000, 30_000)
    assert result[-1] == ("Table", 20_000, 180_000)
    items = engine.stored().maps[0].spec.items
    assert isinstance(items, ChunkItems)
    assert all(count % 30_000 == 0 for count in items.counts[:-1])
    assert sum(payload.size for payload in items.payloads) < 2 * table.nbytes


def test_record_batches_are_items_like_any_other(engine: Engine) -> None:
    batches = pa.table({"a": range(10)}).to_batches(max_chunksize=4)
    assert engine.run(milepost.map(task(lambda batch: batch.num_rows), batches)) == [4, 4, 2]


def test_lists_of_items_can_be_items(engine: Engine) -> None:
    add = task(lambda part: [type(part).__name__, sum(part)])
    of_range = milepost.map(add, range(10), chunk_size=4)
    of_list = milepost.map(add, [1, 2, 3], chunk_size=2)
    found = engine.run(task(lambda first, second: [*first, *second]).bind(of_range, of_list))
    assert found == [["list", 6], ["list", 22], ["list", 17], ["list", 3], ["list", 3]]


@pytest.mark.parametrize(
    "items", [[], (), range(0), iter([])], ids=["list", "tuple", "range", "iterator"]
)
def test_a_map_over_nothing_is_an_empty_list(engine: Engine, items: Any) -> None:
    close = task(lambda values: [*values, "end"])
    assert engine.run(close.bind(milepost.map(square, items))) == ["end"]


def test_further_arguments_are_the_same_for_all_items(engine: Engine) -> None:
    add = task(lambda item, other, *, scale: item + other["n"] * scale)
    node = milepost.map(add, range(3), other={"n": 2}, scale=task(lambda: 10).bind())
    assert engine.run(node) == [20, 21, 22]


def test_items_may_come_from_a_task(engine: Engine) -> None:
    make = task(lambda count: [{"n": number} for number in range(count)])
    read = task(lambda item, plus: item["n"] + plus)
    mapped = milepost.map(read, make.bind(3), plus=task(lambda: 10).bind())
    assert engine.run(total.bind(mapped)) == 33


def test_a_map_over_a_map_stores_none_of_the_values_again(engine: Engine) -> None:
    first = milepost.map(double, range(50))
    assert engine.run(milepost.map(total, first)) == [2 * number for number in range(50)]
    state = engine.stored()
    sources = [map_.spec.items for map_ in state.maps.values()]
    assert sources == [RangeItems(first=0, step=1), ResultItems(task=0)]


def test_a_map_by_chunk_takes_values_across_the_borders_of_slices(engine: Engine) -> None:
    first = milepost.map(square, range(100))
    sums = engine.run(milepost.map(total, first, chunk_size=7))
    assert list(sums) == [sum(SQUARES[at : at + 7]) for at in range(0, 100, 7)]


def test_later_tasks_take_the_whole_as_a_sequence(engine: Engine) -> None:
    look = task(lambda values: (type(values).__name__, len(values), values[50], sum(values)))
    found = engine.run(look.bind(milepost.map(square, range(100))))
    assert found == ("MapResult", 100, 2500, sum(SQUARES))


def test_a_whole_that_is_large_becomes_one_object(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_orders, "INLINE_BYTES_MAX", 100)
    text = milepost.map(task(lambda number: "x" * 1000), range(200))
    lengths = [task(lambda values, at: len(values[at])).bind(text, at) for at in range(5)]
    assert engine.run(task(lambda *found: sum(found)).bind(*lengths)) == 5000
    assert engine.workers.taken >= 1


@pytest.mark.parametrize("count", [1, 4, 5, 16, 17, 100])
def test_values_are_put_together_as_a_tree(engine: Engine, count: int) -> None:
    node = milepost.map(square, range(count)).reduce(total, arity=4)
    assert engine.run(node) == sum(SQUARES[:count])
    shapes = [map_.spec.length for map_ in engine.stored().maps.values()]
    assert all(after == -(-before // 4) for before, after in pairwise(shapes[1:]))


def test_what_comes_from_a_task_can_be_put_together_as_well(engine: Engine) -> None:
    highest = task(lambda values: max(values))
    node = milepost.map(square, task(lambda: list(range(40))).bind()).reduce(highest, arity=3)
    assert engine.run(node) == 39 * 39


def test_nothing_is_put_together_as_an_empty_list(engine: Engine) -> None:
    assert engine.run(milepost.map(square, []).reduce(total)) == 0


def test_a_map_can_be_a_continuation(engine: Engine) -> None:
    go_on = task(lambda count: milepost.continuation(milepost.map(square, range(count))))
    assert engine.run(go_on.bind(5)) == [0, 1, 4, 9, 16]


def test_a_sequence_passes_through_tasks_and_into_other_values(engine: Engine) -> None:
    whole = milepost.map(double, range(5))
    passed = task(lambda values: values).bind(whole)
    inside = task(lambda values: {"rows": values}).bind(passed)
    found = engine.run(task(lambda held: held["rows"]).bind(inside))
    assert found == [[number, number] for number in range(5)]


def test_large_values_are_blobs_and_come_back_without_a_copy(engine: Engine) -> None:
    make = task(lambda number: np.full(100_000, number, dtype=np.uint8))
    result = engine.run(milepost.map(make, range(6)))
    assert [int(array[-1]) for array in result] == list(range(6))
    assert not result[2].flags.owndata
    assert all(len(payload.data) < 200 for _, _, payload in engine.stored().maps[0].chunks())


def test_values_are_what_they_were_when_they_were_returned(engine: Engine) -> None:
    """A function may return the same object again and again, and change it in between."""
    seen: list[int] = []

    def collect(item: int) -> list[int]:
        seen.append(item)
        return seen

    result = engine.run(milepost.map(task(collect), range(1, 40), chunk_size=None))
    lengths = [len(each) for each in result]
    assert all(each[-1] == item for item, each in enumerate(result, 1)), lengths


def test_an_item_that_is_tried_again_is_as_it_was(engine: Engine, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"

    def spoil(item: list[int]) -> int:
        item.append(1)
        if not ledger.exists():
            ledger.touch()
            raise ValueError
        return len(item)

    spoiling = task(spoil, max_retries=2, retry_exceptions=True)
    assert engine.run(milepost.map(spoiling, [[0], [0], [0]])) == [2, 2, 2]


def test_caught_exceptions_are_values_of_their_items(engine: Engine) -> None:
    def halve(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number // 2

    halving = task(halve, max_retries=0).options(**milepost.options(catch_exceptions=True))
    result = engine.run(milepost.map(halving, range(6)))
    values = [value for value, _ in result]
    assert values == [0, None, 1, None, 2, None]
    errors = [error for _, error in result if error is not None]
    assert [error.args for error in errors] == [(1,), (3,), (5,)]
    assert "raised in task" in errors[0].__notes__[0]
    assert "[1]" in errors[0].__notes__[0]
    assert "item_runs.py" not in errors[0].__notes__[0]


def test_an_item_that_fails_for_good_fails_the_workflow(engine: Engine) -> None:
    def fail(number: int) -> int:
        return 1 // (number - 3)

    with pytest.raises(AssertionError):
        engine.run(milepost.map(task(fail, max_retries=0), range(10)))
    state = engine.stored()
    assert state.status is Status.FAILED
    assert list(state.maps[0].failed) == [3]


def test_an_item_cannot_go_on_with_a_dag(engine: Engine) -> None:
    going_on = task(lambda item: milepost.continuation(square.bind(item)))
    with pytest.raises(AssertionError):
        engine.run(milepost.map(going_on, range(3)))
    (error, *_) = engine.stored().failed.values()
    assert "continuation, which only tasks can" in error.message


def test_the_running_item_knows_what_it_is(engine: Engine) -> None:
    def tell(item: int) -> tuple[str, int, str]:
        context = milepost.current()
        return context.task_id, context.attempt, context.idempotency_token

    telling = task(tell).options(**milepost.options(task_id="tell"))
    result = engine.run(milepost.map(telling, range(5)))
    assert [each[:2] for each in result] == [(f"tell[{item}]", 1) for item in range(5)]
    assert len({each[2] for each in result}) == 5


def test_items_travel_in_slices_that_grow(engine: Engine) -> None:
    """The first of a function is alone; a thousand of nothing are a handful of calls."""
    engine.run(milepost.map(task(lambda item: None), range(2000)))
    sizes = [
        sum(each.stops) - sum(each.starts)
        for each in engine.workers.sent
        if isinstance(each, RunItems)
    ]
    assert sizes[0] == 1
    assert sum(sizes) == 2000
    assert len(sizes) < 40, sizes
    assert not any(isinstance(each, RunSlice) for each in engine.workers.sent)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: milepost.map(len, [1]), InvalidGraphError, "takes a @ray.remote function"),
        (lambda: milepost.map(square, 7), InvalidGraphError, "items to iterate over"),
        (lambda: milepost.map(square, "text"), InvalidGraphError, "put it in a list"),
        (lambda: milepost.map(square, {"a": 1}), InvalidGraphError, "ambiguous"),
        (lambda: milepost.map(square, _numbers()), InvalidGraphError, "asynchronous"),
        (lambda: milepost.map(square, [1], chunk_size=0), InvalidOptionError, "chunk_size"),
        (lambda: milepost.map(square, [1], other=2), SignatureMismatchError, "other"),
        (lambda: milepost.map(task(lambda: 1), [1]), SignatureMismatchError, "does not take"),
        (lambda: milepost.map(square, [1]).reduce(len), InvalidGraphError, "reduce() takes"),
        (lambda: milepost.map(square, [1]).reduce(total, 1), InvalidOptionError, "arity"),
    ],
)
def test_what_cannot_be_mapped_is_refused_at_once(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        make()
    assert text in str(raised.value)


async def _numbers() -> Any:
    yield 1


def test_items_that_cannot_be_stored_are_refused_when_they_are(disk: Disk) -> None:
    with pytest.raises(NotSerializableError, match="items of a map: a task node"):
        compile_dag(milepost.map(square, [square.bind(1)]), disk)


def test_sequences_are_like_lists(engine: Engine) -> None:
    result = engine.run(milepost.map(square, range(10)))
    assert result == SQUARES[:10]
    assert result == result
    assert result != SQUARES[:9]
    assert result != [*SQUARES[:9], 0]
    assert (result == 7) is False
    assert 49 in result
    assert list(reversed(result)) == SQUARES[:10][::-1]
    assert result[::3] == SQUARES[:10:3]
    assert repr(result) == "<MapResult of 10: [0, 1, 4, 9, 16, 25, ...]>"
    assert [value for chunk in result.chunks() for value in chunk] == SQUARES[:10]
    for at in (10, -11):
        with pytest.raises(IndexError, match="of a sequence of 10"):
            result[at]
    with pytest.raises(TypeError):
        hash(result)


def test_sequences_are_pickled_as_what_they_refer_to(engine: Engine) -> None:
    large = engine.run(milepost.map(task(lambda item: bytes([item]) * 100_000), range(5)))
    pickled = pickle.dumps(large)
    assert len(pickled) < 2000
    assert pickle.loads(pickled) == [bytes([item]) * 100_000 for item in range(5)]


def test_of_a_map_it_is_told_how_far_its_items_are(engine: Engine) -> None:
    failing = task(lambda number: 1 // (number - 9), max_retries=0)
    with pytest.raises(AssertionError):
        engine.run(milepost.map(failing, range(10), chunk_size=None))
    state = engine.stored()
    (task_id,) = (state.graph.task_id(at) for at in range(len(state.graph)))
    items = describe_task(state, task_id)["items"]
    assert items == {"total": 10, "committed": 9, "failed": 1, "under_way": 0}
    assert describe_workflow(state, Status.FAILED)["progress"] == 0.9


def test_what_is_kept_of_ended_workflows_counts_values_of_items(engine: Engine) -> None:
    engine.run(milepost.map(task(lambda number: "x" * 1000), range(50)))
    recent = RecentStates()
    recent.keep(engine.stored())
    assert sum(recent._result_bytes.values()) > 50_000
