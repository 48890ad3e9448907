"""The survey as a durable workflow, and the driver that starts or resumes it.

    python survey_workflow.py start FOLDER
    python survey_workflow.py resume FOLDER

One task parses each file, one task reduces each package, a last one writes the report. The driver
finds its cluster in ``RAY_ADDRESS``. It may die at any moment: the workflow does not need it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import ray
from ray.dag import DAGNode

import milepost
import survey
from ledger import execution
from survey import Figures
from survey_job import REPORT_KEY, WORKFLOW_ID, Job, file_key, package_key


@ray.remote
def parse(ledger: str, root: str, path: str) -> Figures:
    """Parse one file."""
    with execution(ledger, file_key(path)):
        return survey.survey_file(root, path)


@ray.remote
def reduce(ledger: str, package: str, *files: Figures) -> Figures:
    """Add up the figures of a package's files."""
    with execution(ledger, package_key(package)):
        return survey.reduce_package(package, files)


@ray.remote
def report(ledger: str, *packages: Figures) -> str:
    """Write the report."""
    with execution(ledger, REPORT_KEY):
        return survey.write_report(packages)


def build(job: Job) -> DAGNode:
    """Bind the tasks of a job to a graph, and return its last node."""
    ledger = str(job.ledger)
    reduced: list[DAGNode] = [
        reduce.bind(ledger, package, *(parse.bind(ledger, job.root, path) for path in paths))
        for package, paths in job.packages.items()
    ]
    last: DAGNode = report.bind(ledger, *reduced)
    return last


def start(job: Job) -> str:
    """Run the workflow from its beginning and return the report."""
    return str(milepost.run(build(job), workflow_id=WORKFLOW_ID))


def resume(job: Job) -> str:
    """Go on where the journal ends and return the report; the storage is all this needs."""
    return str(milepost.resume(WORKFLOW_ID))


def main(command: str, folder: str) -> None:
    """Connect to the cluster, start or resume the workflow and write its report."""
    job = Job.load(Path(folder))
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    milepost.init(storage=job.storage.as_uri())
    text = {"start": start, "resume": resume}[command](job)
    job.report.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
