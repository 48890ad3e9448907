"""What leaves a journal for other tools is all of it, and in their form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.errors import UsageError
from milepost.journal import MemoryStore, open_history, open_store
from milepost.journal.attempts import list_attempts
from milepost.journal.history import History
from milepost.journal.tables import OF_A_WORKFLOW, SCHEMAS, open_all
from milepost.journal.tool.export.otel import LINKS_MAX

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
TOLD: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
ID = "golden/é"

every_story = pytest.mark.parametrize("story", sorted(TOLD))


def run(store: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["--storage", str(store), *map(str, arguments)])


@every_story
@pytest.mark.parametrize("what", OF_A_WORKFLOW)
def test_a_table_has_every_row_in_every_form(story: str, what: str, tmp_path: Path) -> None:
    history = open_history(GOLDEN / story, ID)
    table = history.to_arrow(what).read_all()
    expected = {
        "events": TOLD[story]["events"],
        "tasks": len(history.state_at().tasks),
        "attempts": len(list(list_attempts(history))),
    }
    assert table.num_rows == expected[what]
    assert table.schema == SCHEMAS[what]
    for form in ("parquet", "arrow", "jsonl"):
        file = tmp_path / form
        arguments = ("export", ID, "--to", form, "--what", what, "-o", file, "--json")
        assert json.loads(run(GOLDEN / story, *arguments).stdout)["rows"] == table.num_rows
    assert pq.read_table(tmp_path / "parquet").equals(table)
    with (tmp_path / "arrow").open("rb") as stream:
        assert pa.ipc.open_stream(stream).read_all().equals(table)
    rows = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [set(table.column_names)] * table.num_rows


def test_times_are_times_and_unknown_ones_are_null() -> None:
    table = open_history(GOLDEN / "simple", ID).to_arrow("tasks").read_all()
    (row,) = table.to_pylist()
    assert row["started"].tzinfo is not None
    assert row["scheduled"] <= row["started"] <= row["ended"]
    running = MemoryStore()
    tell_story(running, "w", shards=6, finished=False)
    rows = History(running, "w").to_arrow("tasks").read_all().to_pylist()
    assert {row["ended"] for row in rows if row["state"] == "WAITING"} == {None}


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(UsageError, match="there are events, tasks, attempts"):
        open_history(GOLDEN / "simple", ID).to_arrow("blobs")


def test_damage_ends_an_export_with_its_code_and_leaves_no_file(tmp_path: Path) -> None:
    store = tmp_path / "store"
    tell_story(open_store(store), "w", shards=4)
    last = max((store / "workflows/w/segments").iterdir())
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    for form in ("parquet", "jsonl", "otel"):
        done = run(store, "export", "w", "--to", form, "-o", tmp_path / "x")
        assert (done.exit_code, "is damaged at byte" in done.stderr) == (3, True)
    assert [each.name for each in tmp_path.iterdir()] == ["store"]


def test_redacted_exports_tell_no_values() -> None:
    whole = run(GOLDEN / "failure", "export", ID, "--to", "jsonl").stdout
    redacted = run(GOLDEN / "failure", "export", ID, "--to", "jsonl", "--redact").stdout
    assert "Traceback" in whole
    assert "Traceback" not in redacted
    for form in ("chrome-trace", "otel"):
        assert (
            "timed out"
            not in run(GOLDEN / "failure", "export", ID, "--to", form, "--redact").stdout
        )


@every_story
def test_a_chrome_trace_has_each_attempt_once(story: str) -> None:
    trace = json.loads(run(GOLDEN / story, "export", ID, "--to", "chrome-trace").stdout)
    events = trace["traceEvents"]
    attempts = list(list_attempts(open_history(GOLDEN / story, ID)))
    told = Counter(each["cat"] for each in events if each.get("cat") not in (None, "workflow"))
    assert told == Counter(each.outcome.value for each in attempts)
    for each in events:
        assert {"ph", "name", "pid", "tid"} <= each.keys()
        assert each["ph"] in "MXiB"
        assert each["ph"] == "M" or isinstance(each["ts"], int)
        assert (each["ph"] == "X") == ("dur" in each)
    named = {(each["pid"], each["tid"]) for each in events if each["name"] == "thread_name"}
    used = {(each["pid"], each["tid"]) for each in events if each["ph"] == "X"}
    assert used <= named


@every_story
def test_an_otel_trace_is_one_tree_with_links(story: str) -> None:
    written = run(GOLDEN / story, "export", ID, "--to", "otel").stdout
    assert run(GOLDEN / story, "export", ID, "--to", "otel").stdout == written
    whole = json.loads(written)
    ((resource,), ((scope,),)) = (
        whole["resourceSpans"],
        [each["scopeSpans"] for each in whole["resourceSpans"]],
    )
    assert {"key": "service.name", "value": {"stringValue": "milepost"}} in resource["resource"][
        "attributes"
    ]
    root, *children = scope["spans"]
    ids = [each["spanId"] for each in scope["spans"]]
    assert len(set(ids)) == len(ids)
    assert {each["traceId"] for each in scope["spans"]} == {root["traceId"]}
    assert len(root["traceId"]) == 32
    assert {len(each) for each in ids} == {16}
    assert {each["parentSpanId"] for each in children} == {root["spanId"]}
    for each in children:
        assert int(each["startTimeUnixNano"]) <= int(each["endTimeUnixNano"])
    committed = [each for each in children if each["status"]["code"] == 1]
    links = [link["spanId"] for each in committed for link in each["links"]]
    if story in ("fan_out", "failure", "simple"):
        assert set(links) <= set(ids)
        assert bool(links) == (story != "simple")


def test_an_otel_span_has_no_more_links_than_allowed() -> None:
    store = MemoryStore()
    tell_story(store, "w", shards=LINKS_MAX + 5, troubled=False)
    from milepost.journal.tool.export.otel import write_spans

    spans = json.loads("".join(write_spans(History(store, "w"), redact=False)))
    all_spans = spans["resourceSpans"][0]["scopeSpans"][0]["spans"]
    (merge,) = [each for each in all_spans if each["name"] == "pipeline.merge"]
    assert (len(merge["links"]), merge["droppedLinksCount"]) == (LINKS_MAX, 5)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql") / "store"
    store = open_store(folder)
    tell_story(store, "one", shards=4)
    tell_story(store, "two", shards=3, seed=2, finished=False)
    return folder


def ask(store: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(store, "sql", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_sql_asks_over_all_workflows_or_one(two: Path) -> None:
    counted = ask(two, "select workflow_id, count(*) as n from tasks group by 1 order by 1")
    assert counted == [{"workflow_id": "one", "n": 13}, {"workflow_id": "two", "n": 10}]
    assert ask(two, "select count(*) as n from tasks", "--workflow", "two") == [{"n": 10}]
    rows = ask(two, "select status, tasks from workflows order by tasks")
    assert rows == [{"status": "RUNNING", "tasks": 10}, {"status": "SUCCESSFUL", "tasks": 13}]
    (kinds,) = ask(two, "select count(distinct kind) as n from events")
    assert kinds["n"] > 4
    (age,) = ask(two, "select max(created) as at from workflows")
    assert age["at"].startswith("20")
    (joined,) = ask(
        two,
        "select sum(a.run_us) as us from attempts a join tasks t using (workflow_id, task) "
        "where t.state = 'COMMITTED'",
    )
    assert joined["us"] > 0
    assert "SUCCESSFUL" in run(two, "sql", "select * from workflows").stdout


def test_sql_reads_no_files_and_says_what_is_wrong(two: Path) -> None:
    for question in ("select * from read_csv('/etc/passwd')", "selec", "select * from nothing"):
        done = run(two, "sql", question)
        assert (done.exit_code, "cannot be answered" in done.stderr) == (2, True)
    assert run(two, "sql", "select 1 from workflows", "--workflow", "one").exit_code == 2
    assert run(two, "sql", "set enable_external_access=true").exit_code == 2


def test_a_damaged_workflow_does_not_hide_the_others(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    tell_story(store, "whole", shards=2)
    tell_story(store, "hurt", shards=2)
    for path in (tmp_path / "store/workflows/hurt/segments").iterdir():
        path.write_bytes(path.read_bytes()[:150] + b"\xff" * 99)
    rows = open_all(store, "tasks").read_all().to_pylist()
    assert {row["workflow_id"] for row in rows} == {"whole"}
    errors = {
        row["workflow_id"]: row["error"]
        for row in open_all(store, "workflows").read_all().to_pylist()
    }
    assert errors["whole"] is None
    assert "damaged" in errors["hurt"]


def test_without_the_extra_sql_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from milepost.__main__ import main; main(standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--storage", str(GOLDEN / "simple"), "sql", "select 1"],
        capture_output=True,
        text=True,
    )
    assert "pip install 'milepost[sql]'" in done.stderr
