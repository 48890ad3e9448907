"""What a worker makes of an order: values of their own for every task, errors as data, in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray

from milepost.engine import executor, references, supply
from milepost.engine.context import current_task
from milepost.engine.executor import run_slice
from milepost.engine.payloads import INLINE_BYTES_MAX, deserialize
from milepost.engine.supply import TEXT_CHARS_MAX
from milepost.engine.watching import REPORT_INTERVAL_S
from milepost.errors import StorageUnavailableError
from milepost.replay.payload import Encoding, Payload, unpack_plain
from slice_bench import Bench, fail_with, gather, task

if TYPE_CHECKING:
    from tests.engine.conftest import Disk, Objects


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "describe_worker", lambda: "node:1")


@pytest.fixture
def bench(disk: Disk) -> Bench:
    return Bench(disk)


def test_results_are_reported_in_columns(bench: Bench) -> None:
    double = task(lambda number: number * 2)
    outcome = bench.attempt(gather(double.bind(1), double.bind(2)), 0, 1)
    (report,) = outcome.reports
    assert outcome.values == {0: 2, 1: 4}
    assert (report.tasks, report.attempts, report.objects) == ([0, 1], [2, 2], [])
    assert all(started > 1_600_000_000_000_000 for started in report.started_us)
    assert all(0 <= duration < 10_000_000 for duration in report.durations_us)
    assert not report.raised
    assert not report.continued


def test_plain_results_can_be_read_without_pickle(bench: Bench) -> None:
    payload = bench.attempt(gather(task(lambda: {"rows": [1, None]}).bind()), 0).payloads[0]
    assert payload.encoding == Encoding.PLAIN
    assert unpack_plain(payload.data) == {"rows": [1, None]}


def test_arguments_arrive_as_they_were_bound(bench: Bench) -> None:
    def take(a: Any, b: Any, *, c: Any, d: Any) -> Any:
        return [a, list(b), c, d is Ellipsis]

    dag = task(take).bind(task(lambda: None).bind(), (1, 2), c={"k": [3]}, d=Ellipsis)
    assert bench.attempt(dag, 1, values={0: "input"}).values[1] == [
        "input",
        [1, 2],
        {"k": [3]},
        True,
    ]


def test_a_large_result_goes_out_as_an_object_behind_its_report_and_as_a_blob(
    bench: Bench,
) -> None:
    outcome = bench.attempt(gather(task(lambda: np.arange(50_000)).bind()), 0)
    assert outcome.reports[0].objects == [0]
    assert outcome.payloads[0].digest
    assert np.array_equal(outcome.objects[0], np.arange(50_000))
    assert np.array_equal(outcome.values[0], np.arange(50_000))


@pytest.mark.parametrize("length", [INLINE_BYTES_MAX - 100, INLINE_BYTES_MAX + 100])
def test_exactly_what_is_a_blob_is_an_object(bench: Bench, length: int) -> None:
    outcome = bench.attempt(gather(task(lambda: b"x" * length).bind()), 0)
    assert bool(outcome.payloads[0].digest) is (0 in outcome.objects) is (length > INLINE_BYTES_MAX)


def test_what_a_later_task_does_to_a_large_result_changes_neither_blob_nor_object(
    bench: Bench,
) -> None:
    """One returns a list that it keeps, the other clears it."""
    kept = list(range(50_000))
    functions = iter((lambda: kept, kept.clear))
    order = bench.order(gather(task(lambda: 1).bind(), task(lambda: 2).bind()), (0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "load_function", lambda function, source: next(functions))
        outcome = bench.run(order)
    assert kept == []
    assert outcome.values[0] == outcome.objects[0] == list(range(50_000))


def grow(given: Any) -> Any:
    """Changes its argument."""
    given.append("mine")
    return list(given)


def test_a_task_that_changes_its_input_does_not_change_its_companions(bench: Bench) -> None:
    source = task(lambda: None).bind()
    dag = gather(task(grow).bind(source), task(grow).bind(source))
    outcome = bench.attempt(dag, 1, 2, values={0: ["input"]})
    assert outcome.values == {1: ["input", "mine"], 2: ["input", "mine"]}


def test_a_task_that_changes_a_literal_does_not_change_its_companions(bench: Bench) -> None:
    literal = ["literal"]
    dag = gather(task(grow).bind(literal), task(grow).bind(literal))
    assert bench.attempt(dag, 0, 1).values == {0: ["literal", "mine"], 1: ["literal", "mine"]}


@pytest.mark.parametrize("content", [("small",), range(50_000)], ids=["inline", "blob"])
def test_a_task_that_changes_a_constant_does_not_change_its_companions(
    bench: Bench, content: Any
) -> None:
    constant = [set(content)]
    dag = gather(task(grow).bind(constant), task(grow).bind(constant))
    values = bench.attempt(dag, 0, 1).values
    assert values[0] == values[1] == [set(content), "mine"]


def test_a_task_that_changes_an_object_does_not_change_its_companions(
    bench: Bench, objects: Objects
) -> None:
    ref = objects.put(["object"])
    source = task(lambda: None).bind()
    nodes = [task(grow).bind(source) for _ in range(3)]
    order = bench.order(gather(*nodes), (1, 2, 3), refs={0: ref})
    outcome = bench.run(order, objects.get(ref), refs=[ref])
    assert list(outcome.values.values()) == [["object", "mine"]] * 3
    assert len(objects.gets) == 3, "the one that Ray fetched is used, too"


def test_nodes_in_containers_arrive_as_refs_made_once_per_slice(
    bench: Bench, objects: Objects
) -> None:
    source = task(lambda: None).bind()
    read = task(lambda given: ray.get(given[0]))
    outcome = bench.attempt(
        gather(read.bind([source]), read.bind((source,))), 1, 2, values={0: {"a": 1}}
    )
    assert outcome.values == {1: {"a": 1}, 2: {"a": 1}}
    assert len(set(objects.gets)) == 1


def test_nodes_in_containers_that_are_objects_arrive_as_those(
    bench: Bench, objects: Objects
) -> None:
    ref = objects.put("large")
    source = task(lambda: None).bind()
    dag = gather(task(lambda given: str(given["k"])).bind({"k": source}))
    order = bench.order(dag, (1,), refs={0: ref})
    assert bench.run(order, "large", refs=[ref]).values == {1: str(ref)}


def test_an_error_is_reported_with_type_text_traceback_and_itself(bench: Bench) -> None:
    def lookup(table: dict[str, int]) -> int:
        return table["missing"]

    raised = bench.attempt(gather(task(lookup).bind({})), 0).raised[0]
    assert (raised.attempt, raised.error.kind, raised.error.type) == (
        2,
        "exception",
        "builtins.KeyError",
    )
    assert raised.error.message == "'missing'"
    assert 'table["missing"]' in raised.error.traceback
    assert "lookup" in raised.error.traceback
    assert "milepost/engine" not in raised.error.traceback
    assert raised.error.exception is not None
    error = deserialize(raised.error.exception, bench.disk)
    assert type(error) is KeyError
    assert error.args == ("missing",)


def test_causes_are_told_in_the_traceback(bench: Bench) -> None:
    def fail() -> None:
        try:
            raise OSError("the first")
        except OSError as error:
            raise ValueError("the second") from error

    text = bench.attempt(gather(task(fail).bind()), 0).raised[0].error.traceback
    assert text.index("the first") < text.index("the second")


def test_an_error_does_not_keep_its_companions_from_running(bench: Bench) -> None:
    good, bad = task(lambda: "good"), fail_with(lambda: ValueError("bad"))
    outcome = bench.attempt(gather(bad.bind(), good.bind(), bad.bind(), good.bind()), 0, 1, 2, 3)
    assert outcome.values == {1: "good", 3: "good"}
    assert set(outcome.raised) == {0, 2}


class ExitLikeError(BaseException):
    """Not an ``Exception``."""


@pytest.mark.parametrize(
    "error",
    [
        lambda: SystemExit(3),
        lambda: SystemExit(),
        lambda: asyncio.CancelledError(),
        lambda: ExitLikeError(),
        lambda: GeneratorExit(),
        lambda: StopIteration(1),
        lambda: MemoryError(),
        lambda: RecursionError("deep"),
    ],
)
def test_whatever_a_task_raises_is_the_failure_of_that_task(
    bench: Bench, error: Callable[[], BaseException]
) -> None:
    good = task(lambda: "good")
    outcome = bench.attempt(gather(fail_with(error).bind(), good.bind()), 0, 1)
    assert outcome.raised[0].error.type.endswith(type(error()).__qualname__)
    assert outcome.values == {1: "good"}


def end_by_ray() -> None:
    """Does what Ray does in a worker that gets a SIGTERM: its node is going down."""
    raylet: Any = ray._raylet
    raylet.raise_sys_exit_with_custom_error_message("The process receives a SIGTERM.")


@pytest.mark.parametrize("raising", [end_by_ray, lambda: (_ for _ in ()).throw(KeyboardInterrupt)])
def test_what_ray_raises_in_a_task_is_not_its_failure(
    bench: Bench, raising: Callable[[], None]
) -> None:
    order = bench.order(gather(task(lambda: None).bind()), (0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "load_function", lambda function, source: raising)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            bench.run(order)


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class LockedError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def test_an_error_that_cannot_be_pickled_is_told_by_its_text(bench: Bench) -> None:
    error = bench.attempt(gather(fail_with(LockedError).bind()), 0).raised[0].error
    assert error.exception is None
    assert error.type.endswith("LockedError")
    assert error.message == "locked"
    assert "raise error()" in error.traceback


def test_an_error_without_a_text_is_told_by_its_type(bench: Bench) -> None:
    error = bench.attempt(gather(fail_with(SpeechlessError).bind()), 0).raised[0].error
    assert error.type.endswith("SpeechlessError")
    assert error.message


def test_texts_of_errors_are_cut_and_can_be_stored(bench: Bench) -> None:
    fail = fail_with(lambda: ValueError("\ud800" + "x" * 10 * TEXT_CHARS_MAX))
    error = bench.attempt(gather(fail.bind()), 0).raised[0].error
    assert len(error.message) <= TEXT_CHARS_MAX
    assert len(error.traceback) <= TEXT_CHARS_MAX
    error.message.encode()
    error.traceback.encode()


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda: threading.Lock(), "lock"),
        (lambda: (_ for _ in ()), "generator"),
        (lambda: [task(grow).bind([])], "continuation"),
    ],
)
def test_a_result_that_cannot_be_stored_is_the_failure_of_its_task(
    bench: Bench, result: Callable[[], Any], words: str
) -> None:
    outcome = bench.attempt(gather(task(result).bind(), task(lambda: "good").bind()), 0, 1)
    assert outcome.raised[0].error.type == "milepost.errors.NotSerializableError"
    assert words in outcome.raised[0].error.message
    assert outcome.values == {1: "good"}


def test_code_that_cannot_be_loaded_is_the_failure_of_its_task(bench: Bench) -> None:
    order = bench.order(gather(task(lambda: 1).bind(), task(lambda: 2).bind()), (0, 1))
    gone = Payload(encoding=1, data=b"cno_such_module_here\nf\n.", size=24)
    functions = {**order.functions, 0: replace(order.functions[0], code=gone, digest=b"gone")}
    outcome = bench.run(replace(order, functions=functions))
    assert outcome.raised[0].error.type == "builtins.ModuleNotFoundError"
    assert outcome.values == {1: 2}


def test_an_input_whose_blob_is_gone_is_the_failure_of_its_task(bench: Bench) -> None:
    dag = task(lambda given: given).bind(task(lambda: None).bind())
    order = bench.order(dag, (1,))
    gone = Payload(encoding=0, digest=b"d" * 32, size=100_000)
    outcome = bench.run(replace(order, values={0: gone}))
    assert outcome.raised[1].error.type == "milepost.errors.CorruptBlobError"


class CustomError(ValueError):
    """An error of the user's."""


@pytest.mark.parametrize(
    ("policy", "error", "retryable"),
    [
        (None, ValueError, False),
        (False, ValueError, False),
        (True, ValueError, True),
        (True, SystemExit, True),
        ([ValueError], ValueError, True),
        ([ValueError], CustomError, True),
        ([CustomError], ValueError, False),
        ([KeyError, CustomError], CustomError, True),
        ([], ValueError, False),
    ],
)
def test_the_policy_of_the_task_says_which_errors_are_retried(
    bench: Bench, policy: Any, error: type[BaseException], retryable: bool
) -> None:
    options = {} if policy is None else {"retry_exceptions": policy}
    node = fail_with(lambda: error("no")).options(**options).bind()
    assert bench.attempt(gather(node), 0).raised[0].retryable is retryable


def test_a_policy_that_cannot_be_loaded_here_retries_nothing(bench: Bench) -> None:
    order = bench.order(gather(fail_with(lambda: ValueError("no")).bind()), (0,))
    gone = Payload(encoding=1, data=b"cno_such_module_here\nE\n.", size=24)
    raised = bench.run(replace(order, retry_errors=gone)).raised[0]
    assert not raised.retryable
    assert raised.error.type == "builtins.ValueError"


def test_a_storage_that_fails_is_always_worth_another_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise StorageUnavailableError("put", "blobs/x", "the disk is full")

    order = bench.order(gather(task(lambda: b"x" * 100_000).bind()), (0,))
    monkeypatch.setattr(references, "put_blob", full)
    raised = bench.run(order).raised[0]
    assert raised.retryable
    assert "disk is full" in raised.error.message


def test_a_continuation_is_reported_as_a_graph(bench: Bench) -> None:
    step = task(lambda number: number)
    outcome = bench.attempt(gather(task(lambda: step.bind(step.bind(1))).bind()), 0)
    assert outcome.payloads == {}
    assert outcome.continued[0].input_counts == (0, 1)
    assert outcome.reports[0].continued[0].attempt == 2


def test_large_constants_of_a_continuation_are_blobs_before_it_is_reported(bench: Bench) -> None:
    step = task(lambda rows: len(rows))
    outcome = bench.attempt(gather(task(lambda: step.bind(np.arange(50_000))).bind()), 0)
    (constant,) = outcome.continued[0].constants
    assert constant.payload.digest
    assert len(deserialize(constant.payload, bench.disk)) == 50_000


actor: Any = ray.remote(threading.Thread)


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (lambda: actor.bind(), "InvalidGraphError"),
        (lambda: ray.dag.InputNode(), "InvalidGraphError"),
        (lambda: task(lambda a: a).bind(), "SignatureMismatchError"),
        (
            lambda: task(lambda: threading.Lock()).options(num_returns=2).bind(),
            "InvalidOptionError",
        ),
    ],
)
def test_a_continuation_that_does_not_compile_is_the_failure_of_its_task(
    bench: Bench, returned: Callable[[], Any], kind: str
) -> None:
    outcome = bench.attempt(gather(task(returned).bind(), task(lambda: "good").bind()), 0, 1)
    assert outcome.raised[0].error.type == f"milepost.errors.{kind}"
    assert outcome.values == {1: "good"}


@pytest.mark.parametrize(
    ("spent", "reports"),
    [
        ([0.0] * 5, [5]),
        ([1.0] * 3, [1, 1, 1]),
        ([0.02] * 6, [3, 3]),
        ([0.02] * 7, [3, 3, 1]),
        ([0.0, 0.0, 1.0, 0.0], [3, 1]),
        ([REPORT_INTERVAL_S], [1]),
    ],
)
def test_what_is_done_is_reported_before_long_and_never_an_empty_report(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, spent: list[float], reports: list[int]
) -> None:
    clock = [100.0]

    def spend(seconds: float) -> float:
        clock[0] += seconds
        return seconds

    dag = gather(*[task(spend).bind(seconds) for seconds in spent])
    monkeypatch.setattr("milepost.engine.executor.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(executor, "load_function", lambda function, source: spend)
    outcome = bench.attempt(dag, *range(len(spent)))
    assert [len(report.tasks) for report in outcome.reports] == reports
    assert list(outcome.values.values()) == spent


def test_a_report_holds_only_so_many_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "REPORT_BYTES_MAX", 100_000)
    dag = gather(*[task(lambda: b"x" * 40_000).bind() for _ in range(8)])
    outcome = bench.attempt(dag, *range(8))
    assert [len(report.tasks) for report in outcome.reports] == [3, 3, 2]


def test_nothing_runs_ahead_of_who_takes_the_reports(bench: Bench) -> None:
    """The worker is a generator: Ray asks for the next report when it has sent this one."""
    order = bench.order(gather(*[task(lambda: np.arange(20_000)).bind() for _ in range(3)]), (0, 1))
    delivered = run_slice(order, [])
    first: Any = next(delivered)
    assert first.tasks == [0]


def look_around() -> list[object]:
    context = current_task.get()
    assert context is not None
    here = [context.workflow_id, context.task_id, context.attempt, context.epoch]
    return [*here, context.idempotency_token]


def test_a_task_knows_who_it_is_and_nobody_does_afterwards(bench: Bench) -> None:
    dag = gather(task(look_around).bind(), task(look_around).bind())
    values = bench.attempt(dag, 0, 1).values
    tokens = [value.pop() for value in (values[0], values[1])]
    assert (values[0], values[1]) == (["w", "task_0", 2, 1], ["w", "task_1", 2, 1])
    assert tokens == [value[-1] for value in bench.attempt(dag, 0, 1).values.values()]
    assert tokens[0] != tokens[1]
    assert current_task.get() is None


def test_a_task_that_raises_leaves_no_context_behind(bench: Bench) -> None:
    bench.attempt(gather(fail_with(lambda: ValueError("no")).bind()), 0)
    assert current_task.get() is None
