"""What tests of the engine share: little graphs, a store in a folder, a stand-in for Ray's."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import msgpack
import pytest
import ray

from milepost.engine.payloads import RefMemo, load_here
from milepost.journal import map_blob, open_store, put_blob
from milepost.replay.events import WorkflowCreated
from milepost.replay.fragment import Fragment, Function, TaskOptions
from milepost.replay.payload import Payload, inline

WORKFLOW = "w"
AT_US = 1_700_000_000_000_000


def pack(value: object = None) -> Payload:
    """Returns an inline payload of plain data."""
    return inline(0, msgpack.packb(value))


def make_graph(
    *inputs: Sequence[int],
    max_retries: int = 3,
    waits: Mapping[int, tuple[str, Sequence[Any]]] | None = None,
) -> Fragment:
    """Returns a fragment with one node per entry; an entry names the inputs of its node.

    All nodes run one function, under one set of options; each has a template of its own. Those that
    ``waits`` names wait for what it says, with the arguments it says.
    """
    width = len(inputs)
    options = TaskOptions(max_retries=max_retries, retry_errors=pack(False), ray=pack({}))
    waits = waits or {}
    kinds = ["", *dict.fromkeys(kind for kind, _ in waits.values())]
    return Fragment(
        names=("f",),
        functions=(Function(name="app.f", digest=b"f" * 32, code=inline(1, b"code")),),
        options=tuple(replace(options, waits_for=kind) for kind in kinds),
        templates=tuple(
            msgpack.packb([list(waits[node][1]), {}]) if node in waits else b"template %d" % node
            for node in range(width)
        ),
        node_names=(0,) * width,
        node_functions=(0,) * width,
        node_options=tuple(kinds.index(waits.get(node, ("",))[0]) for node in range(width)),
        node_templates=tuple(range(width)),
        input_counts=tuple(map(len, inputs)),
        inputs=tuple(itertools.chain.from_iterable(inputs)),
    )


def make_creation(fragment: Fragment, durability: str = "pipelined") -> WorkflowCreated:
    """Returns the first event of a journal."""
    return WorkflowCreated(
        workflow_id=WORKFLOW,
        at_us=AT_US,
        fragment=fragment,
        metadata=pack({}),
        environment=pack({}),
        durability=durability,
        versions="milepost 1",
    )


@pytest.fixture
def creation() -> Callable[..., WorkflowCreated]:
    """Returns a way to make the first event of a journal from a graph."""

    def make(
        *inputs: Sequence[int], durability: str = "pipelined", **options: Any
    ) -> WorkflowCreated:
        return make_creation(make_graph(*inputs, **options), durability)

    return make


class Disk(RefMemo):
    """A store in a folder; a sink of blobs, and their source."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.store = open_store(str(folder))
        self.uri = self.store.uri
        self.location = (self.uri, WORKFLOW, 1)

    def __call__(self, parts: Sequence[bytes | memoryview], /) -> tuple[bytes, int]:
        digest, size = put_blob(self.store, WORKFLOW, 1, parts)
        return bytes.fromhex(digest), size

    def read_blob(self, payload: Payload) -> memoryview:
        return map_blob(self.store, WORKFLOW, 1, payload.digest.hex())

    def load_ref(self, payload: Payload) -> Any:
        return load_here(payload, self)

    def refer(self, position: int) -> Any:
        return f"node {position}"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A store in a folder of its own."""
    return Disk(tmp_path / "store")


class Objects:
    """Plays Ray's object store: every ``get`` gives a value of its own.

    Attributes:
        gets: Every ref that was fetched.
    """

    def __init__(self) -> None:
        self.gets: list[Any] = []
        self._held: dict[Any, bytes] = {}

    def put(self, value: object) -> Any:
        ref: Any = ray.ObjectRef((len(self._held) + 1).to_bytes(28, "little"))
        self._held[ref] = cloudpickle.dumps(value)
        return ref

    def get(self, ref: Any) -> Any:
        self.gets.append(ref)
        return pickle.loads(self._held[ref])


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Objects:
    """An object store in place of Ray's."""
    made = Objects()
    monkeypatch.setattr(ray, "get", made.get)
    monkeypatch.setattr(ray, "put", made.put)
    return made
