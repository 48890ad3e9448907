"""When something has recovered: what in the ledger proves it, for each kind of victim.

A proof that is the strike's own line says that there was nothing to recover: nothing was broken off
that had to run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from campaign.ledger import BEGIN, END, Line

ENDS = ("result", "canceled")

Proof = Callable[[Line, Sequence[Line], Sequence[Line]], Line | None]
"""From a strike, the lines before it and those after it: the line that proves the recovery."""


def tasks_run_again(strike: Line, before: Sequence[Line], after: Sequence[Line]) -> Line | None:
    """Find the first beginning of another attempt at a task that the strike broke off.

    A workflow that ends without another attempt (it was canceled, say) has recovered, too.
    """
    running: dict[str, Line] = {}
    for line in before:
        if line.what == BEGIN:
            running[line["token"]] = line
        elif line.what == END:
            running.pop(line["token"], None)
    hit = set(strike["hit"])
    broken = {(e["workflow"], e["task"]) for e in running.values() if e.pid in hit}
    workflows = {workflow for workflow, _ in broken}
    if not broken:
        return strike
    for line in after:
        if line.what == BEGIN and (line["workflow"], line["task"]) in broken:
            return line
        if line.what in ENDS and line["workflow"] in workflows:
            return line
    return None


def owner_follows(strike: Line, before: Sequence[Line], after: Sequence[Line]) -> Line | None:
    """Find the first task that runs for a later owner than its workflow had.

    If all workflows that were under way end without one, they have recovered, too.
    """
    epochs = _under_way(before)
    if not epochs:
        return strike
    for line in after:
        if line.what == BEGIN and line["epoch"] > epochs.get(line["workflow"], line["epoch"]):
            return line
        if line.what in ENDS:
            epochs.pop(line["workflow"], None)
            if not epochs:
                return line
    return None


def any_owner_goes_on(strike: Line, before: Sequence[Line], after: Sequence[Line]) -> Line | None:
    """Find the first task that begins of a workflow that was under way, whoever owns it now."""
    under_way = _under_way(before)
    if not under_way:
        return strike
    return next((each for each in after if each.fields.get("workflow") in under_way), None)


def _under_way(before: Sequence[Line]) -> dict[str, int]:
    """Return the workflows that ran, with the epochs of their owners."""
    epochs: dict[str, int] = {}
    for line in before:
        if line.what == BEGIN:
            epochs[line["workflow"]] = max(line["epoch"], epochs.get(line["workflow"], 0))
    for line in before:
        if line.what in ENDS:
            epochs.pop(line["workflow"], None)
    return epochs


def manager_answers(strike: Line, before: Sequence[Line], after: Sequence[Line]) -> Line | None:
    """Find the first answer of the manager to a question put after the strike."""
    for line in after:
        if line.what == "answered" and line["asked_ns"] > strike.at_ns:
            return line
    return None


def driver_is_told(strike: Line, before: Sequence[Line], after: Sequence[Line]) -> Line | None:
    """Find the first thing that a driver is told which had not been there before."""
    known = {line["driver"] for line in before if line.what == "connected"}
    for line in after:
        if line.what in ("answered", *ENDS) and line["driver"] not in known:
            return line
    return None


def work_goes_on(strike: Line, before: Sequence[Line], after: Sequence[Line]) -> Line | None:
    """Find the first task that begins or ends afterwards."""
    return next((line for line in after if line.what in (BEGIN, END)), None)
