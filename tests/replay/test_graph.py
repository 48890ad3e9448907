"""The graph knows inputs and outputs of every node, and holds each table entry once."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.replay.fragment import Constant
from milepost.replay.graph import Graph

if TYPE_CHECKING:
    from tests.replay.conftest import Build

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(PATIENT, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_outputs_are_the_inverse_of_inputs(build: Build, seed: int) -> None:
    chance, graph = Random(seed), Graph()
    expected: list[list[int]] = []
    for _ in range(3):
        first, width = len(graph), chance.randint(1, 9)
        inputs = [
            chance.choices(range(node), k=chance.randint(0, 4)) if node else []
            for node in range(width)
        ]
        assert graph.extend(build.fragment(*inputs)) == first
        expected += [[first + source for source in sources] for sources in inputs]
    for node, sources in enumerate(expected):
        assert list(graph.inputs(node)) == sources
        assert graph.input_count(node) == len(sources)
        uses = [taker for taker, takes in enumerate(expected) for each in takes if each == node]
        assert list(graph.outputs(node)) == uses


def test_functions_options_and_templates_stand_once_however_often_they_come(build: Build) -> None:
    graph = Graph()
    for _ in range(3):
        graph.extend(build.fragment((), (0,), functions="fg", classes=(1, 0)))
    assert graph.functions == [build.function("f"), build.function("g")]
    assert graph.options == [build.options(1), build.options(0)]
    assert len(graph.templates) == 2
    assert list(graph.node_functions) == list(graph.node_options) == [0, 1] * 3
    assert list(graph.node_templates) == [0, 1] * 3


def test_constants_name_their_nodes_by_the_numbers_of_the_whole_graph(build: Build) -> None:
    graph = Graph()
    held = Constant(payload=build.payload(1), nodes=(1, 0))
    free = Constant(payload=build.payload(2))
    for _ in range(2):
        graph.extend(build.fragment((), (), (0, 1), constants=(free, held)))
    assert [constant.nodes for constant in graph.constants] == [(), (1, 0), (), (4, 3)]
    assert list(graph.node_constants) == [0, 0, 0, 2, 2, 2]
