"""Trying again what a storage failed, and not trying again what it will never do.

Every storage has its own errors, and pyarrow hands most of them on as :class:`OSError` with a text.
What is known to be permanent (no bucket, no permission, wrong key) is raised at once, with what to
do; everything else is tried again with growing random pauses, bounded in number and in time.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from milepost.errors import StorageUnavailableError
from milepost.journal.location import Location
from milepost.journal.store import ObjectNotFoundError

Result = TypeVar("Result")

TRIES_MAX = 8
"""With the pauses below, enough to sit out a server's restart or a throttled minute."""

TOTAL_S_MAX = 45.0
"""No further try is begun after this; what one try takes is bounded by the library below."""

PAUSE_S_FIRST = 0.05
PAUSE_S_MAX = 8.0

REASON_CHARACTERS_MAX = 400
"""Some libraries append whole responses to their messages."""

_FAULTS = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (
            "NO_SUCH_BUCKET|NoSuchBucket|ContainerNotFound|bucket does not exist",
            "the bucket or container does not exist; create it, or correct its name",
        ),
        (
            "INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNot"
            "Match|UNAUTHENTICATED|AuthenticationFailed|failed to authenticate|EXPIRED_TOKEN|"
            "ExpiredToken|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|HTTP status 401",
            "the credentials are not valid there; correct them (and check the machine's clock)",
        ),
        (
            "ACCESS_DENIED|AccessDenied|PERMISSION_DENIED|AuthorizationFailure|Authorization"
            "PermissionMismatch|HTTP status 403|Forbidden",
            "access is denied; the credentials need the rights to read, write, list and delete",
        ),
        (
            r"HTTP status (400|405|411|501)",
            "the server does not do what is asked of it; see docs/storage.md for what it needs",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on trying.

    Attributes:
        tries_max: How often to try in all.
        total_s_max: After how many seconds no further try is begun.
    """

    tries_max: int = TRIES_MAX
    total_s_max: float = TOTAL_S_MAX


def advise(error: BaseException) -> str | None:
    """Tell what to do about an error that trying again will not mend.

    Args:
        error: What a file system raised.

    Returns:
        The advice, or None if it may pass.
    """
    if isinstance(error, PermissionError):
        return _FAULTS[2][1]
    if "closed file" in str(error):
        return None  # Google's client, when an object is deleted while it is read
    if isinstance(error, NotImplementedError | TypeError | ValueError):
        return "this storage cannot do that"  # pyarrow's errors about arguments derive from these
    text = str(error)
    return next((advice for pattern, advice in _FAULTS if pattern.search(text)), None)


def retrying(
    operation: str,
    key: str,
    attempt: Callable[[], Result],
    *,
    location: Location,
    patience: Patience,
) -> Result:
    """Call a function until it succeeds, fails for good, or patience ends.

    Args:
        operation: What is tried, as a verb, for the error.
        key: The object concerned, for the error.
        attempt: The function; trying it again must do no harm.
        location: Whose credentials to keep out of the error.
        patience: How long to go on.

    Returns:
        What the function returned.

    Raises:
        FileNotFoundError: If the function did.
        ObjectNotFoundError: If the function did.
        StorageUnavailableError: If the last try failed.
    """
    began = time.monotonic()
    tries = 0
    while True:
        tries += 1
        try:
            return attempt()
        except (FileNotFoundError, ObjectNotFoundError, StorageUnavailableError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - every library below has its own
            advice, said = advise(error), _shorten(error, location)
        # Raised outside of the handler: what the library said may hold a credential.
        if advice is not None:
            raise StorageUnavailableError(operation, key, f"{advice} (it says: {said})")
        pause_s = random.uniform(0.5, 1) * min(PAUSE_S_MAX, PAUSE_S_FIRST * 2 ** (tries - 1))
        if tries >= patience.tries_max or (
            time.monotonic() + pause_s - began > patience.total_s_max
        ):
            raise StorageUnavailableError(operation, key, f"{said} (tried {tries} times)")
        time.sleep(pause_s)


def _shorten(error: BaseException, location: Location) -> str:
    text = location.scrub(str(error).strip()) or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= REASON_CHARACTERS_MAX else line[:REASON_CHARACTERS_MAX] + "..."
