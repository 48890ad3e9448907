"""A bundle is a workflow in one file: whole, read in place, checked against its manifest."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.errors import (
    CorruptJournalError,
    MilepostError,
    StorageUnavailableError,
    UnsupportedFormatError,
)
from milepost.journal import MemoryStore, open_history, open_store, put_blob
from milepost.journal.bundle import BundleStore, is_bundle, write_bundle
from milepost.journal.root import create_root
from milepost.journal.store import ObjectNotFoundError

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
TOLD: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
ID = "golden/é"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def make(story: str, file: Path, *more: object) -> Result:
    return run("--storage", GOLDEN / story, "bundle", ID, "-o", file, *more)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    assert make("blobs", tmp_path / "b.tar").exit_code == 0
    return tmp_path / "b.tar"


@pytest.mark.parametrize("story", sorted(TOLD))
def test_a_bundle_tells_the_same_as_the_store(story: str, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    assert make(story, file).exit_code == 0
    done = run("verify", file, "--deep", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["digest"] == TOLD[story]["digest"]
    assert open_history(file, ID).state_at().digest() == TOLD[story]["digest"]
    for command in ("show", "tasks", "journal", "stats", "head"):
        told = run("--storage", file, command, ID, "--json")
        expected = run("--storage", GOLDEN / story, command, ID, "--json")
        assert (told.exit_code, told.stdout) == (0, expected.stdout)
    assert run("--storage", file, "ls", "--json").exit_code == 0


def rewrite(file: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Write a tar anew; what the function gives None for is dropped."""
    with tarfile.open(file) as old:
        members = [(each.name, old.extractfile(each).read()) for each in old]  # type: ignore[union-attr]
    with tarfile.open(file, "w") as new:
        for name, content in members:
            changed = change(name, content)
            if changed is not None:
                member = tarfile.TarInfo(name)
                member.size = len(changed)
                new.addfile(member, io.BytesIO(changed))


def test_without_blobs_they_are_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    assert json.loads(make("blobs", file, "--no-blobs", "--json").stdout)["objects"] == 3
    assert run("verify", file).exit_code == 0


def test_a_changed_object_is_found_by_the_manifest(bundle: Path) -> None:
    rewrite(bundle, lambda name, content: content + b"x" if "/blobs/" in name else content)
    done = run("verify", bundle, "--json")
    assert done.exit_code == 3
    reasons = {each["reason"] for each in json.loads(done.stdout)["findings"]}
    assert "it is not what the manifest says" in reasons


def test_a_dropped_object_is_missed(bundle: Path) -> None:
    rewrite(bundle, lambda name, content: None if "/blobs/" in name else content)
    assert run("verify", bundle).exit_code == 3


def test_a_manifest_for_another_journal_needs_a_head_kept_elsewhere(
    bundle: Path, tmp_path: Path
) -> None:
    """Somebody puts another workflow of the same id into a bundle that is right in itself."""
    head = json.loads(make("blobs", bundle, "--json").stdout)["head"]
    store = open_store(tmp_path / "forged")
    tell_story(store, ID, shards=2)
    forged = tmp_path / "f.tar"
    assert run("--storage", tmp_path / "forged", "bundle", ID, "-o", forged).exit_code == 0
    assert run("verify", forged).exit_code == 0
    assert run("verify", forged, "--head", head).exit_code == 8
    assert run("verify", bundle, "--head", head).exit_code == 0


def test_an_object_that_the_manifest_does_not_name_is_told(bundle: Path) -> None:
    with tarfile.open(bundle, "a") as tar:
        member = tarfile.TarInfo("store/workflows/more/x")
        tar.addfile(member, io.BytesIO(b""))
    assert run("verify", bundle).exit_code == 8


def spoiled(file: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    with tarfile.open(file, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        tar.addfile(member)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: spoiled(file, "store/../../etc/passwd"),
        lambda file: spoiled(file, "/etc/passwd"),
        lambda file: spoiled(file, "store/link", tarfile.SYMTYPE, "/etc/passwd"),
        lambda file: spoiled(file, "store/device", tarfile.CHRTYPE),
        lambda file: spoiled(file, "store/milepost.json"),
        lambda file: file.write_bytes(file.read_bytes()[:1500]),
        lambda file: file.write_bytes(b"not a tar"),
        lambda file: file.write_bytes(b""),
        lambda file: rewrite(file, lambda name, content: None if "manifest" in name else content),
        lambda file: rewrite(file, lambda name, content: b"{" if "manifest" in name else content),
        lambda file: rewrite(file, lambda name, content: b"[]" if "manifest" in name else content),
    ],
)
def test_a_hostile_bundle_is_refused_in_words(bundle: Path, spoil: Callable[[Path], None]) -> None:
    spoil(bundle)
    with pytest.raises(CorruptJournalError):
        BundleStore(bundle)
    assert run("verify", bundle).exit_code in (3, 8)
    assert run("--storage", bundle, "ls").exit_code in (3, 8)


def test_any_flipped_bit_is_an_answer_or_an_error_of_ours(bundle: Path) -> None:
    content = bundle.read_bytes()
    for offset in range(0, len(content), 37):
        hurt = bytearray(content)
        hurt[offset] ^= 1 << offset % 8
        bundle.write_bytes(hurt)
        done = run("verify", bundle, "--deep")
        assert done.exit_code in (0, 3, 4, 6, 8), (offset, done.output)


def test_a_newer_bundle_is_refused(bundle: Path) -> None:
    def renew(name: str, content: bytes) -> bytes:
        return content.replace(b'"milepost_bundle": 1', b'"milepost_bundle": 2')

    rewrite(bundle, renew)
    with pytest.raises(UnsupportedFormatError):
        BundleStore(bundle)
    assert run("verify", bundle).exit_code == 6


def test_a_bundle_cannot_be_changed(bundle: Path) -> None:
    store = BundleStore(bundle)
    for write in (
        lambda: store.put("a", []),
        lambda: store.create("a", []),
        lambda: store.delete(["a"]),
        lambda: store.append("a"),
    ):
        with pytest.raises(StorageUnavailableError, match="cannot be changed"):
            write()
    for read in (store.get, store.map, store.settle):
        with pytest.raises(ObjectNotFoundError):
            read("a")


def test_large_objects_are_copied_in_pieces() -> None:
    store = MemoryStore()
    create_root(store)
    tell_story(store, "w", shards=2)
    put_blob(store, "w", 1, [bytes(9 * 2**20 + 17)])
    file = io.BytesIO()
    manifest = write_bundle(store, "w", file, blobs=True)
    assert manifest.objects == {
        each.key: (each.size, manifest.objects[each.key][1]) for each in store.list("")
    }
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        for each in store.list(""):
            member = tar.extractfile(f"store/{each.key}")
            assert member is not None
            assert member.read() == store.get(each.key)


def test_only_files_that_end_in_tar_are_bundles(bundle: Path, tmp_path: Path) -> None:
    assert is_bundle(bundle)
    assert not is_bundle(tmp_path / "none.tar")
    (tmp_path / "folder.tar").mkdir()
    assert not is_bundle(tmp_path / "folder.tar")
    with pytest.raises(MilepostError):
        open_history(tmp_path / "none.tar", "w")
