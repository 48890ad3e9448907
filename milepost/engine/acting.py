"""The commands that run, resume, cancel and delete workflows; they need Ray, and a cluster.

Each uses the cluster that RAY_ADDRESS names or that runs on this machine; where there is none, it
starts one that ends with the command. Whoever asks is named in the journal, with the reason given.
"""

from __future__ import annotations

import getpass
import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click
import ray
from ray.dag import DAGNode
from ray.remote_function import RemoteFunction

from milepost.engine import api
from milepost.engine.session import Session, connect
from milepost.errors import MilepostError, UsageError, WorkflowExecutionError
from milepost.journal.opening import open_store
from milepost.journal.plain import to_plain
from milepost.journal.tool.place import describe_missing, exit_code
from milepost.journal.tool.text import clean, paint, print_json
from milepost.replay.payload import is_plain
from milepost.replay.state import Status

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130


def _options(command: Command) -> Command:
    """What every command here can be told."""
    as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
    return click.pass_context(as_json(command))  # type: ignore[return-value]


def _why(command: Command) -> Command:
    return click.option("--why", default="", help="A reason, for the journal.")(command)


@click.command("run")
@click.argument("target", metavar="MODULE:NAME")
@click.option("--id", "workflow_id", help="The workflow's id; by default a random one.")
@click.option("--arg", "values", multiple=True, metavar="JSON", help="An argument; may come again.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="For the workflow's metadata.")
@click.option("--durability", type=click.Choice(["pipelined", "strict"]), default="pipelined")
@click.option("--no-wait", is_flag=True, help="Print the id as soon as the workflow is durable.")
@_why
@_options
def run(
    context: click.Context,
    target: str,
    workflow_id: str | None,
    values: tuple[str, ...],
    meta: tuple[str, ...],
    durability: str,
    no_wait: bool,
    why: str,
    as_json: bool,
) -> None:
    """Run a workflow: NAME in MODULE is a DAG, a task, or a function that makes a DAG.

    MODULE is imported from the present folder. Without --id every call is a workflow of its own;
    with one, a workflow that is stored goes on, or its result is told.
    """
    dag, arguments = _load(target, [_parse(each) for each in values])
    metadata: dict[str, Any] = dict(map(_pair, meta))
    metadata |= {"submitted_by": _who()} | ({"why": why} if why else {})
    _connect(context)
    workflow_id = workflow_id or f"{target.replace(':', '.')}.{os.urandom(4).hex()}"
    ref = api.run_async(
        dag, *arguments, workflow_id=workflow_id, metadata=metadata, durability=durability
    )
    if no_wait:
        _tell({"workflow_id": workflow_id, "status": "RUNNING"}, workflow_id, as_json)
        return
    if not as_json:
        click.echo(f"workflow {clean(workflow_id)}", err=True)
    _tell_output(workflow_id, lambda: _wait(ref), as_json)


def _load(target: str, values: list[Any]) -> tuple[Any, list[Any]]:
    """Import what is to run; gives the DAG, and the values that its input stands for."""
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise UsageError(f"{target!r} is not MODULE:NAME")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot load {target}: {error}") from error
    if isinstance(found, RemoteFunction):
        return found.bind(*values), []  # type: ignore[no-untyped-call]
    if callable(found) and not isinstance(found, DAGNode):
        return found(*values), []
    return found, values


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--arg {text!r} is not JSON (text needs quotes): {error}") from error


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--meta {text!r} is not KEY=VALUE")
    return key, value


@click.command("status")
@click.argument("workflow_id")
@_options
def status(context: click.Context, workflow_id: str, as_json: bool) -> None:
    """Tell a workflow's status as the cluster knows it: RESUMABLE, too, if its owner is gone."""
    _connect(context)
    found = _known(context, workflow_id, lambda: api.get_status(workflow_id))
    told = {"workflow_id": workflow_id, "status": found.value}
    _tell(told, paint(found.value, found.value), as_json)


@click.command("output")
@click.argument("workflow_id")
@click.option("--task", "task_id", help="Of one task; by default of the whole workflow.")
@_options
def output(context: click.Context, workflow_id: str, task_id: str | None, as_json: bool) -> None:
    """Print a result; waits while the workflow runs."""
    _connect(context)
    _known(context, workflow_id, lambda: api.get_status(workflow_id))
    _tell_output(workflow_id, lambda: api.get_output(workflow_id, task_id=task_id), as_json)


@click.command("resume")
@click.argument("workflow_id")
@click.option("--no-wait", is_flag=True, help="Stop when it goes on, not when it has ended.")
@_why
@_options
def resume(
    context: click.Context, workflow_id: str, no_wait: bool, why: str, as_json: bool
) -> None:
    """Go on with a workflow that failed, or whose cluster is gone; committed tasks stay done."""
    session = _connect(context)
    _known(context, workflow_id, lambda: api.get_status(workflow_id))
    job = ray.get_runtime_context().get_job_id()
    asked = f"resume by {_who(why)}"
    _fetch(session.dispatcher(workflow_id).resume.remote(workflow_id, job, asked))
    if no_wait:
        _tell({"workflow_id": workflow_id, "status": "RUNNING"}, "resumed", as_json)
        return
    _tell_output(workflow_id, lambda: api.get_output(workflow_id), as_json)


@click.command("resume-all")
@click.option("--include-failed", is_flag=True, help="Those that failed, too.")
@_options
def resume_all(context: click.Context, include_failed: bool, as_json: bool) -> None:
    """Go on with every workflow whose cluster is gone, and wait until they have ended."""
    _connect(context)
    failed = 0
    for workflow_id, ref in api.resume_all(include_failed=include_failed):
        error = ""
        try:
            _wait(ref)
        except MilepostError as problem:
            error, failed = str(problem), failed + 1
        found = "failed" if error else "successful"
        told = {"workflow_id": workflow_id, "outcome": found, "error": error}
        _tell(told, f"{found:10} {clean(workflow_id)}" + f": {clean(error)}" * bool(error), as_json)
    if failed:
        raise click.exceptions.Exit(1)


@click.command("cancel")
@click.argument("workflow_id")
@_why
@_options
def cancel(context: click.Context, workflow_id: str, why: str, as_json: bool) -> None:
    """End a workflow for good, without a result, and its running tasks."""
    session = _connect(context)
    _known(context, workflow_id, lambda: api.get_status(workflow_id))
    _fetch(session.dispatcher(workflow_id).cancel.remote(workflow_id, _who(why)))
    _tell({"workflow_id": workflow_id, "status": Status.CANCELED.value}, "canceled", as_json)


@click.command("delete")
@click.argument("workflow_id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_options
def delete(context: click.Context, workflow_id: str, yes: bool, as_json: bool) -> None:
    """Delete a workflow with everything stored of it; asks first."""
    _connect(context)
    found = _known(context, workflow_id, lambda: api.get_status(workflow_id))
    if not yes:
        click.confirm(
            f"Delete {clean(workflow_id)} ({found.value}), its journal and its results, for good?",
            abort=True,
            err=True,
        )
    api.delete(workflow_id)
    _tell({"workflow_id": workflow_id, "deleted": True}, "deleted", as_json)


def _connect(context: click.Context) -> Session:
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    return connect(context.find_root().params.get("storage"))


def _who(why: str = "") -> str:
    """Name who asks, and why."""
    user = "somebody"
    with suppress(KeyError, OSError):  # no such user on this machine, as in a container
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}" + (f": {why}" if why else "")


Answer = TypeVar("Answer")


def _known(context: click.Context, workflow_id: str, ask: Callable[[], Answer]) -> Answer:
    """Ask about a workflow; of one that is not there, say what is."""
    try:
        return ask()
    except MilepostError as error:
        storage = context.find_root().params.get("storage")
        if exit_code(error) != 4 or not storage:
            raise
        text = describe_missing(open_store(storage, create=False), workflow_id)
        click.echo(f"Error: {text}", err=True)
        raise click.exceptions.Exit(4) from error


def _fetch(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MilepostError):
            raise error.cause from error
        raise


def _wait(ref: Any) -> Any:
    return _fetch(ref)


def _tell(told: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        click.echo(text)


def _tell_output(workflow_id: str, ask: Callable[[], Any], as_json: bool) -> None:
    """Print a result: plain data as JSON, everything else as Python shows it."""
    try:
        value = ask()
    except WorkflowExecutionError as error:
        if as_json:
            print_json({"workflow_id": workflow_id, "status": "FAILED", "error": str(error)})
        raise
    except KeyboardInterrupt:
        click.echo("stopped waiting; the workflow goes on while its cluster lives", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    shown = to_plain(value) if is_plain(value) else repr(value)
    if as_json:
        status = Status.SUCCESSFUL.value
        print_json({"workflow_id": workflow_id, "status": status, "output": shown})
    else:
        click.echo(json.dumps(shown, allow_nan=False) if is_plain(value) else clean(shown))
