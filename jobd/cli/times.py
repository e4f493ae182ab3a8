"""Times as people read them (local, the zone named once) and as they type them.

Machines get the ISO 8601 text of the records as it is.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from jobd.errors import UsageError

_DAY: Final = 86_400


def parse(iso: str) -> dt.datetime:
    """Read a time of a record; the answer is local and carries its zone."""
    return dt.datetime.fromisoformat(iso).astimezone()


def short(iso: str | None, now: dt.datetime) -> str:
    """Return the local clock time, with the date where it is not today's."""
    if iso is None:
        return "-"
    time = parse(iso)
    local = now.astimezone()
    return f"{time:%H:%M:%S}" if time.date() == local.date() else f"{time:%Y-%m-%d %H:%M:%S}"


def zone(now: dt.datetime) -> str:
    """Return the local zone's name, for the one place of a page that says it."""
    return now.astimezone().tzname() or "local"


def age(seconds: float | None) -> str:
    """Return a length of time in its one or two largest units: 0.4 s, 42s, 4m12s, 2h, 3d."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s" if whole < 600 else f"{whole // 60}m"
    if whole < _DAY:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m" if whole < 10 * 3600 else f"{whole // 3600}h"
    return f"{whole // _DAY}d"


def clock(seconds: float | None) -> str:
    """Return a remaining time as 0:02, 12:40 or 3:05:00."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def length(milliseconds: float | None) -> str:
    """Return how long something took: 2 ms, 4.9 s, 3m20s."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{round(milliseconds)} ms"
    return f"{milliseconds / 1000:.1f} s" if milliseconds < 60_000 else age(milliseconds / 1000)


def moment(text: str, now: dt.datetime) -> dt.datetime:
    """Read a time as typed: ISO 8601 or HH:MM (its next occurrence), local unless it carries an offset.

    Raises:
        UsageError: for anything else.
    """
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text, re.ASCII):
            at = dt.time.fromisoformat(text.zfill(5) if text.count(":") == 1 else text.zfill(8))
            today = now.astimezone().replace(tzinfo=None)
            time = dt.datetime.combine(today.date(), at)
            if time <= today:
                time += dt.timedelta(days=1)
            return time.astimezone()
        return dt.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f"not a time: {text!r}", hint="for example 18:30, 2026-12-01T03:00, 2026-12-01T03:00+01:00"
        ) from None


def since(text: str, now: dt.datetime) -> dt.datetime:
    """Read the beginning of a span: a duration before now, or a time."""
    from jobd.measures import duration

    try:
        return now - dt.timedelta(seconds=duration(text))
    except OverflowError:
        raise UsageError(f"too long ago: {text!r}") from None
    except UsageError:
        pass
    try:
        return dt.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(f"not a time: {text!r}", hint="for example 2h, 1d, 2026-11-20, 2026-11-20T18:30") from None
