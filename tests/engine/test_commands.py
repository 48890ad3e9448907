"""The command line of recovery, without a cluster: what it prints, and how it exits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
import ray
from click.testing import CliRunner

from milepost.__main__ import main
from milepost.engine import commands
from milepost.engine.recovery import Recovered
from milepost.errors import CorruptJournalError, StorageUnavailableError
from milepost.replay.state import Status

Found = list[Recovered]

AWAY = StorageUnavailableError("list", "leases/", "away")
DAMAGED = CorruptJournalError("segments/1", 7, "why")
RESUMED = Recovered(workflow_id="one", outcome="resumed")
OWNED = Recovered(workflow_id="two", outcome="owned", detail="other/0 is running it")
REFUSED = Recovered(workflow_id="three", outcome="refused", detail=str(DAMAGED), error=DAMAGED)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> list[Found | BaseException]:
    """What recovery finds, look by look; afterwards somebody interrupts."""
    looks: list[Found | BaseException] = []

    def recover(force: Sequence[str]) -> Found:
        look = looks.pop(0) if looks else KeyboardInterrupt()
        if isinstance(look, BaseException):
            raise look
        return look

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(commands, "init", lambda storage: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(commands, "recover", recover)
    return looks


def test_it_says_of_each_workflow_what_became_of_it(script: list[Found | BaseException]) -> None:
    script.append([RESUMED, OWNED, REFUSED])
    done = CliRunner().invoke(main, ["recover", "--no-wait"])
    assert done.exit_code == 1, "one of them cannot go on"
    assert done.stdout.splitlines() == [
        "resumed  one",
        "owned    two: other/0 is running it",
        f"refused  three: {DAMAGED}",
        "1 owned, 1 refused, 1 resumed",
    ]


def test_with_nothing_to_do_it_says_so(script: list[Found | BaseException]) -> None:
    script.append([])
    done = CliRunner().invoke(main, ["recover"])
    assert (done.exit_code, done.stdout) == (
        0,
        "nothing to recover: no workflow has lost its owner\n",
    )


def test_a_standby_outlives_an_outage_and_tells_only_what_it_resumes(
    script: list[Found | BaseException],
) -> None:
    script += [[OWNED], AWAY, [OWNED], [RESUMED], [OWNED]]
    done = CliRunner().invoke(main, ["recover", "--watch"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "owned    two: other/0 is running it",
        "1 owned",
        "resumed  one",
        "stopped; what was resumed goes on while its cluster lives",
    ]
    assert "the storage does not answer" in done.stderr


def test_a_storage_that_fails_at_once_is_an_error(script: list[Found | BaseException]) -> None:
    script.append(AWAY)
    done = CliRunner().invoke(main, ["recover"])
    assert done.exit_code == 1
    assert str(AWAY) in done.stderr


def test_who_stops_waiting_is_not_told_that_everything_ended(
    script: list[Found | BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    script.append([RESUMED])
    monkeypatch.setattr(commands, "get_output_async", lambda workflow_id: workflow_id)
    monkeypatch.setattr(ray, "wait", interrupt)
    assert CliRunner().invoke(main, ["recover"]).exit_code == commands.INTERRUPTED


@pytest.mark.parametrize(("status", "code"), [(Status.SUCCESSFUL, 0), (Status.FAILED, 1)])
def test_it_waits_for_what_it_resumed_and_exits_accordingly(
    script: list[Found | BaseException],
    monkeypatch: pytest.MonkeyPatch,
    status: Status,
    code: int,
) -> None:
    script.append([RESUMED, OWNED])
    monkeypatch.setattr(commands, "get_output_async", lambda workflow_id: workflow_id)
    monkeypatch.setattr(commands, "get_status", lambda workflow_id: status)
    monkeypatch.setattr(ray, "wait", lambda refs, **named: (refs[:1], refs[1:]))
    done = CliRunner().invoke(main, ["recover"])
    assert done.exit_code == code
    assert f"{status.value.lower():8} one" in done.stdout.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], ["recover", "--help"], ["--version"]])
def test_asking_for_help_does_not_load_ray(arguments: list[str]) -> None:
    program = "import sys; from milepost.__main__ import main; main(standalone_mode=False)"
    program += "; print('loaded', *sorted({'ray', 'cloudpickle', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded"
