"""Journals on real servers: blobs, status, cuts and damage behave as on a disk."""

from __future__ import annotations

import pytest

from milepost.errors import CorruptBlobError, CorruptJournalError
from milepost.journal import (
    Location,
    RemoteStore,
    Store,
    get_blob,
    put_blob,
    read_journal,
    read_status,
    take_ownership,
)
from milepost.replay.codec import encode
from milepost.replay.events import Noted, OwnershipTaken, StatusChanged


@pytest.fixture
def remote_store(remote_uri: str) -> RemoteStore:
    return RemoteStore(Location(remote_uri))


def build(store: Store) -> list[str]:
    """A journal of two owners; returns its segments' keys, oldest first."""
    for owner in range(2):
        writer = take_ownership(store, "w", owner=str(owner))
        for number in range(2):
            writer.flush([b"%c" % (owner * 2 + number)])
    return [each.key for each in store.list("workflows/w/segments/")]


def test_every_segment_is_one_object_and_is_read_in_order(remote_store: RemoteStore) -> None:
    assert len(build(remote_store)) == 4
    assert [frame.raw for frame in read_journal(remote_store, "w")] == [b"\0", b"\1", b"\2", b"\3"]


def test_a_cut_or_flipped_object_is_damage_with_its_name(remote_store: RemoteStore) -> None:
    for key in build(remote_store):
        content = remote_store.get(key)
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged in (content[:-1], content[:50], b"", flipped):
            remote_store.put(key, [damaged])
            with pytest.raises(CorruptJournalError) as caught:
                list(read_journal(remote_store, "w"))
            assert caught.value.file == key
        remote_store.put(key, [content])


def test_a_missing_object_is_damage_with_its_name(remote_store: RemoteStore) -> None:
    oldest = build(remote_store)[0]
    remote_store.delete([oldest])
    with pytest.raises(CorruptJournalError, match="missing") as caught:
        list(read_journal(remote_store, "w"))
    assert caught.value.file == oldest


def test_a_large_blob_comes_back_and_a_damaged_one_is_refused(remote_store: RemoteStore) -> None:
    content = bytes(range(256)) * 60_000  # more than one part of an upload
    digest, size = put_blob(remote_store, "w", 1, [content[:100], content[100:]])
    assert size == len(content)
    assert get_blob(remote_store, "w", 1, digest) == content
    key = f"blobs/w/0000000001/{digest}"
    remote_store.put(key, [remote_store.get(key)[:-1]])
    with pytest.raises(CorruptBlobError):
        get_blob(remote_store, "w", 1, digest)
    put_blob(remote_store, "w", 1, [content])
    assert get_blob(remote_store, "w", 1, digest) == content


def test_the_status_is_found_though_the_newest_segment_does_not_hold_it(store: Store) -> None:
    writer = take_ownership(store, "w", owner="one")
    taken = OwnershipTaken(epoch=1, owner="one", reason="test", at_us=1)
    running = StatusChanged(status="RUNNING", reason="test", who="test", at_us=2)
    writer.flush([encode(taken), encode(running)])
    writer.flush([encode(Noted(text="later", who="test", at_us=3))])
    status = read_status(store, "w")
    assert (status.status, status.owner) == ("RUNNING", "one")
