"""Signed heads: who says so, and that nobody changed what they said.

A signed head is one JSON object with an Ed25519 signature (RFC 8032) over its other fields. It can
be kept anywhere, also beside the journal: nobody without the key can make another one. The
signature needs ``cryptography``, the extra ``milepost[sign]``; nothing else here does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milepost.errors import UsageError
from milepost.journal.head import Head, parse_head

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VERSION = 1
_DOMAIN = b"milepost signed head\n"
"""Signed before everything else, so that no other document passes for a head."""

_FIELDS = {
    "milepost_head": int,
    "workflow_id": str,
    "store_id": str,
    "head": str,
    "signed_us": int,
    "public_key": str,
    "signature": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """A head and who vouches for it.

    Attributes:
        workflow_id: The workflow.
        store_id: The id of the store.
        head: The head.
        signed_us: When it was signed, as the signer says; microseconds since 1970.
        public_key: The signer's public key, 32 bytes in hex.
        signature: The signature, 64 bytes in hex.
    """

    workflow_id: str
    store_id: str
    head: Head
    signed_us: int
    public_key: str
    signature: str = ""

    def to_json(self) -> str:
        """Write it down.

        Returns:
            One line of JSON.
        """
        return json.dumps(self._fields() | {"signature": self.signature}, sort_keys=True)

    def message(self) -> bytes:
        """Give what is signed: everything but the signature.

        Returns:
            Its bytes.
        """
        text = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return _DOMAIN + text.encode("ascii")

    def _fields(self) -> dict[str, str | int]:
        return {
            "milepost_head": VERSION,
            "workflow_id": self.workflow_id,
            "store_id": self.store_id,
            "head": str(self.head),
            "signed_us": self.signed_us,
            "public_key": self.public_key,
        }


def parse_signed_head(text: str) -> SignedHead:
    """Read what :meth:`SignedHead.to_json` wrote; the signature is not checked.

    Args:
        text: The JSON.

    Returns:
        The signed head.

    Raises:
        ValueError: If it is none, or one of a newer version.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a signed head: {error}") from error
    if not isinstance(fields, dict) or fields.keys() != _FIELDS.keys():
        raise ValueError("not a signed head: it has other fields")
    if any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
        raise ValueError("not a signed head: a field is of another type")
    if fields.pop("milepost_head") != VERSION:
        raise ValueError(f"a signed head of another version than {VERSION}")
    return SignedHead(**(fields | {"head": parse_head(fields["head"])}))


def sign_head(
    head: Head, key_pem: bytes, *, workflow_id: str, store_id: str, now_us: int
) -> SignedHead:
    """Vouch for a head.

    Args:
        head: The head.
        key_pem: An Ed25519 private key as PEM, not encrypted (``openssl genpkey -algorithm
            ed25519``).
        workflow_id: The workflow.
        store_id: The id of the store.
        now_us: The time here, microseconds since 1970.

    Returns:
        The signed head.

    Raises:
        UsageError: If the key is no such key, or ``milepost[sign]`` is not installed.
    """
    key = _load_private(key_pem)
    unsigned = SignedHead(
        workflow_id=workflow_id,
        store_id=store_id,
        head=head,
        signed_us=now_us,
        public_key=key.public_key().public_bytes_raw().hex(),
    )
    signature = key.sign(unsigned.message()).hex()
    return SignedHead(
        workflow_id=workflow_id,
        store_id=store_id,
        head=head,
        signed_us=now_us,
        public_key=unsigned.public_key,
        signature=signature,
    )


def is_genuine(signed: SignedHead) -> bool:
    """Tell whether the key that a signed head names did sign it; whose key it is, you must know.

    Args:
        signed: The signed head.

    Returns:
        Whether the signature is right.

    Raises:
        UsageError: If ``milepost[sign]`` is not installed.
    """
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed.public_key))
        key.verify(bytes.fromhex(signed.signature), signed.message())
    except (InvalidSignature, ValueError):
        return False
    return True


def read_public_key(pem: bytes) -> str:
    """Read a public key that signed heads must be by.

    Args:
        pem: A public or a private Ed25519 key, as PEM.

    Returns:
        The public key, 32 bytes in hex.

    Raises:
        UsageError: If it is no such key, or ``milepost[sign]`` is not installed.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in pem:
        return _load_private(pem).public_key().public_bytes_raw().hex()
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise UsageError(f"not a public key as PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("the public key is none for Ed25519")
    return key.public_bytes_raw().hex()


def _load_private(pem: bytes) -> Ed25519PrivateKey:
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"not a private key as PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("the key is not one that openssl genpkey -algorithm ed25519 makes")
    return key


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise UsageError("signatures need an extra: pip install 'milepost[sign]'") from error
