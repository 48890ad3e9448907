"""A dispatcher on a stage, without a cluster, and those who call it."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from milepost.engine.admission import Admission, Limits, Turn
from milepost.engine.dispatcher import Dispatcher
from milepost.engine.messages import Submission
from milepost.errors import MilepostError
from milepost.replay.events import WorkflowCreated

if TYPE_CHECKING:
    from tests.engine.host.conftest import Stage

CLUSTER = "cluster"


class Notes:
    """Plays the manager: what is hosted as far as it was told, and the turns that it gives.

    Attributes:
        hosted: 1 for what is hosted, 0 for what is no more.
        admission: Who may run, and who waits.
        called_up: Has a workflow begin whose turn has come.
    """

    def __init__(self, called_up: Callable[[str], Awaitable[None]]) -> None:
        self.admission = Admission(Limits())
        self._called_up = called_up
        self._calls: set[asyncio.Task[None]] = set()
        self.read_limits = _Call(self._read_limits)
        self.admit = _Call(self._admit)
        self.release = _Call(self._release)
        self.hosted: Counter[str] = Counter()
        self.note_started = _Call(lambda index, workflow_id: self._note(workflow_id, 1))
        self.note_ended = _Call(lambda index, workflow_id: self._note(workflow_id, 0))

    def _note(self, workflow_id: str, hosted: int) -> None:
        self.hosted[workflow_id] = hosted

    async def _read_limits(self) -> Limits:
        return self.admission.limits

    async def _admit(self, turn: Turn, must: bool) -> bool | None:
        return self.admission.ask(turn, must)

    def _release(self, workflow_id: str, ticket: int | None) -> None:
        self.admission.release(workflow_id, ticket)
        for turn in self.admission.call_up():
            begin: Any = self._called_up(turn.workflow_id)
            self._calls.add(asyncio.ensure_future(begin))


class _Call:
    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class FrontDesk:
    """A dispatcher on a stage, and those who call it.

    Attributes:
        notes: What its manager knows.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.notes = Notes(lambda workflow_id: self.dispatcher.begin(workflow_id))
        self._dispatchers: list[Dispatcher] = []  # a former one still runs, like a paused process
        self.restart()

    def restart(self, cluster: str = CLUSTER) -> None:
        """Puts a new dispatcher in the place of the old one, which knows nothing of it."""
        self.dispatcher = Dispatcher("stage", cluster, 0, self.notes)
        self._dispatchers.append(self.dispatcher)

    async def submit(
        self, *inputs: Any, nonce: str = "n", workflow_id: str = "w", **options: Any
    ) -> str:
        created: WorkflowCreated = self.stage.creation(*inputs, **options)
        submission = Submission(
            workflow_id=workflow_id,
            nonce=nonce,
            fragment=created.fragment,
            blobs={},
            metadata=created.metadata,
            environment={},
            durability="pipelined",
            versions="",
        )
        verdict = await self.dispatcher.create(submission)
        await self.stage.settle()
        return verdict.outcome + " differs" * bool(verdict.differences)

    async def output(self, task_id: str | None = None) -> Any:
        return pickle.loads(pickle.dumps(await self.dispatcher.output("w", task_id)))

    async def refused(self, call: Awaitable[Any]) -> MilepostError:
        """Returns the error of a call that must raise one."""
        try:
            told = await call
        except MilepostError as error:
            return error
        raise AssertionError(f"not refused: {told}")

    async def finish(self, *tasks: int) -> None:
        """Lets tasks return their number, one after the other."""
        for task in tasks:
            self.stage.workers.find(task).returns()
            await self.stage.settle()
