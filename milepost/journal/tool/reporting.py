"""``milepost report``: a workflow on one page."""

from __future__ import annotations

import time
from pathlib import Path

import click

from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.report.content import gather
from milepost.journal.tool.report.page import make_page
from milepost.journal.tool.text import print_json
from milepost.journal.tool.writing import write_text


@click.command("report")
@click.argument("workflow_id")
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The HTML file; - prints it.",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
)  # fmt: skip
@click.option("--redact", is_flag=True, help="Leave out what payloads and error texts contain.")
@click.option("--json", "as_json", is_flag=True, help="Say what was written as one JSON object.")
@click.pass_context
def command(
    context: click.Context, workflow_id: str, output: Path, redact: bool, as_json: bool
) -> None:
    """Write a report: one page that works offline, with graph, timeline, tasks, errors, events."""
    content = gather(chosen_history(context, workflow_id), redact=redact)
    page = make_page(content, made_us=time.time_ns() // 1000)
    printed = str(output) == "-"
    write_text(page, None if printed else output)
    if as_json and not printed:
        told = {"workflow_id": workflow_id, "file": str(output), "bytes": len(page.encode())}
        print_json(told | {"clean": content.verification.is_clean})
