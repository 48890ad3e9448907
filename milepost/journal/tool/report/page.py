"""Puts a report together: one HTML file that loads nothing and sends nothing."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from string import Template
from typing import Any

from milepost.journal.tool.pictures.graph import draw_graph
from milepost.journal.tool.pictures.timeline import draw_timeline
from milepost.journal.tool.report.content import EVENTS_MAX, Content, tasks_in_columns
from milepost.journal.tool.text import clean, show_size, show_span, show_time
from milepost.replay.state import TaskState


def make_page(content: Content, *, made_us: int) -> str:
    """Make the page.

    Args:
        content: What it tells.
        made_us: When it is made, microseconds since 1970.

    Returns:
        An HTML document.
    """
    state = content.story.state
    data = {
        "tasks": tasks_in_columns(content.story),
        "events": list(content.events),
        "created_us": state.created_us,
    }
    status = state.status.value if state.status else "UNKNOWN"
    return Template(_read("page.html")).substitute(
        title=_text(state.workflow_id),
        status=status,
        style=_read("page.css"),
        script=_read("page.js"),
        data=_embed(data),
        facts=_facts(content),
        findings=_findings(content),
        failures=_failures(content),
        functions=_functions(content),
        critical=_critical(content),
        graph=draw_graph(state),
        timeline=draw_timeline(content.lanes, state.workflow_id, state.graph.task_id),
        events_note=_events_note(content),
        made=show_time(made_us),
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _text(value: object) -> str:
    return escape(clean(str(value)))


def _embed(data: object) -> str:
    """Write JSON that cannot end the element it stands in."""
    written = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _facts(content: Content) -> str:
    state, figures = content.story.state, content.figures
    counts = ", ".join(
        f"{count:,} {kind.lower()}" for kind, count in _counted(content).items()
    )  # fmt: skip
    outcomes = ", ".join(
        f"{n:,} {name.replace('_', ' ')}" for name, n in figures.outcomes.items()
    )  # fmt: skip
    facts = {
        "Tasks": f"{figures.tasks:,}",
        "by state": counts,
        "Attempts": outcomes or "none",
        "Created": show_time(state.created_us),
        "Ended": show_time(state.ended_us),
        "Span": show_span(figures.span_us),
        "Functions ran": f"{show_span(figures.run_us)} in all",
        "In vain": f"{show_span(figures.wasted_us)} at most",
        "Journal": f"{show_size(figures.journal_bytes)}, {figures.events:,} events",
        "Blobs": f"{figures.blobs:,}, {show_size(figures.blob_bytes)}",
        "Owners": f"{figures.epochs}",
        "Made by": state.versions,
    }
    return "".join(f"<div><dt>{_text(a)}</dt><dd>{_text(b)}</dd></div>" for a, b in facts.items())


def _counted(content: Content) -> dict[str, int]:
    counts = content.story.state.counts
    return {kind.name: counts[kind] for kind in TaskState if counts[kind]}


def _findings(content: Content) -> str:
    found = content.verification
    hashed = "" if found.is_clean else " faulty"
    word = "Whole" if found.is_clean else "Faulty"
    told = (
        f"{found.events:,} events in {found.frames:,} frames by {found.epochs} owners: checksums, "
        f"hash chain, order, legality of every event, and {found.blobs:,} blobs are there."
        if found.is_clean
        else f"{len(found.faults)} faults were found."
    )
    rows = "".join(
        f"<li><b>{_text(each.kind)}</b> {_text(each.reason)} "
        f"<code>{_text(each.key)}</code> at byte {each.offset}</li>"
        for each in found.findings[:100]
    )
    digest = f'<p class="dim">State <code>{_text(found.digest)}</code></p>'
    return f'<p class="verdict{hashed}"><b>{word}.</b> {told}</p><ul>{rows}</ul>{digest}'


def _failures(content: Content) -> str:
    if not content.failures:
        return '<p class="dim">No attempt failed.</p>'
    rows = []
    for each in reversed(content.failures):
        final = " · the task failed with it" if each.is_final else ""
        rows.append(
            f"<details><summary><b>{_text(each.what)}</b> {_text(each.type)}: "
            f"{_text(each.message[:300])}</summary><p class='dim'>attempt {each.attempt}, event "
            f"{each.seq}{final}</p><pre>{_lines(each.traceback)}</pre></details>"
        )
    more = content.failures_count - len(content.failures)
    note = f'<p class="dim">and {more:,} earlier ones</p>' if more else ""
    return "".join(rows) + note


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.splitlines())


def _functions(content: Content) -> str:
    rows = [
        (each.name, f"{each.attempts:,}", show_span(each.run_us),
         show_span(each.run_us / each.attempts), show_span(each.longest_us))
        for each in content.figures.functions[:100]
    ]  # fmt: skip
    return _table(("Function", "Attempts", "Total", "Mean", "Longest"), rows)


def _critical(content: Content) -> str:
    path = content.figures.critical
    rows = [(task, show_span(us)) for task, us in path[:50]]
    more = f'<p class="dim">and {len(path) - 50:,} more</p>' if len(path) > 50 else ""
    return _table(("Task", "Lasted"), rows) + more


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    top = "".join(f"<th>{_text(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _events_note(content: Content) -> str:
    total = content.figures.events
    return f"the newest {EVENTS_MAX:,} of {total:,}" if total > EVENTS_MAX else f"all {total:,}"
