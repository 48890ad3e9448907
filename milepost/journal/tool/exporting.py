"""``milepost export``: a workflow in a form that other tools read."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from milepost.journal.tables import OF_A_WORKFLOW
from milepost.journal.tool.export.forms import FORMS, TABULAR, write_export
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import print_json
from milepost.journal.tool.writing import open_whole

BINARY = ("parquet", "arrow")


@click.command("export")
@click.argument("workflow_id")
@click.option("--to", "form", type=click.Choice(FORMS), required=True)
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write it; by default it is printed.",
    type=click.Path(dir_okay=False, path_type=Path),
)  # fmt: skip
@click.option(
    "--what", type=click.Choice(OF_A_WORKFLOW), default="events", show_default=True,
    help="Which table; traces know only one.",
)  # fmt: skip
@click.option("--redact", is_flag=True, help="Leave out what payloads and error texts contain.")
@click.option("--json", "as_json", is_flag=True, help="Say what was written as one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    form: str,
    output: Path | None,
    what: str,
    redact: bool,
    as_json: bool,
) -> None:
    """Write a workflow as Parquet, Arrow, JSON lines, a Chrome trace, or an OTLP trace."""
    history = chosen_history(context, workflow_id)
    if output is None:
        if form in BINARY and sys.stdout.isatty():
            raise click.UsageError(f"{form} is nothing for a terminal: give -o FILE")
        write_export(history, form, what, sys.stdout.buffer, redact=redact)
        return
    with open_whole(output) as file:
        rows = write_export(history, form, what, file, redact=redact)
    if as_json:
        told = {"workflow_id": workflow_id, "file": str(output), "to": form}
        print_json(told | ({"what": what, "rows": rows} if form in TABULAR else {}))
