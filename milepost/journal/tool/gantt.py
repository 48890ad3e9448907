"""``milepost timeline``: when what ran where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from milepost.journal.tool.pictures.lanes import read_lanes
from milepost.journal.tool.pictures.timeline import draw_timeline, print_lanes
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, print_json, terminal_columns
from milepost.journal.tool.writing import write_text

PIPE_COLUMNS = 120


@click.command("timeline")
@click.argument("workflow_id")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write SVG there; by default it is drawn with characters.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object per attempt and line.")
@click.pass_context
def command(context: click.Context, workflow_id: str, output: Path | None, as_json: bool) -> None:
    """Draw when what ran where: queues, failures, kills, takeovers."""
    history = chosen_history(context, workflow_id)
    lanes, state = read_lanes(history), history.state_at()
    if as_json:
        for worker, bars in lanes.bars.items():
            for bar in bars:
                print_json({**asdict(bar), "task": state.graph.task_id(bar.task), "worker": worker})
    elif output is not None:
        write_text(draw_timeline(lanes, workflow_id, state.graph.task_id), output)
    else:
        for line in print_lanes(lanes, terminal_columns() or PIPE_COLUMNS):
            click.echo(clean(line))
