"""The survey's plain functions: counts, sums, and a report that depends on nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import msgpack
import pytest

from survey import (
    TOP_LEVEL,
    add_up,
    find_packages,
    reduce_package,
    standard_library,
    survey_file,
    survey_plainly,
    write_report,
)
from survey_job import Job

SOURCE = """
import os, sys
from json.decoder import JSONDecoder

class One:
    def short(self): pass

    async def long(self):
        import os
        return 1
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small library: a top-level module, a package, and what is not to be surveyed."""
    for name, text in {
        "one.py": SOURCE,
        "deep/er/two.py": "x = 1\n",
        "deep/er/broken.py": "def (:\n",
        "site-packages/other.py": "x = 1\n",
        "deep/readme.txt": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_files_are_grouped_by_folder_without_installed_packages(library: Path) -> None:
    assert find_packages(library) == {
        "deep.er": ["deep/er/broken.py", "deep/er/two.py"],
        TOP_LEVEL: ["one.py"],
    }


def test_the_standard_library_is_a_job_of_many_files() -> None:
    assert sum(map(len, find_packages(standard_library()).values())) > 500


def test_a_file_is_counted(library: Path) -> None:
    assert survey_file(str(library), "one.py") == {
        "files": 1,
        "unparsable": 0,
        "lines": 10,
        "functions": 2,
        "classes": 1,
        "imports": 4,
        "longest": [3, "one.py:8", "long"],
        "imported": {"os": 2, "sys": 1, "json": 1},
    }


def test_a_file_that_is_no_python_counts_as_unparsable(library: Path) -> None:
    figures = survey_file(str(library), "deep/er/broken.py")
    assert (figures["unparsable"], figures["lines"], figures["functions"]) == (1, 1, 0)


def test_figures_are_plain_data(library: Path) -> None:
    figures = reduce_package("deep", [survey_file(str(library), "one.py")])
    assert msgpack.unpackb(msgpack.packb(figures)) == figures


def test_sums_do_not_depend_on_the_order(library: Path) -> None:
    paths = ["one.py", "deep/er/two.py", "deep/er/broken.py"]
    figures = [survey_file(str(library), path) for path in paths]
    total = add_up(figures)
    assert (total["files"], total["unparsable"], total["lines"]) == (3, 1, 12)
    assert total["longest"] == [3, "one.py:8", "long"]
    shuffled = random.Random(1).sample(figures, k=3)
    assert add_up(shuffled) == total
    packages = [reduce_package(f"p{n}", [one]) for n, one in enumerate(figures)]
    assert write_report(packages) == write_report(packages[::-1])


def test_the_plain_survey_sees_every_file(library: Path) -> None:
    seen: list[None] = []
    report = survey_plainly(library, find_packages(library), lambda: seen.append(None))
    assert len(seen) == 3
    assert "3 files, 1 of them not valid Python" in report


def test_a_job_is_what_was_described(
    library: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("job")
    job = Job.create(folder, library)
    assert Job.load(folder) == job
    assert len(Job.create(folder, library, files_max=2).file_keys) == 2


def test_task_ids_are_translated_by_their_number(library: Path, tmp_path: Path) -> None:
    job = Job.create(tmp_path, library)
    ids = ["parse", "parse_2", "survey_workflow.reduce_1", "__main__.report"]
    assert job.keys_of_tasks(ids) == {
        "file:deep/er/broken.py",
        "file:one.py",
        f"package:{TOP_LEVEL}",
        "report",
    }
    with pytest.raises(ValueError, match="parse_3"):
        job.keys_of_tasks(["parse_3"])
