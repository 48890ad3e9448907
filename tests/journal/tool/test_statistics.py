"""``stats`` and the attempts under it: every figure can be counted another way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.journal import MemoryStore, open_history, open_store, read_journal
from milepost.journal.attempts import Outcome, list_attempts
from milepost.journal.figures import find_critical_path, read_figures
from milepost.journal.history import History
from milepost.journal.story import read_story
from milepost.replay.events import (
    AttemptFailed,
    ItemFailed,
    ItemsScheduled,
    TasksCommitted,
    TasksScheduled,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
TOLD: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))

every_story = pytest.mark.parametrize("story", sorted(TOLD))


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    store = MemoryStore()
    tell_story(store, "w", shards=30)
    tell_story(store, "half", shards=30, finished=False)
    return store


@every_story
def test_every_attempt_that_was_scheduled_ends_once_or_is_under_way(story: str) -> None:
    history = open_history(GOLDEN / story, TOLD[story]["workflow_id"])
    events = [entry.event for entry in history]
    scheduled = [
        (task, number)
        for event in events
        if isinstance(event, TasksScheduled)
        for task, number in zip(event.tasks, event.attempts, strict=True)
    ]
    attempts = [each for each in list_attempts(history) if not each.items]
    assert Counter((each.task, each.number) for each in attempts) == Counter(scheduled)
    outcomes = Counter(each.outcome for each in attempts)
    commits = sum(len(each.tasks) for each in events if isinstance(each, TasksCommitted))
    assert outcomes[Outcome.COMMITTED] == commits
    assert outcomes[Outcome.FAILED] == sum(isinstance(each, AttemptFailed) for each in events)


def test_every_item_that_was_scheduled_ends_once() -> None:
    history = open_history(GOLDEN / "maps", TOLD["maps"]["workflow_id"])
    events = [entry.event for entry in history]
    scheduled = sum(
        sum(each.stops) - sum(each.starts) for each in events if isinstance(each, ItemsScheduled)
    )
    attempts = [each for each in list_attempts(history) if each.items]
    assert sum(each.items for each in attempts) == scheduled
    committed = sum(each.items for each in attempts if each.outcome is Outcome.COMMITTED)
    state = history.state_at()
    caught = sum(
        isinstance(each, ItemFailed) and each.final and state.maps[each.task].catches
        for each in events
    )
    assert committed + caught == sum(each.done for each in state.maps.values()) > 0
    assert {each.outcome for each in attempts} > {Outcome.FAILED, Outcome.COMMITTED}
    records = {each.task: each for each in read_story(history).tasks()}
    for task, map_ in state.maps.items():
        record = records[state.graph.task_id(task)]
        assert (record.items, record.items_done) == (map_.width, map_.done)


def test_a_task_tells_where_and_when_it_ran(store: MemoryStore) -> None:
    history = History(store, "w")
    last = {each.task: each for each in list_attempts(history) if each.outcome == "committed"}
    story = read_story(history)
    assert len(story.workers) >= 2
    for number, record in enumerate(story.tasks()):
        attempt = last[number]
        assert record.worker == attempt.worker in story.workers
        assert (record.run_us, record.queue_us) == (attempt.run_us, attempt.queue_us)
        assert record.attempts == attempt.number


def test_what_is_under_way_has_no_end(store: MemoryStore) -> None:
    story = read_story(History(store, "half"))
    running = [each for each in story.tasks() if each.state == "SCHEDULED"]
    assert len(running) == len(story.log.under_way) > 0
    assert all(each.scheduled_us and not each.ended_us for each in running)
    assert all(each.run_us is None for each in running)


def test_the_figures_add_up(store: MemoryStore) -> None:
    figures = read_figures(store, "w")
    attempts = list(list_attempts(History(store, "w")))
    assert sum(figures.outcomes.values()) == len(attempts)
    assert figures.retries == len(attempts) - figures.tasks > 0
    assert figures.run_us == sum(each.run_us for each in attempts)
    assert figures.run_us == sum(each.run_us for each in figures.functions)
    assert figures.slowest[0][1] == max(each.run_us for each in attempts)
    assert figures.journal_bytes == sum(each.size for each in store.list("workflows/w/"))
    assert figures.raw_bytes == sum(len(frame.raw) for frame in read_journal(store, "w"))
    assert figures.epochs == 2
    assert figures.wasted_us > 0


def test_the_critical_path_is_a_chain_that_ends_in_the_result(store: MemoryStore) -> None:
    state = History(store, "w").state_at()
    path = find_critical_path(state)
    assert path[-1] == state.root
    assert [state.graph.node_functions[task] for task in path] == [0, 1, 2, 3]
    last = max(state.graph.inputs(state.root), key=lambda task: state.task_ended_us[task])
    assert path[-2] == last
    half = find_critical_path(History(store, "half").state_at())
    assert half
    assert find_critical_path(History(store, "w").state_at(seq=0)) == []


def test_the_critical_path_goes_through_continuations() -> None:
    state = open_history(GOLDEN / "continuation", "golden/é").state_at()
    path = find_critical_path(state)
    assert set(state.continuations) <= set(path)
    ends = [state.task_ended_us[task] for task in path]
    assert ends == sorted(ends)


@every_story
def test_stats_are_printed_for_people_and_scripts(story: str) -> None:
    arguments = ["--storage", str(GOLDEN / story), "stats", TOLD[story]["workflow_id"]]
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert (told["events"], told["status"]) == (TOLD[story]["events"], TOLD[story]["status"])
    assert "CRITICAL PATH" in CliRunner().invoke(main, arguments).stdout


def test_tasks_are_sorted_and_chosen(tmp_path: Path) -> None:
    tell_story(open_store(tmp_path / "store"), "w", shards=5)
    arguments = ["--storage", str(tmp_path / "store"), "tasks", "w", "--json"]

    def rows(*more: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(main, [*arguments, *more])
        return [json.loads(line) for line in done.stdout.splitlines()]

    durations = [each["run_us"] for each in rows("--sort", "duration")]
    assert durations == sorted(durations, reverse=True)
    assert {each["function"] for each in rows("--function", "parse")} == {"pipeline.parse"}
    assert len(rows("--sort", "attempts", "--limit", "2")) == 2
