"""Time zones by name, and the day that a time falls on in one of them."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any, Final

from jobd.errors import UsageError

UTC: Final = "UTC"
_MINUTE: Final = 60_000  # ms


def checked(name: Any) -> str:
    """Return the name of a time zone that exists here.

    Raises:
        UsageError: it is none, like an offset or an abbreviation that the system does not know.
    """
    if not isinstance(name, str):
        raise UsageError(f"not a time zone: {name!r}", hint="a name like Europe/Berlin")
    try:
        zone(name)
    except (ValueError, LookupError, OSError):
        raise UsageError(f"unknown time zone {name!a}", hint="a name like Europe/Berlin, or UTC") from None
    return name


@functools.cache
def zone(name: str) -> dt.tzinfo:
    """Return the zone of a name.

    Raises:
        ValueError, LookupError, OSError: there is none.
    """
    if name == UTC:
        # Also where the system has no time zone data at all.
        return dt.UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most programs never ask

    return ZoneInfo(name)


def day(at: int, name: str) -> str:
    """Return the local day of a time in Unix ms, as ``2026-11-21``."""
    return _day_of_minute(at // _MINUTE, name)


# Thousands of items a second begin in one minute. In every zone a day begins with a minute of UTC, since 1972.
@functools.lru_cache(maxsize=64)
def _day_of_minute(minute: int, name: str) -> str:
    return dt.datetime.fromtimestamp(minute * _MINUTE / 1000, tz=zone(name)).date().isoformat()
