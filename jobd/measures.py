"""Measures as people type them: lengths of time, sizes, counts, moments."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt

FOREVER: Final = "forever"

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES: Final = {"": 1, "b": 1, "kb": 1_000, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", re.ASCII)
_MOST_AT_A_RATE: Final = 100_000  # each that has started is remembered
_COUNT: Final = re.compile(r"\d{1,6}", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
# A week beyond a century would overflow the milliseconds that rows hold long before it means anything.
_LONGEST: Final = 100 * 366 * 86_400.0
# From the year 2 to the end of 9998, in ms: a day more or less, in another zone, is a time still.
_TIMES: Final = range(-62_104_060_800_000, 253_370_764_800_000)


def duration(value: Any) -> float:
    """Return seconds: from a number of them, a ``timedelta``, or text like ``90``, ``30s``, ``1h30m``, ``250ms``.

    Raises:
        UsageError: anything else, or nothing at all: a duration is more than zero.
    """
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds <= _LONGEST:
        raise UsageError(f"not a duration: {value!r}", hint="for example 90, 30s, 5m, 1h30m")
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        return None
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


class Rate(NamedTuple):
    """So many in so many seconds."""

    times: int
    seconds: float


def rate(value: Any) -> Rate:
    """Return a rate from text like ``10/s``, ``100/m``, ``5/10s``.

    Raises:
        UsageError: anything else, or none at all.
    """
    number, slash, unit = value.partition("/") if isinstance(value, str) else ("", "", "")
    unit = unit.strip()
    if slash and _COUNT.fullmatch(number.strip()) and 0 < int(number) <= _MOST_AT_A_RATE:
        seconds = _seconds(unit if unit[:1].isdigit() else f"1{unit}") if unit else None
        if seconds is not None and 0 < seconds <= _LONGEST:
            return Rate(int(number), seconds)
    raise UsageError(f"not a rate: {value!r}", hint="for example 10/s, 100/m, 5/10s")


def age(value: Any) -> float | None:
    """Return seconds as ``duration`` does; None for ``forever``.

    Raises:
        UsageError: neither.
    """
    if isinstance(value, str) and value.strip().lower() == FOREVER:
        return None
    try:
        return duration(value)
    except UsageError as error:
        raise UsageError(str(error), hint=f"{error.hint}, or {FOREVER}") from None


def days(value: Any) -> float:
    """Return seconds: a number, or its text, is one of days, and may be 0; else as ``duration`` does.

    Raises:
        UsageError: anything else.
    """
    seconds = _seconds(value)
    bare = not isinstance(value, timedelta) and (not isinstance(value, str) or _NUMBER.fullmatch(value.strip()))
    if seconds is not None and bare:
        seconds *= _SECONDS["d"]
    if seconds is None or not 0 <= seconds <= _LONGEST:
        raise UsageError(f"not an age: {value!r}", hint="days, or for example 36h, 2w")
    return seconds


def size(value: Any) -> int:
    """Return bytes: from a number of them, or text like ``8 MB``, ``512 KiB``.

    Raises:
        UsageError: anything else, or less than one byte.
    """
    found = _SIZE.fullmatch(str(value).strip().lower()) if not isinstance(value, bool) else None
    if found is None or found[2] not in _BYTES or float(found[1]) * _BYTES[found[2]] < 1:
        raise UsageError(f"not a size: {value!r}", hint="for example 500000, 8 MB, 16 MiB")
    return int(float(found[1]) * _BYTES[found[2]])


def count(value: Any) -> int:
    """Return a whole number from 1 up, from one or from its text.

    Raises:
        UsageError: anything else.
    """
    text = str(value).strip()
    if isinstance(value, bool | float) or not (text.isascii() and text.isdigit()) or not 0 < int(text[:10]) < 10**9:
        raise UsageError(f"not a whole number from 1 up: {value!r}")
    return int(text)


def amount(value: Any) -> int:
    """Return a whole number from 0 up, from one or from its text.

    Raises:
        UsageError: anything else.
    """
    if str(value).strip() == "0" and not isinstance(value, bool | float):
        return 0
    try:
        return count(value)
    except UsageError:
        raise UsageError(f"not a whole number from 0 up: {value!r}") from None


def moment(at: dt.datetime) -> int:
    """Return a time as Unix milliseconds; one without a zone is local.

    Raises:
        UsageError: it is not a time, or not of the years 2 to 9998.
    """
    try:
        ms = int(at.timestamp() * 1000)
    except (AttributeError, OverflowError, OSError, ValueError):
        raise UsageError(f"not a time: {at!r}", hint="a datetime; local unless it carries a zone") from None
    if ms not in _TIMES:
        raise UsageError(f"too far from now: {at!r}", hint="a time of the years 2 to 9998")
    return ms


def durability(value: Any) -> str:
    """Return ``normal`` or ``full``.

    Raises:
        UsageError: anything else.
    """
    if value not in {"normal", "full"}:
        raise UsageError(f"not a durability: {value!r}", hint="normal or full")
    return str(value)
