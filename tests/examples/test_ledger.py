"""The ledger: what processes note in it is there, whole, whoever dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ledger
from ledger import BEGIN, END, Entry, execution, keys_of, read_entries


def test_an_execution_leaves_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with execution(str(path), "file:a b.py"):
        assert keys_of(read_entries(path), BEGIN) == ["file:a b.py"]
        assert keys_of(read_entries(path), END) == []
    assert keys_of(read_entries(path), END) == ["file:a b.py"]


def test_an_execution_that_fails_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    try:
        with execution(str(path), "key"):
            raise KeyError
    except KeyError:
        pass
    assert [entry.kind for entry in read_entries(path)] == [BEGIN]


def test_there_are_no_entries_before_the_first_execution(tmp_path: Path) -> None:
    assert read_entries(tmp_path / "ledger") == []


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    path, count, processes = tmp_path / "ledger", 300, 4
    program = (
        f"import sys; sys.path.insert(0, {str(Path(ledger.__file__).parent)!r})\n"
        "from ledger import execution\n"
        f"for n in range({count}):\n"
        f"    with execution({str(path)!r}, f'{{sys.argv[1]}}-{{n}}'): pass\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(number)])
        for number in range(processes)
    ]
    assert [process.wait(60) for process in running] == [0] * processes
    entries = read_entries(path)
    assert len(entries) == 2 * count * processes
    assert len({entry.pid for entry in entries}) == processes


def test_a_line_reads_back_as_written() -> None:
    entry = Entry.parse("end\tfile:x.py\t41\t1700000000.500000")
    assert entry == Entry(kind=END, key="file:x.py", pid=41, time_s=1700000000.5)
