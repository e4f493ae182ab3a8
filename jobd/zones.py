"""Time zones by name, and the day that a time falls on in one of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
from typing import TYPE_CHECKING, Any, Final

from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

UTC: Final = "UTC"
_MINUTE: Final = 60_000  # ms
_LOCALTIME: Final = "/etc/localtime"
_TIMEZONE: Final = "/etc/timezone"


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


def local() -> str:
    """Return the name of this machine's own zone; UTC where it has none that is known here.

    By name, as an offset would be wrong for half of the year.
    """
    told = os.environ.get("TZ", "").removeprefix(":")
    for name in (told, *_of_system()):
        # What is a path, or an offset such as "CET-1", is no name.
        with contextlib.suppress(UsageError):
            return checked(_in_database(name))
    return UTC


def _of_system() -> Iterator[str]:
    yield os.path.realpath(_LOCALTIME)
    with contextlib.suppress(OSError), open(_TIMEZONE, encoding="utf-8") as text:  # noqa: PTH123 - a str path
        yield text.readline().strip()


def _in_database(path: str) -> str:
    """Return the name of a zone from the path of its file."""
    return path.rpartition("zoneinfo/")[2].removeprefix("posix/")
