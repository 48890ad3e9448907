"""Noted and signed heads show what no sum inside the store can."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from journal_stories import tell_story
from milepost.__main__ import main
from milepost.errors import AlteredJournalError, UsageError
from milepost.journal import Compactor, MemoryStore, open_store, read_journal, take_ownership
from milepost.journal.head import Head, parse_head, read_head
from milepost.journal.signature import (
    is_genuine,
    parse_signed_head,
    read_public_key,
    sign_head,
)


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )  # fmt: skip
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def store(tmp_path: Path) -> Path:
    tell_story(open_store(tmp_path / "store"), "w", shards=3)
    return tmp_path / "store"


def run(store: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["--storage", str(store), *map(str, arguments)])


def test_a_signed_head_is_checked_with_its_key_and_no_other(store: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "mine")
    _, other = make_key(tmp_path, "other")
    note = tmp_path / "note.json"
    note.write_text(run(store, "head", "w", "--sign", private).stdout)
    assert json.loads(note.read_text())["head"] == run(store, "head", "w").stdout.strip()
    assert run(store, "verify", "w", "--head", note, "--key", public).exit_code == 0
    assert run(store, "head", "w", "--check", note, "--key", private).exit_code == 0
    refused = run(store, "verify", "w", "--head", note, "--key", other)
    assert (refused.exit_code, "another key" in refused.stderr) == (8, True)
    unknown = run(store, "verify", "w", "--head", note)
    assert (unknown.exit_code, "is that a key you know?" in unknown.stderr) == (0, True)


def test_a_note_that_was_changed_is_refused(store: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "mine")
    fields = json.loads(run(store, "head", "w", "--sign", private).stdout)
    note = tmp_path / "note.json"
    for name, value in [("head", f"1:{'0' * 32}"), ("signed_us", 5), ("signature", "00" * 64)]:
        note.write_text(json.dumps(fields | {name: value}))
        done = run(store, "verify", "w", "--head", note, "--key", public)
        assert (done.exit_code, "signature of this head is wrong" in done.stderr) == (8, True)
    for wrong in ("{", "[]", json.dumps(fields | {"more": 1}), json.dumps(fields | {"head": 1})):
        note.write_text(wrong)
        assert run(store, "verify", "w", "--head", note).exit_code == 2
    note.write_text(json.dumps(fields))
    tell_story(open_store(store), "v", shards=2)
    assert run(store, "verify", "v", "--head", note).exit_code == 2, "of another workflow"


def test_only_ed25519_keys_sign(tmp_path: Path) -> None:
    other = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for wrong in (b"no key", other):
        with pytest.raises(UsageError):
            sign_head(Head(1, bytes(16)), wrong, workflow_id="w", store_id="s", now_us=1)
        with pytest.raises(UsageError):
            read_public_key(wrong)


def test_a_signature_covers_every_field(tmp_path: Path) -> None:
    private, _ = make_key(tmp_path, "mine")
    signed = sign_head(
        Head(1, bytes(16)), private.read_bytes(), workflow_id="w", store_id="s", now_us=1
    )
    assert is_genuine(parse_signed_head(signed.to_json()))
    for changed in (
        replace(signed, workflow_id="v"),
        replace(signed, store_id="t"),
        replace(signed, head=Head(2, bytes(16))),
        replace(signed, signed_us=2),
    ):
        assert not is_genuine(changed)


def test_heads_stay_good_while_the_journal_goes_on_and_is_compacted() -> None:
    store = MemoryStore()
    tell_story(store, "w", shards=3)
    heads = [Head(frame.next_seq, frame.chain) for frame in read_journal(store, "w")]
    writer = take_ownership(store, "w", owner="o")
    writer.flush([b"\x01"])
    Compactor(writer).run(last=True)
    writer.close()
    assert not store.list("workflows/w/segments/")
    for head in heads:
        assert parse_head(str(head)) == head
        read_head(store, "w", noted=head)


def test_a_noted_head_shows_that_the_end_was_cut_off() -> None:
    store = MemoryStore()
    tell_story(store, "w", shards=2, troubled=False)
    frames = list(read_journal(store, "w"))
    noted = Head(frames[-1].next_seq, frames[-1].chain)
    content = store.get(frames[-1].file)
    store.put(frames[-1].file, [content[: frames[-1].offset]])
    assert read_head(store, "w") == Head(frames[-2].next_seq, frames[-2].chain)
    with pytest.raises(AlteredJournalError, match="it ends at event"):
        read_head(store, "w", noted=noted)
    with pytest.raises(AlteredJournalError, match="does not go on from") as caught:
        read_head(store, "w", noted=Head(frames[2].next_seq, bytes(16)))
    assert caught.value.offset == frames[2].offset


def test_without_the_extra_a_signature_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from milepost.journal.signature import read_public_key\n"
        "from milepost.errors import UsageError\n"
        "try: read_public_key(b'')\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'milepost[sign]'" in done.stdout
