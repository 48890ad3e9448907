"""Removes the guards of the code one at a time and shows which test notices: ``make mutants``.

Works on a copy of the tree. Each guard's tests pass there with the guard in place (made sure of
first), so a failure without it is its doing. Ends with an error if a guard does not fit the code,
or if nothing notices that it is gone.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]
PARTS = ("milepost", "tests", "benchmarks", "docs", "pyproject.toml", "README.md")
TIMEOUT_S = 300
"""A guard whose absence makes a test hang is noticed, too: by the clock."""

_FAILED = re.compile(r"^FAILED tests/(\S+)", re.MULTILINE)


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "words", nargs="*", help="only guards whose name or file holds one of these"
    )
    parser.add_argument("--no-baseline", action="store_true", help="the tests are known to pass")
    given = parser.parse_args()
    words = given.words
    chosen = [
        guard
        for guard in GUARDS
        if not words or any(word in guard.name or word in guard.file for word in words)
    ]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="milepost-mutants-") as folder:
        copy = Path(folder)
        _copy_tree(copy)
        if not given.no_baseline and not _check_baseline(copy, chosen):
            return 1
        missed = [guard for guard in chosen if not _try(copy, guard)]
    seconds = time.monotonic() - began
    print(f"\n{len(chosen) - len(missed)} of {len(chosen)} guards caught, {seconds:.0f} s")
    return 1 if missed else 0


def _copy_tree(copy: Path) -> None:
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, copy / part, ignore=ignore)
        else:
            shutil.copy(ROOT / part, copy / part)


def _check_baseline(copy: Path, guards: Sequence[Guard]) -> bool:
    for tests in dict.fromkeys(guard.tests for guard in guards):
        code, output = _run(copy, tests)
        if code != 0:
            print(f"{tests} fails without any change:\n{output[-3000:]}")
            return False
    return True


def _try(copy: Path, guard: Guard) -> bool:
    """Removes one guard, runs its tests, and puts it back; tells whether they noticed."""
    file = copy / "milepost" / guard.file
    text = file.read_text()
    if text.count(guard.old) != 1:
        verdict = f"STALE: its text stands {text.count(guard.old)} times in {guard.file}"
    else:
        file.write_text(text.replace(guard.old, guard.new))
        try:
            verdict = _judge(*_run(copy, guard.tests))
        finally:
            file.write_text(text)
    print(f"{guard.name:<44} {verdict}", flush=True)
    return not verdict.isupper() and not verdict.startswith(("STALE", "BROKEN"))


def _judge(code: int, output: str) -> str:
    failed = _FAILED.search(output)
    if failed:
        return failed[1].split("[")[0]
    if code == 0:
        return "NOT CAUGHT"
    if code < 0:
        return "a time limit"
    return f"BROKEN: pytest ended with {code}: {output[-300:]}"


def _run(copy: Path, tests: str) -> tuple[int, str]:
    files = [f"tests/{word}" if "/" in word else word for word in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-rf", *files]
    # No bytecode: two edits within a second leave the same time stamp.
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MILEPOST_TEST_SERVERS": "",  # no guard needs them to be caught, and they take long
    }
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
