"""From DAGs to fragments: the order of tasks, what is stored once, and what arguments become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import ray
from ray.dag import InputNode
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from milepost.engine.arguments import ARGUMENT_BYTES_MAX, CONSTANT, REF, unpack_template
from milepost.engine.compiler import compile_dag
from milepost.engine.payloads import INLINE_BYTES_MAX, BlobCollector, deserialize, load_here
from milepost.replay.fragment import Constant, Fragment, find_fault
from milepost.replay.fragment_codec import pack_fragment, unpack_fragment
from milepost.replay.payload import Encoding, Payload, is_plain


def _task(name: str) -> Any:
    """Returns a Ray function of this name, with a body of its own."""

    def body(*positional: object, **keyword: object) -> tuple[object, ...]:
        return (name, positional, keyword)

    body.__qualname__ = body.__name__ = name
    return ray.remote(body)


f, g, h, join = (_task(name) for name in ("f", "g", "h", "join"))


class Opaque:
    """A value that is not plain data."""

    def __init__(self, content: object = None) -> None:
        self.content = content


@dataclass
class Compiled:
    """A fragment, read the way a worker reads it."""

    fragment: Fragment
    blobs: dict[bytes, bytes]

    @property
    def names(self) -> list[str]:
        """The name of each task, in order."""
        return [self.fragment.names[at].rpartition(".")[2] for at in self.fragment.node_names]

    def inputs(self, task: int) -> tuple[int, ...]:
        start = sum(self.fragment.input_counts[:task])
        return self.fragment.inputs[start : start + self.fragment.input_counts[task]]

    def arguments(self, task: int) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a task; ``value 3`` and ``ref 3`` stand for what task 3 returns."""

        def resolve(kind: int, position: int) -> Any:
            if kind == CONSTANT:
                constant = self.fragment.constants[position]
                return deserialize(constant.payload, _Source(self, constant))
            return f"{'ref' if kind == REF else 'value'} {self.inputs(task)[position]}"

        return unpack_template(self.fragment.templates[self.fragment.node_templates[task]], resolve)

    def all_arguments(self) -> list[list[Any]]:
        return [self.arguments(task)[0] for task in range(len(self.fragment.node_names))]

    def options(self, task: int) -> tuple[int, Any, dict[str, Any]]:
        """The retries of a task, which errors are retried, and its options for Ray."""
        options = self.fragment.options[self.fragment.node_options[task]]
        source = _Source(self, None)
        ray_options: dict[str, Any] = deserialize(options.ray, source)
        return options.max_retries, deserialize(options.retry_errors, source), ray_options


@dataclass
class _Source:
    compiled: Compiled
    constant: Constant | None

    def read_blob(self, payload: Payload) -> memoryview:
        return memoryview(self.compiled.blobs[payload.digest])

    def load_ref(self, payload: Payload) -> Any:
        return load_here(payload, self)

    def refer(self, position: int) -> Any:
        assert self.constant is not None
        return f"ref {self.constant.nodes[position]}"


def build(
    dag: Any, arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None
) -> Compiled:
    """Compiles, and checks what holds for every fragment."""
    blobs = BlobCollector()
    fragment = compile_dag(dag, blobs, arguments, keywords)
    assert find_fault(fragment) is None
    assert unpack_fragment(pack_fragment(fragment)) == fragment
    return Compiled(fragment, blobs.blobs)


def test_a_single_task_is_the_root() -> None:
    compiled = build(f.bind())
    assert compiled.names == ["f"]
    assert compiled.arguments(0) == ([], {})


def test_inputs_come_before_the_tasks_that_take_them_in_the_order_of_the_arguments() -> None:
    dag = join.bind(f.bind(g.bind(), h.bind()), g.bind())
    assert build(dag).names == ["g", "h", "f", "g", "join"]


def test_keyword_arguments_come_behind_positional_ones() -> None:
    compiled = build(join.bind(f.bind(), x=g.bind(), y=h.bind()))
    assert compiled.names == ["f", "g", "h", "join"]
    assert compiled.arguments(3) == (["value 0"], {"x": "value 1", "y": "value 2"})


def test_nodes_in_containers_are_numbered_where_they_stand() -> None:
    compiled = build(join.bind(f.bind(), [g.bind(), {"k": h.bind()}], f.bind()))
    assert compiled.names == ["f", "g", "h", "f", "join"]
    assert compiled.arguments(4)[0] == ["value 0", ["ref 1", {"k": "ref 2"}], "value 3"]


def test_the_same_dag_compiles_to_the_same_bytes() -> None:
    def make() -> Any:
        shared = f.bind(1)
        return join.bind([shared, g.bind(shared, Opaque("x"))], k={"a": h.bind(shared)})

    assert build(make()).fragment == build(make()).fragment


def test_tasks_that_share_a_name_are_numbered_by_the_graph_not_by_the_fragment() -> None:
    compiled = build(f.bind(f.bind(), f.bind()))
    assert compiled.names == ["f", "f", "f"]
    assert len(compiled.fragment.names) == 1


def test_a_node_taken_twice_is_one_task() -> None:
    shared = f.bind()
    compiled = build(join.bind(shared, g.bind(shared), shared))
    assert compiled.names == ["f", "g", "join"]
    assert compiled.arguments(2)[0] == ["value 0", "value 1", "value 0"]
    assert compiled.inputs(2) == (0, 1)


def test_a_node_taken_as_a_value_and_as_a_ref_is_one_input() -> None:
    shared = f.bind()
    compiled = build(join.bind(shared, [shared]))
    assert compiled.arguments(1)[0] == ["value 0", ["ref 0"]]
    assert compiled.inputs(1) == (0,)


def test_a_ladder_of_shared_nodes_stays_as_small_as_it_is() -> None:
    """Walked path by path it would have 2 ** 60 nodes."""
    node = f.bind()
    for _ in range(60):
        node = g.bind(node, node)
    assert len(build(node).names) == 61


def test_equal_nodes_that_are_not_the_same_are_two_tasks() -> None:
    assert build(join.bind(f.bind(1), f.bind(1))).names == ["f", "f", "join"]


PLAIN: list[object] = [None, True, 7, -1.5, "text", b"bytes", [1, ["two"]], {"k": {"n": []}}]


@pytest.mark.parametrize("value", PLAIN)
def test_plain_data_are_part_of_the_template_and_equal_to_what_was_bound(value: object) -> None:
    compiled = build(f.bind(value, k=value))
    assert compiled.arguments(0) == ([value], {"k": value})
    assert compiled.fragment.constants == ()


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, {1, 2}, frozenset({1}), 1 << 70, complex(1, 2), range(3), bytearray(b"x")],
)
def test_other_values_are_constants_and_keep_their_types(value: object) -> None:
    compiled = build(f.bind(value))
    (argument,) = compiled.arguments(0)[0]
    assert argument == value
    assert type(argument) is type(value)
    assert len(compiled.fragment.constants) == 1


def test_a_tuple_of_nodes_stays_a_tuple() -> None:
    compiled = build(join.bind((f.bind(), g.bind(), 3)))
    assert compiled.names == ["f", "g", "join"]
    assert compiled.arguments(2)[0] == [("ref 0", "ref 1", 3)]
    assert compiled.inputs(2) == (0, 1)


def test_nodes_inside_objects_become_refs() -> None:
    compiled = build(join.bind(Opaque([f.bind(), {"k": g.bind()}])))
    (argument,) = compiled.arguments(2)[0]
    assert isinstance(argument, Opaque)
    assert argument.content == ["ref 0", {"k": "ref 1"}]


def test_an_object_with_nodes_that_two_tasks_take_is_stored_once() -> None:
    held = Opaque(f.bind())
    compiled = build(join.bind(g.bind(held), h.bind(held)))
    assert len(compiled.fragment.constants) == 1
    assert compiled.inputs(1) == compiled.inputs(2) == (0,)


def test_constants_are_stored_once_by_identity() -> None:
    one, other = Opaque("same"), Opaque("same")
    compiled = build(join.bind(f.bind(one), g.bind(one, other), one))
    assert len(compiled.fragment.constants) == 2


def test_a_value_that_came_and_went_is_not_taken_for_another() -> None:
    """Objects made one behind the other often get the same address."""
    compiled = build(join.bind(*[f.bind(Opaque(number)) for number in range(50)]))
    seen = [compiled.arguments(task)[0][0].content for task in range(50)]
    assert seen == list(range(50))


def test_large_plain_arguments_are_constants_that_tasks_share() -> None:
    rows = list(range(ARGUMENT_BYTES_MAX))
    compiled = build(join.bind(*[f.bind(rows, number) for number in range(20)]))
    assert len(compiled.fragment.constants) == 1
    assert compiled.arguments(7)[0] == [rows, 7]
    assert compiled.fragment.constants[0].payload.encoding == Encoding.PLAIN
    assert max(map(len, compiled.fragment.templates)) < ARGUMENT_BYTES_MAX


def test_large_plain_parts_beside_nodes_are_constants_that_tasks_share() -> None:
    rows = list(range(ARGUMENT_BYTES_MAX))
    nodes = [f.bind({"node": g.bind(), "rows": rows}) for _ in range(3)]
    compiled = build(join.bind(*nodes))
    assert len(compiled.fragment.constants) == 1
    assert compiled.arguments(1)[0] == [{"node": "ref 0", "rows": rows}]
    assert max(map(len, compiled.fragment.templates)) < ARGUMENT_BYTES_MAX


def test_very_large_arguments_are_blobs() -> None:
    array = np.arange(INLINE_BYTES_MAX, dtype=np.int64)
    text = "x" * (INLINE_BYTES_MAX + 1)
    compiled = build(f.bind(array, text))
    assert len(compiled.blobs) == 2
    assert all(constant.payload.data == b"" for constant in compiled.fragment.constants)
    read = compiled.arguments(0)[0]
    assert np.array_equal(read[0], array)
    assert read[1] == text


def test_values_that_look_plain_but_are_of_a_subclass_keep_their_type() -> None:
    class Name(str):
        __slots__ = ()

    compiled = build(f.bind(Name("x")))
    assert type(compiled.arguments(0)[0][0]).__name__ == "Name"


def test_one_list_in_two_places_of_an_argument_stays_one_list() -> None:
    inner = [1]
    (argument,) = build(f.bind([inner, inner])).arguments(0)[0]
    assert argument == [[1], [1]]
    assert argument[0] is argument[1]


def test_one_list_in_two_places_beside_a_node_stays_one_list() -> None:
    inner = [1]
    (argument,) = build(f.bind([[inner], {"k": inner}, g.bind()])).arguments(1)[0]
    assert argument == [[[1]], {"k": [1]}, "ref 0"]
    assert argument[0][0] is argument[1]["k"]


def test_a_list_that_holds_itself_arrives_holding_itself() -> None:
    loop: list[object] = []
    loop.append(loop)
    (argument,) = build(f.bind(loop)).arguments(0)[0]
    assert argument[0] is argument


def test_functions_are_stored_once_however_they_are_bound() -> None:
    dag = join.bind(f.bind(1), f.options(num_cpus=2).bind(2), f.bind(3))
    assert len(build(dag).fragment.functions) == 2


def test_functions_made_by_the_same_code_are_one_unless_they_close_over_something_else() -> None:
    def make(bound: int) -> Any:
        return ray.remote(lambda *given: bound)

    dag = join.bind(make(1).bind(), make(1).bind(), make(2).bind())
    assert len(build(dag).fragment.functions) == 3


def test_equal_options_are_one_scheduling_class() -> None:
    nodes = [f.options(num_cpus=2).bind(), g.options(num_cpus=2).bind(), f.bind(), g.bind()]
    compiled = build(join.options(num_cpus=2).bind(*nodes))
    assert len(compiled.fragment.options) == 2
    assert compiled.fragment.node_options == (0, 0, 1, 1, 0)


def test_calls_of_the_same_shape_share_a_template() -> None:
    node = f.bind(0)
    for _ in range(30):
        node = g.bind(node, "literal")
    assert len(build(node).fragment.templates) == 2


def test_options_of_the_function_and_of_the_node_are_merged() -> None:
    body = ray.remote(num_cpus=3, max_retries=5)(lambda: None)
    compiled = build(body.options(resources={"gpu_disk": 1}, num_cpus=1).bind())
    assert compiled.options(0) == (5, False, {"num_cpus": 1, "resources": {"gpu_disk": 1}})


def test_every_option_of_ray_is_kept() -> None:
    strategy = NodeAffinitySchedulingStrategy("0" * 56, soft=True)
    given: dict[str, Any] = {
        "num_cpus": 0.5,
        "num_gpus": 1,
        "memory": 1 << 20,
        "resources": {"custom": 2},
        "scheduling_strategy": strategy,
        "runtime_env": {"env_vars": {"A": "b"}},
        "name": "shown in the dashboard",
    }
    kept = build(f.options(**given).bind()).options(0)[2]
    assert kept.pop("scheduling_strategy").__dict__ == strategy.__dict__
    given.pop("scheduling_strategy")
    assert {name: kept[name] for name in given} == given


def test_a_runtime_environment_is_stored_as_plain_data() -> None:
    payload = build(f.options(runtime_env={"env_vars": {"A": "b"}}).bind()).fragment.options[0].ray
    assert payload.encoding == Encoding.PLAIN


def test_a_strategy_by_name_is_kept() -> None:
    assert build(f.options(scheduling_strategy="SPREAD").bind()).options(0)[2] == {
        "scheduling_strategy": "SPREAD"
    }


@pytest.mark.parametrize("retries", [0, 1, -1])
def test_max_retries_are_the_engines_business(retries: int) -> None:
    assert build(f.options(max_retries=retries).bind()).options(0) == (retries, False, {})


def test_without_a_word_tasks_have_rays_default_retries_and_keep_errors() -> None:
    assert build(f.bind()).options(0) == (3, False, {})


class CustomError(Exception):
    pass


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (True, True),
        (False, False),
        ([ValueError, CustomError], (ValueError, CustomError)),
        ((OSError,), (OSError,)),
    ],
)
def test_which_errors_are_retried_is_kept(given: Any, kept: Any) -> None:
    assert build(f.options(retry_exceptions=given).bind()).options(0)[1:] == (kept, {})


def test_input_attributes_stand_for_arguments_by_position_and_by_name() -> None:
    with InputNode() as given:
        dag = join.bind(given[0], given.name, x=given["other"], y=f.bind(given[1]))
    compiled = build(dag, (10, 11), {"name": "ann", "other": [1]})
    assert compiled.arguments(0)[0] == [11]
    assert compiled.arguments(1) == ([10, "ann"], {"x": [1], "y": "value 0"})


def test_a_bare_input_is_all_the_input_in_one_object() -> None:
    with InputNode() as given:
        dag = f.bind(given)
    (argument,) = build(dag, (1, 2), {"x": 3}).arguments(0)[0]
    assert (argument[0], argument[1], argument["x"]) == (1, 2, 3)


def test_an_input_that_many_tasks_take_is_stored_once() -> None:
    table = Opaque("large")
    with InputNode() as given:
        dag = join.bind(*[f.bind(given.table, number) for number in range(10)])
    compiled = build(dag, (), {"table": table})
    assert len(compiled.fragment.constants) == 1


def test_an_input_can_stand_in_a_container() -> None:
    with InputNode() as given:
        dag = f.bind([given[0], {"k": given.x}])
    compiled = build(dag, (1,), {"x": (2, 3)})
    assert compiled.arguments(0)[0] == [[1, {"k": (2, 3)}]]


def test_the_input_of_one_run_does_not_leak_into_the_next() -> None:
    with InputNode() as given:
        dag = f.bind(given.x)
    assert build(dag, (), {"x": 1}).arguments(0)[0] == [1]
    assert build(dag, (), {"x": 2}).arguments(0)[0] == [2]


def test_literals_are_captured_when_the_workflow_is_compiled() -> None:
    rows = [1]
    dag = f.bind(rows)
    rows.append(2)
    compiled = build(dag)
    rows.append(3)
    assert compiled.arguments(0)[0] == [[1, 2]]


def test_nodes_put_into_a_list_after_bind_are_seen() -> None:
    nodes = [f.bind()]
    dag = join.bind(nodes, "x")
    nodes.extend([g.bind(h.bind()), f.bind()])
    compiled = build(dag)
    assert compiled.names == ["f", "h", "g", "f", "join"]
    assert compiled.arguments(4)[0] == [["ref 0", "ref 2", "ref 3"], "x"]


def test_nodes_put_into_an_object_after_bind_are_seen() -> None:
    held = Opaque([])
    dag = join.bind(held)
    held.content = [f.bind(), g.bind()]
    compiled = build(dag)
    assert compiled.names == ["f", "g", "join"]
    assert compiled.arguments(2)[0][0].content == ["ref 0", "ref 1"]


def test_a_node_taken_out_of_one_list_after_bind_is_passed_where_it_still_stands() -> None:
    shared = f.bind()
    nodes = [shared, g.bind()]
    dag = join.bind(h.bind(shared), nodes)
    nodes.remove(shared)
    compiled = build(dag)
    assert compiled.names == ["f", "h", "g", "join"]
    assert compiled.arguments(3)[0] == ["value 1", ["ref 2"]]


def test_a_chain_deeper_than_the_stack_compiles() -> None:
    node = f.bind(0)
    for _ in range(20_000):
        node = f.bind(node)
    compiled = build(node)
    assert len(compiled.names) == 20_001
    assert compiled.fragment.inputs == tuple(range(20_000))


def test_arguments_nested_deeper_than_msgpack_allows_are_constants() -> None:
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    compiled = build(f.bind(nested))
    assert compiled.arguments(0)[0] == [nested]
    assert not is_plain(nested)
