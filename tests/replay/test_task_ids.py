"""Every task has an id of its own, and the id leads back to the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.replay.graph import Graph

if TYPE_CHECKING:
    from tests.replay.conftest import Build

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(["", "_", "f", "f_0", "f_01", "f_1", "f_1_1", "f_2", "f_10", "g\n_1"])


def name_nodes(build: Build, graph: Graph, *fragments: list[str]) -> list[str]:
    """Adds fragments whose nodes ask for these names; returns the ids of all nodes."""
    for names in fragments:
        inputs: list[list[int]] = [[] for _ in names[:-1]]
        graph.extend(build.fragment(*inputs, range(len(names) - 1), names=names))
    return [graph.task_id(node) for node in range(len(graph))]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["f"], ["f"]),
        (["f", "g", "f", "f"], ["f", "g", "f_1", "f_2"]),
        (["f", "f", "f_1"], ["f", "f_1", "f_1_1"]),
        (["f_1", "f", "f"], ["f_1", "f", "f_2"]),
        (["f", "f_1", "f", "f_1", "f"], ["f", "f_1", "f_2", "f_1_1", "f_3"]),
        (["f_0", "f", "f", "f_01"], ["f_0", "f", "f_1", "f_01"]),
        (["f_2", "f_1", "f", "f", "f"], ["f_2", "f_1", "f", "f_3", "f_4"]),
        (["", "", "_1"], ["", "_1", "_1_1"]),
    ],
)
def test_nodes_of_one_name_are_numbered_around_those_who_asked_for_a_number(
    build: Build, names: list[str], ids: list[str]
) -> None:
    assert name_nodes(build, Graph(), names) == ids


def test_numbers_go_on_through_continuations(build: Build) -> None:
    assert name_nodes(build, Graph(), ["f", "g"], ["f"], ["g", "f"]) == [
        "f",
        "g",
        "f_1",
        "g_1",
        "f_2",
    ]


@settings(PATIENT, max_examples=200)
@given(fragments=st.lists(st.lists(NAMES | st.text(max_size=3), min_size=1), min_size=1))
def test_ids_are_unique_and_lead_back_to_their_nodes(
    build: Build, fragments: list[list[str]]
) -> None:
    graph = Graph()
    ids = name_nodes(build, graph, *fragments)
    assert len(set(ids)) == len(ids)
    assert [graph.find(task_id) for task_id in ids] == list(range(len(ids)))


@settings(PATIENT, max_examples=100)
@given(first=st.lists(NAMES, min_size=1), second=st.lists(NAMES, min_size=1))
def test_ids_never_change_when_the_graph_grows(
    build: Build, first: list[str], second: list[str]
) -> None:
    graph = Graph()
    before = name_nodes(build, graph, first)
    assert name_nodes(build, graph, second)[: len(before)] == before


@pytest.mark.parametrize("unknown", ["", "h", "f_2", "f_0", "f_01", "f_", "_1", "f_1_1", "f_9" * 9])
def test_an_unknown_id_leads_nowhere(build: Build, unknown: str) -> None:
    graph = Graph()
    assert name_nodes(build, graph, ["f", "f"]) == ["f", "f_1"]
    assert graph.find(unknown) is None


def test_a_number_that_was_passed_over_leads_to_who_has_it(build: Build) -> None:
    graph = Graph()
    name_nodes(build, graph, ["f_1", "f", "f"])
    assert graph.find("f_1") == 0
    assert graph.find("f_2") == 2
