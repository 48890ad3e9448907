"""Checks a stored workflow: everything that its bytes promise, without changing or running any.

What is found is of two kinds. *Faults* are what no crash explains: damage, an illegal event, a
missing blob or claim, an object that nobody's claim accounts for. *Remains* are what crashes and
takeovers leave behind by design, and what the next owner drops or clears away: a torn tail,
segments of an owner that was succeeded, blobs whose commit never became durable.

Frames are read one piece of the journal at a time, blobs in windows; memory grows with the state
of one workflow, not with its bytes. Nothing is unpickled. A workflow may run meanwhile: then the
newest things may count as remains, never as faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from milepost.errors import (
    AlteredJournalError,
    CorruptBlobError,
    CorruptJournalError,
    IllegalEventError,
    UnsupportedFormatError,
    WorkflowNotFoundError,
)
from milepost.journal.blob import HEAD_BYTES as BLOB_HEAD_BYTES
from milepost.journal.blob import check_blob
from milepost.journal.claim import list_claims
from milepost.journal.frame import CHAIN_START, Frame
from milepost.journal.head import Head, HeadWatch
from milepost.journal.layout import (
    BLOBS,
    WORKFLOWS,
    ClaimName,
    blob_key,
    blobs_folder,
    decode_workflow_id,
    parse_claim_name,
    parse_compacted_name,
    parse_incarnation,
    parse_segment_name,
    parse_tombstone_name,
    workflow_folder,
)
from milepost.journal.lineage import list_journal
from milepost.journal.reader import JournalWalk, Tip
from milepost.journal.segment import parse_segment_head, require_torn_at_birth, scan_frames
from milepost.journal.store import ObjectNotFoundError, Store, StoredObject
from milepost.replay.codec import EventFormatError, decode_all
from milepost.replay.events import (
    AttemptFailed,
    Event,
    GraphExtended,
    ItemFailed,
    ItemsCommitted,
    OwnershipTaken,
    TasksCommitted,
    WorkflowCreated,
)
from milepost.replay.fold import apply
from milepost.replay.fragment import ChunkItems, Fragment
from milepost.replay.invariants import check
from milepost.replay.mapping import unpack_listed
from milepost.replay.payload import Encoding, Payload
from milepost.replay.state import State

READS_MAX = 5
"""Readings of a workflow that gets a new owner, or is deleted, while it is read."""


class Kind(StrEnum):
    """What can be found; the values are stable, for scripts."""

    DAMAGE = "damage"
    """Fault: bytes of the journal or of a blob are not what their checksums, chain or links say."""
    ALTERED = "altered"
    """Fault: checksums are right, but chain, links or a noted head are not: no accident."""
    UNSUPPORTED = "unsupported"
    """Fault: a newer Milepost seems to have written it, so that nothing can be said of it."""
    ILLEGAL = "illegal"
    """Fault: an event that contradicts what the journal says before it."""
    MISSING = "missing"
    """Fault: a blob that the journal names, or the claim of an epoch that wrote, is not there."""
    ORPHAN = "orphan"
    """Fault: an object that no claim and no event accounts for. Nothing is lost by it."""
    TORN = "torn"
    """Remains: an end that was being written when its owner died, and was never acknowledged."""
    LEFTOVER = "leftover"
    """Remains: an object of an owner that was succeeded, or whose commit never became durable."""

    @property
    def is_fault(self) -> bool:
        """Whether no crash explains it."""
        return self not in (Kind.TORN, Kind.LEFTOVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as in a workflow that never saw a failure.

    Attributes:
        kind: What it is.
        key: The object.
        offset: Where in it, in bytes.
        reason: In words.
    """

    kind: Kind
    key: str
    offset: int = 0
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What is true of one stored workflow.

    Attributes:
        workflow_id: The workflow.
        status: Its stored status; empty if it has no readable journal (it was deleted, say).
        events: How many events were verified.
        frames: How many frames they came in.
        epochs: How many owners wrote.
        blobs: How many blobs the journal names.
        blobs_hashed: How many of these were read and hashed.
        digest: The digest of the state that the events fold to.
        findings: What was found.
    """

    workflow_id: str
    status: str
    events: int
    frames: int
    epochs: int
    blobs: int
    blobs_hashed: int
    digest: str
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that no crash explains."""
        return tuple(each for each in self.findings if each.kind.is_fault)


def verify(
    store: Store, workflow_id: str, *, deep: bool = False, noted: Head | None = None
) -> Verification:
    """Check everything stored of a workflow.

    Checksums, the hash chain, the numbers of events, the epochs, the links between segments, the
    legality of every event, the presence of every blob, and that claims and events account for
    every object.

    Args:
        store: Where the workflow is.
        workflow_id: The workflow.
        deep: Read and hash every blob, too.
        noted: A head noted earlier; that the journal does not go on from it is a fault.

    Returns:
        What was found.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        WorkflowNotFoundError: If nothing at all is stored of it.
        StorageUnavailableError: If the storage fails, or the workflow changes owners all the time.
    """
    for _ in range(READS_MAX - 1):
        with suppress(_ChangedError):
            return _Verifier(store, workflow_id, noted=noted).run(deep)
    return _Verifier(store, workflow_id, last=True, noted=noted).run(deep)


def verify_all(store: Store, *, deep: bool = False) -> Iterator[Verification]:
    """Check everything in a store, one workflow after the other, also what deleted ones left.

    Args:
        store: Where the workflows are.
        deep: Read and hash every blob, too.

    Yields:
        What was found, by workflow id.

    Raises:
        StorageUnavailableError: If the storage fails.
    """
    names = {*store.list_folders(WORKFLOWS), *store.list_folders(BLOBS)}
    for name in sorted(names):
        try:
            workflow_id = decode_workflow_id(name)
        except ValueError:
            continue
        with suppress(WorkflowNotFoundError):  # a folder without objects
            yield verify(store, workflow_id, deep=deep)


class _ChangedError(Exception):
    """The workflow was deleted or begun anew while it was read."""


class _Verifier:
    """One look at one workflow."""

    def __init__(
        self, store: Store, workflow_id: str, *, last: bool = False, noted: Head | None = None
    ) -> None:
        self._store = store
        self._id = workflow_id
        self._last = last
        self._watch = HeadWatch(noted)
        self._head = Head(0, CHAIN_START)
        self._state = State()
        self._epoch = 0
        self._epochs: set[int] = set()
        self._named: set[bytes] = set()
        self._frames = 0
        self._hashed = 0
        self._findings: list[Finding] = []

    def run(self, deep: bool) -> Verification:
        before = self._store.list(workflow_folder(self._id))
        tip = self._read()
        blobs = {each.key: each for each in self._store.list(blobs_folder(self._id))}
        if not before and not blobs:
            raise WorkflowNotFoundError(self._id, self._store.uri)
        claims = list_claims(self._store, self._id, 0)
        self._check_blobs(blobs, deep)
        if tip is not None:
            self._check_tail(tip)
            self._check_claims(claims)
            self._check_objects(tip, claims)
            self._check_leftover_blobs(blobs, claims)
        state = self._state
        return Verification(
            workflow_id=self._id,
            status=state.status.value if state.status else "",
            events=state.next_seq,
            frames=self._frames,
            epochs=len(self._epochs),
            blobs=len(self._named),
            blobs_hashed=self._hashed,
            digest=state.digest() if state.next_seq else "",
            findings=tuple(self._findings),
        )

    def _find(self, kind: Kind, key: str, reason: str, offset: int = 0) -> None:
        self._findings.append(Finding(kind=kind, key=key, offset=offset, reason=reason))

    def _blame(self, error: CorruptJournalError) -> None:
        kind = Kind.ALTERED if isinstance(error, AlteredJournalError) else Kind.DAMAGE
        self._find(kind, error.file, error.reason, error.offset)

    def _read(self) -> Tip | None:
        """Fold the journal; None if it cannot be read to its end."""
        walk = JournalWalk(self._store, self._id)
        try:
            for frame in walk:
                if not self._fold(frame):
                    return None
            if self._state.next_seq:
                check(self._state)
                self._watch.require(self._head, workflow_folder(self._id))
        except CorruptJournalError as error:
            self._blame(error)
            return None
        except UnsupportedFormatError as error:
            self._find(Kind.UNSUPPORTED, error.file, str(error))
            return None
        except AssertionError as error:
            reason = f"the events fold to a state that cannot be: {error!r}"
            self._find(Kind.ILLEGAL, workflow_folder(self._id), reason)
            return None
        except WorkflowNotFoundError:
            raise _ChangedError from None
        return walk.tip

    def _fold(self, frame: Frame) -> bool:
        """Take a frame; tells whether what follows it can still be judged."""
        self._frames += 1
        if frame.epoch < self._epoch:
            reason = f"a frame of epoch {frame.epoch} follows one of epoch {self._epoch}"
            self._find(Kind.ALTERED, frame.file, reason, frame.offset)
        self._head = Head(frame.next_seq, frame.chain)
        self._watch.see(self._head, frame.file, frame.offset)
        self._epoch = max(self._epoch, frame.epoch)
        self._epochs.add(frame.epoch)
        self._state.incarnation = self._state.incarnation or frame.epoch
        try:
            for event in decode_all(frame.raw):
                apply(self._state, event)
                self._note(event, frame)
        except (EventFormatError, IllegalEventError) as error:
            self._find(Kind.ILLEGAL, frame.file, str(error), frame.offset)
            return False
        return True

    def _note(self, event: Event, frame: Frame) -> None:
        if isinstance(event, OwnershipTaken) and event.epoch != frame.epoch:
            reason = f"epoch {event.epoch} is taken in a frame of epoch {frame.epoch}"
            self._find(Kind.ILLEGAL, frame.file, reason, frame.offset)
        self._named.update(each.digest for each in payloads_of(event) if each.digest)

    def _check_blobs(self, blobs: dict[str, StoredObject], deep: bool) -> None:
        for digest in sorted(self._named):
            key = blob_key(self._id, self._state.incarnation, digest.hex())
            stored = blobs.get(key)
            if stored is None:
                self._require_same_workflow()
                self._find(Kind.MISSING, key, "the journal names this blob, but it is not there")
            elif stored.size < BLOB_HEAD_BYTES:
                self._find(Kind.DAMAGE, key, f"a blob of {stored.size} bytes has no whole head")
            elif deep:
                self._hash(key, digest.hex())

    def _hash(self, key: str, digest: str) -> None:
        try:
            check_blob(self._store, key, digest)
        except CorruptBlobError as error:
            self._require_same_workflow()
            self._find(Kind.DAMAGE, error.file, error.reason)
        except UnsupportedFormatError as error:
            self._find(Kind.UNSUPPORTED, error.file, str(error))
        self._hashed += 1

    def _require_same_workflow(self) -> None:
        """Before blaming what is gone: a deletion takes it away, and is no fault."""
        if not self._last and list_journal(self._store, self._id).tombstone > self._epoch:
            raise _ChangedError

    def _check_tail(self, tip: Tip) -> None:
        """Tell whether bytes follow the last frame of the newest segment."""
        if tip.parent is None or tip.parent.is_compacted:
            return
        name = tip.parent.name
        key = f"{workflow_folder(self._id)}segments/{name}"
        try:
            content = self._store.get(key)
            head = parse_segment_head(content, name, key)
            assert head is not None, key
            end = tip.parent.sealed_bytes
            for frame in scan_frames(content, head, key, sealed=False):
                end = max(end, frame.end)
        except ObjectNotFoundError:
            return  # compacted away meanwhile, so it had no torn end
        except CorruptJournalError as error:
            self._blame(error)
            return
        if end < len(content):
            self._find(Kind.TORN, key, f"{len(content) - end} bytes of an unfinished frame", end)

    def _check_claims(self, claims: list[ClaimName]) -> None:
        claimed = {claim.epoch for claim in claims}
        for epoch in sorted(self._epochs - claimed):
            self._require_same_workflow()
            key = f"{workflow_folder(self._id)}claims/{epoch:010d}"
            reason = f"epoch {epoch} wrote events, but its claim is not there to fence others"
            self._find(Kind.MISSING, key, reason)

    def _check_objects(self, tip: Tip, claims: list[ClaimName]) -> None:
        folder = workflow_folder(self._id)
        for each in self._store.list(folder):
            if each.key in tip.keys:
                continue
            kind, _, name = each.key[len(folder) :].partition("/")
            self._explain(each.key, kind, name, tip, set(claims))

    def _explain(self, key: str, kind: str, name: str, tip: Tip, claims: set[ClaimName]) -> None:
        """Say why an object is there that the newest state does not rest on."""
        epochs = {claim.epoch for claim in claims}
        if kind == "claims" and parse_claim_name(name) is not None:
            return  # claims stay for as long as the workflow does
        if kind == "segments" and (segment := parse_segment_name(name)) is not None:
            if ClaimName(segment.epoch, segment.nonce) not in claims:
                self._find(Kind.ORPHAN, key, "no claim accounts for this segment")
            elif segment.epoch >= tip.end_epoch:
                self._check_newborn(key)
            else:
                self._find(Kind.LEFTOVER, key, "an owner that was succeeded wrote it, or it moved")
        elif kind == "compacted" and (compacted := parse_compacted_name(name)) is not None:
            known = compacted.epoch in epochs
            reason = "replaced, or by an owner that was succeeded" if known else "no claim for it"
            self._find(Kind.LEFTOVER if known else Kind.ORPHAN, key, reason)
        elif kind == "segments" and parse_tombstone_name(name) is not None:
            self._find(Kind.LEFTOVER, key, "a workflow of the same id was deleted before")
        else:
            self._find(Kind.ORPHAN, key, "this name is none of a workflow's")

    def _check_newborn(self, key: str) -> None:
        """Look at a segment of the newest owner that the journal does not end in."""
        try:
            content = self._store.get(key)
            name = parse_segment_name(key.rpartition("/")[2])
            assert name is not None, key
            if parse_segment_head(content, name, key) is None:
                require_torn_at_birth(content, key, self._store.appendable)
                self._find(Kind.TORN, key, f"{len(content)} bytes of a segment without a head")
            else:
                self._find(Kind.LEFTOVER, key, "written, or compacted, since the journal was read")
        except ObjectNotFoundError:
            return
        except CorruptJournalError as error:
            self._blame(error)

    def _check_leftover_blobs(
        self, blobs: dict[str, StoredObject], claims: list[ClaimName]
    ) -> None:
        folder, epochs = blobs_folder(self._id), {claim.epoch for claim in claims}
        incarnation = self._state.incarnation
        named = {blob_key(self._id, incarnation, each.hex()) for each in self._named}
        for key in blobs.keys() - named:
            found = parse_incarnation(key[len(folder) :].partition("/")[0])
            if found is None or (found > incarnation and found not in epochs):
                self._find(Kind.ORPHAN, key, "no claim accounts for this blob")
            elif found < incarnation:
                self._find(Kind.LEFTOVER, key, "a blob of a deleted workflow of the same id")
            else:
                self._find(Kind.LEFTOVER, key, "a blob whose commit is not, or not yet, durable")


def payloads_of(event: Event) -> Iterator[Payload]:
    """Give every payload that an event carries or names.

    Args:
        event: The event.

    Yields:
        Its payloads.
    """
    match event:
        case TasksCommitted():
            yield from event.payloads
        case ItemsCommitted():
            for payload in event.payloads:
                yield from _payloads_below(payload)
        case AttemptFailed() | ItemFailed():
            if event.error.exception is not None:
                yield event.error.exception
        case WorkflowCreated():
            yield from (event.metadata, event.environment)
            yield from _payloads_in(event.fragment)
        case GraphExtended():
            yield from _payloads_in(event.fragment)
        case _:
            return


def _payloads_in(fragment: Fragment) -> Iterator[Payload]:
    for function in fragment.functions:
        if function.code is not None:
            yield function.code
    for options in fragment.options:
        yield from (options.retry_errors, options.ray)
    for constant in fragment.constants:
        yield constant.payload
    for spec in fragment.maps:
        if isinstance(spec.items, ChunkItems):
            for payload in spec.items.payloads:
                yield from _payloads_below(payload)


def _payloads_below(payload: Payload) -> Iterator[Payload]:
    """Gives a payload and those that it lists; one that is stored as a blob lists no blobs."""
    yield payload
    if payload.encoding == Encoding.LISTED and not payload.digest:
        try:
            yield from unpack_listed(payload.data)
        except ValueError as error:
            raise EventFormatError(f"values of a map are malformed: {error}") from error
