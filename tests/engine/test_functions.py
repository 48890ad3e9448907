"""Functions of tasks: stored once, the same again after loading, and not kept for ever."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from milepost.engine import functions
from milepost.engine.compiler import compile_dag
from milepost.engine.functions import describe_function, load_function, name_task
from milepost.engine.payloads import INLINE_BYTES_MAX, BlobCollector, load_here
from milepost.errors import InvalidGraphError, NotSerializableError
from milepost.replay.fragment import Function
from milepost.replay.payload import Payload


class Memory(BlobCollector):
    """Keeps blobs, counts how often they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read_blob(self, payload: Payload) -> memoryview:
        self.reads += 1
        return memoryview(self.blobs[payload.digest])

    def load_ref(self, payload: Payload) -> Any:
        return load_here(payload, self)

    def refer(self, position: int) -> Any:
        raise AssertionError(position)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts like a new worker process."""
    monkeypatch.setattr(functions, "_loaded", type(functions._loaded)())
    monkeypatch.setattr(functions, "_origins", type(functions._origins)())


@pytest.fixture
def memory() -> Memory:
    return Memory()


def make(content: object = None) -> Callable[[], object]:
    return lambda: content


def countdown(left: int) -> Any:
    return left and remote_countdown.bind(left - 1)


remote_countdown: Any = ray.remote(countdown)


def test_a_task_is_called_like_its_function_without_brackets() -> None:
    assert name_task(countdown).endswith("test_functions.countdown")
    assert name_task(make()).endswith("test_functions.make.locals.lambda")


def test_equal_functions_have_one_digest_and_different_closures_two(memory: Memory) -> None:
    same = {describe_function(make(1), memory).digest for _ in range(3)}
    assert len(same) == 1
    assert describe_function(make(2), memory).digest not in same


def test_a_loaded_function_works_and_is_described_as_it_was_stored(memory: Memory) -> None:
    stored = describe_function(make("content"), memory)
    loaded = load_function(stored, memory)
    assert loaded() == "content"
    assert describe_function(loaded, memory) == stored


def test_a_recursion_stores_its_code_once_however_deep_it_gets(memory: Memory) -> None:
    """Each level is compiled where the level above it ran: from loaded code."""
    fragment = compile_dag(remote_countdown.bind(5), memory)
    digests = {fragment.functions[0].digest}
    for _ in range(5):
        body = load_function(fragment.functions[0], memory)
        fragment = compile_dag(body(3), memory)
        digests.add(fragment.functions[0].digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("content", "stored"), [(b"", 1), (b"x" * (INLINE_BYTES_MAX + 1), 2)], ids=["inline", "blob"]
)
def test_a_recursion_through_fresh_processes_does_not_store_its_code_at_every_level(
    memory: Memory, content: bytes, stored: int
) -> None:
    @ray.remote
    def recurse(left: int) -> Any:
        assert content is not None
        return recurse.bind(left - 1)

    fragment = compile_dag(recurse.bind(5), memory)
    digests = {fragment.functions[0].digest}
    for _ in range(8):
        functions._loaded.clear()
        functions._origins.clear()
        body = load_function(fragment.functions[0], memory)
        fragment = compile_dag(body(3), memory)
        digests.add(fragment.functions[0].digest)
    assert len(digests) <= stored


LARGE = b"x" * (INLINE_BYTES_MAX + 1)


def test_large_code_is_a_blob_that_is_read_once(memory: Memory) -> None:
    stored = describe_function(make(LARGE), memory)
    assert stored.code is not None
    assert stored.code.digest in memory.blobs
    assert stored.code.data == b""
    assert load_function(stored, memory)() == LARGE
    assert load_function(stored, memory)() == LARGE
    assert memory.reads == 1


def test_code_in_a_blob_is_stored_again_because_a_blob_belongs_to_one_workflow(
    memory: Memory,
) -> None:
    loaded = load_function(describe_function(make(LARGE), memory), memory)
    other = Memory()
    again = describe_function(loaded, other)
    assert again.code is not None
    assert list(other.blobs) == [again.code.digest]


def test_a_function_is_loaded_once_per_process(memory: Memory) -> None:
    stored = describe_function(make([]), memory)
    assert load_function(stored, memory) is load_function(stored, memory)


def test_only_so_many_functions_are_kept_and_the_oldest_goes_first(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "LOADED_MAX", 3)
    stored = [describe_function(make(number), memory) for number in range(5)]
    loaded = [load_function(each, memory) for each in stored[:3]]
    assert load_function(stored[0], memory) is loaded[0]
    load_function(stored[3], memory)
    assert load_function(stored[0], memory) is loaded[0], "it was used last"
    assert load_function(stored[1], memory) is not loaded[1]
    assert len(functions._loaded) == 3


def test_what_is_not_kept_is_let_go(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "LOADED_MAX", 1)
    seen = []
    for number in range(4):
        loaded = load_function(describe_function(make(number), memory), memory)
        seen.append(weakref.ref(loaded))
        del loaded
    gc.collect()
    assert [each() is not None for each in seen] == [False, False, False, True]
    assert len(functions._origins) == 1


def test_the_code_may_be_missing_once_it_is_loaded(memory: Memory) -> None:
    """An extension of the graph leaves out the code that the journal holds already."""
    stored = describe_function(make(1), memory)
    load_function(stored, memory)
    bare = Function(name=stored.name, digest=stored.digest, code=None)
    assert load_function(bare, memory)() == 1


def test_a_generator_function_is_refused(memory: Memory) -> None:
    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(InvalidGraphError, match=r"rows.*return a list"):
        describe_function(rows, memory)


def test_a_function_that_refers_to_what_cannot_be_pickled_is_refused_by_name(
    memory: Memory,
) -> None:
    numbers = itertools.count()
    generator = (number for number in numbers)

    def task() -> object:
        return next(generator)

    with pytest.raises(NotSerializableError, match=r"task .*task cannot be stored.*generator"):
        describe_function(task, memory)


def test_code_that_cannot_be_loaded_says_why_itself(memory: Memory) -> None:
    broken = Function(
        name="gone.f",
        digest=b"d" * 32,
        code=Payload(encoding=1, data=b"cno_such_module_here\nf\n.", size=24),
    )
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        load_function(broken, memory)
    assert len(functions._loaded) == 0
