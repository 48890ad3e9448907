"""Where a store is, as its user wrote it, kept apart from what may be shown of it.

The text a user gives for a storage may hold credentials. A :class:`Location` never shows them: not
when printed, not in an error, not in a pickle. Only :meth:`Location.reveal` gives them away, to
whoever opens the store, here or in another process.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

SHOWN_OPTIONS = frozenset(
    (
        *("allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open", "region"),
        *("blob_storage_authority", "dfs_storage_authority", "enable_tls", "endpoint_override"),
        *("project_id", "retry_limit_seconds", "scheme", "smart_defaults"),
        *("tls_ca_dir_path", "tls_ca_file_path"),
    )
)
"""Options of a URI that are no secrets. Whatever else there is, now or later, is one."""

SECRET_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_CLIENT_SECRET", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
    *("AZURE_STORAGE_SAS_TOKEN",),
)
"""Where credentials are in the environment; what a storage says must not repeat them either."""

SECRET_CHARACTERS_MIN = 3
"""Blotting out anything shorter would blot out words."""

BLOT = "***"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=/)")
_BUCKET_SCHEMES = ("s3", "gs", "gcs")
_LOCAL_SECRETS = re.compile(r"(?<=://)[^/]*@|\?.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A remote URI, cut into pieces that are still percent-encoded."""

    user: str
    password: str
    place: str
    options: tuple[tuple[str, str], ...]


class Location:
    """A storage as its user wrote it.

    Example:
        >>> Location("s3://AKEY:aSecret@bucket/folder?region=eu-west-1&token=aToken")
        Location('s3://bucket/folder?region=eu-west-1')

    Attributes:
        scheme: The kind of storage in lower case; empty for a plain path.
        shown: The text without credentials.
        ambiguous: Whether a credential holds a character that a URI needs for itself.
    """

    __slots__ = ("_secrets", "_text", "ambiguous", "scheme", "shown")

    def __init__(self, text: str) -> None:
        match = _SCHEME.match(text)
        self._text = text
        self._secrets: tuple[str, ...] = ()
        self.scheme: str = match[1].lower() if match else ""
        self.ambiguous: bool = False
        self.shown: str = text
        if self.scheme in ("file", "local"):
            self.shown = _LOCAL_SECRETS.sub("", text)
        elif match:
            self._hide(text[match.end() :].removeprefix("//"))

    def reveal(self) -> str:
        """Give the whole text, credentials and all; never show, log or store it."""
        return self._text

    def scrub(self, text: str) -> str:
        """Blot out the credentials in what a storage says.

        Args:
            text: An error message, for instance.

        Returns:
            The text without this location's credentials and those of the environment.
        """
        found = [os.environ.get(name, "") for name in SECRET_VARIABLES]
        for secret in sorted({*self._secrets, *found}, key=len, reverse=True):
            if len(secret) >= SECRET_CHARACTERS_MIN:
                text = text.replace(secret, BLOT)
        return text

    def __repr__(self) -> str:
        return f"Location({self.shown!r})"

    def __str__(self) -> str:
        return self.shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        """Leave the credentials out: a pickle may be stored."""
        return Location, (self.shown,)

    def _hide(self, rest: str) -> None:
        self.ambiguous = _is_ambiguous(rest, self.scheme)
        parts = _cut(rest, whole=self.ambiguous)
        shown_user = "" if self.scheme in _BUCKET_SCHEMES else parts.user
        shown = [(name, value) for name, value in parts.options if _may_show(name, value)]
        hidden = [value for name, value in parts.options if not _may_show(name, value)]
        options = "&".join(f"{name}={value}" for name, value in shown)
        at = f"{shown_user}@" if shown_user else ""
        self.shown = f"{self.scheme}://{at}{parts.place}" + (f"?{options}" if options else "")
        if self.scheme in _BUCKET_SCHEMES and parts.user != "anonymous":
            hidden.append(parts.user)
        hidden.append(parts.password)
        self._secrets = tuple({form for secret in hidden for form in _forms(secret)})


def _is_ambiguous(rest: str, scheme: str) -> bool:
    """Tell whether the first colon begins a password that was not percent-encoded."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority or "@" not in rest or ":" not in authority:
        return False
    return scheme in _BUCKET_SCHEMES or not authority.rpartition(":")[2].isdigit()


def _cut(rest: str, *, whole: bool) -> _Parts:
    if whole:  # the last @ ends the credentials, wherever it is
        credentials, _, rest = rest.rpartition("@")
    rest = rest.partition("#")[0]
    place, _, query = rest.partition("?")
    if not whole:
        authority, slash, path = place.partition("/")
        credentials, _, host = authority.rpartition("@")
        place = host + slash + path
    user, _, password = credentials.partition(":")
    given = (piece.partition("=") for piece in query.split("&") if piece)
    return _Parts(user, password, place, tuple((name, value) for name, _, value in given))


def _may_show(name: str, value: str) -> bool:
    return name in SHOWN_OPTIONS and "@" not in unquote(value)


def _forms(secret: str) -> tuple[str, ...]:
    plain = unquote(secret)
    return secret, plain, quote(plain, safe=""), quote(plain)


def read_options(text: str) -> dict[str, str]:
    """Read the options at the end of a URI.

    Args:
        text: The URI.

    Returns:
        Their values by name, decoded.
    """
    return dict(parse_qsl(text.partition("?")[2], keep_blank_values=True))
