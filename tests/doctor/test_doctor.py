"""What the doctor notices, and what it says to do about it; its rounds without a cluster."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from milepost.__main__ import main
from milepost.doctor import Finding, Level, examine
from milepost.doctor.rounds import check_ray
from milepost.doctor.storage import check_clock, check_storage, file_system_kind
from milepost.doctor.versions import check_versions, satisfies
from milepost.journal import open_store
from storage_servers import StorageServer


def only(findings: Iterator[Finding], subject: str) -> Finding:
    """Returns the one finding about something."""
    (found,) = [each for each in findings if each.subject == subject]
    return found


def test_what_the_tests_run_on_is_well(tmp_path: Path) -> None:
    open_store(tmp_path / "store")
    found = list(examine(str(tmp_path / "store"), with_ray=False))
    assert [each.subject for each in found] == ["python", "packages", "storage", "clock"]
    assert {each.level for each in found} <= {Level.OK, Level.WARNING}
    assert sorted(os.listdir(tmp_path / "store")) == ["milepost.json"], "nothing is left behind"


@pytest.mark.parametrize(
    ("installed", "bounds", "fits"),
    [
        ("2.60.0", ">=2.47,<3", True),
        ("2.47", ">=2.47,<3", True),
        ("2.46.9", ">=2.47,<3", False),
        ("3.0.0rc1", ">=2.47,<3", False),
        ("8.1.7", "<9,>=8.1", True),
        ("missing", ">=1", False),
        ("0.9", "", True),
    ],
)
def test_versions_are_compared_as_numbers(installed: str, bounds: str, fits: bool) -> None:
    assert satisfies(installed, bounds) is fits


def test_a_package_that_is_too_old_is_named_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("milepost.doctor.versions.requires", lambda name: ["click<9,>=99"])
    found = only(check_versions(), "packages")
    assert (found.level, found.cure) == (Level.FAULT, "pip install 'click<9,>=99'")


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = only(check_storage(str(tmp_path / "a" / "b")), "storage")
    assert found.level is not Level.FAULT
    assert "can be made" in found.text
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_stays_empty(tmp_path: Path) -> None:
    assert "may become a store" in only(check_storage(str(tmp_path)), "storage").text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()
    found = only(check_storage(str(tmp_path)), "storage")
    assert found.level is Level.FAULT
    assert "letters.txt" in found.text


def test_a_folder_that_nobody_may_write_to_is_a_fault() -> None:
    found = only(check_storage("/proc/milepost/store"), "storage")
    assert found.level is Level.FAULT
    assert "rights" in found.cure


@pytest.mark.parametrize("uri", ["s3a://bucket/x", "gone://x/y", "s3://", "fsspec+nothing://x"])
def test_a_storage_that_cannot_be_named_so_is_a_fault(uri: str) -> None:
    found = only(check_storage(uri), "storage")
    assert (found.level, bool(found.cure)) == (Level.FAULT, True)


def test_credentials_are_not_told() -> None:
    found = only(check_storage("s3://KEYKEY:SECRET/SECRET@bucket/x"), "storage")
    assert found.level is Level.FAULT
    assert "SECRET" not in found.text + found.cure


def test_a_bucket_is_probed_and_its_clock_read(
    storage_server: Callable[[str], StorageServer],
) -> None:
    found = list(check_storage(storage_server("s3").uri(secrets.token_hex(8))))
    assert [(each.subject, each.level) for each in found] == [
        ("storage", Level.OK),
        ("clock", Level.OK),
    ]


@pytest.mark.parametrize(
    ("off_s", "level"), [(0, Level.OK), (-5, Level.OK), (60, Level.WARNING), (-60, Level.WARNING)]
)
def test_clocks_that_differ_are_noticed(off_s: float, level: Level) -> None:
    found = check_clock(1_000_000.0, 1_000_000.0 + off_s)
    assert found.level is level
    assert ("behind" in found.text) == (off_s == -60)


def test_the_kind_of_a_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nserver:/x /srv nfs4 rw 0 0\nodd\n".replace("odd\n", ""))
    assert file_system_kind("/srv/flows", str(mounts)) == "nfs4"
    assert file_system_kind("/srvx", str(mounts)) == "ext4"
    assert file_system_kind("/srv", str(tmp_path / "gone")) == ""


def program(text: str) -> list[str]:
    """Returns the command of a program that stands for the one that tries Ray."""
    return [sys.executable, "-c", text]


def test_what_is_found_out_about_ray_is_told() -> None:
    told = {"subject": "ray", "level": "warning", "text": "slow", "cure": "wait"}
    text = f"import json, sys; assert sys.stdin.read() == 'here'; print(json.dumps({told!r}))"
    assert list(check_ray("here", program(text))) == [Finding("ray", Level.WARNING, "slow", "wait")]


def test_a_ray_that_dies_is_a_fault_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    (found,) = check_ray("here", program("raise SystemExit('no such cluster')"))
    assert found.level is Level.FAULT
    assert "10.0.0.7:6379 cannot be used: no such cluster" in found.text
    assert "RAY_AUTH_TOKEN" in found.cure


def test_a_cluster_that_left_only_its_note_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.7:6379")
    (found,) = check_ray("here", program("raise SystemExit('timed out')"))
    assert "10.0.0.7:6379" in found.text
    assert "`ray stop`" in found.cure


def test_a_ray_that_hangs_is_a_fault() -> None:
    (found,) = check_ray("here", program("import time; time.sleep(60)"), seconds_max=0.5)
    assert found.level is Level.FAULT
    assert "no answer" in found.text


def test_the_command_prints_and_its_exit_code_tells(tmp_path: Path) -> None:
    well = CliRunner().invoke(main, ["--storage", str(tmp_path), "doctor", "--no-ray"])
    assert well.exit_code == 0
    (tmp_path / "letters.txt").touch()
    ill = CliRunner().invoke(main, ["doctor", "--no-ray", "--storage", str(tmp_path)])
    assert ill.exit_code == 1
    assert "1 to mend" in ill.stderr
    told = CliRunner().invoke(main, ["doctor", "--no-ray", "--json", "--storage", str(tmp_path)])
    assert [json.loads(line)["subject"] for line in told.stdout.splitlines()][-1] == "storage"
