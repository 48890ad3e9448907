"""A workflow in one file, to be kept or handed on as evidence: a tar that is a small store.

Below ``store/`` it holds the workflow's objects as they were, byte for byte; ``manifest.json``, its
last member, names each with its length and SHA-256, and the journal's head. Nothing in a bundle is
compressed or packed: any tar program opens it, and any command that looks reads it in place.
Reading one never extracts it, and trusts none of its names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from milepost.errors import (
    AlteredJournalError,
    CorruptJournalError,
    StorageUnavailableError,
    UnsupportedFormatError,
)
from milepost.journal.head import Head, parse_head, read_head
from milepost.journal.layout import blobs_folder, workflow_folder
from milepost.journal.opening import open_store
from milepost.journal.root import ROOT_KEY, read_store_id
from milepost.journal.store import (
    Appender,
    ObjectNotFoundError,
    Part,
    Store,
    StoredObject,
    check_key,
)

VERSION = 1
MANIFEST = "manifest.json"
README = "HOW-TO-VERIFY.md"
FOLDER = "store/"
MANIFEST_BYTES_MAX = 256 * 2**20
CHUNK_BYTES = 4 * 2**20
TRIES_MAX = 5
"""A workflow that is compacted while it is copied is copied anew."""

_HOW = """# How to verify this bundle

It holds one Milepost workflow as it was stored: its journal and, unless the manifest says
otherwise, its blobs.

    pip install milepost
    milepost verify {name} --deep

checks every object against the manifest, every checksum, the hash chain over all events, that each
event is legal, and every blob. `milepost --storage {name} show ID` and every other command that
looks work on it, too.

The journal's head was {head}. Whoever kept that, or a signed head, elsewhere compares:

    milepost verify {name} --head HEAD
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        workflow_id: The workflow.
        store_id: The id of the store that it was in.
        head: The journal's head when it was bundled.
        has_blobs: Whether blobs were put in.
        made_us: When it was made, microseconds since 1970.
        objects: The length and SHA-256 of every object, by key.
    """

    workflow_id: str
    store_id: str
    head: Head
    has_blobs: bool
    made_us: int
    objects: dict[str, tuple[int, str]]


def write_bundle(
    store: Store, workflow_id: str, file: IO[bytes], *, blobs: bool, name: str = "BUNDLE"
) -> Manifest:
    """Copy a workflow into a bundle.

    Args:
        store: Where it is.
        workflow_id: The workflow.
        file: Where to write; it must be seekable.
        blobs: Whether to copy its blobs, too.
        name: What the file will be called, for its own instructions.

    Returns:
        What the bundle says of itself.

    Raises:
        WorkflowNotFoundError: If there is no such workflow.
        CorruptJournalError: If its journal is damaged; what is damaged is not bundled.
        UnsupportedFormatError: If a newer Milepost wrote it.
        StorageUnavailableError: If the storage fails, or the workflow changes all the time.
    """
    for _ in range(TRIES_MAX):
        file.seek(0)
        file.truncate()
        head = read_head(store, workflow_id)
        try:
            return _write(store, workflow_id, file, head, blobs, name)
        except ObjectNotFoundError:
            continue
    raise StorageUnavailableError("copy", workflow_folder(workflow_id), "it changes all the time")


def _write(
    store: Store, workflow_id: str, file: IO[bytes], head: Head, blobs: bool, name: str
) -> Manifest:
    folders = [workflow_folder(workflow_id), *([blobs_folder(workflow_id)] if blobs else [])]
    listed = [each for folder in folders for each in store.list(folder)]
    objects = {}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, README, _HOW.format(name=name, head=head).encode())
        for each in (StoredObject(ROOT_KEY, len(store.get(ROOT_KEY))), *listed):
            content = _Content(store, each.key)
            member = tarfile.TarInfo(FOLDER + each.key)
            member.size = each.size  # a segment that has grown since counts as it was listed
            tar.addfile(member, content)
            objects[each.key] = (each.size, content.digest.hexdigest())
        manifest = Manifest(
            workflow_id=workflow_id,
            store_id=read_store_id(store),
            head=head,
            has_blobs=blobs,
            made_us=time.time_ns() // 1000,
            objects=objects,
        )
        _add(tar, MANIFEST, _encode(manifest))
    return manifest


class _Content(io.RawIOBase):
    """An object, read and hashed as it is copied: a blob may be larger than the memory."""

    def __init__(self, store: Store, key: str) -> None:
        self.digest = hashlib.sha256()
        self._store = store
        self._key = key
        self._next = 0
        self._chunk = b""
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes, of a chunk that was read in one request."""
        if self._at == len(self._chunk):
            self._chunk = self._store.get(self._key, self._next, CHUNK_BYTES)
            self._next += len(self._chunk)
            self._at = 0
            if not self._chunk:
                raise ObjectNotFoundError(self._key)  # shorter than it was listed
        piece = self._chunk[self._at : self._at + size]
        self._at += len(piece)
        self.digest.update(piece)
        return piece if len(piece) == size else piece + self.read(size - len(piece))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _encode(manifest: Manifest) -> bytes:
    fields = {
        "milepost_bundle": VERSION,
        "workflow_id": manifest.workflow_id,
        "store_id": manifest.store_id,
        "head": str(manifest.head),
        "has_blobs": manifest.has_blobs,
        "made_us": manifest.made_us,
        "objects": {
            key: {"bytes": size, "sha256": digest}
            for key, (size, digest) in manifest.objects.items()
        },
    }
    return json.dumps(fields, indent=1, sort_keys=True).encode() + b"\n"


class BundleStore:
    """A bundle as a :class:`~milepost.journal.store.Store` that cannot be changed.

    Attributes:
        manifest: What it says of itself.
        appendable: As of the store that it was copied from, as far as that matters to a reader.
    """

    appendable = True

    def __init__(self, path: Path) -> None:
        """Open a bundle; of its objects only names and places are read.

        Args:
            path: The file.

        Raises:
            CorruptJournalError: If it is no bundle, or cut off.
            UnsupportedFormatError: If a newer Milepost made it.
            StorageUnavailableError: If it cannot be read.
        """
        self._path = path
        try:
            self._places = self._index()
            start, size = self._places.pop(MANIFEST, (0, 0))
            if not 0 < size <= MANIFEST_BYTES_MAX:
                raise CorruptJournalError(str(path), 0, "it has no manifest: no bundle, or cut off")
            self.manifest: Manifest = _parse(self._read(start, size), str(path))
        except OSError as error:
            raise StorageUnavailableError(
                "read", str(path), error.strerror or str(error)
            ) from error

    def _index(self) -> dict[str, tuple[int, int]]:
        whole = self._path.stat().st_size
        places: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self._path, "r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # or it keeps all of them
                    if member.name == README:
                        continue
                    key = self._key(member, whole)
                    if key in places:
                        raise AlteredJournalError(
                            str(self._path), member.offset, f"two are {key!r}"
                        )
                    places[key] = (member.offset_data, member.size)
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise CorruptJournalError(str(self._path), 0, f"not a whole tar: {error}") from error
        return places

    def _key(self, member: tarfile.TarInfo, whole: int) -> str:
        if not member.isreg() or member.sparse is not None:
            raise ValueError(f"{member.name[:200]!r} is not a plain file")
        if member.offset_data + member.size > whole:
            raise ValueError(f"{member.name[:200]!r} is cut off")
        if member.name == MANIFEST:
            return MANIFEST
        if not member.name.startswith(FOLDER):
            raise ValueError(f"{member.name[:200]!r} is none of a bundle's")
        key = member.name[len(FOLDER) :]
        check_key(key)
        return key

    def _read(self, start: int, size: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    @property
    def uri(self) -> str:
        """The path of the file."""
        return str(self._path)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object or a range of it; see :meth:`Store.get`.

        Args:
            key: The object's key.
            start: Offset of the first byte.
            length: How many bytes; None means up to the end.

        Returns:
            The bytes there are in that range.

        Raises:
            ObjectNotFoundError: If there is no such object.
            StorageUnavailableError: If the file cannot be read.
        """
        if key not in self._places:
            raise ObjectNotFoundError(key)
        offset, size = self._places[key]
        left = max(0, size - start)
        try:
            return self._read(offset + start, left if length is None else min(left, length))
        except OSError as error:
            raise StorageUnavailableError("read", key, error.strerror or str(error)) from error

    def map(self, key: str) -> memoryview | bytes:
        """Read an object; see :meth:`Store.map`."""
        return self.get(key)

    def settle(self, key: str) -> int:
        """Give an object's length: nothing here changes; see :meth:`Store.settle`."""
        if key not in self._places:
            raise ObjectNotFoundError(key)
        return self._places[key][1]

    def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        """List objects; see :meth:`Store.list`."""
        keys = sorted(key for key in self._places if key.startswith(prefix) and key > after)
        return [StoredObject(key, self._places[key][1]) for key in keys]

    def list_folders(self, prefix: str) -> Sequence[str]:
        """List folders; see :meth:`Store.list_folders`."""
        below = (key[len(prefix) :] for key in self._places if key.startswith(prefix))
        return sorted({key.partition("/")[0] for key in below if "/" in key})

    def put(self, key: str, parts: Sequence[Part]) -> None:
        """Refuse; a bundle cannot be changed."""
        self._refuse(key)

    def create(self, key: str, parts: Sequence[Part]) -> bool:
        """Refuse; a bundle cannot be changed."""
        self._refuse(key)

    def delete(self, keys: Iterable[str]) -> None:
        """Refuse; a bundle cannot be changed."""
        self._refuse(next(iter(keys), ""))

    def append(self, key: str) -> Appender | None:
        """Refuse; a bundle cannot be changed."""
        self._refuse(key)

    def _refuse(self, key: str) -> NoReturn:
        raise StorageUnavailableError("write", key, "a bundle cannot be changed")


def _parse(content: bytes, path: str) -> Manifest:
    try:
        fields: dict[str, Any] = json.loads(content)
        version = fields["milepost_bundle"]
        if type(version) is int and version > VERSION:
            raise UnsupportedFormatError(path, version, VERSION)
        objects = {
            str(key): (int(each["bytes"]), str(each["sha256"]))
            for key, each in fields["objects"].items()
        }
        return Manifest(
            workflow_id=str(fields["workflow_id"]),
            store_id=str(fields["store_id"]),
            head=parse_head(fields["head"]),
            has_blobs=bool(fields["has_blobs"]),
            made_us=int(fields["made_us"]),
            objects=objects,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptJournalError(path, 0, f"its manifest cannot be read: {error!r}") from error


def is_bundle(uri: str | os.PathLike[str]) -> bool:
    """Tell whether a store is named that is a bundle.

    Args:
        uri: A path or URI.

    Returns:
        Whether it is the path of a file that ends in ``.tar``.
    """
    text = os.fspath(uri)
    return text.endswith(".tar") and "://" not in text and Path(text).is_file()


def open_to_look(uri: str | os.PathLike[str]) -> Store:
    """Open a store or a bundle for reading; neither is made or changed.

    Args:
        uri: The store, or the path of a bundle.

    Returns:
        The store.

    Raises:
        MilepostError: As of :func:`~milepost.journal.opening.open_store`, and of a bundle.
    """
    return BundleStore(Path(uri)) if is_bundle(uri) else open_store(uri, create=False)


def check_manifest(bundle: BundleStore) -> Iterator[CorruptJournalError]:
    """Compare every object with the manifest.

    Args:
        bundle: The bundle.

    Yields:
        What differs.

    Raises:
        StorageUnavailableError: If the file cannot be read.
    """
    stored = {each.key: each.size for each in bundle.list("")}
    promised = bundle.manifest.objects
    for key in sorted(stored.keys() - promised.keys()):
        yield AlteredJournalError(key, 0, "the manifest does not name it")
    for key, (size, digest) in promised.items():
        if key not in stored:
            yield CorruptJournalError(key, 0, "the manifest names it, but it is not there")
        elif stored[key] != size or _hash(bundle, key, size) != digest:
            yield CorruptJournalError(key, 0, "it is not what the manifest says")


def _hash(bundle: BundleStore, key: str, size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, CHUNK_BYTES):
        digest.update(bundle.get(key, start, CHUNK_BYTES))
    return digest.hexdigest()
