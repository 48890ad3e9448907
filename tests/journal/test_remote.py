"""A remote store against a server that misbehaves: retries, lost replies, faults by their name."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pyarrow import fs

from faulty_s3 import FAULTS, FaultyS3
from milepost.errors import StorageUnavailableError, StorageUriError
from milepost.journal import (
    Location,
    ObjectNotFoundError,
    RemoteStore,
    bucket,
    open_store,
    read_journal,
    read_store_id,
    retry,
    reveal_uri,
    take_ownership,
)
from milepost.journal.bucket import Bucket, _write_whole
from milepost.journal.filesystem import Place, open_place
from milepost.journal.retry import Patience
from storage_servers import S3_KEY, S3_SECRET, s3_uri

QUICK = Patience(tries_max=3, total_s_max=10)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(retry, "PAUSE_S_FIRST", 0.001)
    with FaultyS3().serving() as serving:
        yield serving


@pytest.fixture
def eager(server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away the tries of the library below, which sleeps for seconds between them."""

    def open_eagerly(location: Location) -> Place:
        file_system = fs.S3FileSystem(
            access_key="a",
            secret_key="b",
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{server.port}",
            allow_delayed_open=True,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )
        return replace(open_place(location), file_system=file_system)

    monkeypatch.setattr(bucket, "open_place", open_eagerly)


def uri(server: FaultyS3, folder: str = "folder") -> str:
    return s3_uri(server.port).format(folder)


def quick(server: FaultyS3) -> RemoteStore:
    return RemoteStore(Location(uri(server)), QUICK)


def test_a_put_is_one_request_and_a_read_two(server: FaultyS3) -> None:
    store = quick(server)
    store.put("a/b", [b"x" * 1_000_000])
    assert server.requests == [("PUT", "/bucket/folder/a/b")]
    store.get("a/b")
    assert [method for method, _ in server.requests[1:]] == ["HEAD", "GET"]


def test_a_group_commit_is_one_put_and_one_listing(server: FaultyS3) -> None:
    writer = take_ownership(quick(server), "w", owner="test")
    server.requests.clear()
    writer.flush([b"\x01"] * 1000)
    assert [method for method, _ in server.requests] == ["PUT", "GET"]


def test_a_good_server_passes_the_probe_and_keeps_nothing_of_it(server: FaultyS3) -> None:
    store = open_store(uri(server))
    assert [each.key for each in store.list("")] == ["milepost.json"]
    assert [key for key, content in server.objects.items() if content] == ["folder/milepost.json"]


def test_opening_without_creating_only_reads(server: FaultyS3) -> None:
    open_store(uri(server))
    server.requests.clear()
    open_store(uri(server), create=False)
    assert {method for method, _ in server.requests} == {"HEAD", "GET"}


def test_a_place_that_is_no_store_is_not_made_one(server: FaultyS3) -> None:
    with pytest.raises(StorageUriError, match="no Milepost store"):
        open_store(uri(server), create=False)
    assert server.objects == {}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hides", "does not list what was put"),
        ("sizes", "its listing says"),
        ("stale", "overwrite is not visible"),
        ("keeps", "cannot delete"),
        ("loses", "cannot be read"),
        ("denies", "access is denied"),
        ("no bucket", "does not exist"),
    ],
)
def test_a_fault_is_told_by_its_name_and_makes_no_store(
    server: FaultyS3, fault: str, told: str
) -> None:
    server.faults.add(fault)
    with pytest.raises(StorageUriError, match=told) as caught:
        open_store(uri(server))
    assert not any(key.endswith("milepost.json") for key in server.objects)
    assert caught.value.uri == Location(uri(server)).shown


def test_chunk_framing_stored_as_data_is_told_by_its_name(
    server: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.add("chunks")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    with pytest.raises(StorageUriError, match=r"chunk framing as data.*when_required"):
        open_store(uri(server))


def test_our_default_saves_a_server_that_would_store_the_framing(
    server: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.add("chunks")
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    open_store(uri(server)).put("a", [b"hello"])
    assert server.objects["folder/a"] == b"hello"


def test_a_server_that_refuses_folders_can_be_used(server: FaultyS3) -> None:
    server.faults.add("marker")
    store = open_store(uri(server))
    store.put("a/b", [b"1"])
    store.delete(["a/b"])
    with pytest.raises(ObjectNotFoundError):
        store.get("a/b")


def test_every_fault_is_tried() -> None:
    assert set(FAULTS) == {
        *("hides", "sizes", "stale", "keeps", "loses", "denies", "no bucket"),
        *("chunks", "marker"),
    }


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("how", [500, 503, 429, "lost request", "lost reply"])
def test_what_passes_is_tried_again(server: FaultyS3, how: int | str) -> None:
    store = quick(server)
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        server.fail(method, how)
    store.put("a", [b"content"])
    assert store.get("a") == b"content"
    assert [each.key for each in store.list("")] == ["a"]
    store.delete(["a"])
    assert store.list("") == []


@pytest.mark.usefixtures("eager")
def test_a_lost_reply_is_resolved_by_reading_back(server: FaultyS3) -> None:
    store = RemoteStore(Location(uri(server)), Patience(tries_max=1))
    server.fail("PUT", "lost reply", *["lost request"] * 99)
    store.put("a", [b"content"])
    assert server.objects["folder/a"] == b"content"
    reads = [method for method, path in server.requests if path.endswith("/a")]
    assert "GET" in reads


@pytest.mark.usefixtures("eager")
def test_another_object_in_its_place_is_not_taken_for_it(server: FaultyS3) -> None:
    store = quick(server)
    store.put("a", [b"older"])
    server.fail("PUT", *["lost request"] * 99)
    with pytest.raises(StorageUnavailableError, match="tried 3 times"):
        store.put("a", [b"newer"])
    assert store.get("a") == b"older"


def test_what_a_storage_sends_only_in_part_is_read_again(server: FaultyS3) -> None:
    class Short:
        """Opens objects of which the first read gives less than there is."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.missing = inner, 3

        def open_input_file(self, path: str) -> Short:
            self.stream = self.inner.open_input_file(path)
            return self

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def size(self) -> int:
            return int(self.stream.size())

        def read_at(self, length: int, start: int) -> bytes:
            missing, self.missing = self.missing, 0
            return bytes(self.stream.read_at(length - missing, start))

    store = quick(server)
    store.put("a", [b"the whole"])
    opened = store._bucket._opened()
    store._bucket._place = os.getpid(), replace(opened, file_system=Short(opened.file_system))
    assert store.get("a") == b"the whole"


def test_of_two_processes_that_create_an_object_one_has_done_it(
    server: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one had looked before this one wrote, and writes after it."""

    def overwrite(pause_s: float) -> None:
        assert server.objects["folder/a"] == b"mine"
        server.objects["folder/a"] = b"theirs"

    monkeypatch.setattr(time, "sleep", overwrite)
    assert quick(server).create("a", [b"mine"]) is False
    assert server.objects["folder/a"] == b"theirs"


@pytest.mark.usefixtures("eager")
def test_patience_ends_after_so_many_tries(server: FaultyS3) -> None:
    server.fail("GET", *[503] * 99)
    with pytest.raises(StorageUnavailableError, match="tried 3 times") as caught:
        quick(server).list("")
    assert (caught.value.operation, caught.value.key) == ("list", "")


@pytest.mark.usefixtures("eager")
def test_patience_ends_after_so_much_time(server: FaultyS3) -> None:
    server.fail("GET", *[503] * 99)
    with pytest.raises(StorageUnavailableError, match="tried 1 times"):
        RemoteStore(Location(uri(server)), Patience(total_s_max=0)).list("")


@pytest.mark.usefixtures("eager")
def test_what_will_not_pass_is_not_tried_again(server: FaultyS3) -> None:
    server.faults.add("denies")
    with pytest.raises(StorageUnavailableError, match="access is denied"):
        quick(server).put("a", [b""])
    assert len(server.requests) == 1


def test_an_interrupted_write_leaves_a_whole_object(server: FaultyS3) -> None:
    class Interrupted:
        def __init__(self, inner: object) -> None:
            self.inner, self.armed = inner, True

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def open_output_stream(self, path: str) -> object:
            stream = self.inner.open_output_stream(path)  # type: ignore[attr-defined]
            return InterruptedStream(stream) if self.armed else stream

    class InterruptedStream:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        def write(self, content: bytes) -> None:
            file_system.armed = False
            self.inner.write(content[:3])  # type: ignore[attr-defined]
            raise KeyboardInterrupt

        def close(self) -> None:
            self.inner.close()  # type: ignore[attr-defined]

    place = open_place(Location(uri(server)))
    file_system = Interrupted(place.file_system)
    with pytest.raises(KeyboardInterrupt):
        _write_whole(file_system, f"{place.root}/a", b"the whole")
    assert server.objects["folder/a"] == b"the whole"


def test_names_that_no_key_can_have_are_not_listed(server: FaultyS3) -> None:
    for name in (".probe/x", "a//b", ".tmp/y/object", "a/.part", "fine"):
        server.objects[f"folder/{name}"] = b"1"
    assert [each.key for each in quick(server).list("")] == ["fine"]


def test_a_process_does_not_end_in_the_middle_of_a_write() -> None:
    program = (
        "import io, os, threading, time\n"
        "from milepost.journal import Location, bucket\n"
        "from milepost.journal.retry import Patience\n"
        "opened = threading.Event()\n"
        "class Slow(io.BytesIO):\n"
        "    def close(self):\n"
        "        opened.set(); time.sleep(0.5); os.write(1, self.getvalue()); super().close()\n"
        "class Files:\n"
        "    def open_output_stream(self, path): return Slow()\n"
        "bucket.Bucket(Location('mock://host/folder'), Patience())._opened()\n"
        "write = lambda: bucket._write_whole(Files(), 'a', b'whole')\n"
        "threading.Thread(target=write, daemon=True).start()\n"
        "opened.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "whole"


def test_a_forked_process_opens_its_own(server: FaultyS3) -> None:
    store = quick(server)
    store.put("a", [b"parent"])
    inner = store._bucket
    assert inner._place is not None
    before = inner._place[1]
    inner._place = os.getpid() + 1, before
    assert store.get("a") == b"parent"
    assert inner._place[1] is not before


def assert_no_secret(*texts: object) -> None:
    told = "\n".join(map(str, texts))
    for secret in (S3_KEY, S3_SECRET, S3_SECRET.replace("/", "%2F"), "aSecret"):
        assert secret not in told


def test_a_store_shows_and_pickles_no_secret(server: FaultyS3) -> None:
    store = open_store(uri(server))
    assert isinstance(store, RemoteStore)
    assert_no_secret(repr(store), str(store), store.uri, store.location, repr(store.location))
    assert_no_secret(pickle.dumps(store.location))
    assert pickle.loads(pickle.dumps(store.location)).reveal() == store.uri
    for unsendable in (store, store._bucket):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(unsendable)
    assert reveal_uri(store) == uri(server)
    assert read_store_id(open_store(reveal_uri(store), create=False)) == read_store_id(store)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_no_fault_tells_a_secret(
    server: FaultyS3, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.add(fault)
    try:
        open_store(uri(server))
    except StorageUriError as error:
        assert_no_secret(error, repr(error), error.args, error.__cause__, error.__context__)
        assert_no_secret(pickle.dumps(error))
    assert_no_secret(caplog.text)


def test_what_a_server_repeats_of_a_secret_is_blotted_out(
    server: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fromTheEnvironment")
    location = Location(uri(server))
    said = f"key {S3_KEY} with {S3_SECRET} and fromTheEnvironment is wrong"
    assert location.scrub(said) == "key *** with *** and *** is wrong"


def test_no_byte_of_a_journal_holds_a_secret(server: FaultyS3) -> None:
    store = open_store(uri(server))
    take_ownership(store, "w", owner="test").flush([b"\x01"])
    assert len(list(read_journal(store, "w"))) == 1
    assert_no_secret(server.objects)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://K3Y:p4ss@b/f", "s3://b/f"),
        ("s3://K3Y:p4/ss@b/f", "s3://b/f"),
        ("s3://K3Y:p4?ss@b/f", "s3://b/f"),
        ("s3://K3Y:p4#ss@b/f", "s3://b/f"),
        ("s3://K3Y:p4@ss@b/f?region=x", "s3://b/f?region=x"),
        ("s3://b/f@g", "s3://b/f@g"),
        ("s3://b/f?session_token=p4ss&region=x", "s3://b/f?region=x"),
        ("s3://b/f?endpoint_override=K3Y%3Ap4ss%40host", "s3://b/f"),
        ("gs://anonymous@b/f", "gs://b/f"),
        (
            "abfss://box@account.dfs.core.windows.net/f",
            "abfss://box@account.dfs.core.windows.net/f",
        ),
        ("abfss://account:p4ss@host/f", "abfss://account@host/f"),
        ("abfs://account:p4/ss==@host/f", "abfs://account@host/f"),
        (
            "abfs://a@127.0.0.1:10000/f?enable_tls=false",
            "abfs://a@127.0.0.1:10000/f?enable_tls=false",
        ),
        ("abfs://a@host/f?client_secret=p4ss", "abfs://a@host/f"),
        ("fsspec+ftp://me:p4ss@host:21/f@g", "fsspec+ftp://me@host:21/f@g"),
        ("hdfs://host:8020/f@g", "hdfs://host:8020/f@g"),
        ("/a/plain:path@here?x", "/a/plain:path@here?x"),
    ],
)
def test_a_location_shows_the_place_and_never_the_credentials(text: str, shown: str) -> None:
    location = Location(text)
    assert location.shown == str(location) == shown
    assert location.reveal() == text
    for secret in ("K3Y", "p4"):
        assert secret not in repr(location)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s3://K3Y:p4/ss@bucket/f", "percent-encoded"),
        ("s3://K3Y:p4ss@bucket/f?session_token=p4ss", "session_token"),
        ("abfs://account:p4ss@127.0.0.1:9/box/f", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("abfss://box:p4ss@account.dfs.core.windows.net/f", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("abfss://account@host.example/box?client_secret=p4ss", "client_secret"),
        ("abfs://account@127.0.0.1:9/box/f?enable_tls=false", "needs a key"),
        ("abfs://box/f", "names no account"),
        ("s3a://bucket/f", "write s3://"),
        ("az://bucket/f", "write abfss://"),
        ("fsspec+file:///f", "plain path"),
        ("fsspec+no-such-protocol://f", "no-such-protocol"),
        ("ftp://host/f", "unknown kind"),
        ("s3://", "bucket|empty"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_to_do(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageUriError, match=told) as caught:
        open_store(text)
    for secret in ("K3Y", "p4"):
        assert secret not in str(caught.value)


def test_importing_the_journal_does_not_load_pyarrow() -> None:
    program = "import sys, milepost.journal; print('pyarrow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


def test_a_bucket_tells_its_absent_objects_apart(server: FaultyS3) -> None:
    inner = Bucket(Location(uri(server)), QUICK)
    inner.write("a", b"1")
    assert (inner.size("a"), inner.size("b")) == (1, None)
