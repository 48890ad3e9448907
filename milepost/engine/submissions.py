"""Submissions: what is stored of them, and how they compare with what is stored already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from milepost.engine.messages import Submission
from milepost.replay.events import WorkflowCreated
from milepost.replay.payload import Encoding, inline, pack_plain, unpack_plain
from milepost.replay.state import State


def make_creation(submission: Submission, at_us: int, cluster: str) -> WorkflowCreated:
    """Returns the first event of the workflow; its environment names submission and cluster."""
    origin = {"submission": submission.nonce, "cluster": cluster}
    environment = pack_plain({**submission.environment, **origin})
    assert environment is not None, submission.workflow_id
    return WorkflowCreated(
        workflow_id=submission.workflow_id,
        at_us=at_us,
        fragment=submission.fragment,
        metadata=submission.metadata,
        environment=inline(Encoding.PLAIN.value, environment),
        durability=submission.durability,
        versions=submission.versions,
    )


def find_job(environment: Mapping[str, Any]) -> str:
    """Returns the job that submitted a workflow, by its environment; empty if that does not say."""
    return str(environment.get("job", ""))


def read_nonce(state: State) -> object:
    """Returns the nonce of the submission that created a workflow, None before its creation."""
    return None if state.environment is None else read_environment(state).get("submission")


def read_environment(state: State) -> dict[str, Any]:
    """Returns the environment a workflow was submitted in."""
    assert state.environment is not None, state.workflow_id
    environment: Any = unpack_plain(state.environment.data)
    return dict(environment)


def find_differences(state: State, submission: Submission) -> tuple[str, ...]:
    """Tells in what a submission differs from the stored workflow of its id."""
    if _names_of(state) != [submission.fragment.names[at] for at in submission.fragment.node_names]:
        return ("tasks",)
    found = []
    if _arguments_of(state, submission) != _arguments_given(submission):
        found.append("arguments")
    if read_environment(state).get("code") != submission.environment.get("code"):
        found.append("code")
    return tuple(found)


def _names_of(state: State) -> list[str]:
    graph = state.graph
    return [graph.names[graph.node_names[node]] for node in range(state.root + 1)]


def _arguments_of(state: State, submission: Submission) -> list[object]:
    graph, nodes = state.graph, range(state.root + 1)
    templates = [graph.templates[graph.node_templates[node]] for node in nodes]
    inputs = [source for node in nodes for source in graph.inputs(node)]
    constants = graph.constants[: len(submission.fragment.constants)]
    maps = [replace(state.maps[node].spec, node=node) for node in nodes if node in state.maps]
    return [templates, inputs, [constant.payload for constant in constants], maps]


def _arguments_given(submission: Submission) -> list[object]:
    fragment = submission.fragment
    templates = [fragment.templates[at] for at in fragment.node_templates]
    payloads = [constant.payload for constant in fragment.constants]
    return [templates, list(fragment.inputs), payloads, list(fragment.maps)]
