"""The actor that looks after a store's dispatchers: one per store and cluster, control plane only.

It creates the dispatchers, knows which workflows each of them hosts, has a dispatcher that died go
on with them, and gives workflows their turns where there are limits. It holds no truth: a restarted
manager asks the dispatchers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from milepost.engine.admission import RESERVED, Admission, Limits, Turn
from milepost.engine.anchor import hold_job
from milepost.engine.cluster import count_cpus
from milepost.engine.limits import load_limits, save_limits
from milepost.engine.names import NAMESPACE, dispatcher_name, manager_name, route
from milepost.engine.recovery import Candidate, Recovered, recover_all
from milepost.errors import MilepostError, TooManyWorkflowsError, WorkflowNotResumableError

_log = logging.getLogger(__name__)

RETRY_S = 0.5
"""Between looks at a dispatcher that Ray is restarting."""

CPUS_PER_DISPATCHER = 8
DISPATCHERS_MAX = 4


class Manager:
    """See the module."""

    def __init__(
        self,
        storage: str,
        store_id: str,
        cluster_id: str,
        dispatchers: int | None,
        environment: dict[str, Any],
    ) -> None:
        """Start the dispatchers, or find those of a former manager.

        Args:
            storage: What opens the store.
            store_id: Which store that is; it is part of the actors' names.
            cluster_id: Who owns what the dispatchers run.
            dispatchers: How many to start; by default as many as the cluster's CPUs ask for.
            environment: That of the program which starts the engine; a worker is made ready for it.
        """
        self._storage = storage
        self._store_id = store_id
        self._admission = Admission(load_limits(store_id))
        self._limiting = asyncio.Lock()
        self._hosted: dict[int, set[str]] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._waking: asyncio.Task[None] | None = None
        count = dispatchers or _choose_count()
        self._dispatchers = _find_all(store_id, count) or _start_all(
            storage, store_id, cluster_id, count, environment
        )

    async def describe(self) -> dict[str, Any]:
        """Returns the storage and the dispatchers, in the order that routing counts them."""
        await self._wake_up()
        return {"storage": self._storage, "dispatchers": self._dispatchers}

    async def note_started(self, index: int, workflow_id: str) -> None:
        """Notes that dispatcher ``index`` hosts a workflow."""
        await self._wake_up()
        self._hosted.setdefault(index, set()).add(workflow_id)

    async def note_ended(self, index: int, workflow_id: str) -> None:
        """Notes that dispatcher ``index`` hosts a workflow no more."""
        await self._wake_up()
        self._hosted.setdefault(index, set()).discard(workflow_id)

    async def set_limits(self, asked: Limits) -> None:
        """Puts limits in force, for as long as the cluster lives.

        Raises:
            ConflictingInitError: If others are in force.
        """
        await self._wake_up()
        async with self._limiting:
            limits = self._admission.limits.merge(asked)
            if limits != self._admission.limits:
                await asyncio.to_thread(save_limits, self._store_id, limits)
                self._admission.limits = limits
                await self._restore_turns()

    async def _restore_turns(self) -> None:
        with self._admission.restoring():
            for dispatcher in self._dispatchers:
                self._admission.restore(await dispatcher.limit.remote(self._admission.limits))
        self._call_up()

    async def read_limits(self) -> Limits:
        """Returns the limits in force."""
        return self._admission.limits

    async def admit(self, turn: Turn, must: bool) -> bool | None:
        """Gives a workflow its turn or a place in the queue.

        Returns:
            Whether it may run now; None if it may not even wait.
        """
        await self._wake_up()
        self._hosted.setdefault(turn.index, set()).add(turn.workflow_id)
        return self._admission.ask(turn, must)

    async def release(self, workflow_id: str, ticket: int | None) -> None:
        """Takes a turn back, and gives it to whoever is next."""
        await self._wake_up()
        self._admission.release(workflow_id, ticket)
        self._call_up()

    def _call_up(self) -> None:
        for turn in self._admission.call_up():
            self._dispatchers[turn.index].begin.remote(turn.workflow_id)

    async def list_statuses(self) -> dict[str, str]:
        """Returns every workflow with its status, live ones as their dispatchers see them."""
        stored = await self._dispatchers[0].stored_statuses.remote()
        for dispatcher in self._dispatchers:
            stored.update(await dispatcher.live.remote())
        return dict(stored)

    async def recover(self, force: Sequence[str]) -> list[Recovered]:
        """Goes on with every workflow whose owner is gone; waits as long as leases last.

        Args:
            force: Workflows to take over although their owner seems alive.

        Raises:
            StorageUnavailableError: If the storage fails.
        """
        await self._wake_up()
        hosted: set[str] = set()
        for dispatcher in self._dispatchers:
            hosted.update(await dispatcher.live.remote())
        candidates = await self._dispatchers[0].find_candidates.remote(hosted, set(force))
        return await recover_all(candidates, self._take_up)

    async def _take_up(self, candidate: Candidate) -> str:
        """Goes on with a workflow; turns are given in the order in which this is called."""
        index = route(candidate.workflow_id, len(self._dispatchers))
        self._reserve(candidate.workflow_id, index)
        try:
            return await self._take_up_reserved(candidate, self._dispatchers[index])
        finally:
            self._admission.release(candidate.workflow_id, RESERVED)  # if nobody has taken it
            self._call_up()

    def _reserve(self, workflow_id: str, index: int) -> None:
        limits = self._admission.limits
        turn = Turn(
            workflow_id=workflow_id, ticket=RESERVED, index=index, since_us=0, running=False
        )
        if limits.limited and self._admission.ask(turn) is None:
            raise TooManyWorkflowsError(
                workflow_id, limits.max_running or 0, limits.max_pending or 0
            )

    async def _take_up_reserved(self, candidate: Candidate, dispatcher: Any) -> str:
        try:
            outcome: str = await dispatcher.take_up.remote(candidate.workflow_id, candidate.owner)
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, MilepostError):
                raise cause from None
            _log.exception("workflow %s cannot go on", candidate.workflow_id)
            reason = f"an unforeseen error, {cause!r}; the manager's log has it all"
            raise WorkflowNotResumableError(candidate.workflow_id, reason) from None
        return outcome

    async def _wake_up(self) -> None:
        """Returns when the dispatchers are watched; a restarted manager finds them at work."""
        if self._waking is None:
            self._waking = asyncio.create_task(self._look_around())
        try:
            await asyncio.shield(self._waking)
        except RayError:
            self._waking = None  # the next one who comes tries again
            raise

    async def _look_around(self) -> None:
        self._watchers = [
            asyncio.create_task(self._watch(index)) for index in range(len(self._dispatchers))
        ]
        for index, dispatcher in enumerate(self._dispatchers):
            live = await dispatcher.live.remote()
            self._hosted.setdefault(index, set()).update(live)
        if self._admission.limits.limited:
            await self._restore_turns()

    async def _watch(self, index: int) -> None:
        dispatcher = self._dispatchers[index]
        while True:
            try:
                await dispatcher.watch.options(max_task_retries=0).remote()
            except RayError as error:
                hosted = sorted(self._hosted.get(index, set()))
                _log.warning("dispatcher %d is gone (%s); it goes on", index, error)
                await self._revive(index, hosted)

    async def _revive(self, index: int, workflow_ids: list[str]) -> None:
        while True:
            try:
                await self._dispatchers[index].adopt.remote(workflow_ids)
                return
            except RayError:
                await asyncio.sleep(RETRY_S)


def _choose_count() -> int:
    return max(1, min(DISPATCHERS_MAX, count_cpus() // CPUS_PER_DISPATCHER))


def _find_all(store_id: str, count: int) -> list[Any]:
    """Returns the dispatchers if they run already; empty if not all of them do."""
    try:
        return [
            ray.get_actor(dispatcher_name(store_id, index), namespace=NAMESPACE)
            for index in range(count)
        ]
    except ValueError:
        return []


def _start_all(
    storage: str, store_id: str, cluster_id: str, count: int, environment: dict[str, Any]
) -> list[Any]:
    """Has the dispatchers started in a job that lasts; in that of this process if need be."""
    settings = {
        "address": ray.get_runtime_context().gcs_address,
        "manager": manager_name(store_id),
        "storage": storage,
        "store_id": store_id,
        "cluster_id": cluster_id,
        "dispatchers": count,
        "environment": environment,
    }
    try:
        hold_job(settings)
    except OSError as error:
        _log.warning("%s; workers will be started anew when the first driver has ended", error)
    return _find_all(store_id, count) or _start_here(storage, store_id, cluster_id, count)


def _start_here(storage: str, store_id: str, cluster_id: str, count: int) -> list[Any]:
    # Imported here only: it brings all of the engine, which a manager's start need not wait for.
    from milepost.engine.pool import start_dispatcher

    me = ray.get_runtime_context().current_actor
    return [start_dispatcher(storage, store_id, cluster_id, index, me) for index in range(count)]
