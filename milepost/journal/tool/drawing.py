"""``milepost graph``: a workflow's graph, folded by function so that any size can be read."""

from __future__ import annotations

import json
from collections import Counter

import click

from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, print_json
from milepost.replay.state import State, TaskState


@click.command("graph")
@click.argument("workflow_id")
@click.option("--to", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with nodes and edges.")
@click.pass_context
def command(context: click.Context, workflow_id: str, form: str, as_json: bool) -> None:
    """Draw the graph as Mermaid or DOT, one node per function."""
    state = chosen_history(context, workflow_id).state_at()
    labels, edges = fold_by_function(state)
    if as_json:
        arrows = [{"from": a, "to": b, "count": count} for (a, b), count in edges.items()]
        print_json({"nodes": labels, "edges": arrows})
    elif form == "dot":
        _print_dot(labels, edges)
    else:
        _print_mermaid(labels, edges)


def fold_by_function(state: State) -> tuple[list[str], Counter[tuple[int, int]]]:
    """Put all tasks of one function into one node.

    Args:
        state: The state of a workflow.

    Returns:
        What each node says: function, and how many of its tasks are in which state; and how often
        a task of one node takes the value of a task of another, by their positions.
    """
    graph = state.graph
    counts: list[Counter[int]] = [Counter() for _ in graph.functions]
    edges: Counter[tuple[int, int]] = Counter()
    for task, function in enumerate(graph.node_functions):
        counts[function][state.tasks[task]] += 1
        edges.update((graph.node_functions[each], function) for each in graph.inputs(task))
    labels = [
        f"{clean(function.name)}: "
        + ", ".join(f"{count[kind]} {kind.name.lower()}" for kind in TaskState if count[kind])
        for function, count in zip(graph.functions, counts, strict=True)
    ]
    return labels, edges


def _print_mermaid(labels: list[str], edges: Counter[tuple[int, int]]) -> None:
    click.echo("flowchart TD")
    for number, label in enumerate(labels):
        text = label.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;")
        click.echo(f'    n{number}["{text}"]')
    for (source, target), count in edges.items():
        click.echo(f"    n{source} -->|{count}| n{target}")


def _print_dot(labels: list[str], edges: Counter[tuple[int, int]]) -> None:
    click.echo("digraph workflow {")
    for number, label in enumerate(labels):
        click.echo(f"    n{number} [shape=box, label={json.dumps(label, ensure_ascii=False)}];")
    for (source, target), count in edges.items():
        click.echo(f"    n{source} -> n{target} [label={count}];")
    click.echo("}")
