"""A process's connection to the engine: which store, and the handles of its actors."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from typing import Any

import platformdirs
import ray
from ray.exceptions import RayError
from ray.util import list_named_actors

from milepost.engine.environment import capture_environment
from milepost.engine.manager import Manager
from milepost.engine.names import CALLS_MAX, NAMESPACE, is_manager_name, manager_name, route
from milepost.errors import (
    ConflictingInitError,
    EngineUnavailableError,
    MilepostError,
    StorageUnavailableError,
    StorageUriError,
)
from milepost.journal import Location, open_store, read_store_id, reveal_uri

STORAGE_VARIABLE = "MILEPOST_STORAGE"

_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a process needs to use the engine of one store on one cluster.

    Attributes:
        storage: The store's URI, without credentials.
        cluster: Which Ray cluster and job this belongs to.
    """

    storage: str
    store_id: str
    cluster: tuple[str, str]
    manager: Any
    dispatchers: tuple[Any, ...]

    def dispatcher(self, workflow_id: str) -> Any:
        """Returns the dispatcher that a workflow belongs to."""
        return self.dispatchers[route(workflow_id, len(self.dispatchers))]

    def request_output(self, workflow_id: str, task_id: str | None = None) -> ray.ObjectRef[Any]:
        """Returns a ref to the result of a workflow or of one of its tasks."""
        ref: ray.ObjectRef[Any] = self.dispatcher(workflow_id).output.remote(workflow_id, task_id)
        return ref

    def refuse(self, workflow_id: str, error: MilepostError) -> ray.ObjectRef[Any]:
        """Returns a ref that fails with ``error``."""
        ref: ray.ObjectRef[Any] = self.dispatcher(workflow_id).refuse.remote(error)
        return ref


_session: Session | None = None


def connect(storage: str | None = None, dispatchers: int | None = None) -> Session:
    """Returns this process's session, started if there is none yet.

    Args:
        storage: Path or URI of the store. If None: that of this session, else of the environment
            variable ``MILEPOST_STORAGE``, else of the only store in use on this cluster, else a
            folder in the user's data directory.
        dispatchers: How many dispatchers to start, if this starts the engine.

    Raises:
        ConflictingInitError: If this process uses another store already.
        StorageUriError: If the storage cannot be used.
        EngineUnavailableError: If the engine's actors cannot be started or reached.
    """
    global _session
    with _lock:
        if not ray.is_initialized():
            ray.init()
        cluster = _identify_cluster()
        if _session is not None and _session.cluster == cluster:
            _require_same(_session, storage)
            return _session
        _session = _start(cluster, storage, dispatchers)
        return _session


def _identify_cluster() -> tuple[str, str]:
    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _require_same(session: Session, storage: str | None) -> None:
    """Looks without making a store of the other place."""
    if storage is None:
        return
    try:
        other = read_store_id(open_store(storage, create=False))
    except MilepostError:
        other = ""
    if other != session.store_id:
        raise ConflictingInitError("storage", session.storage, str(Location(storage)))


def _start(cluster: tuple[str, str], storage: str | None, dispatchers: int | None) -> Session:
    chosen = storage or os.environ.get(STORAGE_VARIABLE) or _find_in_use() or _default_storage()
    try:
        store = open_store(chosen)
        store_id = read_store_id(store)
    except StorageUnavailableError as error:
        raise StorageUriError(str(Location(chosen)), str(error)) from error
    try:
        manager = _start_manager(reveal_uri(store), store_id, dispatchers)
        description = ray.get(manager.describe.remote())
    except RayError as error:
        raise EngineUnavailableError(
            f"the engine does not start on this cluster: {error}"
        ) from error
    return Session(
        storage=store.uri,
        store_id=store_id,
        cluster=cluster,
        manager=manager,
        dispatchers=tuple(description["dispatchers"]),
    )


def _start_manager(storage: str, store_id: str, dispatchers: int | None) -> Any:
    return (
        ray.remote(Manager)
        .options(
            name=manager_name(store_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=CALLS_MAX,
            enable_task_events=False,
        )
        .remote(storage, store_id, uuid.uuid4().hex[:12], dispatchers, capture_environment())
    )


def _find_in_use() -> str | None:
    """Returns the storage of the only manager on this cluster, if there is exactly one."""
    list_actors: Any = list_named_actors  # its result type depends on the argument
    names = [
        actor["name"]
        for actor in list_actors(all_namespaces=True)
        if actor["namespace"] == NAMESPACE and is_manager_name(actor["name"])
    ]
    if len(names) > 1:
        raise StorageUriError(
            "",
            f"{len(names)} stores are in use on this cluster; name one: milepost.init(storage=...)",
        )
    if not names:
        return None
    manager: Any = ray.get_actor(names[0], namespace=NAMESPACE)
    described: ray.ObjectRef[dict[str, Any]] = manager.describe.remote()
    return str(ray.get(described)["storage"])


def _default_storage() -> str:
    """Returns a folder that lasts, unlike a temporary one."""
    return str(platformdirs.user_data_path("milepost"))
