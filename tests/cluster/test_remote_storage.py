"""A workflow in a bucket: its cluster is killed, another goes on, no credential is left over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_cluster import LocalCluster
from milepost.journal import Store, get_blob, load_state, open_store, read_journal
from milepost.journal.layout import decode_workflow_id
from milepost.replay.payload import Encoding, unpack_plain
from storage_servers import StorageServer

TASKS = 24

JOB = """
import sys, time, ray, milepost
from milepost import errors

ledger, what = sys.argv[1:]
ray.init(log_to_driver=False)

@ray.remote
def work(number):
    with open(ledger, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.15)
    return number

@ray.remote
def large():
    return b"large" * 100_000

@ray.remote
def add(text, *numbers):
    return len(text) + sum(numbers)

@ray.remote
def fail():
    raise KeyError("on purpose")

@ray.remote
def relay():
    return milepost.run(fail.bind(), workflow_id="inner")

if what == "run":
    dag = add.bind(large.bind(), *[work.bind(number) for number in range(24)])
    print(milepost.run(dag, workflow_id="w"))
elif what == "resume":
    print(milepost.resume("w"))
    print(milepost.get_output("w") == milepost.get_output("w"))
else:
    try:
        milepost.run(relay.bind(), workflow_id="outer")
    except errors.WorkflowExecutionError as error:
        print(repr(error), repr(error.__cause__), repr(error.__cause__.__cause__))
    print(sorted(milepost.list_all()))
"""
RESULT = len(b"large" * 100_000) + sum(range(TASKS))


@pytest.fixture(params=["s3", "gcs", "azure", "s3fs"])
def server(
    request: pytest.FixtureRequest, storage_server: Callable[[str], StorageServer]
) -> StorageServer:
    return storage_server(request.param)


def start(
    folder: Path, cluster: LocalCluster, server: StorageServer, uri: str, what: str
) -> subprocess.Popen[str]:
    (folder / "job.py").write_text(JOB)
    environment = cluster.environment | dict(server.environment) | {"MILEPOST_STORAGE": uri}
    return subprocess.Popen(
        [sys.executable, "job.py", str(folder / "ledger"), what],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def committed_numbers(store: Store) -> list[int]:
    payloads = [payload for payload in load_state(store, "w").results if payload is not None]
    inline = [each for each in payloads if each.encoding == Encoding.PLAIN and each.data]
    values = [unpack_plain(each.data) for each in inline]
    return sorted(value for value in values if isinstance(value, int) and value < TASKS)


def read_ledger(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "ledger").read_text().split()]


def test_a_killed_cluster_is_gone_on_with_from_the_bucket(
    tmp_path: Path, server: StorageServer
) -> None:
    uri = server.uri(f"cluster/{os.urandom(4).hex()}")
    (tmp_path / "ledger").touch()
    with LocalCluster(num_cpus=2, environment=server.environment) as first:
        driver = start(tmp_path, first, server, uri, "run")
        deadline = time.monotonic() + 90
        while len(read_ledger(tmp_path)) < TASKS // 2:
            alive = driver.poll() is None and time.monotonic() < deadline
            assert alive, driver.communicate(timeout=5)[0]
            time.sleep(0.02)
        first.kill()
        driver.kill()
        told = driver.communicate()[0]
        assert_no_secret(server, told, *texts_of(first))
    store = open_store(uri, create=False)
    committed = committed_numbers(store)
    before = len(read_ledger(tmp_path))
    assert 0 < len(committed) < TASKS
    with LocalCluster(num_cpus=2, environment=server.environment) as second:
        told = start(tmp_path, second, server, uri, "resume").communicate(timeout=90)[0]
        assert told.splitlines()[-2:] == [str(RESULT), "True"], told
        again = read_ledger(tmp_path)[before:]
        assert set(again).isdisjoint(committed)
        assert set(again) | set(committed) == set(range(TASKS))
        told += start(tmp_path, second, server, uri, "relay").communicate(timeout=90)[0]
        assert "KeyError" in told
        second.kill()
        assert_no_secret(server, told, *texts_of(second))
    assert_no_secret(server, *contents_of(store))


def texts_of(cluster: LocalCluster) -> Iterator[bytes]:
    """Read what Ray has logged, and whatever else lies in its folder."""
    assert cluster.folder is not None
    for path in sorted(cluster.folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()


def contents_of(store: Store) -> Iterator[bytes]:
    """Read all that is stored, as it lies there and uncompressed."""
    for each in store.list(""):
        yield each.key.encode()
        yield store.get(each.key)
        name, _, digest = each.key.removeprefix("workflows/").partition("/blobs/")
        if digest:
            yield get_blob(store, decode_workflow_id(name), digest)
    for name in store.list_folders("workflows/"):
        for frame in read_journal(store, decode_workflow_id(name)):
            yield frame.raw


def assert_no_secret(server: StorageServer, *texts: str | bytes) -> None:
    assert texts
    for text in texts:
        content = text.encode() if isinstance(text, str) else bytes(text)
        for secret in server.secrets:
            assert secret.encode() not in content, content[:200]
