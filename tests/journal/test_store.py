"""The contract of a store, for each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from milepost.errors import StorageUnavailableError
from milepost.journal import ObjectNotFoundError, Store

MALFORMED = ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a/.hidden", "a\0b"]


def keys(store: Store, prefix: str = "", after: str = "") -> list[str]:
    return [each.key for each in store.list(prefix, after)]


def test_what_was_put_is_read_back_in_one_piece(store: Store) -> None:
    store.put("a/b/c", [b"one", bytearray(b"two"), memoryview(b"three"), b""])
    assert store.get("a/b/c") == b"onetwothree"


def test_more_parts_than_one_system_call_takes_are_all_stored(store: Store) -> None:
    parts = [bytes([n % 256]) * (n % 3) for n in range(5000)]
    store.put("many", parts)
    assert store.get("many") == b"".join(parts)


def test_an_empty_object_can_be_put_read_mapped_and_listed(store: Store) -> None:
    store.put("empty", [])
    assert store.get("empty") == b""
    assert bytes(store.map("empty")) == b""
    assert [(each.key, each.size) for each in store.list("")] == [("empty", 0)]


def test_a_second_put_replaces_the_first(store: Store) -> None:
    store.put("a", [b"long content"])
    store.put("a", [b"new"])
    assert store.get("a") == b"new"


def test_of_two_creates_the_first_stays(store: Store) -> None:
    assert store.create("a/b", [b"first"]) is True
    assert store.create("a/b", [b"second"]) is False
    assert store.get("a/b") == b"first"
    assert keys(store) == ["a/b"]


def test_of_many_creators_at_once_exactly_one_wins(store: Store) -> None:
    wins: list[int] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        if store.create("folder/one", [b"%d" % number]):
            wins.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.get("folder/one") == b"%d" % wins[0]


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 3, b"012"),
        (7, None, b"789"),
        (8, 100, b"89"),
        (10, None, b""),
        (99, 5, b""),
        (2, 0, b""),
    ],
)
def test_a_range_is_cut_off_at_the_end(
    store: Store, start: int, length: int | None, expected: bytes
) -> None:
    store.put("digits", [b"0123456789"])
    assert store.get("digits", start, length) == expected


def test_a_map_shows_the_whole_object_and_cannot_be_written(store: Store) -> None:
    store.put("a", [b"content"])
    view = memoryview(store.map("a"))
    assert bytes(view) == b"content"
    assert view.readonly


@pytest.mark.parametrize("key", ["missing", "no/such/folder", "file/below", "folder"])
def test_a_missing_object_is_not_found_by_name(store: Store, key: str) -> None:
    store.put("file", [b""])
    store.put("folder/x", [b""])
    for read in (store.get, store.map, store.settle):
        with pytest.raises(ObjectNotFoundError, match=key) as caught:
            read(key)
        assert caught.value.key == key


def test_settle_tells_how_much_is_durable(store: Store) -> None:
    store.put("a", [b"12345"])
    assert store.settle("a") == 5


def test_a_listing_is_deep_and_sorted_by_key_with_sizes(store: Store) -> None:
    for key in ("b/2", "b/1/x", "a", "b-1", "c/3", "b/10"):
        store.put(key, [key.encode()])
    assert keys(store) == sorted(["b/2", "b/1/x", "a", "b-1", "c/3", "b/10"])
    assert [(each.key, each.size) for each in store.list("b/")] == [
        ("b/1/x", 5),
        ("b/10", 4),
        ("b/2", 3),
    ]


def test_a_listing_starts_after_the_given_key(store: Store) -> None:
    for key in ("d/1", "d/2", "d/3"):
        store.put(key, [])
    assert keys(store, "d/", after="d/1") == ["d/2", "d/3"]
    assert keys(store, "d/", after="d/15") == ["d/2", "d/3"]
    assert keys(store, "d/", after="d/3") == []


def test_a_folder_that_does_not_exist_lists_nothing(store: Store) -> None:
    store.put("file", [])
    assert keys(store, "no/such/") == []
    assert keys(store, "file/") == []
    assert store.list_folders("no/such/") == []


def test_only_folders_directly_below_are_named(store: Store) -> None:
    for key in ("w/b/x/deep", "w/a/1", "w/a/2", "w/file", "other/c"):
        store.put(key, [])
    assert store.list_folders("w/") == ["a", "b"]
    assert store.list_folders("") == ["other", "w"]


def test_deleted_objects_are_gone_and_missing_ones_are_fine(store: Store) -> None:
    for key in ("a/1", "a/2", "a/b/3"):
        store.put(key, [])
    store.delete(["a/1", "a/b/3", "never/there", "a/2/below"])
    assert keys(store) == ["a/2"]
    store.delete(["a/2"])
    assert keys(store) == []
    assert store.list_folders("") == []


def test_a_folder_that_was_emptied_can_be_used_again(store: Store) -> None:
    store.put("a/b/c", [b"1"])
    store.delete(["a/b/c"])
    store.put("a/b/c", [b"2"])
    assert store.get("a/b/c") == b"2"


@pytest.mark.parametrize("key", MALFORMED)
def test_no_key_leads_out_of_the_store_or_to_a_hidden_file(store: Store, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, [b""]),
        lambda: store.create(key, [b""]),
        lambda: store.get(key),
        lambda: store.map(key),
        lambda: store.settle(key),
        lambda: store.delete([key]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="malformed key"):
            call()


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", ".git/"])
def test_no_prefix_leads_out_of_the_store(store: Store, prefix: str) -> None:
    for listing in (store.list, store.list_folders):
        with pytest.raises(ValueError, match="malformed"):
            listing(prefix)


def test_a_store_appends_exactly_if_it_says_so(store: Store) -> None:
    appender = store.append("log/1")
    assert (appender is not None) == store.appendable


def test_an_appended_object_grows_and_is_never_opened_twice(store: Store) -> None:
    appender = store.append("log/1")
    if appender is None:
        pytest.skip("this store writes whole objects")
    appender.write([b"a", b"b"])
    appender.sync()
    assert store.get("log/1") == b"ab"
    appender.write([b"c"])
    appender.sync()
    appender.close()
    appender.close()
    assert store.get("log/1") == b"abc"
    with pytest.raises(StorageUnavailableError, match="exist"):
        store.append("log/1")


def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(store: Store) -> None:
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for step in range(20):
                key = f"shared/deep/{number}-{step}"
                store.put(key, [key.encode()])
                assert store.get(key) == key.encode()
                store.delete([key])
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
