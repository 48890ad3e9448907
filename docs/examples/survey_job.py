"""One survey to be done: its input, its folder, and the names of its tasks.

The demonstration describes the job in a file; the drivers, which are processes of their own, load
it from there. The keys under which tasks stand in the ledger are made here, and so is the
translation from the task ids of the workflow to these keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from survey import find_packages

WORKFLOW_ID = "stdlib-survey"
REPORT_KEY = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to survey, and where everything about it lies.

    Attributes:
        folder: Scratch folder of the job, as a path.
        root: Folder of the library that is surveyed.
        packages: Package name to its files, relative to ``root``.
    """

    folder: str
    root: str
    packages: dict[str, list[str]]

    @classmethod
    def create(cls, folder: Path, root: Path, files_max: int | None = None) -> Self:
        """Find the files of a library and describe the job in ``folder``.

        Args:
            folder: Scratch folder; it exists and is empty.
            root: Folder of the library.
            files_max: Survey only about so many files.

        Returns:
            The job, which :meth:`load` finds in ``folder``.
        """
        packages = first_files(find_packages(root), files_max)
        job = cls(folder=str(folder), root=str(root), packages=packages)
        (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        return job

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the job that :meth:`create` described in ``folder``."""
        return cls(**json.loads((folder / "job.json").read_text(encoding="utf-8")))

    @property
    def storage(self) -> Path:
        """Where the workflow's journal is kept."""
        return Path(self.folder, "storage")

    @property
    def ledger(self) -> Path:
        """The file in which every execution of a task leaves its lines."""
        return Path(self.folder, "ledger.tsv")

    @property
    def report(self) -> Path:
        """Where the driver writes the workflow's output."""
        return Path(self.folder, "report.txt")

    @property
    def file_keys(self) -> list[str]:
        """Keys of the tasks that parse a file, in the order in which the workflow numbers them."""
        return [file_key(path) for paths in self.packages.values() for path in paths]

    @property
    def package_keys(self) -> list[str]:
        """Keys of the tasks that reduce a package, in the order of their numbers."""
        return [package_key(package) for package in self.packages]

    @property
    def keys(self) -> list[str]:
        """Keys of all tasks."""
        return [*self.file_keys, *self.package_keys, REPORT_KEY]

    def keys_of_tasks(self, task_ids: Iterable[str]) -> set[str]:
        """Translate task ids of the workflow to the keys under which these tasks are in the ledger.

        Tasks of one function are numbered in the order in which the graph names them: ``parse``,
        ``parse_1``, ``parse_2`` and so on, with the function's module before the name.

        Raises:
            ValueError: An id is of no task of this job.
        """
        keys = {"parse": self.file_keys, "reduce": self.package_keys, "report": [REPORT_KEY]}
        found = set()
        for task_id in task_ids:
            match = re.fullmatch(r"(?:.*\.)?(parse|reduce|report)(?:_(\d+))?", task_id)
            if match is None or int(match[2] or 0) >= len(keys[match[1]]):
                raise ValueError(f"task {task_id!r} is none of this survey")
            found.add(keys[match[1]][int(match[2] or 0)])
        return found


def file_key(path: str) -> str:
    """Return the ledger's key of the task that parses a file."""
    return f"file:{path}"


def package_key(package: str) -> str:
    """Return the ledger's key of the task that reduces a package."""
    return f"package:{package}"


def first_files(packages: dict[str, list[str]], files_max: int | None) -> dict[str, list[str]]:
    """Keep whole packages until ``files_max`` files are reached; cut the last one."""
    if files_max is None:
        return packages
    kept: dict[str, list[str]] = {}
    for package, paths in packages.items():
        room = files_max - sum(map(len, kept.values()))
        if room <= 0:
            break
        kept[package] = paths[:room]
    return kept
