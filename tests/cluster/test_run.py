"""What a workflow computes, and the ways to start one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import ray
from ray.dag import InputNode

import milepost
from local_cluster import LocalCluster
from milepost import errors

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@ray.remote
def add(*numbers: int, bonus: int = 0) -> int:
    return sum(numbers) + bonus


@ray.remote
def write(ledger: Path, text: str, *inputs: Any) -> str:
    with ledger.open("a") as file:
        file.write(f"{text}\n")
    return text


@ray.remote
def count_down(left: int, total: int = 0) -> Any:
    if left == 0:
        return total
    return milepost.continuation(count_down.bind(left - 1, total + left))


@ray.remote
def fibonacci(n: int) -> Any:
    if n < 2:
        return n
    return milepost.continuation(add.bind(fibonacci.bind(n - 1), fibonacci.bind(n - 2)))


def test_a_run_returns_what_the_root_returns(workflow_id: str) -> None:
    dag = add.bind(add.bind(1, 2), 3, bonus=add.bind(4))
    assert milepost.run(dag, workflow_id=workflow_id) == 10
    assert milepost.get_status(workflow_id) == "SUCCESSFUL"
    assert milepost.get_output(workflow_id) == 10


def test_a_shared_node_runs_once(workflow_id: str, ledger: Path) -> None:
    shared = write.bind(ledger, "shared")
    dag = write.bind(
        ledger, "last", shared, [shared], write.bind(ledger, "left", shared), {"k": shared}
    )
    milepost.run(dag, workflow_id=workflow_id)
    assert sorted(ledger.read_text().split()) == ["last", "left", "shared"]


def test_nodes_inside_containers_arrive_as_refs(workflow_id: str) -> None:
    @ray.remote
    def describe(top: int, listed: list[Any], named: dict[str, list[Any]]) -> list[Any]:
        refs = isinstance(listed[0], ray.ObjectRef) and isinstance(named["k"][0], ray.ObjectRef)
        return [refs, top, ray.get(listed), ray.get(named["k"][0])]

    one, two = add.bind(1), add.bind(2)
    dag = describe.bind(one, [one, two], {"k": [two]})
    assert milepost.run(dag, workflow_id=workflow_id) == [True, 1, [1, 2], 2]


def test_nodes_inside_objects_arrive_as_refs(workflow_id: str) -> None:
    class Box:
        def __init__(self, content: Any) -> None:
            self.content = content

    @ray.remote
    def unbox(box: Any) -> int:
        return int(ray.get(box.content)) + 1

    assert milepost.run(unbox.bind(Box(add.bind(1))), workflow_id=workflow_id) == 2


def test_refs_as_arguments_are_resolved_at_the_top_and_kept_inside(workflow_id: str) -> None:
    @ray.remote
    def describe(top: int, listed: list[Any]) -> list[Any]:
        return [top, isinstance(listed[0], ray.ObjectRef), ray.get(listed[0])]

    dag = describe.bind(ray.put(1), [ray.put(2)])
    assert milepost.run(dag, workflow_id=workflow_id) == [1, True, 2]


def test_a_returned_ref_is_a_ref_in_the_next_task_and_in_the_output(workflow_id: str) -> None:
    @ray.remote
    def wrap() -> Any:
        return ray.put("inside")

    @ray.remote
    def unwrap(ref: Any) -> list[Any]:
        return [isinstance(ref, ray.ObjectRef), ray.get(ref)]

    assert milepost.run(unwrap.bind(wrap.bind()), workflow_id=workflow_id) == [True, "inside"]
    stored = milepost.get_output(workflow_id, task_id=f"{__name__}.{_local('wrap')}")
    assert ray.get(stored) == "inside"


def _local(name: str) -> str:
    return f"test_a_returned_ref_is_a_ref_in_the_next_task_and_in_the_output.locals.{name}"


def test_input_nodes_stand_for_what_run_is_given(workflow_id: str) -> None:
    with InputNode() as given:
        dag = add.bind(given[0], given[1], bonus=given.extra)
    assert milepost.run(dag, 1, 2, extra=3, workflow_id=workflow_id) == 6


def test_ray_options_count_on_function_and_node(workflow_id: str) -> None:
    @ray.remote(num_cpus=2)
    def two_cpus() -> float:
        return float(ray.get_runtime_context().get_assigned_resources()["CPU"])

    @ray.remote
    def variable() -> str | None:
        import os

        return os.environ.get("MILEPOST_TEST")

    @ray.remote
    def both(*values: Any) -> list[Any]:
        return list(values)

    dag = both.bind(
        two_cpus.bind(),
        two_cpus.options(num_cpus=1).bind(),
        variable.options(runtime_env={"env_vars": {"MILEPOST_TEST": "set"}}).bind(),
    )
    assert milepost.run(dag, workflow_id=workflow_id) == [2.0, 1.0, "set"]


def test_continuations_nest_and_branch(workflow_id: str) -> None:
    assert milepost.run(fibonacci.bind(7), workflow_id=workflow_id) == 13
    name = f"{__name__}.fibonacci"
    assert milepost.get_output(workflow_id, task_id=name) == 13
    assert milepost.get_output(workflow_id, task_id=f"{name}_1") == 8


def test_recursion_a_thousand_deep_works(workflow_id: str) -> None:
    assert milepost.run(count_down.bind(1000), workflow_id=workflow_id) == 500_500


def test_a_continuation_works_in_plain_ray_too(storage: Path) -> None:
    assert ray.get(fibonacci.remote(5)) == 5


def test_task_ids_are_numbered_with_dependencies_first(workflow_id: str) -> None:
    milepost.run(add.bind(add.bind(1), add.bind(2), add.bind(3)), workflow_id=workflow_id)
    name = f"{__name__}.add"
    ids = [name, f"{name}_1", f"{name}_2", f"{name}_3"]
    outputs = [milepost.get_output(workflow_id, task_id=task_id) for task_id in ids]
    assert outputs == [1, 2, 3, 6]


def test_a_task_cannot_change_what_another_task_gets(workflow_id: str) -> None:
    @ray.remote
    def make() -> list[int]:
        return [1]

    @ray.remote
    def change(numbers: list[int]) -> list[int]:
        numbers.append(2)
        return numbers

    @ray.remote
    def collect(*values: Any) -> list[Any]:
        return list(values)

    made = make.bind()
    dag = collect.bind(*[change.bind(made) for _ in range(20)])
    assert milepost.run(dag, workflow_id=workflow_id) == [[1, 2]] * 20


def test_large_values_pass_without_copies_and_are_stored_once(
    workflow_id: str, storage: Path
) -> None:
    @ray.remote
    def make() -> Any:
        return np.arange(1 << 17)

    @ray.remote
    def use(array: Any, again: Any, inside: list[Any]) -> list[Any]:
        return [int(array.sum()), bool(array.flags.writeable), bool((again == array).all())]

    made = make.bind()
    dag = use.bind(made, made, [made])
    assert milepost.run(dag, workflow_id=workflow_id) == [8589869056, False, True]
    blobs = list((storage / "blobs" / workflow_id).iterdir())
    assert len(blobs) == 1
    stored = milepost.get_output(workflow_id, task_id=_make_id())
    assert not stored.flags.owndata
    assert int(stored.sum()) == 8589869056


def _make_id() -> str:
    test = "test_large_values_pass_without_copies_and_are_stored_once"
    return f"{__name__}.{test}.locals.make"


def test_strict_durability_gives_the_same_result(workflow_id: str) -> None:
    dag = add.bind(*[add.bind(i, add.bind(1)) for i in range(20)])
    assert milepost.run(dag, workflow_id=workflow_id, durability="strict") == 210


def test_run_async_returns_a_ref_to_the_result(workflow_id: str) -> None:
    ref = milepost.run_async(add.bind(1, 2), workflow_id=workflow_id)
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(ref) == 3
    assert ray.get(milepost.get_output_async(workflow_id)) == 3


def test_an_output_can_be_asked_for_before_its_task_exists(workflow_id: str, ledger: Path) -> None:
    @ray.remote
    def wait_for(path: Path) -> Any:
        import time

        while not path.read_text():
            time.sleep(0.01)
        return milepost.continuation(add.bind(1, 2))

    milepost.run_async(wait_for.bind(ledger), workflow_id=workflow_id)
    late = milepost.get_output_async(workflow_id, task_id=f"{__name__}.add")
    done, _ = ray.wait([late], timeout=0.5)
    assert not done
    ledger.write_text("go")
    assert ray.get(late) == 3


def test_run_works_from_a_task_an_actor_and_a_thread(workflow_id: str) -> None:
    @ray.remote(num_cpus=0)
    def from_task() -> Any:
        return milepost.run(add.bind(1), workflow_id=f"{workflow_id} task")

    @ray.remote(num_cpus=0)
    class Caller:
        def call(self) -> Any:
            return milepost.run(add.bind(2), workflow_id=f"{workflow_id} actor")

    results: list[Any] = []

    def from_thread() -> None:
        results.append(milepost.run(add.bind(3), workflow_id=f"{workflow_id} thread"))

    thread = threading.Thread(target=from_thread)
    thread.start()
    thread.join()
    caller: Any = Caller.remote()  # type: ignore[attr-defined]
    assert [ray.get(from_task.remote()), ray.get(caller.call.remote()), *results] == [1, 2, 3]


def test_a_workflow_can_start_another(workflow_id: str) -> None:
    @ray.remote
    def start() -> Any:
        return milepost.run(add.bind(5), workflow_id=f"{workflow_id} inner")

    assert milepost.run(start.bind(), workflow_id=workflow_id) == 5


def test_the_workflow_goes_on_without_its_driver(
    workflow_id: str, storage: Path, run_driver: Callable[[str], subprocess.Popen[str]]
) -> None:
    driver = run_driver(f"""
        import os, time, ray, milepost
        ray.init(log_to_driver=False)

        @ray.remote
        def slow(given):
            time.sleep(0.5)
            return given["value"]

        @ray.remote
        def double(value):
            return [value, value]

        milepost.run_async(double.bind(slow.bind({{"value": (1, 2)}})), workflow_id={workflow_id!r})
        print("started", flush=True)
        os.kill(os.getpid(), 9)
    """)
    assert driver.communicate(timeout=60)[0] == "started\n"
    assert milepost.get_output(workflow_id) == [(1, 2), (1, 2)]


def test_modules_beside_the_driver_are_found_by_its_tasks(
    workflow_id: str,
    storage: Path,
    tmp_path: Path,
    run_driver: Callable[[str], subprocess.Popen[str]],
) -> None:
    (tmp_path / "helper_of_this_driver.py").write_text("def triple(x): return 3 * x\n")
    driver = run_driver(f"""
        import ray, milepost, helper_of_this_driver
        ray.init(log_to_driver=False)
        triple = ray.remote(helper_of_this_driver.triple)
        print(milepost.run(triple.bind(2), workflow_id={workflow_id!r}))
    """)
    assert driver.communicate(timeout=60)[0] == "6\n"


def test_workers_are_kept_when_the_driver_that_started_the_engine_has_ended(
    tmp_path: Path,
) -> None:
    """Ray kills idle workers of a job that has ended; each pause would cost a process."""
    script = f"""
import os, ray, milepost
ray.init(log_to_driver=False)
milepost.init(storage={str(tmp_path / "store")!r})

@ray.remote
def step(pids):
    return sorted({{*pids, os.getpid()}})

node = step.bind([])
for _ in range(50):
    node = step.bind(node)
print(len(milepost.run(node)))
"""
    (tmp_path / "driver.py").write_text(script)
    command = [sys.executable, str(tmp_path / "driver.py")]
    with LocalCluster(num_cpus=2) as fresh:
        for _ in range(2):
            done = subprocess.run(
                command, env=fresh.environment, capture_output=True, text=True, timeout=90
            )
            assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 3


def test_the_same_id_gives_the_stored_result_and_says_if_the_tasks_differ(
    workflow_id: str, ledger: Path
) -> None:
    milepost.run(write.bind(ledger, "once"), workflow_id=workflow_id)
    assert milepost.run(write.bind(ledger, "once"), workflow_id=workflow_id) == "once"
    with pytest.warns(UserWarning, match="exists with other tasks"):
        assert milepost.run(add.bind(1), workflow_id=workflow_id) == "once"
    assert ledger.read_text() == "once\n"


def test_a_running_workflow_is_not_started_twice(workflow_id: str, ledger: Path) -> None:
    @ray.remote
    def wait_for(path: Path) -> str:
        import time

        while not path.read_text():
            time.sleep(0.01)
        return "done"

    ref = milepost.run_async(wait_for.bind(ledger), workflow_id=workflow_id)
    assert milepost.get_status(workflow_id) == milepost.RUNNING
    assert (workflow_id, milepost.RUNNING) in milepost.list_all("RUNNING")
    with pytest.raises(errors.WorkflowActiveError, match="already running"):
        milepost.run(add.bind(1), workflow_id=workflow_id)
    with pytest.raises(errors.WorkflowActiveError, match="cannot resume"):
        milepost.resume(workflow_id)
    ledger.write_text("go")
    assert ray.get(ref) == "done"


@pytest.mark.parametrize("odd_id", ["a/b", "..", "white space", "ünï/cødé 😀", ".hidden"])
def test_odd_ids_run_and_are_listed(storage: Path, odd_id: str) -> None:
    assert milepost.run(add.bind(1), workflow_id=odd_id) == 1
    assert (odd_id, milepost.SUCCESSFUL) in milepost.list_all(milepost.SUCCESSFUL)


def test_many_workflows_run_side_by_side(storage: Path) -> None:
    refs = [
        milepost.run_async(add.bind(add.bind(i), 1), workflow_id=f"many-{i}") for i in range(50)
    ]
    assert ray.get(refs) == [i + 1 for i in range(50)]
    listed = dict(milepost.list_all({"SUCCESSFUL"}))
    assert all(f"many-{i}" in listed for i in range(50))


def test_changed_arguments_and_code_under_a_known_id_are_told(workflow_id: str) -> None:
    def make(factor: int) -> Any:
        namespace: dict[str, Any] = {}
        exec(f"def scale(x):\n    return x * {factor}", {"__name__": "made"}, namespace)
        return ray.remote(namespace["scale"])

    assert milepost.run(make(2).bind(3), workflow_id=workflow_id) == 6
    assert milepost.run(make(2).bind(3), workflow_id=workflow_id) == 6
    with pytest.warns(UserWarning, match="with other arguments;"):
        milepost.run(make(2).bind(4), workflow_id=workflow_id)
    with pytest.warns(UserWarning, match="with other code;"):
        milepost.run(make(5).bind(3), workflow_id=workflow_id)
    with pytest.warns(UserWarning, match="with other arguments and code;"):
        milepost.run(make(5).bind(4), workflow_id=workflow_id)
