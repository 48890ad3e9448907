"""Leases: a sign of life that anybody can read, and that proves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import msgpack
import pytest

from milepost.journal import MemoryStore, Store
from milepost.journal.layout import lease_key
from milepost.journal.lease import (
    FRESH_FACTOR,
    GONE_FACTOR,
    Lease,
    describe_machine,
    describe_process,
    end_lease,
    is_running,
    list_leases,
    write_lease,
)

NOW_US = 1_700_000_000_000_000
LEASE = Lease(
    owner="cluster/0",
    beat=3,
    written_us=NOW_US,
    lease_us=10_000_000,
    machine="another machine",
    process="12/34",
)


def test_a_lease_comes_back_as_it_was_written(store: Store) -> None:
    other = replace(LEASE, owner="other/ünd/1", beat=4)
    for each in (LEASE, other, replace(LEASE, beat=5)):
        write_lease(store, each)
    assert list_leases(store) == {"cluster/0": replace(LEASE, beat=5), "other/ünd/1": other}
    end_lease(store, "cluster/0")
    end_lease(store, "cluster/0")
    assert list(list_leases(store)) == ["other/ünd/1"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb({"beat": 1}),
        msgpack.packb(
            {"beat": "1", "written": 1, "lease": 1, "machine": "", "process": "", "owner": ""}
        ),
    ],
)
def test_what_cannot_be_read_as_a_lease_is_none(content: bytes) -> None:
    store = MemoryStore()
    store.put(lease_key("cluster/0"), [content])
    store.put("leases/%zz", [b"of somebody else"])
    assert list_leases(store) == {}


@pytest.mark.parametrize(("age_s", "fresh"), [(-3600, True), (0, True), (29, True), (31, False)])
def test_on_another_machine_only_the_clock_can_be_asked(age_s: int, fresh: bool) -> None:
    assert FRESH_FACTOR * LEASE.lease_us == 30_000_000
    assert LEASE.is_fresh(NOW_US + age_s * 1_000_000) is fresh


@pytest.mark.parametrize(("age_s", "gone"), [(-3600, False), (599, False), (600, True)])
def test_only_clocks_ten_minutes_apart_make_an_owner_look_long_gone(age_s: int, gone: bool) -> None:
    assert GONE_FACTOR * LEASE.lease_us == 600_000_000
    assert LEASE.is_long_gone(NOW_US + age_s * 1_000_000) is gone


def test_on_this_machine_a_dead_process_is_seen_at_once() -> None:
    script = "from milepost.journal import lease; print(lease.describe_process(), flush=True)"
    script += "; input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        process = child.stdout.readline().strip()
        here = replace(LEASE, machine=describe_machine(), process=process)
        assert here.is_fresh(NOW_US)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
        assert not here.is_fresh(NOW_US)
        assert here.is_long_gone(NOW_US)
        assert replace(here, machine="another machine").is_fresh(NOW_US)
    assert not here.is_fresh(NOW_US)


def test_a_process_is_told_from_a_later_one_of_the_same_number() -> None:
    own = describe_process()
    pid, _, started = own.partition("/")
    assert is_running(own)
    assert not is_running(f"{pid}/{int(started) + 1}")
    assert is_running("")  # nothing is known
