"""Where a workflow's objects are: the only place that makes or reads their names.

::

    workflows/<encoded id>/claims/<epoch>.<nonce>
    workflows/<encoded id>/segments/<epoch>.<index>.<nonce>
    workflows/<encoded id>/segments/<epoch>.tombstone
    workflows/<encoded id>/compacted/<next seq>.<epoch>.<chain>
    blobs/<encoded id>/<incarnation>/<digest>
    leases/<encoded owner>

Numbers have ten decimal digits (a seq has twenty), so that text order is number order; a nonce is
sixteen, a chain thirty-two and a digest sixty-four hex digits. Names that do not parse belong to
somebody else and are passed over. Tombstones lie among the segments so that one listing shows both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from milepost.errors import InvalidWorkflowIdError

WORKFLOWS = "workflows/"
"""The folder that holds one folder per workflow."""

BLOBS = "blobs/"
"""Likewise for blobs; apart, so that listing all workflows does not list all their blobs."""

LEASES = "leases/"
"""One small object per owner that runs workflows, which it keeps rewriting."""

ENCODED_ID_BYTES_MAX = 200
"""File systems allow names of 255 bytes; the rest is room for what backups and tools add."""

NUMBER_MAX = 2**32 - 1
"""Epochs and indexes are 32-bit numbers in the heads of segments and frames."""

SEQ_MAX = 2**64
"""Numbers of events are 64-bit numbers."""

_CLAIM = re.compile(r"(\d{10})\.([0-9a-f]{16})", re.ASCII)
_SEGMENT = re.compile(r"(\d{10})\.(\d{10})\.([0-9a-f]{16})", re.ASCII)
_TOMBSTONE = re.compile(r"(\d{10})\.tombstone", re.ASCII)
_COMPACTED = re.compile(r"(\d{20})\.(\d{10})\.([0-9a-f]{32})", re.ASCII)
_INCARNATION = re.compile(r"\d{10}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class ClaimName:
    """The name of a claim.

    Attributes:
        epoch: The epoch that is claimed.
        nonce: Eight random bytes that tell claimants of one epoch apart.
    """

    epoch: int
    nonce: bytes

    def __str__(self) -> str:
        return f"{self.epoch:010d}.{self.nonce.hex()}"


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The name of a segment; the order of names is the order of segments.

    Attributes:
        epoch: The epoch of the owner that wrote it.
        index: Its number among that owner's segments, from 0.
        nonce: The nonce of that owner's claim.
    """

    epoch: int
    index: int
    nonce: bytes

    def __str__(self) -> str:
        return f"{self.epoch:010d}.{self.index:010d}.{self.nonce.hex()}"


@dataclass(frozen=True, slots=True, order=True)
class CompactedName:
    """The name of a compacted object: where the frames in it end, which says which they are.

    Attributes:
        next_seq: The number of the event after its last one.
        epoch: The epoch of its last frame, whose owner made it.
        chain: The chain of its last frame.
    """

    next_seq: int
    epoch: int
    chain: bytes

    def __str__(self) -> str:
        return f"{self.next_seq:020d}.{self.epoch:010d}.{self.chain.hex()}"


def encode_workflow_id(workflow_id: str) -> str:
    """Turn a workflow id into a folder's name, one to one.

    Letters, digits, ``_``, ``-`` and dots (but not one at the start) stand for themselves, all
    else is percent-encoded UTF-8.

    Example:
        >>> encode_workflow_id("../nightly run")
        '%2E.%2Fnightly%20run'

    Args:
        workflow_id: Any text but the empty one.

    Returns:
        The name.

    Raises:
        InvalidWorkflowIdError: If the id is empty, not text, or too long once encoded.
    """
    given: object = workflow_id  # whoever calls without types gets the same answer
    if not isinstance(given, str) or not given:
        raise InvalidWorkflowIdError(workflow_id, "it must be text and not empty")
    try:
        # quote() leaves the tilde alone, which shells expand at the start of a word.
        name = quote(workflow_id, safe="").replace("~", "%7E")
    except UnicodeEncodeError:
        raise InvalidWorkflowIdError(workflow_id, "it holds half a surrogate pair") from None
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > ENCODED_ID_BYTES_MAX:
        reason = f"it takes {len(name)} bytes once encoded, of at most {ENCODED_ID_BYTES_MAX}"
        raise InvalidWorkflowIdError(workflow_id, reason)
    return name


def decode_workflow_id(name: str) -> str:
    """Turn a folder's name back into the workflow id.

    Args:
        name: What :func:`encode_workflow_id` returned.

    Returns:
        The workflow id.

    Raises:
        ValueError: If the name is not the encoding of any workflow id.
    """
    try:
        workflow_id = unquote_to_bytes(name).decode()
        canonical = encode_workflow_id(workflow_id) == name
    except ValueError:
        canonical = False
    if not canonical:
        raise ValueError(f"{name!r} does not encode a workflow id")
    return workflow_id


def workflow_folder(workflow_id: str) -> str:
    """Give the prefix of all of a workflow's objects.

    Args:
        workflow_id: The workflow.

    Returns:
        The prefix, with a slash at its end.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
    """
    return f"{WORKFLOWS}{encode_workflow_id(workflow_id)}/"


def claims_folder(workflow_id: str) -> str:
    """Give the prefix of a workflow's claims.

    Args:
        workflow_id: The workflow.

    Returns:
        The prefix, with a slash at its end.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
    """
    return workflow_folder(workflow_id) + "claims/"


def segments_folder(workflow_id: str) -> str:
    """Give the prefix of a workflow's segments.

    Args:
        workflow_id: The workflow.

    Returns:
        The prefix, with a slash at its end.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
    """
    return workflow_folder(workflow_id) + "segments/"


def compacted_folder(workflow_id: str) -> str:
    """Give the prefix of a workflow's compacted objects.

    Args:
        workflow_id: The workflow.

    Returns:
        The prefix, with a slash at its end.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
    """
    return workflow_folder(workflow_id) + "compacted/"


def tombstone_key(workflow_id: str, epoch: int) -> str:
    """Give the key of a tombstone.

    Args:
        workflow_id: The workflow it ends.
        epoch: The epoch of the deletion's claim.

    Returns:
        The key.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
    """
    return f"{segments_folder(workflow_id)}{epoch:010d}.tombstone"


def blobs_folder(workflow_id: str) -> str:
    """Give the prefix of a workflow's blobs, those of deleted incarnations too.

    Args:
        workflow_id: The workflow.

    Returns:
        The prefix, with a slash at its end.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
    """
    return f"{BLOBS}{encode_workflow_id(workflow_id)}/"


def blob_key(workflow_id: str, incarnation: int, digest: str) -> str:
    """Give the key of a blob.

    Args:
        workflow_id: The workflow it belongs to.
        incarnation: The epoch of the journal's first frame: a deleted workflow of the same id had
            another.
        digest: The SHA-256 of its content, in lower-case hex.

    Returns:
        The key.

    Raises:
        InvalidWorkflowIdError: If the id cannot be encoded.
        ValueError: If the digest or the incarnation is malformed.
    """
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"malformed digest {digest!r}")
    if not 0 < incarnation <= NUMBER_MAX:
        raise ValueError(f"malformed incarnation {incarnation!r}")
    return f"{blobs_folder(workflow_id)}{incarnation:010d}/{digest}"


def lease_key(owner: str) -> str:
    """Give the key of an owner's lease.

    Args:
        owner: The owner, encoded like a workflow's id.

    Returns:
        The key.

    Raises:
        InvalidWorkflowIdError: If the owner's name cannot be encoded.
    """
    return LEASES + encode_workflow_id(owner)


def parse_lease_name(name: str) -> str | None:
    """Read the last part of a lease's key.

    Args:
        name: The part.

    Returns:
        The owner, or None if this is something else.
    """
    try:
        return decode_workflow_id(name)
    except ValueError:
        return None


def parse_claim_name(name: str) -> ClaimName | None:
    """Read the last part of a claim's key.

    Args:
        name: The part.

    Returns:
        The claim's name, or None if this is something else.
    """
    match = _CLAIM.fullmatch(name)
    if match is None or not 0 < int(match[1]) <= NUMBER_MAX:
        return None
    return ClaimName(int(match[1]), bytes.fromhex(match[2]))


def parse_segment_name(name: str) -> SegmentName | None:
    """Read the last part of a segment's key.

    Args:
        name: The part.

    Returns:
        The segment's name, or None if this is something else.
    """
    match = _SEGMENT.fullmatch(name)
    if match is None or not 0 < int(match[1]) <= NUMBER_MAX or int(match[2]) > NUMBER_MAX:
        return None
    return SegmentName(int(match[1]), int(match[2]), bytes.fromhex(match[3]))


def parse_tombstone_name(name: str) -> int | None:
    """Read the last part of a tombstone's key.

    Args:
        name: The part.

    Returns:
        The tombstone's epoch, or None if this is something else.
    """
    match = _TOMBSTONE.fullmatch(name)
    if match is None or not 0 < int(match[1]) <= NUMBER_MAX:
        return None
    return int(match[1])


def parse_compacted_name(name: str) -> CompactedName | None:
    """Read the last part of a compacted object's key.

    Args:
        name: The part.

    Returns:
        The object's name, or None if this is something else.
    """
    match = _COMPACTED.fullmatch(name)
    if match is None or not 0 < int(match[2]) <= NUMBER_MAX or not 0 < int(match[1]) < SEQ_MAX:
        return None
    return CompactedName(int(match[1]), int(match[2]), bytes.fromhex(match[3]))


def parse_incarnation(name: str) -> int | None:
    """Read the name of a folder of blobs.

    Args:
        name: The folder's name.

    Returns:
        The incarnation, or None if this is something else.
    """
    if _INCARNATION.fullmatch(name) is None or not 0 < int(name) <= NUMBER_MAX:
        return None
    return int(name)
