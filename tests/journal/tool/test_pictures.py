"""Pictures are well-formed, show everything, run nothing, and stay readable at any size."""

from __future__ import annotations

import json
import os
import random
import re
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.journal import MemoryStore, open_history, open_store
from milepost.journal.attempts import list_attempts
from milepost.journal.history import History
from milepost.journal.tool.pictures.folding import GROUPS_MAX, find_depths, fold_graph
from milepost.journal.tool.pictures.graph import draw_graph
from milepost.journal.tool.pictures.lanes import NOBODY, read_lanes
from milepost.journal.tool.pictures.layers import place
from milepost.journal.tool.pictures.scale import Scale
from milepost.journal.tool.pictures.svg import Svg, fit
from milepost.journal.tool.pictures.timeline import draw_timeline, print_lanes
from rehearsal import Rehearsal
from shapes import make_environment, make_graph

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
TOLD: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))

every_story = pytest.mark.parametrize("story", sorted(TOLD))


def texts(svg: str) -> list[str]:
    """Give what is written in a picture; tips stand before it, in an element of their own."""
    found = [each for each in ET.fromstring(svg).iter() if each.tag.endswith("}text")]
    return [(each.text or "") + "".join(tip.tail or "" for tip in each) for each in found]


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    store = MemoryStore()
    tell_story(store, "w", shards=4)
    tell_story(store, "half", shards=12, finished=False)
    tell_story(store, "large", shards=1000, workers=8)
    return store


@every_story
def test_every_story_can_be_drawn(story: str) -> None:
    history = open_history(GOLDEN / story, TOLD[story]["workflow_id"])
    state = history.state_at()
    assert TOLD[story]["workflow_id"] in texts(draw_graph(state))
    drawn = draw_timeline(read_lanes(history), state.workflow_id, state.graph.task_id)
    assert TOLD[story]["workflow_id"] in texts(drawn)
    empty = history.state_at(at_us=0)
    assert texts(draw_graph(empty))


def test_each_task_has_its_box_while_there_are_few(store: MemoryStore) -> None:
    state = History(store, "w").state_at()
    shown = texts(draw_graph(state))
    ids = {state.graph.task_id(task).rpartition(".")[2] for task in range(len(state.tasks))}
    assert ids <= set(shown)
    folded = texts(draw_graph(state, "function"))
    assert {"load_shard", "parse", "score", "merge"} <= set(folded)
    assert "load_shard_1" not in folded


def test_a_large_graph_is_folded_and_loses_nothing(store: MemoryStore) -> None:
    state = History(store, "large").state_at()
    folded = fold_graph(state)
    assert folded.by_function
    assert sum(group.tasks for group in folded.groups) == len(state.tasks) == 3001
    assert folded.edges == {(0, 1): 1000, (0, 2): 1000, (1, 2): 1000, (2, 3): 1000}
    assert [group.layer for group in folded.groups] == [0, 1, 2, 3]
    drawn = draw_graph(state)
    assert len(drawn) < 20_000
    assert "3,001 committed" in texts(drawn)


def test_more_functions_than_can_be_told_apart_share_a_box() -> None:
    store, rng = MemoryStore(), random.Random(1)
    told = Rehearsal(store, "w", seed=1)
    count = GROUPS_MAX * 4
    inputs = [(), *((task,) for task in range(count))]
    told.create(make_graph(rng, inputs, kinds=count), make_environment(rng))
    state = told.state
    assert len(state.graph.functions) > GROUPS_MAX
    folded = fold_graph(state)
    assert len(folded.groups) == GROUPS_MAX + 1
    assert sum(group.tasks for group in folded.groups) == len(state.tasks)


@every_story
def test_a_task_lies_deeper_than_all_it_waits_for(story: str) -> None:
    state = open_history(GOLDEN / story, "golden/é").state_at()
    depths = find_depths(state)
    for task in range(len(state.tasks)):
        for source in state.graph.inputs(task):
            last = source
            while last in state.continuations:
                last = state.continuations[last]
            assert depths[task] > depths[last]
    for task, root in state.continuations.items():
        first, _ = state.graph.fragment_of(root)
        assert depths[first] > depths[task]


def test_places_do_not_overlap() -> None:
    layers = [0, 0, 0, 1, 1, 2]
    edges = [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5), (5, 5)]
    placed = place(layers, edges, node_width=100, bend_width=10, gap=20)
    assert set(placed.routes) == set(edges) - {(5, 5)}
    assert len(placed.routes[2, 5]) == 1
    for layer in set(layers):
        xs = sorted(x for x, at in zip(placed.xs, layers, strict=True) if at == layer)
        assert all(right - left >= 120 for left, right in pairwise(xs))


def test_a_timeline_shows_each_attempt_and_each_takeover(store: MemoryStore) -> None:
    history = History(store, "w")
    lanes, attempts = read_lanes(history), list(list_attempts(history))
    assert sum(map(len, lanes.bars.values())) == len(attempts)
    shown = texts(draw_timeline(lanes, "w", str))
    assert "epoch 2: its cluster was killed" in shown
    counts = Counter(each.outcome.value for each in attempts)
    assert {f"{n} {name}" for name, n in counts.items()} <= set(shown)
    assert set(lanes.bars) - {NOBODY} <= set(shown)


def test_what_is_under_way_is_drawn_to_the_last_event(store: MemoryStore) -> None:
    lanes = read_lanes(History(store, "half"))
    running = [bar for bars in lanes.bars.values() for bar in bars if bar.outcome == "running"]
    assert running
    assert all(bar.ended_us <= lanes.span[1] for bar in running)


def test_a_large_timeline_is_drawn_with_few_bars(store: MemoryStore) -> None:
    lanes = read_lanes(History(store, "large"))
    assert sum(map(len, lanes.bars.values())) > 3000
    assert len(draw_timeline(lanes, "large", str)) < 400_000


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_timeline_of_characters_fits(store: MemoryStore, columns: int) -> None:
    read = read_lanes(History(store, "w"))
    lanes = [line for line in print_lanes(read, columns) if line.endswith("│")]
    assert len(lanes) == len(read.bars)
    assert max(map(len, lanes)) <= columns
    assert "█" in "".join(lanes)
    assert "|" in "".join(lanes)


spans = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**5)).map(lambda s: (s[0], s[0] + s[1])),
    min_size=1,
)


@given(spans)
def test_time_goes_from_left_to_right_and_stays_inside(busy: list[tuple[int, int]]) -> None:
    scale = Scale(busy, 1000.0)
    times = sorted({at for span in busy for at in span})
    xs = [scale.x(at) for at in times]
    assert xs == sorted(xs)
    assert xs[0] >= -1e-6
    assert xs[-1] <= 1000.0 + 1e-6
    ticks = [x for x, _ in scale.ticks()]
    assert ticks == sorted(ticks)


def test_a_night_of_waiting_takes_little_room() -> None:
    hour = 3600 * 10**6
    scale = Scale([(0, hour), (20 * hour, 21 * hour)], 1000.0)
    assert scale.x(20 * hour) - scale.x(hour) < 50
    assert scale.x(hour) > 400


def test_no_text_gets_out_of_its_place(tmp_path: Path) -> None:
    evil = "</title><script>alert(1)</script>&\"'\x00\x1b]]>"
    tell_story(open_store(tmp_path / "store"), evil, shards=2)
    state = open_history(tmp_path / "store", evil).state_at()
    for drawn in (
        draw_graph(state),
        draw_timeline(read_lanes(open_history(tmp_path / "store", evil)), evil, lambda _: evil),
    ):
        tags = {each.tag.partition("}")[2] for each in ET.fromstring(drawn).iter()}
        assert tags <= {"svg", "title", "style", "rect", "g", "path", "text", "line"}
    svg = Svg(1, 1, evil)
    svg.add("text", evil, class_=evil, tip=evil)
    ET.fromstring(svg.to_text())


def test_names_are_cut_in_the_middle() -> None:
    assert fit("pipeline.load_shard_17", 80) == "pip…shard_17"
    assert fit("short", 80) == "short"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["--storage", str(GOLDEN / "fan_out"), *map(str, arguments)])


def test_a_picture_is_written_whole_or_printed(tmp_path: Path) -> None:
    for command in ("graph", "timeline"):
        file = tmp_path / f"{command}.svg"
        assert run(command, "golden/é", "-o", file).exit_code == 0
        ET.parse(file)
    assert run("graph", "golden/é", "--to", "svg").stdout == (tmp_path / "graph.svg").read_text()
    assert run("graph", "golden/é", "-o", tmp_path / "g.dot").exit_code == 0
    assert (tmp_path / "g.dot").read_text().startswith("digraph")
    done = run("graph", "golden/é", "-o", tmp_path / "missing" / "g.svg")
    assert (done.exit_code, "cannot write" in done.stderr) == (1, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "g.dot",
        "graph.svg",
        "timeline.svg",
    ]


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, tmp_path):
        assert run("graph", "golden/é", "--to", "svg", "-o", target).exit_code != 0
    assert pipe.is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_attempts_are_told_as_json() -> None:
    rows = [json.loads(line) for line in run("timeline", "golden/é", "--json").stdout.splitlines()]
    assert len(rows) == 31
    assert all(re.fullmatch(r"\w+:\d+", each["worker"]) for each in rows)
