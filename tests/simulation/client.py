"""Somebody who wants the result of a workflow, and does not give up; what is told must fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from milepost.engine.dispatcher import Dispatcher
from milepost.engine.messages import Submission
from milepost.engine.outputs import SealedOutput
from milepost.errors import (
    MilepostError,
    WorkflowActiveError,
    WorkflowCancellationError,
    WorkflowEndedError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
)
from programs import Program, draw_program, pack
from record import BrokenPromise, Told
from world import ProcessDiedError

if TYPE_CHECKING:
    from world import World

ANSWER_S_MAX = 40.0
FINAL = ("SUCCESSFUL", "CANCELED")


class Client:
    """Submits a workflow, waits, asks, mends, resumes, cancels, deletes, and begins again."""

    def __init__(self, world: World, workflow_id: str) -> None:
        self._world = world
        self._id = workflow_id
        self._told = Told()
        self._end_told = ""
        self._deleted_told = False

    async def live(self) -> None:
        """Returns when it has what it wants, or has deleted it."""
        random = self._world.random
        for life in range(random.choice((1, 1, 2))):
            if life:
                await self._delete()
            self._end_told, self._deleted_told = "", False
            program = draw_program(random)
            await self._submit(program, f"n{life}")
            await self._wait(program)
            if random.random() < 0.5:
                await self._ask_again(program)
        if random.random() < 0.2:
            await self._delete()

    async def _submit(self, program: Program, nonce: str) -> None:
        self._told = self._world.record.submitted(self._id, nonce, program)
        self._world.programs[self._id] = program
        submission = Submission(
            workflow_id=self._id,
            nonce=nonce,
            fragment=program.fragment,
            blobs={},
            metadata=pack({}),
            environment={},
            durability=program.durability,
            versions="",
        )
        while True:
            answer = await self._ask("create", lambda dispatcher: dispatcher.create(submission))
            if answer is not None and not isinstance(answer, Exception):
                return
            if isinstance(answer, WorkflowActiveError):
                return
            await asyncio.sleep(self._world.random.uniform(0.5, 5.0))

    async def _wait(self, program: Program) -> None:
        """Asks whomever it meets until it is told the end."""
        random = self._world.random
        while True:
            asked = [self._is_told(program) for _ in range(random.choice((1, 1, 2, 3)))]
            if random.random() < 0.3:
                asked.append(self._ask_task(program))
            if any(await asyncio.gather(*asked)):
                return
            if random.random() < 0.5:
                await asyncio.gather(*(self._ask_status() for _ in range(random.randint(1, 2))))
            if random.random() < 0.3:
                await self._ask("resume", lambda dispatcher: dispatcher.resume(self._id))
            if random.random() < 0.04:
                await self._cancel()
            await asyncio.sleep(random.uniform(0.2, 8.0))

    async def _is_told(self, program: Program, task_id: str | None = None) -> bool:
        """Asks for an output; tells whether that is the end."""
        before = self._end_told
        answer = await self._ask("output", lambda dispatcher: dispatcher.output(self._id, task_id))
        if isinstance(answer, WorkflowExecutionError):
            self._require(not before, f"told {before}, and then that it failed")
            program.mend()
            await self._ask("resume", lambda dispatcher: dispatcher.resume(self._id))
            return False
        if isinstance(answer, WorkflowCancellationError):
            self._note_end("CANCELED", before)
            return True
        if not isinstance(answer, SealedOutput):
            return False
        self._world.record.told_output(self._id, program, task_id, answer)
        if task_id is None:
            self._note_end("SUCCESSFUL", before)
        return task_id is None

    async def _ask_task(self, program: Program) -> bool:
        node = self._world.random.choice(program.nodes)
        await self._is_told(program, node.name)
        return False

    async def _ask_status(self) -> None:
        before, deleted_before = self._end_told, self._deleted_told
        status = await self._ask("status", lambda dispatcher: dispatcher.status(self._id))
        if isinstance(status, WorkflowNotFoundError) or deleted_before:
            gone = not isinstance(status, str)
            self._require(deleted_before and gone, f"told {status!r}, deleted: {deleted_before}")
        elif status in FINAL:
            self._note_end(status, before)
        elif isinstance(status, str):
            self._require(not before, f"told {before}, and then {status}")

    def _note_end(self, end: str, before: str) -> None:
        """Notes an end that was told; ``before`` is what had been told when it was asked for."""
        self._require(end != "CANCELED" or self._told.canceled, "canceled, but nobody asked for it")
        self._require(self._end_told in ("", end), f"told {self._end_told}, and then {end}")
        self._require(before in ("", end), f"told {before}, and then {end}")
        self._end_told = end

    async def _ask_again(self, program: Program) -> None:
        random = self._world.random
        for _ in range(3):
            await asyncio.sleep(random.uniform(0.0, 20.0))
            await self._ask_status()
            await self._is_told(program)
            await self._ask_task(program)
            if random.random() < 0.1:
                await self._cancel()

    async def _cancel(self) -> None:
        self._told.canceled = True
        before = self._end_told
        answer = await self._ask("cancel", lambda dispatcher: dispatcher.cancel(self._id))
        if answer == "done":
            self._note_end("CANCELED", before)
        elif isinstance(answer, WorkflowEndedError):
            self._note_end("SUCCESSFUL", before)

    async def _delete(self) -> None:
        self._told.deleted = True
        while True:
            answer = await self._ask("delete", lambda dispatcher: dispatcher.delete(self._id))
            if answer == "done" or isinstance(answer, WorkflowNotFoundError):
                break
            await asyncio.sleep(self._world.random.uniform(0.5, 5.0))
        self._world.programs.pop(self._id)
        self._deleted_told = True
        await self._ask_status()

    async def _ask(self, what: str, make: Callable[[Dispatcher], Coroutine[Any, Any, Any]]) -> Any:
        """Returns the answer ("done" if it is empty), the refusal, or None if nothing came."""
        process = self._world.pick()
        # What changes something may do so long after it was given up: such answers are waited for.
        patience_s = None if what in ("create", "cancel", "delete") else ANSWER_S_MAX
        try:
            answer = await asyncio.wait_for(process.call(make), patience_s)
        except (TimeoutError, ProcessDiedError):
            self._world.note("no answer", self._id, what)
            return None
        except MilepostError as error:
            self._world.record.told(self._id, what, type(error).__name__)
            if isinstance(error, WorkflowNotResumableError) and what == "create":
                self._require(self._told.canceled, f"not created: {error}")
            return error
        told = answer if isinstance(answer, str) else type(answer).__name__
        self._world.record.told(self._id, what, told)
        return "done" if answer is None else answer

    def _require(self, condition: bool, promise: str) -> None:
        if not condition:
            raise BrokenPromise(f"seed {self._world.seed}: {self._id}: {promise}")
