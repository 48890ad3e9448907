"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

_AGO = re.compile(r"(\d{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_moment(text: str, now_us: int, option: str) -> int:
    """Read a time.

    Args:
        text: ISO 8601, UTC unless it says otherwise; or how long ago, as ``90s``, ``3h``, ``2d``.
        now_us: The time here, microseconds since 1970.
        option: Where it was given, for the error.

    Returns:
        Microseconds since 1970.

    Raises:
        click.BadParameter: If it is neither.
    """
    if (ago := _AGO.fullmatch(text)) is not None:
        return now_us - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time", param_hint=option) from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1_000_000)
