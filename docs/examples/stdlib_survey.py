"""Survey the standard library on Ray, kill the whole cluster halfway, and see the survey go on.

    python stdlib_survey.py [--kill-at 0.5|random] [--files N] [--keep]

The job is real: one task parses each file of the running Python's standard library, one reduces
each package, a last one writes a report. This program starts a Ray cluster of separate processes
and a driver, kills all of them with SIGKILL, starts a fresh cluster and a driver that resumes, and
shows what became of it. It believes nothing that the engine says of itself: see `survey_proof.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from ledger import END, keys_of, read_entries
from local_cluster import LocalCluster
from survey import standard_library, survey_plainly
from survey_job import WORKFLOW_ID, Job
from survey_proof import Evidence, committed_tasks

HERE = Path(__file__).resolve().parent
POLL_SECONDS = 0.05
STALL_SECONDS_MAX = 60.0
"""Without a newly finished task for this long, the demonstration gives up."""

EXIT_PROMISE_BROKEN = 1
EXIT_NOT_DONE = 2
EXIT_INTERRUPTED = 130


class DemoError(Exception):
    """The demonstration could not be carried out; nothing is said about the promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Told about the demonstration's progress; see :func:`run`.

    Attributes:
        say: Called with a step's name and a sentence about it.
        count: Called with a stage's name and the number of files finished so far.
    """

    say: Callable[[str, str], None]
    count: Callable[[str, int], None]


SILENT = Watcher(say=lambda step, sentence: None, count=lambda stage, finished: None)


def run(job: Job, *, kill_at: float, watcher: Watcher = SILENT) -> Evidence:
    """Start the job, kill its cluster and driver, resume it elsewhere, and collect the evidence.

    Args:
        job: What to survey.
        kill_at: The kill comes when this fraction of the files is parsed.
        watcher: Told about progress.

    Returns:
        The facts; whether they keep the promises is theirs to say.

    Raises:
        DemoError: A driver failed, hung, or was done before it could be killed.
    """
    run_until_killed(job, kill_at, watcher)
    before = read_entries(job.ledger)
    committed = job.keys_of_tasks(committed_tasks(job.storage, WORKFLOW_ID))
    run_to_the_end(job, watcher)
    after = read_entries(job.ledger)[len(before) :]
    return Evidence(
        tasks=job.keys,
        committed=committed,
        before=before,
        after=after,
        report=job.report.read_text(encoding="utf-8"),
        report_expected=make_plain_report(job, watcher),
    )


def run_until_killed(job: Job, kill_at: float, watcher: Watcher) -> None:
    """Start the workflow on a first cluster, and kill that cluster and its driver midway."""
    files_before_kill = max(1, round(kill_at * len(job.file_keys)))
    with cluster("cluster A", watcher) as first, driver("start", job, first) as process:
        for finished in finished_files(job, process):
            watcher.count("cluster A", finished)
            if finished >= files_before_kill:
                break
        if process.poll() == 0:
            raise DemoError("the workflow was done before it could be killed; kill it earlier")
        process.kill()
        killed = first.kill() + 1
    watcher.say("kill -9", f"{killed} processes: all of cluster A, and the driver")


def run_to_the_end(job: Job, watcher: Watcher) -> None:
    """Resume the workflow on a fresh cluster and wait until its driver has the report."""
    with cluster("cluster B", watcher) as second, driver("resume", job, second) as process:
        for finished in finished_files(job, process):
            watcher.count("cluster B", finished)
    watcher.say("resumed", f"the report has {len(job.report.read_bytes()):,} bytes")


def make_plain_report(job: Job, watcher: Watcher) -> str:
    """Make the report in this process, with neither Ray nor Milepost."""
    finished = 0

    def count_file() -> None:
        nonlocal finished
        finished += 1
        watcher.count("plain Python", finished)

    return survey_plainly(Path(job.root), job.packages, count_file)


@contextmanager
def cluster(name: str, watcher: Watcher) -> Iterator[LocalCluster]:
    """Run a cluster whose workers can import this folder's modules; nothing of it is left."""
    began = time.monotonic()
    with LocalCluster(num_cpus=2, environment={"PYTHONPATH": str(HERE)}) as started:
        count, seconds = len(started.processes()), time.monotonic() - began
        watcher.say(name, f"{count} processes of Ray at {started.address}, up in {seconds:.1f} s")
        yield started


@contextmanager
def driver(command: str, job: Job, where: LocalCluster) -> Iterator[subprocess.Popen[bytes]]:
    """Run a driver of the workflow in a process of its own.

    Raises:
        DemoError: It failed; the message ends with what it printed.
    """
    log = Path(job.folder, f"driver-{command}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "survey_workflow.py"), command, job.folder],
            env=os.environ | where.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this program, which then ends the driver
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        printed = log.read_text(errors="replace")[-4000:]
        raise DemoError(f"the driver that should {command} the workflow failed:\n{printed}")


def finished_files(job: Job, process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Count the parsed files in the ledger, again and again, until the driver ends.

    Raises:
        DemoError: Nothing has moved for too long.
    """
    wanted = set(job.file_keys)
    entries_seen, moved_at = -1, time.monotonic()
    while process.poll() is None:
        entries = read_entries(job.ledger)
        if len(entries) != entries_seen:
            entries_seen, moved_at = len(entries), time.monotonic()
        elif time.monotonic() - moved_at > STALL_SECONDS_MAX:
            raise DemoError(f"no task began or ended for {STALL_SECONDS_MAX:.0f} seconds")
        yield len(wanted.intersection(keys_of(entries, END)))
        time.sleep(POLL_SECONDS)
    yield len(wanted.intersection(keys_of(read_entries(job.ledger), END)))


@contextmanager
def progress_on(console: Console, files: int) -> Iterator[Watcher]:
    """Show steps as lines, and the stage at work as a bar below them."""
    columns = (
        TextColumn("  [bold]{task.description:<13}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}
        running: list[TaskID] = []

        def say(step: str, sentence: str) -> None:
            stop_bars()
            progress.console.print(f"  [bold cyan]{step:<14}[/]{sentence}", highlight=False)

        def count(stage: str, finished: int) -> None:
            if stage not in bars:
                stop_bars()
                bars[stage] = progress.add_task(stage, total=files)
                running.append(bars[stage])
            progress.update(bars[stage], completed=finished)

        def stop_bars() -> None:
            for bar in running:
                progress.stop_task(bar)
            running.clear()

        yield Watcher(say=say, count=count)


def table_of(evidence: Evidence) -> Table:
    """Lay out the facts, each next to what is promised."""
    table = Table(title="What the journal and the ledger say", title_justify="left")
    table.add_column("fact")
    table.add_column("found", justify="right")
    table.add_column("promised", justify="right")
    table.add_column("kept", justify="center")

    def add(fact: str, found: object, promised: str = "", kept: bool | None = None) -> None:
        verdict = {None: "", True: "[green]yes[/]", False: "[bold red]NO[/]"}[kept]
        table.add_row(fact, str(found), promised, verdict)

    repeated, needless = evidence.run_twice, evidence.run_twice_without_need
    again, lost = evidence.committed_and_run_again, evidence.never_run
    in_flight = len(evidence.in_flight)
    add("tasks in the workflow", f"{len(evidence.tasks):,}")
    add("committed before the kill", f"{len(evidence.committed):,}")
    add("  of these, run again", len(again), "0", not again)
    add(
        "  of these, without an execution",
        len(evidence.committed_but_not_run),
        "0",
        not evidence.committed_but_not_run,
    )
    add("in flight at the kill", in_flight)
    add("run twice in all", len(repeated), f"at most {in_flight}", len(repeated) <= in_flight)
    add("  of these, not in flight", len(needless), "0", not needless)
    add("never run to the end", len(lost), "0", not lost)
    add(
        "report, against plain Python",
        f"{len(evidence.report.encode()):,} bytes",
        "the same",
        evidence.report_is_equal,
    )
    return table


def demonstrate(options: argparse.Namespace, folder: Path, console: Console) -> int:
    """Carry the demonstration out on a terminal.

    Returns:
        The exit code.
    """
    began = time.monotonic()
    job = Job.create(folder, standard_library(), options.files)
    files, packages = len(job.file_keys), len(job.packages)
    console.print(
        f"\n[bold]Python's standard library[/]: {files:,} files in {packages} packages; "
        f"kill at {options.kill_at:.0%}\n",
        highlight=False,
    )
    with progress_on(console, files) as watcher:
        evidence = run(job, kill_at=options.kill_at, watcher=watcher)
    console.print()
    console.print(table_of(evidence))
    summary = evidence.report.partition("\n\npackage")[0]
    console.print(f"\n{summary}", style="dim", highlight=False, soft_wrap=True)
    violations = evidence.violations()
    for violation in violations:
        console.print(f"[bold red]BROKEN PROMISE[/] {violation}", highlight=False)
    seconds = time.monotonic() - began
    verdict = "[bold red]not kept[/]" if violations else "[bold green]kept[/]"
    console.print(f"\nEvery promise: {verdict}, in {seconds:.0f} seconds.\n", highlight=False)
    return EXIT_PROMISE_BROKEN if violations else 0


def fraction(text: str) -> float:
    """Read ``--kill-at``."""
    value = random.uniform(0.05, 0.95) if text == "random" else float(text)
    if not 0 < value < 1:
        raise ValueError(text)
    return value


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM like Ctrl-C, so that the clusters are killed on the way out."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--kill-at",
        type=fraction,
        default=0.5,
        metavar="F|random",
        help="kill when this fraction of the files is parsed (default 0.5)",
    )
    parser.add_argument("--files", type=int, help="survey only so many files")
    parser.add_argument("--keep", action="store_true", help="keep the storage, ledger and logs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, raise_interrupt)
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="milepost-demo-"))
    code = EXIT_NOT_DONE
    try:
        code = demonstrate(options, folder, console)
    except DemoError as error:
        console.print(f"\n[bold red]The demonstration failed[/]: {error}", highlight=False)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        console.print("\nInterrupted; the clusters are gone.")
    finally:
        if options.keep or code not in (0, EXIT_INTERRUPTED):
            console.print(f"Storage, ledger and logs are in {folder}", highlight=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
