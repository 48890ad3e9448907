"""Events as plain data for JSON, by their fields, so that a new kind shows up by itself."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from milepost.replay.payload import Encoding, Payload, unpack_plain

_READABLE = frozenset({Encoding.PLAIN, Encoding.CAUGHT})
PREVIEW_BYTES_MAX = 64 * 1024
"""Longer payloads are told by their length: nobody reads them in a listing of events."""


def to_plain(value: Any, *, redact: bool = False) -> Any:
    """Turn an event, or a part of one, into what JSON can say.

    Args:
        value: A record, or a value of one of its fields.
        redact: Whether to leave out what users' payloads contain.

    Returns:
        Dicts, lists, text and finite numbers. Bytes become ``{"hex": ...}``, payloads what they
        hold if anybody can read it.
    """
    if isinstance(value, Payload):
        return _show_payload(value, redact)
    if is_dataclass(value):
        return {
            each.name: to_plain(getattr(value, each.name), redact=redact) for each in fields(value)
        }
    if isinstance(value, dict):
        return {str(name): to_plain(each, redact=redact) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each, redact=redact) for each in value]
    if isinstance(value, bytes):
        return {"bytes": len(value)} if redact else {"hex": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _show_payload(payload: Payload, redact: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"encoding": payload.encoding, "size": payload.size}
    if payload.digest:
        shown["blob"] = payload.digest.hex()
    elif redact:
        shown["redacted"] = True
    elif payload.encoding in _READABLE and len(payload.data) <= PREVIEW_BYTES_MAX:
        try:
            shown["value"] = to_plain(unpack_plain(payload.data))
        except ValueError as error:
            shown["unreadable"] = str(error)
    return shown
