"""From a location to an open ``pyarrow`` file system, with what each kind of storage needs.

pyarrow is imported here, and only when a remote store is first used. A file system holds the
credentials it was made with, even in a pickle, so it is made anew in every process and never sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from milepost.errors import StorageUriError
from milepost.journal.location import Location, read_options

Publishing: TypeAlias = Literal["put", "copy", "move"]
"""How a whole object appears at once: by being put, or by copying or moving a temporary one."""

GCS_RETRY_LIMIT_S = 10
"""How long the library for GCS retries by itself; its own default is a quarter of an hour."""

AZURE_AUTHORITIES = (".blob.core.windows.net", ".dfs.core.windows.net")

CREDENTIALS_HELP = (
    "give credentials in the environment instead: AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_KEY)"
    " or AZURE_STORAGE_SAS_TOKEN, or those of a managed identity or of the Azure command line"
)

_AZURE_OPTIONS = {"blob_storage_authority", "dfs_storage_authority", "enable_tls"}
_FSSPEC = "fsspec+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An open file system and where in it the store is.

    Attributes:
        file_system: The ``pyarrow.fs.FileSystem``.
        root: The store's folder in it, without a slash at its end.
        publishing: How whole objects appear.
        forget: Makes the file system forget what it remembers of listings.
        pipe: Writes a whole object in one call, where streams would show it too early.
    """

    file_system: Any
    root: str
    publishing: Publishing = "put"
    forget: Callable[[], object] = lambda: None
    pipe: Callable[[str, bytes], object] | None = None

    def select(self, folder: str) -> Any:
        """Make a selector of all that is below a folder, deep.

        Args:
            folder: Path of the folder in the file system.

        Returns:
            The ``pyarrow.fs.FileSelector``.
        """
        from pyarrow.fs import FileSelector

        return FileSelector(folder, recursive=True, allow_not_found=True)


def open_place(location: Location) -> Place:
    """Make a file system for a location; no request is sent yet.

    Args:
        location: Any URI that ``pyarrow.fs.FileSystem.from_uri`` takes, or an ``abfs`` one.

    Returns:
        The file system and the store's folder in it.

    Raises:
        StorageUriError: If the location cannot be understood, or would be dangerous to use.
    """
    if location.ambiguous:
        reason = "the credentials in it hold a character that must be percent-encoded (/ as %2F)"
        raise StorageUriError(location.shown, reason)
    try:
        if location.scheme in ("abfs", "abfss"):
            place = _open_azure(location)
        elif location.scheme.startswith(_FSSPEC):
            place = _open_fsspec(location)
        else:
            place = _open_uri(location)
    except StorageUriError:
        raise
    except Exception as error:  # noqa: BLE001 - every library has its own for a bad URI
        raise StorageUriError(location.shown, location.scrub(str(error))) from None
    if not place.root:
        raise StorageUriError(location.shown, "it names no bucket or folder")
    return place


def _open_uri(location: Location) -> Place:
    # Otherwise uploads carry checksums in a form that some servers store as if it were data. Frames
    # and blobs have checksums of their own. Read when the file system is made.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    from pyarrow import fs

    text = location.reveal()
    if location.scheme == "s3":
        text = _with_option(text, "allow_delayed_open", "true")  # one request for a put, not three
    if location.scheme in ("gs", "gcs"):
        text = _with_option(text, "retry_limit_seconds", str(GCS_RETRY_LIMIT_S))
    file_system, root = fs.FileSystem.from_uri(text)
    if isinstance(file_system, fs.LocalFileSystem):
        raise StorageUriError(location.shown, "give a folder of this machine as a plain path")
    objects = isinstance(file_system, fs.S3FileSystem) or location.scheme in ("gs", "gcs")
    publishing: Publishing = "put" if objects else "move"
    return Place(file_system=file_system, root=root.rstrip("/"), publishing=publishing)


def _with_option(text: str, name: str, value: str) -> str:
    if name in read_options(text):
        return text
    return f"{text}{'&' if '?' in text else '?'}{name}={value}"


def _open_fsspec(location: Location) -> Place:
    from pyarrow import fs

    try:
        import fsspec
    except ImportError:
        reason = "it needs fsspec and the package for its protocol (pip install fsspec)"
        raise StorageUriError(location.shown, reason) from None
    # An ownership check that reads an old listing is none.
    inner, root = fsspec.core.url_to_fs(
        location.reveal()[len(_FSSPEC) :], use_listings_cache=False, skip_instance_cache=True
    )
    if "file" in (inner.protocol if isinstance(inner.protocol, tuple) else (inner.protocol,)):
        raise StorageUriError(location.shown, "give a folder of this machine as a plain path")
    file_system = fs.PyFileSystem(fs.FSSpecHandler(inner))
    return Place(
        file_system=file_system,
        root=root.rstrip("/"),
        forget=inner.invalidate_cache,
        pipe=inner.pipe_file,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _AzurePlace:
    account: str
    authority: str
    path: str


def _open_azure(location: Location) -> Place:
    """Build what ``from_uri`` would build, but never hand it a key: that can kill the process."""
    parts = urlsplit(location.reveal())
    options = read_options(location.reveal())
    unknown = sorted(set(options) - _AZURE_OPTIONS)
    if parts.password is not None or unknown:
        what = "a key" if parts.password is not None else f"the option {unknown[0]!r}"
        raise StorageUriError(location.shown, f"it must not hold {what}; {CREDENTIALS_HELP}")
    place = _find_azure(parts.hostname or "", parts.port, unquote(parts.username or ""), parts.path)
    account = place.account or _first_of(
        os.environ, "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"
    )
    if not account:
        reason = "it names no account; write abfss://container@account.dfs.core.windows.net/folder"
        raise StorageUriError(location.shown, reason)
    tls = options.get("enable_tls", "true").lower() != "false"
    settings = _azure_credentials()
    if not tls and not settings:
        # The library ends the process when it is to send a token over an open line.
        raise StorageUriError(location.shown, f"enable_tls=false needs a key; {CREDENTIALS_HELP}")
    for kind in ("blob", "dfs"):
        authority = options.get(f"{kind}_storage_authority", place.authority)
        if authority:
            settings[f"{kind}_storage_authority"] = authority
        settings[f"{kind}_storage_scheme"] = "https" if tls else "http"
    from pyarrow import fs

    file_system = fs.AzureFileSystem(account, **settings)
    # An upload is an empty object first, which a reader would take for a damaged one.
    return Place(file_system=file_system, root=place.path.strip("/"), publishing="copy")


def _find_azure(host: str, port: int | None, user: str, path: str) -> _AzurePlace:
    """Read the forms of an abfs URI as pyarrow does."""
    blob, dfs = AZURE_AUTHORITIES
    if host.endswith(blob):
        return _AzurePlace(account=host.removesuffix(blob), authority="", path=unquote(path))
    if host.endswith(dfs):
        return _AzurePlace(
            account=host.removesuffix(dfs), authority="", path=f"{user}/{unquote(path).lstrip('/')}"
        )
    if "." not in host and port is None:
        return _AzurePlace(account=user, authority="", path=f"{host}/{unquote(path).lstrip('/')}")
    authority = host if port is None else f"{host}:{port}"
    return _AzurePlace(account=user, authority=authority, path=unquote(path))


def _azure_credentials() -> dict[str, str]:
    key = _first_of(os.environ, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")
    if key:
        return {"account_key": key}
    token = os.environ.get("AZURE_STORAGE_SAS_TOKEN", "")
    return {"sas_token": token} if token else {}


def _first_of(values: Mapping[str, str], *names: str) -> str:
    return next((values[name] for name in names if values.get(name)), "")
