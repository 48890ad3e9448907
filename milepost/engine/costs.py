"""What tasks cost, as measured: follows peaks at once and forgets them slowly.

What travels with a long task is handed back and pays a second journey. A mean would put a task of a
minute among a hundred of a millisecond again and again; a falling peak lets the tasks of an uneven
function travel alone for a while. It falls within some tens of tasks, because the first call of a
function, which loads it, is a peak as well.
"""

from __future__ import annotations

from milepost.engine.messages import ItemReport, WorkerReport
from milepost.replay.state import State

NEW_WEIGHT = 0.2
"""Of a shorter duration in the cost: a peak is down to a tenth after some ten tasks."""


class CostTable:
    """Expected durations by function.

    Attributes:
        expected_us: For each function that was measured, how long a task may well take.
    """

    def __init__(self) -> None:
        self.expected_us: dict[int, float] = {}

    def add(self, state: State, report: WorkerReport) -> None:
        """Takes in the durations of a report."""
        functions = state.graph.node_functions
        for task, duration_us in zip(report.tasks, report.durations_us, strict=True):
            self._add_one(functions[task], duration_us)
        for continued in report.continued:
            self._add_one(functions[continued.task], continued.duration_us)

    def add_items(self, state: State, task: int, report: ItemReport) -> None:
        """Takes in the mean duration of the items of a report, as often as there are some."""
        count = sum(report.stops) - sum(report.starts) + len(report.raised)
        if count:
            self._add_mean(state.graph.node_functions[task], report.duration_us / count, count)

    def _add_mean(self, function: int, mean_us: float, count: int) -> None:
        expected = self.expected_us.get(function, 0.0)
        falling = mean_us + (expected - mean_us) * (1 - NEW_WEIGHT) ** count
        self.expected_us[function] = max(mean_us, falling)

    def _add_one(self, function: int, duration_us: int) -> None:
        expected = self.expected_us.get(function, 0.0)
        falling = expected + NEW_WEIGHT * (duration_us - expected)
        self.expected_us[function] = max(float(duration_us), falling)
