"""``milepost graph``: a workflow's graph, folded by function so that any size can be read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from milepost.journal.tool.pictures.folding import FOLDS, Group, fold_graph
from milepost.journal.tool.pictures.graph import draw_graph
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, print_json
from milepost.journal.tool.writing import write_text

FORMS = ("svg", "mermaid", "dot")


@click.command("graph")
@click.argument("workflow_id")
@click.option("--to", "form", type=click.Choice(FORMS), help="By default as FILE ends, or mermaid.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it; by default it is printed.",
)  # fmt: skip
@click.option(
    "--fold", type=click.Choice(FOLDS),
    help="One node per function, or per task; auto decides by the size (default of SVG).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object with nodes and edges.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    form: str | None,
    output: Path | None,
    fold: str | None,
    as_json: bool,
) -> None:
    """Draw the graph as SVG, Mermaid or DOT, states as colours, one node per function."""
    state = chosen_history(context, workflow_id).state_at()
    suffix = output.suffix.lower()[1:] if output else ""
    form = form or {"svg": "svg", "dot": "dot", "gv": "dot"}.get(suffix, "mermaid")
    if form == "svg" and not as_json:
        write_text(draw_graph(state, fold or "auto"), output)
        return
    folded = fold_graph(state, fold or "function")
    labels = [_label(group) for group in folded.groups]
    if as_json:
        arrows = [{"from": a, "to": b, "count": count} for (a, b), count in folded.edges.items()]
        print_json({"nodes": labels, "edges": arrows})
        return
    lines = _mermaid if form == "mermaid" else _dot
    write_text("\n".join(lines(labels, folded.edges)) + "\n", output)


def _label(group: Group) -> str:
    counts = (f"{count} {kind.name.lower()}" for kind, count in sorted(group.counts.items()))
    return f"{clean(group.name)}: {', '.join(counts)}"


def _mermaid(labels: list[str], edges: Counter[tuple[int, int]]) -> list[str]:
    lines = ["flowchart TD"]
    for number, label in enumerate(labels):
        text = label.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;")
        lines.append(f'    n{number}["{text}"]')
    return lines + [f"    n{a} -->|{count}| n{b}" for (a, b), count in edges.items()]


def _dot(labels: list[str], edges: Counter[tuple[int, int]]) -> list[str]:
    lines = ["digraph workflow {"]
    for number, label in enumerate(labels):
        lines.append(f"    n{number} [shape=box, label={json.dumps(label, ensure_ascii=False)}];")
    lines += [f"    n{a} -> n{b} [label={count}];" for (a, b), count in edges.items()]
    return [*lines, "}"]
