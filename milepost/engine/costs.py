"""What tasks cost, as measured: the mean duration of each function, newer ones weighing more."""

from __future__ import annotations

from milepost.engine.messages import WorkerReport
from milepost.replay.state import State

NEW_WEIGHT = 0.2
"""Of a new measurement in the mean: it follows a change within ten tasks or so."""


class CostTable:
    """Mean durations by function.

    Attributes:
        mean_us: For each function that was measured, what one task takes.
    """

    def __init__(self) -> None:
        self.mean_us: dict[int, float] = {}

    def add(self, state: State, report: WorkerReport) -> None:
        """Takes the durations of a report into the means."""
        functions = state.graph.node_functions
        for task, duration_us in zip(report.tasks, report.durations_us, strict=True):
            function = functions[task]
            mean = self.mean_us.get(function, float(duration_us))
            self.mean_us[function] = mean + NEW_WEIGHT * (duration_us - mean)
        for continued in report.continued:
            function = functions[continued.task]
            mean = self.mean_us.get(function, float(continued.duration_us))
            self.mean_us[function] = mean + NEW_WEIGHT * (continued.duration_us - mean)
