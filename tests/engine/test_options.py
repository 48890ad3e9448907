"""Durable options: how they are given, what outlives Ray's merging, and what is stored of them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray import cloudpickle

import milepost
from milepost.engine.compiler import compile_dag
from milepost.engine.payloads import BlobCollector
from milepost.errors import InvalidOptionError
from milepost.replay.fragment import Fragment, find_fault
from milepost.replay.fragment_codec import pack_fragment, unpack_fragment
from milepost.replay.payload import unpack_plain


def compiled(node: Any) -> Fragment:
    fragment = compile_dag(node, BlobCollector())
    assert unpack_fragment(pack_fragment(fragment)) == fragment
    return fragment


def metadata_of(fragment: Fragment, node: int) -> object:
    return unpack_plain(fragment.metadata[fragment.node_metadata[node]].data)


SETTINGS: dict[str, Any] = {"task_id": "named", "metadata": {"k": [1]}, "catch_exceptions": True}


@milepost.options(**SETTINGS)
@ray.remote(num_cpus=2)
def decorated() -> None: ...


@ray.remote(num_cpus=2, **milepost.options(**SETTINGS))
def with_ray_options() -> None: ...


@ray.remote(num_cpus=2)
def plain() -> None: ...


@pytest.mark.parametrize(
    "function",
    [decorated, with_ray_options, plain.options(**milepost.options(**SETTINGS))],
    ids=["decorator", "ray.remote", "options"],
)
def test_each_form_of_call_stores_the_same(function: Any) -> None:
    fragment = compiled(function.bind())
    assert fragment.names == ("named",)
    assert metadata_of(fragment, 0) == {"k": [1]}
    assert fragment.options[0].catch_exceptions
    assert fragment.options[0].checkpoint is None
    assert unpack_plain(fragment.options[0].ray.data) == {"num_cpus": 2}


def test_a_later_set_replaces_the_earlier_one_and_no_option_of_ray() -> None:
    again = decorated.options(max_retries=1, **milepost.options(task_id="new"))
    fragment = compiled(again.bind())
    assert fragment.names == ("new",)
    assert (fragment.metadata, fragment.options[0].catch_exceptions) == ((), False)
    assert fragment.options[0].max_retries == 1
    assert unpack_plain(fragment.options[0].ray.data) == {"num_cpus": 2}


def test_options_of_ray_alone_leave_durable_ones_as_they_were() -> None:
    assert compiled(decorated.options(num_cpus=1).bind()).names == ("named",)


def test_a_decorator_leaves_the_labels_of_the_user() -> None:
    labels: dict[str, Any] = {"_labels": {"team": "a"}}

    @milepost.options(task_id="labelled")
    @ray.remote(**labels)
    def labelled() -> None: ...

    fragment = compiled(labelled.bind())
    assert fragment.names == ("labelled",)
    assert unpack_plain(fragment.options[0].ray.data) == {"_labels": {"team": "a"}}
    both = {**milepost.options(task_id="x")["_labels"], "mine": "y"}
    fragment = compiled(labelled.options(_labels=both).bind())
    assert fragment.names == ("x",)
    assert unpack_plain(fragment.options[0].ray.data) == {"_labels": {"mine": "y"}}


def test_metadata_does_not_split_a_scheduling_class() -> None:
    nodes: list[Any] = [
        plain.options(**milepost.options(task_id=f"t{number}", metadata={"n": number})).bind()
        for number in range(3)
    ]

    @ray.remote
    def join(*parts: None) -> None: ...

    fragment = compiled(join.bind(*nodes))
    assert fragment.names == ("t0", "t1", "t2", fragment.names[3])
    assert len(set(fragment.node_options[:3])) == 1
    assert fragment.node_metadata == (0, 1, 2, -1)


def test_a_function_with_options_can_travel() -> None:
    dumps: Any = cloudpickle.dumps
    copy = pickle.loads(dumps(decorated))
    assert compiled(copy.bind()).names == ("named",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": 3},
        {"task_id": ""},
        {"task_id": 3},
        {"metadata": "x"},
        {"metadata": {"x": object()}},
        {"metadata": {"x": 2**70}},
        {"metadata": {"x": "\ud800"}},
        {"catch_exceptions": 1},
        {"checkpoint": "no"},
    ],
    ids=str,
)
def test_what_cannot_be_an_option_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(wrong))) as caught:
        milepost.options(**wrong)
    assert isinstance(caught.value, ValueError)


def test_only_a_remote_function_can_be_decorated() -> None:
    def bare() -> None: ...

    with pytest.raises(InvalidOptionError, match="not above an object of type function"):
        milepost.options(task_id="x")(bare)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_whether_to_store_the_value_is_kept(checkpoint: bool) -> None:
    node: Any = plain.options(**milepost.options(checkpoint=checkpoint)).bind()
    assert compiled(node).options[0].checkpoint is checkpoint


@pytest.mark.parametrize("rows", [(0, 0), (-2,), (1,)])
def test_metadata_of_no_node_or_table_is_a_fault(rows: tuple[int, ...]) -> None:
    fragment = compiled(plain.options(**milepost.options(metadata={"n": 1})).bind())
    assert find_fault(fragment) is None
    assert "node_metadata" in (find_fault(replace(fragment, node_metadata=rows)) or "")
