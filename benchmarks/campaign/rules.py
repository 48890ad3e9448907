"""The rules: what must hold of every history, whatever was killed.

Each rule is a function that looks at a :class:`~campaign.history.Record` and gives what breaks it.
They rest on the order of lines in the ledger and on the numbers in the journals. A clock is used in
two places only: to give what a killed or canceled execution had under way a moment to end.

*Running after the commit.* No owner may order a task that its own journal holds as committed: an
execution under a later epoch than the commit's, or a later attempt under the same epoch, breaks
that at whatever time it began. What was ordered before, by an owner that lost the workflow or for a
worker that was given up, can begin late, when the process wakes up or before word reaches it. No
journal can prevent that; such a *straggler* is counted, and is a violation unless a strike in the
seconds before explains it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from campaign.history import Commit, Execution, Record, Stored

STRAGGLE_NS = 20 * 10**9
"""After a strike, or the end of a pause: for so long an old order may still be carried out. A node
that Ray has yet to declare dead, or a cluster that has just woken up, takes some seconds."""

CANCEL_NS = 2 * 10**9
"""After a cancel was told: what is under way is killed, and may begin one more task before that."""

CLAIMS_PER_STRIKE = 2
"""A takeover makes one claim; whoever is killed between claiming and reading makes one in vain."""

FINAL = ("SUCCESSFUL", "CANCELED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken.

    Attributes:
        rule: Which.
        workflow: Of which workflow; empty if of none.
        detail: How, in words.
    """

    rule: str
    workflow: str
    detail: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.rule}: {self.workflow} {self.detail}"


Found = Iterator[tuple[str, str]]
"""Of each breach the workflow and the detail."""


def find_violations(record: Record) -> list[Violation]:
    """Hold a history against all rules.

    Args:
        record: The history.

    Returns:
        What breaks them; nothing, if every promise was kept.
    """
    return [
        Violation(rule=name, workflow=workflow, detail=detail)
        for name, rule in RULES.items()
        for workflow, detail in rule(record)
    ]


def find_stragglers(record: Record) -> list[Execution]:
    """Find executions that began after somebody had been told how their workflow ended."""
    told = _first_told(record)
    return [each for each in record.executions if each.place > told.get(each.workflow, each.place)]


def commit_once(record: Record) -> Found:
    """A task is committed at most once."""
    for stored in record.stored.values():
        counts = Counter(commit.task for commit in stored.commits)
        for task, count in counts.items():
            if count > 1:
                yield stored.workflow, f"task {task} was committed {count} times"


def run_no_more(record: Record) -> Found:
    """No owner orders a task that its journal holds as committed."""
    commits = _commits(record)
    for each in record.executions:
        commit = commits.get((each.workflow, each.task))
        if commit is None:
            continue
        if (each.epoch, each.attempt) > (commit.epoch, commit.attempt):
            yield (
                each.workflow,
                f"task {each.task} ran as attempt {each.attempt} of epoch {each.epoch}, but was "
                f"committed as attempt {commit.attempt} of epoch {commit.epoch}",
            )


def straggle_briefly(record: Record) -> Found:
    """What begins after an end was told is an old order, soon after a strike."""
    strikes = [line.at_ns for what in ("strike", "woken") for line in record.of(what)]
    canceled = {line["workflow"]: line.at_ns for line in record.of("canceled")}
    for each in find_stragglers(record):
        since_cancel_ns = each.begun_ns - canceled.get(each.workflow, 0)
        struck = any(0 <= each.begun_ns - at_ns <= STRAGGLE_NS for at_ns in strikes)
        if not struck and since_cancel_ns > CANCEL_NS:
            yield each.workflow, f"task {each.task} began after the end was told, unexplained"


def run_attempts_once(record: Record) -> Found:
    """An attempt is one execution."""
    counts = Counter((e.workflow, e.task, e.epoch, e.attempt) for e in record.executions)
    for (workflow, task, epoch, attempt), count in counts.items():
        if count > 1:
            yield workflow, f"attempt {attempt} of task {task} in epoch {epoch} ran {count} times"


def commit_what_ran(record: Record) -> Found:
    """What is committed is what an execution returned."""
    returned = {
        (e.workflow, e.task, e.epoch, e.attempt)
        for e in record.executions
        if e.outcome == "returned"
    }
    for (workflow, task), commit in _commits(record).items():
        if (workflow, task, commit.epoch, commit.attempt) not in returned:
            yield (
                workflow,
                f"attempt {commit.attempt} of task {task} was committed in epoch {commit.epoch}, "
                f"but no execution of it returned",
            )


def keep_results(record: Record) -> Found:
    """A result that was told is the stored one, and the right one."""
    expected = {line["workflow"]: line["expected"] for line in record.of("asked")}
    deleted = {line["workflow"] for line in record.of("delete asked")}
    for line in record.of("result"):
        workflow, value = line["workflow"], line["value"]
        stored = record.stored.get(workflow)
        if stored is None:
            if workflow not in deleted:
                yield workflow, f"the result {value!r} was told, and nothing is stored"
        elif (stored.status, stored.result) != ("SUCCESSFUL", value):
            yield workflow, f"{value!r} was told, stored is {stored.result!r} ({stored.status})"
        if value != expected.get(workflow):
            yield workflow, f"{value!r} was told, right is {expected.get(workflow)!r}"


def keep_values(record: Record) -> Found:
    """The value of a task that was told is the stored one."""
    for line in record.of("task"):
        workflow, task, value = line["workflow"], line["task"], line["value"]
        found = record.stored[workflow].values.get(task) if workflow in record.stored else value
        if found != value:
            yield workflow, f"{value!r} was told of task {task}, stored is {found!r}"


def delete_wholly(record: Record) -> Found:
    """What was deleted is gone; what was to be deleted is gone or whole."""
    for line in record.of("deleted"):
        if line["workflow"] in record.stored:
            yield line["workflow"], "it was deleted, and is there"


def keep_ends(record: Record) -> Found:
    """A final status that was told stays."""
    told = [(line["workflow"], line["status"]) for line in record.of("status")]
    told += [(line["workflow"], "CANCELED") for line in record.of("canceled")]
    deleted = {line["workflow"] for line in record.of("delete asked")}
    for workflow, status in dict.fromkeys(told):
        if workflow in deleted and workflow not in record.stored:
            continue
        found = record.stored.get(workflow, Stored(workflow=workflow)).status
        if status in FINAL and found != status:
            yield workflow, f"{status} was told, stored is {found or 'nothing'}"


def keep_creations(record: Record) -> Found:
    """A workflow whose creation was told is there."""
    deleted = {line["workflow"] for line in record.of("delete asked")}
    for line in record.of("created"):
        if line["workflow"] not in record.stored.keys() | deleted:
            yield line["workflow"], "its creation was told, and nothing is stored"


def end_all(record: Record) -> Found:
    """In the end, somebody is told how each workflow ended."""
    told = _first_told(record)
    for line in record.of("asked"):
        if line["workflow"] not in told:
            stored = record.stored.get(line["workflow"])
            yield line["workflow"], f"has no end, it is {stored.status if stored else 'nowhere'}"


def raise_epochs(record: Record) -> Found:
    """Each owner's epoch is above its predecessor's, and commits follow their order."""
    for stored in record.stored.values():
        if stored.epochs != sorted(set(stored.epochs)):
            yield stored.workflow, f"its owners' epochs are {stored.epochs}"
        committed = [commit.epoch for commit in stored.commits]
        if committed != sorted(committed) or not set(committed) <= set(stored.epochs):
            yield stored.workflow, f"commits of epochs {sorted(set(committed))} are out of order"


def store_whole(record: Record) -> Found:
    """What is stored is whole, with every blob."""
    for stored in record.stored.values():
        for fault in stored.faults:
            yield stored.workflow, fault


def claim_sparingly(record: Record) -> Found:
    """Claims are made by takeovers, and not without end."""
    strikes = len(list(record.of("strike")))
    for stored in record.stored.values():
        if stored.claims > 1 + CLAIMS_PER_STRIKE * strikes:
            yield stored.workflow, f"{stored.claims} claims after {strikes} strikes"


def foresee_errors(record: Record) -> Found:
    """Drivers meet no error that the documentation does not name."""
    for line in record.of("unforeseen"):
        yield line["workflow"], line["error"]


def leave_nothing(record: Record) -> Found:
    """No process, file or object is left over."""
    for leak in record.leaks:
        yield "", leak


RULES: dict[str, Callable[[Record], Found]] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        commit_once,
        run_no_more,
        straggle_briefly,
        run_attempts_once,
        commit_what_ran,
        keep_results,
        keep_values,
        delete_wholly,
        keep_ends,
        keep_creations,
        end_all,
        raise_epochs,
        store_whole,
        claim_sparingly,
        foresee_errors,
        leave_nothing,
    )
}


def _commits(record: Record) -> dict[tuple[str, str], Commit]:
    return {
        (stored.workflow, commit.task): commit
        for stored in record.stored.values()
        for commit in stored.commits[::-1]  # so that the first one counts
    }


def _first_told(record: Record) -> dict[str, int]:
    """Return the place of the first line that tells how a workflow ended, by workflow."""
    told: dict[str, int] = {}
    for line in record.lines:
        if line.what in ("result", "canceled"):
            told.setdefault(line["workflow"], line.place)
    return told
