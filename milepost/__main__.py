"""The command line: ``milepost``, or ``python -m milepost``. Never loads Ray by itself."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import click

from milepost.errors import MilepostError

TOOLS = {
    "bundle": ("bundling", "Copy a workflow into one file, with a manifest and how to verify it."),
    "export": (
        "exporting",
        "Write a workflow as Parquet, Arrow, JSON lines, a Chrome trace, or an OTLP trace.",
    ),
    "graph": (
        "drawing",
        "Draw the graph as SVG, Mermaid or DOT, states as colours, one node per function.",
    ),
    "head": ("chain_head", "Print the head of the hash chain, or compare with an earlier one."),
    "journal": ("events", "Print the events, verified and decoded."),
    "lineage": ("ancestry", "List the tasks that went into a result, the task itself first."),
    "ls": ("listing", "List the workflows, the newest first."),
    "report": (
        "reporting",
        "Write a report: one page that works offline, with graph, timeline, tasks, errors, events.",
    ),
    "show": ("workflow", "Show a workflow: status, tasks by state, owners, errors."),
    "sql": ("sql", "Ask about events, tasks, attempts and workflows, as tables, in SQL."),
    "state": ("past", "Rebuild the state after an event, or at a time."),
    "stats": (
        "statistics",
        "Say what a workflow cost: bytes, writes, retries, slowest tasks, critical path.",
    ),
    "tail": ("following", "Print the newest events; with -f those to come, too."),
    "tasks": ("tasks", "List the tasks: state, attempts, time in queue and at work, worker, size."),
    "timeline": ("gantt", "Draw when what ran where: queues, failures, kills, takeovers."),
    "verify": ("verification", "Check that all that is stored is whole, and every event legal."),
    "why": ("waiting", "Say what a workflow waits for, and what to do."),
}
"""Commands that only look, with their module below :mod:`milepost.journal.tool` and what they do:
told here, so that asking for help loads none of them."""

ACTIONS = {
    "cancel": ("cancel", "End a workflow for good, without a result, and its running tasks."),
    "delete": ("delete", "Delete a workflow with everything stored of it; asks first."),
    "output": ("output", "Print a result; waits while the workflow runs."),
    "resume": (
        "resume",
        "Go on with a workflow that failed, or whose cluster is gone; committed tasks stay done.",
    ),
    "resume-all": (
        "resume_all",
        "Go on with every workflow whose cluster is gone, and wait until they have ended.",
    ),
    "run": (
        "run",
        "Run a workflow: NAME in MODULE is a DAG, a task, or a function that makes a DAG.",
    ),
    "status": (
        "status",
        "Tell a workflow's status as the cluster knows it: RESUMABLE, too, if its owner is gone.",
    ),
}
"""Commands that act, and so need Ray, with their name in :mod:`milepost.engine.acting`."""


class LazyGroup(click.Group):
    """Loads a command that looks when it is used, and turns its errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, loaded or not."""
        return sorted([*super().list_commands(ctx), *TOOLS, *ACTIONS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        command: click.Command | None
        if cmd_name in TOOLS:
            module = importlib.import_module(f"milepost.journal.tool.{TOOLS[cmd_name][0]}")
            command = module.command
        elif cmd_name in ACTIONS:
            module = importlib.import_module("milepost.engine.acting")
            command = getattr(module, ACTIONS[cmd_name][0])
        else:
            command = super().get_command(ctx, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        acting = {name: each.get_short_help_str() for name, each in self.commands.items()}
        acting |= {name: told for name, (_, told) in ACTIONS.items()}
        looking = {name: told for name, (_, told) in TOOLS.items()}
        with formatter.section("Commands that look"):
            formatter.write_dl(sorted(looking.items()))
        with formatter.section("Commands that act (they need Ray)"):
            formatter.write_dl(sorted(acting.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it refuses becomes text on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except MilepostError as error:
            from milepost.journal.tool.place import refuse

            raise refuse(error) from error


@click.group(cls=LazyGroup)
@click.option("--storage", envvar="MILEPOST_STORAGE", help="Path or URI of the store.")
@click.version_option(importlib.metadata.version("milepost"), prog_name="milepost")
def main(storage: str | None) -> None:
    """Durable execution for Ray."""


@main.command()
@click.option("--storage", help="Path or URI of the store; as before the command.")
@click.option("--watch", is_flag=True, help="Keep looking, until interrupted: a standby.")
@click.option(
    "--force", "-f", multiple=True, metavar="ID", help="Take this one even from a live owner."
)
@click.option(
    "--wait/--no-wait", default=True, help="Stay until what was resumed has ended (default)."
)
@click.pass_context
def recover(
    context: click.Context, storage: str | None, watch: bool, force: tuple[str, ...], wait: bool
) -> None:
    """Go on with every workflow whose cluster is gone.

    Uses the cluster that RAY_ADDRESS names, or starts one on this machine, which ends with this
    command. Exit code 1: the storage cannot be used, or a workflow cannot go on or did not succeed.
    """
    from milepost.engine.commands import recover_all

    recover_all(storage or context.find_root().params.get("storage"), force, watch, wait)


@main.command()
@click.option("--storage", help="Path or URI of the store; as before the command.")
@click.option(
    "--ray/--no-ray", "with_ray", default=True, help="Connect to Ray or start it (default)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
@click.pass_context
def doctor(context: click.Context, storage: str | None, with_ray: bool, as_json: bool) -> None:
    """Try what a workflow will need, and say what to mend.

    Looks at versions, the storage, the clock and Ray: the cluster that RAY_ADDRESS names, or one
    that ends with this command. Leaves nothing behind. Exit code 1: something must be mended.
    """
    from milepost.doctor.telling import tell_all

    tell_all(storage or context.find_root().params.get("storage"), with_ray, as_json)


if __name__ == "__main__":
    main()
