"""What tasks need around them: the runtime environment and import paths of the submitting job.

Captured when a workflow is submitted and stored with it, since dispatchers belong to whatever job
happened to create them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any

import ray


def capture_environment() -> dict[str, Any]:
    """Returns this process's runtime environment, import paths and job as plain data."""
    context = ray.get_runtime_context()
    return {
        "runtime_env": _plain(dict(context.runtime_env)),
        "import_paths": _plain(_list_import_paths()),
        "job": context.get_job_id(),
    }


def _plain(value: Any) -> Any:
    """Runtime environments hold JSON-like data in dict subclasses; journals want exact types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _list_import_paths() -> list[str]:
    """Returns where modules are imported from besides the Python installation itself."""
    installed = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
    paths = dict.fromkeys(os.path.abspath(path) for path in sys.path)
    return [path for path in paths if os.path.isdir(path) and not path.startswith(installed)]


def build_runtime_env(
    environment: dict[str, Any],
    own: dict[str, Any] | None,
    import_paths: Collection[str] | None = None,
) -> dict[str, Any] | None:
    """Returns the runtime environment of a task, None for that of this process.

    Args:
        environment: What :func:`capture_environment` returned where the workflow was submitted.
        own: The task's own runtime environment, which wins.
        import_paths: Where every worker of this job imports from; by default ``sys.path``, which is
            that in a worker.
    """
    known = sys.path if import_paths is None else import_paths
    merged = {**environment.get("runtime_env", {}), **(own or {})}
    variables = {
        **environment.get("runtime_env", {}).get("env_vars", {}),
        **(own or {}).get("env_vars", {}),
    }
    missing = [path for path in environment.get("import_paths", []) if path not in known]
    if missing:
        inherited = variables.get("PYTHONPATH") or os.environ.get("PYTHONPATH", "")
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [*missing, inherited]))
    if variables:
        merged["env_vars"] = variables
    if not merged or (own is None and merged == _plain(dict(_inherited()))):
        return None
    return merged


def _inherited() -> dict[str, Any]:
    return dict(ray.get_runtime_context().runtime_env)
