"""The report is one page that loads nothing, lists everything, and lets no stored text run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.journal import open_history, open_store
from milepost.journal.tool.report.content import EVENTS_MAX, gather
from milepost.journal.tool.report.page import make_page
from milepost.journal.tool.text import show_span

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
TOLD: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
CHROMIUM = shutil.which("chromium")

EVIL = "</script><img src=x onerror=alert(1)>&\"'\x00\u2028"


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        self.data += data if self._in_data else ""

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


def page_of(store: Path, workflow_id: str, *, redact: bool = False) -> str:
    return make_page(gather(open_history(store, workflow_id), redact=redact), made_us=1)


@pytest.mark.parametrize("story", sorted(TOLD))
def test_every_story_has_its_page(story: str) -> None:
    page = Page(page_of(GOLDEN / story, TOLD[story]["workflow_id"]))
    data = json.loads(page.data)
    state = open_history(GOLDEN / story, TOLD[story]["workflow_id"]).state_at()
    assert len(data["tasks"]["rows"]) == data["tasks"]["total"] == len(state.tasks)
    assert [row[0] for row in data["events"]] == list(range(TOLD[story]["events"]))


def test_the_page_loads_nothing_and_forbids_it() -> None:
    text = page_of(GOLDEN / "failure", "golden/é")
    tags = Page(text).tags
    assert not {"link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    assert all("src" not in attributes for _, attributes in tags)
    links = [attributes["href"] or "" for tag, attributes in tags if tag == "a"]
    assert links
    assert all(link.startswith("#") for link in links)
    (policy,) = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_stored_text_stays_text(tmp_path: Path) -> None:
    tell_story(open_store(tmp_path / "store"), EVIL, shards=2)
    page = Page(page_of(tmp_path / "store", EVIL))
    kinds = {tag for tag, _ in page.tags}
    assert "img" not in kinds
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    json.loads(page.data)


def test_redacted_pages_tell_no_errors() -> None:
    whole = page_of(GOLDEN / "failure", "golden/é")
    redacted = page_of(GOLDEN / "failure", "golden/é", redact=True)
    assert "Traceback" in whole
    assert "Traceback" not in redacted


def test_a_damaged_blob_is_on_the_page(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "blobs", tmp_path / "store")
    for path in (tmp_path / "store" / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    text = page_of(tmp_path / "store", "golden/é")
    assert "Faulty." in text
    assert "the journal names this blob" in text


def test_a_page_of_many_tasks_is_bounded(tmp_path: Path) -> None:
    tell_story(open_store(tmp_path / "store"), "w", shards=3333, workers=8)
    text = page_of(tmp_path / "store", "w")
    data = json.loads(Page(text).data)
    assert len(data["tasks"]["rows"]) == 10_000
    assert len(data["events"]) <= EVENTS_MAX
    assert len(text) < 3_000_000


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    arguments = ["--storage", str(GOLDEN / "maps"), "report", "golden/é"]
    file = tmp_path / "r.html"
    done = CliRunner().invoke(main, [*arguments, "-o", str(file), "--json"])
    told = json.loads(done.stdout)
    assert (told["bytes"], told["clean"]) == (file.stat().st_size, True)
    printed = CliRunner().invoke(main, [*arguments, "-o", "-"]).stdout
    assert printed.startswith("<!doctype html>")
    assert CliRunner().invoke(main, arguments).exit_code == 2


PLAY = """
<script>
addEventListener("load", () => setTimeout(() => {
  const rows = (id) => [...document.querySelectorAll(id + " .row span:first-child")]
    .map((each) => each.textContent);
  const press = (name) => [...document.querySelectorAll("#task-list .head button")]
    .find((each) => each.textContent.startsWith(name)).click();
  const told = { first: rows("#task-list") };
  told.total = document.querySelector("#task-count").textContent;
  press("Lasted");
  told.longest = document.querySelector("#task-list .row .c5").textContent;
  const search = document.querySelector("#task-search");
  search.value = "merge"; search.oninput();
  setTimeout(() => {
    told.found = rows("#task-list");
    document.querySelector("#task-list .row").click();
    told.detail = document.querySelector("dialog dd").textContent;
    told.wide = document.documentElement.scrollWidth <= innerWidth;
    document.body.dataset.told = JSON.stringify(told);
  }, 300);
}, 100));
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_sorts_searches_and_fits(tmp_path: Path, width: int) -> None:
    tell_story(open_store(tmp_path / "store"), "w", shards=3333, workers=8)
    text = page_of(tmp_path / "store", "w")
    file = tmp_path / "r.html"
    file.write_text(text.replace("</body>", PLAY + "</body>"), "utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-quic", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom"),
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    match = re.search(r'data-told="([^"]*)"', done.stdout)
    assert match is not None, done.stderr[-2000:]
    told = json.loads(match[1].replace("&quot;", '"'))
    assert told["total"] == "10,000 rows"
    assert 15 < len(told["first"]) < 60, "only what is in sight is in the document"
    figures = gather(open_history(tmp_path / "store", "w"), redact=False).figures
    assert told["longest"] == show_span(figures.slowest[0][1])
    assert told["found"] == ["pipeline.merge"]
    assert told["detail"] == "pipeline.merge"
    assert told["wide"], "nothing sticks out at the side"
