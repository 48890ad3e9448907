"""Parity with ray.workflow: limits on how many workflows run and wait, and what outlives whom."""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray
from ray.exceptions import GetTimeoutError

import milepost
from local_cluster import LocalCluster
from milepost import errors
from milepost.engine import session

cloudpickle.register_pickle_by_value(sys.modules[__name__])

RUNNING, PENDING, SUCCESSFUL = "RUNNING", "PENDING", "SUCCESSFUL"


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


@pytest.fixture
def use_store(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Connects this process to a store of the test's own, with these limits."""
    monkeypatch.setattr(session, "_session", None)

    def use(running: int | None = None, pending: int | None = None) -> None:
        milepost.init(
            storage=str(tmp_path / "limited"),
            max_running_workflows=running,
            max_pending_workflows=pending,
        )

    yield use
    if session._session is not None:
        for actor in (session._session.manager, *session._session.dispatchers):
            ray.kill(actor)


@ray.remote(num_cpus=0)
def pass_gate(folder: Path, name: str) -> str:
    (folder / f"{name}.began").touch()
    while not (folder / name).exists():
        time.sleep(0.02)
    return name


def start(folder: Path, names: str) -> dict[str, Any]:
    return {
        name: milepost.run_async(pass_gate.bind(folder, name), workflow_id=name) for name in names
    }


def statuses() -> dict[str, str]:
    return {name: status.value for name, status in milepost.list_all()}


@pytest.mark.parity("test_workflow_queuing.py::test_workflow_concurrency_limit_argument")
def test_limits_are_checked_before_anything_is_started() -> None:
    init: Any = milepost.init
    with pytest.raises(TypeError):
        init(1, 2)
    for kind in (TypeError, ValueError):
        wrong: list[Any] = ["1", 1.5, True] if kind is TypeError else [0, -2]
        for value in wrong:
            with pytest.raises(kind):
                init(max_running_workflows=value)
    with pytest.raises(ValueError, match="max_pending"):
        init(max_pending_workflows=-2)


@pytest.mark.parity("test_workflow_queuing.py::test_workflow_concurrency_limit_reinit")
def test_a_second_init_may_repeat_limits_and_not_change_them(
    use_store: Callable[..., None],
) -> None:
    use_store(9, 14)
    for same in ((9, 14), (None, 14), (9, None), (None, None)):
        use_store(*same)
    for other in ((8, 14), (9, 15), (8, 15), (-1, None)):
        with pytest.raises(ValueError, match="conflicts with"):
            use_store(*other)


@pytest.mark.parity(
    "test_workflow_queuing.py::test_workflow_queuing_1",
    "test_workflow_queuing.py::test_workflow_queuing_2",
)
def test_two_run_two_wait_the_next_is_refused_without_a_trace_and_all_outputs_arrive(
    use_store: Callable[..., None], tmp_path: Path
) -> None:
    use_store(2, 2)
    refs = start(tmp_path, "abcd")
    expected = {"a": RUNNING, "b": RUNNING, "c": PENDING, "d": PENDING}
    assert statuses() == expected
    assert [milepost.get_status(name).value for name in "abcd"] == list(expected.values())
    with pytest.raises(queue.Full, match="has been full"):
        start(tmp_path, "e")
    assert statuses() == expected
    with pytest.raises(errors.WorkflowNotFoundError):
        milepost.get_status("e")
    outputs = {name: milepost.get_output_async(name) for name in "abcd"}
    (tmp_path / "b").touch()
    assert ray.get(refs["b"]) == "b"
    wait_until(lambda: milepost.get_status("c") == RUNNING)
    refs |= start(tmp_path, "e")
    assert milepost.get_status("e") == PENDING
    for name in "acde":
        (tmp_path / name).touch()
    assert ray.get(list(refs.values())) == list("abcde")
    assert ray.get(list(outputs.values())) == list("abcd")
    assert set(statuses().values()) == {SUCCESSFUL}


@pytest.mark.parity("test_workflow_queuing.py::test_workflow_queuing_3")
def test_what_waits_runs_nothing_and_is_canceled_at_once(
    use_store: Callable[..., None], tmp_path: Path
) -> None:
    use_store(1, -1)
    refs = start(tmp_path, "abc")
    wait_until(lambda: (tmp_path / "a.began").exists())
    with pytest.raises(GetTimeoutError):
        ray.get(refs["b"], timeout=1)
    assert sorted(each.stem for each in tmp_path.glob("*.began")) == ["a"]
    assert milepost.get_metadata("b")["stats"] == {}
    began = time.monotonic()
    milepost.cancel("b")
    assert time.monotonic() - began < 5
    with pytest.raises(errors.WorkflowCancellationError):
        ray.get(refs["b"])
    (tmp_path / "a").touch()
    (tmp_path / "c").touch()
    assert ray.get([refs["a"], refs["c"]]) == ["a", "c"]
    assert not (tmp_path / "b.began").exists()


@pytest.mark.parametrize("actors", [("Manager",), ("Dispatcher",), ("Manager", "Dispatcher")])
def test_limits_and_turns_outlive_the_actors(
    use_store: Callable[..., None],
    tmp_path: Path,
    kill_actor: Callable[[str], int],
    actors: tuple[str, ...],
) -> None:
    use_store(1, 1)
    refs = start(tmp_path, "ab")
    for each in actors:
        assert kill_actor(each)
    outputs = [milepost.get_output_async(name) for name in "ab"]  # somebody asks, so it goes on
    wait_until(lambda: statuses() == {"a": RUNNING, "b": PENDING})
    with pytest.raises(queue.Full):
        start(tmp_path, "c")
    (tmp_path / "a").touch()
    assert ray.get(refs["a"]) == "a"
    wait_until(lambda: milepost.get_status("b") == RUNNING)
    (tmp_path / "b").touch()
    assert ray.get([refs["b"], *outputs]) == ["b", "a", "b"]
    with pytest.raises(errors.ConflictingInitError):
        use_store(2, 1)


JOB = """
import sys, time, ray, milepost
from pathlib import Path
folder = Path(sys.argv[1])
ray.init(log_to_driver=False)
milepost.init(storage=str(folder / "store"), max_running_workflows=2, max_pending_workflows=2)

@ray.remote(num_cpus=0)
def pass_gate(name):
    while not (folder / "gate").exists():
        time.sleep(0.02)
    return name

if sys.argv[2] == "run":
    refs = [milepost.run_async(pass_gate.bind(name), workflow_id=name) for name in "dcba"]
    (folder / "b").touch()
else:
    refs = dict(milepost.resume_all())
print(*(status.value for _, status in milepost.list_all()), flush=True)
if sys.argv[2] == "resume":
    (folder / "gate").touch()
    print(*sorted(ray.get(list(refs.values()))), flush=True)
"""


@pytest.mark.parity("test_workflow_queuing.py::test_workflow_queuing_resume_all")
def test_on_a_fresh_cluster_the_same_ones_run_and_wait(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)

    def run(cluster: LocalCluster, what: str) -> list[str]:
        command = [sys.executable, "job.py", str(tmp_path), what]
        environment = cluster.environment | {"MILEPOST_LEASE_S": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, timeout=120
        )
        return done.stdout.splitlines()

    with LocalCluster(num_cpus=1) as first:
        assert run(first, "run") == ["PENDING PENDING RUNNING RUNNING"]
        first.kill()
    with LocalCluster(num_cpus=1) as second:
        assert run(second, "resume") == ["PENDING PENDING RUNNING RUNNING", "a b c d"]
