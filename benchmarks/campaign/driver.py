"""A driver: runs workflows, one after the other and several at once, until it is told to finish.

A process of its own, which may be killed at any moment. Before it asks for something it writes what
it asks, and what it is told it writes before it does anything else. Whatever the ledger shows as
asked for and not yet told is taken up by the drivers that come after.

Run as ``python -m campaign.driver`` with its settings, as JSON, on standard input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import cloudpickle
import ray
from ray.exceptions import RayError, RayTaskError

import milepost
from campaign import ledger, programs
from milepost import errors

POLL_S = 0.05
PROBE_S = 0.2
AGAIN_S = 0.5
"""Before a driver asks again for what nobody could tell it."""

LOOKS, DELETIONS = 0.25, 0.1
"""Of what has ended: how often a driver asks for the value of a task, and how often it deletes."""

OBJECTS_S_MAX = 10.0
"""How long a driver that has finished waits until Ray has noticed what nobody needs."""

FORGET_LOST_S = 3.0
"""Before a driver asks again for what another cluster took over: that one may well have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a driver needs to know.

    Attributes:
        storage: The store's URI.
        ledger: Path of the ledger.
        seed: The campaign's seed.
        name: The driver's name, which begins the ids of its workflows.
        at_once: How many workflows it keeps under way.
        finish: Path of a file: once it is there, no workflow is begun.
        recover: Whether to go on with what lost its owner, as ``milepost.init`` offers.
    """

    storage: str
    ledger: str
    seed: int
    name: str
    at_once: int
    finish: str
    recover: bool


class Driver:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._draw = Random(f"{settings.seed} {settings.name}")
        self._reader = ledger.Reader(Path(settings.ledger))
        self._unsettled: dict[str, None] = {}
        self._open: dict[str, float] = {}  # until when not to ask; for ever, if it is asked for
        self._deleted: set[str] = set()
        self._waiting: dict[Any, tuple[str, int]] = {}
        self._cancel_at: dict[str, float] = {}
        self._number = 0
        self._probed_s = 0.0

    def run(self) -> None:
        """Works until it is told to finish and nothing is left that anybody asked for."""
        self._adopt()
        while True:
            finishing = Path(self._settings.finish).exists()
            if finishing and not self._open and not self._adopt():
                return
            while not finishing and len(self._open) < self._settings.at_once:
                self._begin()
            self._look_after()
            self._collect()
            self._probe()

    def _write(self, what: str, **fields: Any) -> None:
        ledger.write(self._settings.ledger, what, driver=self._settings.name, **fields)

    def _adopt(self) -> bool:
        """Takes up what was asked for and not told; tells whether there is anything."""
        for line in self._reader.read():
            if line.what == "asked":
                self._unsettled[line["workflow"]] = None
            elif line.what in ("result", "canceled", "deleted"):
                self._unsettled.pop(line["workflow"], None)
                self._deleted.update([line["workflow"]] if line.what == "deleted" else [])
        for workflow_id in self._unsettled:
            self._open.setdefault(workflow_id, 0.0)
        return bool(self._unsettled)

    def _begin(self) -> None:
        self._number += 1
        program = self._draw.choice(list(programs.PROGRAMS))
        workflow_id = f"{self._settings.name}-{self._number}-{program}"
        self._open[workflow_id] = float("inf")
        self._submit(workflow_id)

    def _submit(self, workflow_id: str) -> None:
        plan = programs.make_plan(workflow_id, self._settings.seed, self._settings.ledger)
        if plan.cancel_after_s is not None:
            self._cancel_at[workflow_id] = time.monotonic() + plan.cancel_after_s
        self._write("asked", workflow=workflow_id, expected=plan.expected)

        def submit() -> Any:
            ref = milepost.run_async(plan.dag, workflow_id=workflow_id, durability=plan.durability)
            self._write("created", workflow=workflow_id)
            return ref

        self._attempt(workflow_id, submit)

    def _attempt(self, workflow_id: str, ask: Callable[[], Any]) -> None:
        """Asks for a ref to a workflow's result, and waits for it from then on."""
        asked_ns = time.monotonic_ns()
        try:
            self._waiting[ask()] = workflow_id, asked_ns
            self._open[workflow_id] = float("inf")
        except (errors.MilepostError, RayError) as error:
            self._take_error(workflow_id, asked_ns, error)

    def _look_after(self) -> None:
        """Asks again for what nobody could tell, and cancels what is to be canceled."""
        now_s = time.monotonic()
        for workflow_id in [each for each, due_s in self._open.items() if due_s <= now_s]:
            self._attempt(workflow_id, lambda: milepost.get_output_async(workflow_id))  # noqa: B023
        for workflow_id in [each for each, due_s in self._cancel_at.items() if due_s <= now_s]:
            del self._cancel_at[workflow_id]
            self._cancel(workflow_id)

    def _cancel(self, workflow_id: str) -> None:
        asked_ns = time.monotonic_ns()
        self._write("cancel asked", workflow=workflow_id)
        try:
            milepost.cancel(workflow_id)
        except errors.WorkflowEndedError:
            return  # its result is on its way
        except (errors.MilepostError, RayError) as error:
            self._write("refused", workflow=workflow_id, error=type(error).__name__)
            self._cancel_at[workflow_id] = time.monotonic() + AGAIN_S
        else:
            self._settle("canceled", workflow_id, asked_ns)

    def _collect(self) -> None:
        """Takes what has been told meanwhile."""
        if not self._waiting:
            time.sleep(POLL_S)
            return
        done, _ = ray.wait(list(self._waiting), num_returns=1, timeout=POLL_S)
        for ref in done:
            workflow_id, asked_ns = self._waiting.pop(ref)
            try:
                value = ray.get(ref)
            except RayTaskError as error:
                self._take_error(workflow_id, asked_ns, getattr(error, "cause", None) or error)
            except RayError as error:
                self._take_error(workflow_id, asked_ns, error)
            else:
                self._settle("result", workflow_id, asked_ns, value=value)
                self._look_back(workflow_id)

    def _look_back(self, workflow_id: str) -> None:
        """Asks for the value of one of the tasks, or deletes the workflow, or does neither."""
        chance = self._draw.random()
        try:
            if chance < LOOKS:
                tasks = milepost.list_tasks(workflow_id)
                task_id = self._draw.choice(tasks)["task_id"]
                value = milepost.get_output(workflow_id, task_id=task_id)
                if type(value) is int:
                    self._write("task", workflow=workflow_id, task=task_id, value=value)
            elif chance < LOOKS + DELETIONS:
                self._write("delete asked", workflow=workflow_id)
                milepost.delete(workflow_id)
                self._write("deleted", workflow=workflow_id)
        except (errors.MilepostError, RayError) as error:
            self._write("refused", workflow=workflow_id, error=type(error).__name__)

    def _settle(self, what: str, workflow_id: str, asked_ns: int, **fields: Any) -> None:
        self._write(what, workflow=workflow_id, asked_ns=asked_ns, **fields)
        self._open.pop(workflow_id, None)
        self._cancel_at.pop(workflow_id, None)

    def _take_error(self, workflow_id: str, asked_ns: int, error: BaseException) -> None:
        """Does what a sensible user would do about it."""
        again_s = AGAIN_S
        match error:
            case errors.WorkflowCancellationError():
                self._settle("canceled", workflow_id, asked_ns)
                return
            case errors.WorkflowExecutionError():
                self._write("failed", workflow=workflow_id, error=str(error))
                Path(programs.mended_path(self._settings.ledger, workflow_id)).touch()
                self._attempt(workflow_id, lambda: milepost.resume_async(workflow_id))
                return
            case errors.OutputNotAvailableError() if error.status == "RESUMABLE":
                self._attempt(workflow_id, lambda: milepost.resume_async(workflow_id))
                return
            case errors.WorkflowNotFoundError():
                self._adopt()
                if workflow_id in self._deleted:
                    self._open.pop(workflow_id, None)
                else:
                    self._submit(workflow_id)
                return
            case errors.LostOwnershipError() | errors.OutputNotAvailableError():
                again_s = FORGET_LOST_S
            case errors.WorkflowActiveError() | errors.WorkflowNotResumableError():
                pass  # it goes on already, or was just canceled: ask for its output
            case errors.StorageUnavailableError() | errors.EngineUnavailableError() | RayError():
                pass
            case _:
                self._write("unforeseen", workflow=workflow_id, error=repr(error))
        self._write("refused", workflow=workflow_id, error=type(error).__name__)
        self._open[workflow_id] = time.monotonic() + again_s

    def _probe(self) -> None:
        """Notes that the manager answers, and what it is told of a status."""
        if time.monotonic() - self._probed_s < PROBE_S:
            return
        asked_ns = time.monotonic_ns()
        running = milepost.list_all(milepost.RUNNING)
        self._write("answered", asked_ns=asked_ns, running=len(running))
        if self._open:
            self._ask_status(self._draw.choice(list(self._open)))
        self._probed_s = time.monotonic()

    def _ask_status(self, workflow_id: str) -> None:
        asked_ns = time.monotonic_ns()
        try:
            status = milepost.get_status(workflow_id)
        except (errors.MilepostError, RayError) as error:
            self._write("refused", workflow=workflow_id, error=type(error).__name__)
        else:
            self._write("status", workflow=workflow_id, status=status.value, asked_ns=asked_ns)


def main(settings: Settings) -> None:
    """Connects to the cluster that the environment names, and works."""
    for module in (ledger, programs):
        cloudpickle.register_pickle_by_value(module)
    ray.init(log_to_driver=False)
    milepost.init(storage=settings.storage, recover=settings.recover)
    ledger.write(settings.ledger, "connected", driver=settings.name)
    Driver(settings).run()
    object_bytes = _await_no_objects()
    ledger.write(settings.ledger, "finished", driver=settings.name, object_bytes=object_bytes)


def _await_no_objects() -> float:
    """Waits until Ray holds no objects any more, or long enough; returns how many bytes it has."""
    there: Any = ray.cluster_resources  # Ray ships both untyped
    free: Any = ray.available_resources
    deadline = time.monotonic() + OBJECTS_S_MAX
    while True:
        used = float(there()["object_store_memory"] - free().get("object_store_memory", 0.0))
        if not used or time.monotonic() > deadline:
            return used
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(Settings(**json.loads(sys.stdin.read())))
