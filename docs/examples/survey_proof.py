"""What the demonstration claims, checked against facts that the engine has no hand in.

The ledger says which executions really took place before and after the kill; the journal, read
from disk while no cluster is alive, says what was committed. :class:`Evidence` puts the two next to
each other; :meth:`Evidence.violations` is empty if every promise was kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ledger import BEGIN, END, Entry, keys_of
from milepost.journal import load_state, open_store


def committed_tasks(storage: Path, workflow_id: str) -> set[str]:
    """Read from the journal on disk which tasks of a workflow are committed.

    No cluster is needed for this, and no stored code runs.

    Args:
        storage: The folder that was given to :func:`milepost.init`.
        workflow_id: The workflow.

    Returns:
        The ids of the committed tasks.
    """
    state = load_state(open_store(storage, create=False), workflow_id)
    return {
        state.graph.task_id(task) for task, result in enumerate(state.results) if result is not None
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Facts about one run that was killed and resumed.

    Attributes:
        tasks: Keys of all tasks of the workflow.
        committed: Keys of the tasks that were committed when the first cluster was dead.
        before: What the ledger held then.
        after: What it got after that.
        report: The workflow's output.
        report_expected: The same report, made without the engine.
    """

    tasks: Collection[str]
    committed: Collection[str]
    before: list[Entry]
    after: list[Entry]
    report: str
    report_expected: str

    @property
    def in_flight(self) -> set[str]:
        """Tasks that had begun before the kill and were not committed."""
        return set(keys_of(self.before, BEGIN)) - set(self.committed)

    @property
    def committed_and_run_again(self) -> set[str]:
        """Tasks that were committed before the kill and ran after it; there must be none."""
        return set(self.committed) & set(keys_of(self.after, BEGIN))

    @property
    def run_twice(self) -> set[str]:
        """Tasks that were executed more than once in all."""
        return repeated(keys_of([*self.before, *self.after], BEGIN))

    @property
    def run_twice_without_need(self) -> set[str]:
        """Tasks that ran twice though no kill interrupted them; there must be none."""
        same_cluster = repeated(keys_of(self.before, BEGIN)) | repeated(keys_of(self.after, BEGIN))
        return same_cluster | (self.run_twice - self.in_flight)

    @property
    def committed_but_not_run(self) -> set[str]:
        """Tasks whose commit is in the journal though they never ended; there must be none."""
        return set(self.committed) - set(keys_of(self.before, END))

    @property
    def never_run(self) -> set[str]:
        """Tasks that never ended; there must be none."""
        return set(self.tasks) - set(keys_of([*self.before, *self.after], END))

    @property
    def report_is_equal(self) -> bool:
        """Whether the report is, byte for byte, the one that plain Python makes."""
        return self.report.encode() == self.report_expected.encode()

    def violations(self) -> list[str]:
        """Say which promises were not kept, and by which tasks; empty if all were."""
        faults = {
            "committed before the kill, yet run again": self.committed_and_run_again,
            "run twice though the kill did not interrupt it": self.run_twice_without_need,
            "committed though it never ended": self.committed_but_not_run,
            "never run to its end": self.never_run,
        }
        found = [f"{fault}: {some(keys)}" for fault, keys in faults.items() if keys]
        if not self.report_is_equal:
            found.append("the report differs from the one made without the engine")
        if not self.committed or len(self.committed) >= len(self.tasks):
            found.append(
                f"the kill proves nothing: {len(self.committed)} of {len(self.tasks)} tasks were "
                f"committed before it"
            )
        return found


def repeated(keys: Collection[str]) -> set[str]:
    """Return the keys that occur more than once."""
    return {key for key, count in Counter(keys).items() if count > 1}


def some(keys: Collection[str], count: int = 5) -> str:
    """Name the first few of many keys."""
    named = ", ".join(sorted(keys)[:count])
    return named if len(keys) <= count else f"{named} and {len(keys) - count} more"
