"""Verification: silent about what is whole, and finds every kind of damage, at its place."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from milepost.__main__ import main
from milepost.errors import WorkflowNotFoundError
from milepost.journal import (
    Kind,
    LocalStore,
    MemoryStore,
    Store,
    Verification,
    delete_workflow,
    load_state,
    open_store,
    put_blob,
    read_journal,
    verify,
    verify_all,
)
from milepost.journal.claim import claim_epoch
from milepost.journal.frame import Frame, encode_frames
from milepost.journal.segment import HEAD_BYTES
from milepost.journal.states import own_state
from milepost.replay.codec import decode_all, encode
from milepost.replay.events import Noted, OwnershipTaken, TasksCommitted
from milepost.replay.payload import Payload
from rehearsal import Rehearsal
from shapes import fan, make_environment

ID = "w"
GOLDEN = Path(__file__).parents[1] / "golden/v1"


def blob_result(store: Store) -> Callable[[random.Random, int], Payload]:
    """Results of which each is a blob that compresses, or not."""

    def make(rng: random.Random, task: int) -> Payload:
        content = rng.randbytes(3000) if rng.random() < 0.5 else bytes([rng.randrange(256)]) * 3000
        digest, size = put_blob(store, ID, 1, [content])
        return Payload(encoding=1, digest=bytes.fromhex(digest), size=size)

    return make


def run(store: Store) -> Store:
    """A finished workflow of six tasks with large results."""
    rng = random.Random(1)
    told = Rehearsal(store, ID, seed=1, result=blob_result(store))
    told.create(fan(rng, 5), make_environment(rng))
    told.run()
    return store


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    run(made)
    return made


def keys(store: MemoryStore, folder: str) -> list[str]:
    return [each.key for each in store.list(f"{folder}/")]


def change(store: MemoryStore, key: str, offset: int) -> None:
    content = bytearray(store.get(key))
    content[offset] ^= 1
    store.put(key, [bytes(content)])


def kinds(found: Verification) -> list[Kind]:
    return [each.kind for each in found.findings]


def test_a_whole_workflow_is_clean_and_counted(store: MemoryStore) -> None:
    found = verify(store, ID, deep=True)
    assert found.is_clean
    assert found.findings == ()
    state = load_state(store, ID)
    assert (found.status, found.events, found.epochs) == ("SUCCESSFUL", state.next_seq, 1)
    assert found.digest == state.digest()
    assert found.blobs == found.blobs_hashed == len(keys(store, f"blobs/{ID}"))
    assert verify(store, ID).blobs_hashed == 0


@pytest.mark.parametrize("story", sorted(each.name for each in GOLDEN.iterdir() if each.is_dir()))
def test_journals_of_released_versions_have_no_fault(story: str) -> None:
    found = list(verify_all(LocalStore(GOLDEN / story), deep=True))
    assert [each.faults for each in found] == [()]


def test_every_flipped_byte_of_a_journal_is_damage_or_a_torn_end() -> None:
    store = MemoryStore()
    run(store)
    (key,) = keys(store, f"workflows/{ID}/segments")
    whole = store.get(key)
    ends = [frame.offset for frame in read_journal(store, ID)]
    for offset in range(0, len(whole), 3):
        change(store, key, offset)
        found = verify(store, ID)
        assert found.findings, offset
        first = found.findings[0]
        assert first.key.startswith(f"workflows/{ID}/")
        if offset < ends[-1]:
            assert first.kind in (Kind.DAMAGE, Kind.UNSUPPORTED), offset
            assert first.offset <= offset
            assert not found.is_clean
        store.put(key, [whole])


def frames_of(store: MemoryStore) -> list[Frame]:
    return list(read_journal(store, ID))


@pytest.mark.parametrize("knows_the_chain", [True, False])
def test_an_edit_that_repairs_every_crc_is_seen_by_the_chain(
    store: MemoryStore, knows_the_chain: bool
) -> None:
    (key,) = keys(store, f"workflows/{ID}/segments")
    content = store.get(key)
    before, target, after = frames_of(store)[1:4]
    (forged,) = encode_frames(
        [encode(Noted(text="forged", who="", at_us=1))] * target.count,
        journal_id=content[16:32],
        epoch=target.epoch,
        first_seq=target.first_seq,
        chain=before.chain if knows_the_chain else bytes(16),
    )
    store.put(key, [content[: target.offset], forged.head, forged.payload, content[target.end :]])
    found = verify(store, ID).faults[0]
    place = after.offset - (target.end - target.offset) + len(forged.head) + len(forged.payload)
    assert (found.kind, found.key) == (Kind.ALTERED, key)
    assert found.offset == (place if knows_the_chain else target.offset)
    assert "chain" in found.reason


def test_a_torn_tail_is_told_from_damage_and_is_no_fault(store: MemoryStore) -> None:
    (key,) = keys(store, f"workflows/{ID}/segments")
    content = store.get(key)
    last = frames_of(store)[-1]
    store.put(key, [content[: last.end - 5]])
    found = verify(store, ID)
    assert found.is_clean
    assert (Kind.TORN, key, last.offset) in [(f.kind, f.key, f.offset) for f in found.findings]
    store.put(key, [content[: last.offset]])
    assert Kind.TORN not in kinds(verify(store, ID))


def test_a_segment_that_was_torn_at_its_birth_is_no_fault(store: MemoryStore) -> None:
    claim = claim_epoch(store, ID, "dead")
    key = f"workflows/{ID}/segments/{claim.epoch:010d}.{0:010d}.{claim.nonce.hex()}"
    store.put(key, [bytes(HEAD_BYTES // 2)])
    found = verify(store, ID)
    assert [(each.kind, each.key) for each in found.findings] == [(Kind.TORN, key)]


def append(store: MemoryStore, *events: object) -> None:
    _, writer = own_state(store, ID, "forger")
    writer.flush([encode(event) for event in events])  # type: ignore[arg-type]
    writer.close()


@pytest.mark.parametrize("again", [True, False])
def test_an_event_that_cannot_be_is_found_though_every_checksum_is_right(
    store: MemoryStore, again: bool
) -> None:
    committed = next(
        event
        for frame in frames_of(store)
        for event in decode_all(frame.raw)
        if isinstance(event, TasksCommitted)
    )
    taken = OwnershipTaken(epoch=2, owner="f", reason="", at_us=1)
    append(store, taken, committed if again else replace(taken, epoch=1))
    (finding,) = verify(store, ID).faults
    assert finding.kind is Kind.ILLEGAL


def test_a_missing_blob_is_found_without_reading_any(store: MemoryStore) -> None:
    key = keys(store, f"blobs/{ID}")[0]
    store.delete([key])
    (finding,) = verify(store, ID).faults
    assert (finding.kind, finding.key) == (Kind.MISSING, key)


def test_every_damaged_blob_is_found_when_it_is_hashed(store: MemoryStore) -> None:
    for key in keys(store, f"blobs/{ID}"):
        whole = store.get(key)
        for content in (whole[:-1], whole + b"x", whole[:80] + b"?" + whole[81:], whole[:70]):
            store.put(key, [content])
            (finding,) = verify(store, ID, deep=True).faults
            assert (finding.kind, finding.key) == (Kind.DAMAGE, key)
        store.put(key, [whole[:20]])
        assert kinds(verify(store, ID)) == [Kind.DAMAGE]
        store.put(key, [whole])


def test_a_missing_segment_and_a_missing_claim_are_found(store: MemoryStore) -> None:
    append(store, OwnershipTaken(epoch=2, owner="f", reason="", at_us=1))
    _, second = keys(store, f"workflows/{ID}/claims")
    content = store.get(second)
    store.delete([second])
    assert {each.kind for each in verify(store, ID).faults} == {Kind.MISSING}
    store.put(second, [content])
    assert verify(store, ID).is_clean
    store.delete([keys(store, f"workflows/{ID}/segments")[0]])
    assert kinds(verify(store, ID)) == [Kind.DAMAGE]


def test_what_no_claim_accounts_for_is_an_orphan(store: MemoryStore) -> None:
    strangers = [
        f"workflows/{ID}/segments/{1:010d}.{7:010d}.{'ab' * 8}",
        f"workflows/{ID}/segments/README",
        f"blobs/{ID}/{9:010d}/{'0' * 64}",
    ]
    for key in strangers:
        store.put(key, [b"?"])
    found = verify(store, ID)
    assert sorted(each.key for each in found.faults) == sorted(strangers)
    assert {each.kind for each in found.faults} == {Kind.ORPHAN}


def test_what_a_fenced_owner_left_and_an_uncommitted_blob_are_no_faults(
    store: MemoryStore,
) -> None:
    _, paused = own_state(store, ID, "paused")
    append(store, OwnershipTaken(epoch=3, owner="f", reason="", at_us=1))
    with pytest.raises(Exception, match="taken over"):
        paused.flush([encode(Noted(text="late", who="", at_us=1))])
    put_blob(store, ID, 1, [b"never committed" * 100])
    found = verify(store, ID, deep=True)
    assert found.is_clean
    assert set(kinds(found)) == {Kind.LEFTOVER}
    assert len(found.findings) == 2


def test_a_deleted_workflow_leaves_nothing_to_complain_about(store: MemoryStore) -> None:
    delete_workflow(store, ID, owner="test")
    (found,) = verify_all(store, deep=True)
    assert (found.status, found.faults) == ("", ())
    with pytest.raises(WorkflowNotFoundError):
        verify(store, "unknown")


def test_the_command_tells_what_and_where_and_its_exit_codes_are_stable(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    store = open_store(uri)
    run(store)

    def call(*arguments: str, storage: str = uri) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["--storage", storage, "verify", *arguments])
        return done.exit_code, done.output

    assert call("--all", "--deep")[0] == 0
    assert call(ID)[1].startswith(f"clean  {ID}: SUCCESSFUL")
    assert call("unknown")[0] == 4
    assert call()[0] == call(ID, "--all")[0] == 2
    assert call(ID, storage=str(tmp_path / "nothing"))[0] == 2
    store.put(f"workflows/{ID}/segments/README", [b"?"])
    assert call(ID)[0] == 5
    key = next(each.key for each in store.list(f"blobs/{ID}/"))
    store.delete([key])
    code, told = call("--all", "--quiet")
    assert code == 3
    assert key in told
