"""Random programs, and what each of them is worth when nothing ever fails.

A program is a graph whose nodes have a kind. To add one: give it a name here, say in
:meth:`Program.attempt` what an attempt of it does, and in :meth:`Program.value` what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal, TypeAlias

import msgpack

from mapped_tasks import WIDTHS, evaluate_map, read_map
from milepost.journal import Store, get_blob
from milepost.replay.composing import NOTHING
from milepost.replay.fragment import (
    Backoff,
    Fragment,
    Function,
    MapSpec,
    RangeItems,
    TaskOptions,
)
from milepost.replay.payload import Encoding, Payload, inline

Kind: TypeAlias = Literal[
    "plain",
    "large",
    "flaky",
    "broken",
    "hopeless",
    "extending",
    "sleeping",
    "choosing",
    "polling",
    "noticing",
    "stuck",
    "mapped",
]

WAITS: dict[Kind, str] = {"sleeping": "time", "choosing": "tasks"}
"""The kinds that no worker runs, and what they wait for."""

SPECIAL: dict[Kind, str] = {**WAITS, "polling": "poll", "noticing": "notice"}
"""All kinds that have a scheduling class of their own."""

MODULUS = 1_000_003

CAUGHT = 7
"""What a failure is worth that is caught."""

WAITED = 11
"""What it is worth to have waited, whatever came of it."""

OPTIONS = ((4, False), (-1, False), (0, False), (-1, True), (0, True), (-1, False), (-1, False))
"""Scheduling classes: how often an attempt is repeated, and whether failures are caught."""

PATIENT, TIMED = 5, 6
"""Those whose attempts are put off; the latter's may only run for ``TIMEOUT_S``."""

BACKOFF = Backoff(delay_us=300_000, factor=3.0, jitter=0.5, delay_us_max=5_000_000)
TIMEOUT_S = 4.0


def pack(value: object) -> Payload:
    """Returns an inline payload of plain data."""
    return inline(0, msgpack.packb(value))


def read_value(store: Store, workflow_id: str, incarnation: int, payload: Payload) -> int:
    """Returns the value that an attempt gave, which may be stored as a blob, or was caught.

    Raises:
        CorruptBlobError: If the blob is missing or damaged.
    """
    if payload.encoding == Encoding.CAUGHT:
        return CAUGHT
    if payload.encoding == Encoding.CHUNKED:
        return read_map(store, workflow_id, incarnation, payload)
    if payload == NOTHING or payload.encoding in (Encoding.TUPLE, Encoding.SPLIT):
        return WAITED
    data = payload.data
    if payload.digest:
        data = get_blob(store, workflow_id, incarnation, payload.digest.hex())
    value: int = msgpack.unpackb(data)[0]
    return value


@dataclass(frozen=True, slots=True)
class Node:
    """One task of a program.

    Attributes:
        name: Its task id.
        kind: "plain"; "large", whose value is stored as a blob; "flaky", which raises ``fails``
            times; "stuck", which runs for ever so many times; "broken", which raises until somebody
            mends it; "hopeless", which always raises; "extending", which returns ``body`` as a
            continuation; "sleeping" for as long as ``arguments`` say; "choosing", which waits for
            so many of its inputs; "polling", a listener, whose ``body`` is "noticing" that its
            event is durable; "mapped", a map of ``width`` items.
        own: What it adds to its inputs.
        option: Its scheduling class, an index of ``OPTIONS``.
    """

    name: str
    kind: Kind
    own: int
    inputs: tuple[int, ...]
    option: int
    fails: int = 0
    body: tuple[Node, ...] = ()
    arguments: tuple[float | None, ...] = ()
    width: int = 0

    @property
    def catches(self) -> bool:
        """Whether no failure goes beyond it."""
        return self.kind not in SPECIAL and OPTIONS[self.option][1]


class HopelessError(Exception):
    """A program comes to nothing."""


@dataclass(slots=True)
class Program:
    """A graph of nodes, inputs first, the last one its root."""

    nodes: tuple[Node, ...]
    durability: str
    mended: set[str] = field(default_factory=set)
    _by_name: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index(self.nodes)

    def _index(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._by_name[node.name] = node
            self._index(node.body)

    def node(self, task_id: str) -> Node:
        """Returns the node of a task."""
        return self._by_name[task_id]

    @property
    def fragment(self) -> Fragment:
        """The graph as it is submitted."""
        return make_fragment(self.nodes)

    def mend(self) -> None:
        """Repairs what is broken."""
        self.mended.update(name for name, node in self._by_name.items() if node.kind == "broken")

    def attempt(self, task_id: str, attempt: int, inputs: Sequence[int]) -> int | Fragment | None:
        """Returns what an attempt comes to: a value, a continuation, or None if it raises."""
        node = self._by_name[task_id]
        if node.kind == "hopeless" or (node.kind == "flaky" and attempt <= node.fails):
            return None
        if node.kind == "broken" and node.name not in self.mended:
            return None
        if node.body:
            return make_fragment(node.body)
        return combine(node, inputs)

    def is_stuck(self, task_id: str, attempt: int) -> bool:
        """Tells whether an attempt runs until somebody ends it."""
        node = self._by_name[task_id]
        return node.kind == "stuck" and attempt <= node.fails

    def value(self, task_id: str | None = None) -> int:
        """Evaluates the program plainly; returns what it is worth, or one of its tasks."""
        values: dict[str, int] = {}
        result = _evaluate(self.nodes, values)
        return result if task_id is None else values[task_id]


def _evaluate(nodes: Sequence[Node], values: dict[str, int]) -> int:
    for node in nodes:
        try:
            values[node.name] = _evaluate_node(nodes, node, values)
        except HopelessError:
            if not node.catches:
                raise
            values[node.name] = CAUGHT
    return values[nodes[-1].name]


def _evaluate_node(nodes: Sequence[Node], node: Node, values: dict[str, int]) -> int:
    if node.kind == "hopeless":
        raise HopelessError
    if node.body:
        return _evaluate(node.body, values)
    if node.kind in WAITS:
        return WAITED
    inputs = [values[nodes[source].name] for source in node.inputs]
    return evaluate_map(node, inputs) if node.kind == "mapped" else combine(node, inputs)


def combine(node: Node, inputs: Sequence[int]) -> int:
    """Returns the value of a node that ran: depends on each input and on their order."""
    value = node.own
    for each in inputs:
        value = (31 * value + each) % MODULUS
    return value


def make_fragment(nodes: Sequence[Node]) -> Fragment:
    """Returns nodes as a compiler would hand them over."""
    options = tuple(
        TaskOptions(
            max_retries=retries,
            retry_errors=pack(True),
            ray=pack({"class": number}),
            catch_exceptions=catches,
        )
        for number, (retries, catches) in enumerate(OPTIONS)
    )
    options = tuple(
        replace(each, backoff=BACKOFF, timeout_us=round(TIMEOUT_S * 1e6) * (number == TIMED))
        if number in (PATIENT, TIMED)
        else each
        for number, each in enumerate(options)
    )
    waiting = tuple(replace(options[0], waits_for=what) for what in SPECIAL.values())
    called = [msgpack.packb([node.arguments, {}]) for node in nodes]
    templates = tuple(dict.fromkeys(called))
    return Fragment(
        names=tuple(node.name for node in nodes),
        functions=(Function(name="app.f", digest=b"f" * 32, code=inline(1, b"code")),),
        options=options + waiting,
        templates=templates,
        node_names=tuple(range(len(nodes))),
        node_functions=(0,) * len(nodes),
        node_options=tuple(map(_find_option, nodes)),
        node_templates=tuple(map(templates.index, called)),
        input_counts=tuple(len(node.inputs) for node in nodes),
        inputs=tuple(source for node in nodes for source in node.inputs),
        maps=tuple(
            MapSpec(
                node=at,
                length=node.width,
                chunk_size=0,
                items=RangeItems(first=0, step=1),
            )
            for at, node in enumerate(nodes)
            if node.kind == "mapped"
        ),
    )


def _find_option(node: Node) -> int:
    special = list(SPECIAL)
    return len(OPTIONS) + special.index(node.kind) if node.kind in special else node.option


def draw_program(random: Random) -> Program:
    """Returns a random program: a chain, a fan-out, a diamond, or any graph at all."""
    nodes = _draw_nodes(random, "t", depth=random.choice((0, 0, 1, 2)))
    return Program(nodes, durability=random.choice(("pipelined", "pipelined", "strict")))


def _draw_nodes(random: Random, prefix: str, depth: int, caught: bool = False) -> tuple[Node, ...]:
    shape = random.choice(("single", "chain", "fan", "diamond", "any"))
    nodes: list[Node] = []
    sure: set[int] = set()  # what cannot fail, nor what it takes
    for number, inputs in enumerate(_draw_inputs(random, shape)):
        node = _draw_node(random, f"{prefix}.{number}", inputs, depth, caught)
        if sure.issuperset(inputs):
            if inputs and random.random() < 0.1:
                node = _draw_choosing(random, node)
            if node.kind in SURE:
                sure.add(number)
        nodes.append(node)
    return tuple(nodes)


SURE: tuple[Kind, ...] = ("plain", "large", "flaky", "sleeping", "choosing", "polling", "mapped")


def _draw_choosing(random: Random, node: Node) -> Node:
    """Makes a node wait for some of its inputs, which cannot fail: who comes first is luck."""
    count = random.randint(1, len(node.inputs))
    timeout_s = random.choice((None, None, 0.5, 20.0))
    return replace(node, kind="choosing", fails=0, body=(), arguments=(count, timeout_s))


def _draw_inputs(random: Random, shape: str) -> list[tuple[int, ...]]:
    width = random.randint(1, 6)
    match shape:
        case "single":
            return [()]
        case "chain":
            return [(number - 1,) if number else () for number in range(width)]
        case "fan":
            return [*[()] * width, tuple(range(width))]
        case "diamond":
            return [(), *[(0,)] * width, tuple(range(1, width + 1))]
        case _:
            drawn = [
                tuple(sorted(random.sample(range(number), random.randint(0, min(number, 3)))))
                for number in range(width)
            ]
            used = {source for inputs in drawn for source in inputs}
            return [*drawn, tuple(number for number in range(width) if number not in used)]


def _draw_node(
    random: Random, name: str, inputs: tuple[int, ...], depth: int, caught: bool
) -> Node:
    """Draws a node; where failures are caught, none may depend on luck or on being mended."""
    kinds: tuple[Kind, ...] = (
        *("plain", "large", "flaky", "broken", "hopeless", "extending"),
        *("sleeping", "polling", "stuck", "mapped"),
    )
    weights = (12, 2, 2, 0 if caught else 1, 1, 4 * depth, 1, 1, 1, 3)
    (kind,) = random.choices(kinds, weights)
    option = _draw_option(random, kind, caught)
    inside = caught or OPTIONS[option][1]
    return Node(
        name=name,
        kind=kind,
        own=random.randrange(MODULUS),
        inputs=inputs,
        option=option,
        fails=random.randint(1, 2) if kind in ("flaky", "stuck", "mapped") else 0,
        body=_draw_body(random, name, kind, depth - 1, inside),
        arguments=(random.choice((0.0, 0.3, 3.0, 40.0)),) if kind == "sleeping" else (),
        width=random.choice(WIDTHS) if kind == "mapped" else 0,
    )


def _draw_body(random: Random, name: str, kind: Kind, depth: int, caught: bool) -> tuple[Node, ...]:
    """Draws what a task returns instead of a value, if it does."""
    match kind:
        case "extending":
            return _draw_nodes(random, name, depth, caught)
        case "polling":
            own = random.randrange(MODULUS)
            return (Node(name=f"{name}.told", kind="noticing", own=own, inputs=(), option=0),)
        case _:
            return ()


def _draw_option(random: Random, kind: Kind, caught: bool) -> int:
    match kind:
        case "hopeless":
            return random.choice((2, 4)) if caught else 4
        case "extending":
            return random.choice((1, 1, 3)) if caught else random.choice((0, 1, 3))
        case "broken":
            return 0
        case "stuck":
            return TIMED
        case "mapped":
            return random.choice((1, 1, 3, PATIENT) if caught else (0, 1, 1, 3, PATIENT))
        case _:
            return random.choice((1, 1, PATIENT) if caught else (0, 0, 1, 1, PATIENT))
