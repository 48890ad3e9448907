"""What a function's tasks are expected to cost."""

from __future__ import annotations

from milepost.engine.costs import CostTable
from milepost.engine.messages import WorkerReport
from milepost.replay.state import State


def measure(costs: CostTable, durations_us: list[int]) -> float:
    """Feeds durations of one function; returns what is expected then."""
    state = State()
    state.graph.node_functions.extend([7] * len(durations_us))
    tasks = list(range(len(durations_us)))
    costs.add(state, WorkerReport(node="n", tasks=tasks, durations_us=durations_us))
    return costs.expected_us[7]


def test_an_even_function_is_expected_to_stay_so() -> None:
    assert measure(CostTable(), [100] * 50) == 100


def test_a_peak_counts_at_once_and_is_forgotten_slowly() -> None:
    costs = CostTable()
    assert measure(costs, [100] * 50 + [1_000_000]) == 1_000_000
    assert 90_000 < measure(costs, [100] * 10) < 110_000
    assert measure(costs, [100] * 400) < 101


def test_a_function_never_measured_has_no_cost() -> None:
    assert CostTable().expected_us == {}
