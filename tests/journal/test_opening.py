"""From what a user writes to a store, and one identity for everybody who opens it."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.errors import CorruptJournalError, StorageUriError, UnsupportedFormatError
from milepost.journal import LocalStore, MemoryStore, Store, open_store, read_store_id
from milepost.journal.root import create_root
from storage_servers import StorageServer


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "local://{}", "FILE://localhost{}"])
def test_every_form_of_a_local_path_opens_the_same_store(tmp_path: Path, form: str) -> None:
    root = tmp_path / "a" / "store"
    store = open_store(form.format(root))
    assert store.uri == f"file://{root}"
    assert read_store_id(open_store(root)) == read_store_id(store)


def test_relative_paths_and_home_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("some/folder").uri == f"file://{tmp_path}/some/folder"
    assert open_store("~/milepost").uri == f"file://{tmp_path}/home/milepost"


def test_special_characters_survive_the_uri(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a b#c?d%20é")
    assert isinstance(store, LocalStore)
    assert os.path.isdir(tmp_path / "a b#c?d%20é")
    assert read_store_id(open_store(store.uri)) == read_store_id(store)


def test_a_store_keeps_its_id_for_ever(tmp_path: Path) -> None:
    first = read_store_id(open_store(tmp_path / "s"))
    open_store(tmp_path / "s").put("workflows/w/x", [b""])
    assert read_store_id(open_store(tmp_path / "s")) == first
    assert read_store_id(open_store(tmp_path / "other")) != first
    assert len(bytes.fromhex(first)) == 8


def test_the_root_file_is_plain_json(tmp_path: Path) -> None:
    store_id = read_store_id(open_store(tmp_path / "s"))
    root = json.loads((tmp_path / "s" / "milepost.json").read_text())
    assert (root["format"], root["store_id"]) == (1, store_id)
    assert root["created"].endswith("+00:00")


def test_many_who_open_a_new_store_at_once_agree_on_its_id(tmp_path: Path, store: Store) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def open_it() -> None:
        barrier.wait()
        found.append(read_store_id(open_store(tmp_path / "s")))
        found_in_store.append(create_root(store))

    found_in_store: list[str] = []
    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (8, 1)
    assert (len(found_in_store), len(set(found_in_store))) == (8, 1)


def test_memory_stores_are_known_by_name_in_this_process() -> None:
    one = open_store("memory://test-location-one")
    assert open_store("memory://test-location-one") is one
    assert open_store("memory://test-location-two") is not one
    assert isinstance(one, MemoryStore)
    with pytest.raises(StorageUriError):
        open_store("memory://test-location-three", create=False)


def test_opening_for_reading_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(StorageUriError, match="no Milepost store"):
            open_store(tmp_path / name, create=False)
    assert sorted(os.listdir(tmp_path)) == ["empty"]
    assert os.listdir(tmp_path / "empty") == []


def test_opening_for_reading_finds_what_is_there(tmp_path: Path) -> None:
    store_id = read_store_id(open_store(tmp_path / "s"))
    assert read_store_id(open_store(tmp_path / "s", create=False)) == store_id


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_of_other_files_is_not_mixed_with(tmp_path: Path, create: bool) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StorageUriError, match="holds other files"):
        open_store(tmp_path, create=create)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_what_a_crash_during_the_first_opening_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123456789abcdef").write_text("{")
    assert read_store_id(open_store(tmp_path))


@pytest.mark.parametrize("create", [True, False])
def test_a_file_is_no_store(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageUriError, match="Not a directory"):
            open_store(path, create=create)


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason() -> None:
    with pytest.raises(StorageUriError, match=r"/proc/milepost.*No such file|denied|permitted"):
        open_store("/proc/milepost/store")


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(tmp_path / "s")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageUriError, match="no permission"):
        open_store(tmp_path / "s")
    open_store(tmp_path / "s", create=False)


def test_a_remote_store_is_the_same_one_for_everybody_who_opens_it(remote_uri: str) -> None:
    store = open_store(remote_uri)
    assert read_store_id(open_store(remote_uri)) == read_store_id(store)
    assert read_store_id(open_store(remote_uri, create=False)) == read_store_id(store)
    assert [each.key for each in store.list("")] == ["milepost.json"]


def test_a_remote_place_that_is_no_store_is_not_made_one_by_reading(remote_uri: str) -> None:
    with pytest.raises(StorageUriError, match="no Milepost store"):
        open_store(remote_uri, create=False)


def test_a_real_server_that_damages_uploads_is_refused_with_the_remedy(
    storage_server: Callable[[str], StorageServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage_server("nanio").uri(secrets.token_hex(8))
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")  # the library's own
    with pytest.raises(StorageUriError, match=r"chunk framing as data.*when_required"):
        open_store(uri)
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    store = open_store(uri)
    store.put("a", [b"hello"])
    assert store.get("a") == b"hello"


@pytest.mark.parametrize(
    "uri",
    ["ftp://host/x", "file://host/x", "file:///a?b=c", "file:///a#b", "", "a\0b", "file:///%00"],
)
def test_what_names_no_storage_is_refused(uri: str) -> None:
    with pytest.raises(StorageUriError):
        open_store(uri)


def test_no_secret_of_a_uri_reaches_the_error() -> None:
    with pytest.raises(StorageUriError) as caught:
        open_store("s3://KEY:s3cr3t@bucket/prefix?session_token=t0ken", create=False)
    told = str(caught.value) + repr(caught.value.args)
    assert "bucket/prefix" in told
    for secret in ("KEY", "s3cr3t", "t0ken"):
        assert secret not in told


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "milepost.json").write_text('{"format": 2}')
    with pytest.raises(UnsupportedFormatError) as caught:
        open_store(tmp_path)
    assert (caught.value.found, caught.value.supported) == (2, 1)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 0}',
        '{"format": 1}',
        '{"format": 1, "store_id": "x"}',
        "[" * 99999,
    ],
)
def test_a_root_file_that_cannot_be_read_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / "milepost.json").write_text(content)
    with pytest.raises(CorruptJournalError, match=r"milepost\.json"):
        open_store(tmp_path)
    assert (tmp_path / "milepost.json").read_text() == content
