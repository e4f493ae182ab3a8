"""One table of settings: the keywords of ``Jobd``, the ``JOBD_*`` variables, the help of ``jobd start`` and the docs.

A keyword comes before a variable, a variable before the default. Durations are seconds once they are read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

PREFIX: Final = "JOBD_"
DATABASE: Final = "JOBD_DB"

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES: Final = {"": 1, "b": 1, "kb": 1_000, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", re.ASCII)
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
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        return None
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


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


def default_workers() -> int:
    """Return one worker for each processor, at most four: more are for tasks that wait, and asked for."""
    return min(4, os.cpu_count() or 1)


def _setting(default: Any, parse: Callable[[Any], Any], unit: str, text: str, *, shown: str = "") -> Any:
    """Return a field of Settings; ``shown`` is its default where that depends on the machine."""
    metadata = {"default": shown or str(default), "parse": parse, "unit": unit, "help": text}
    return field(default=parse(default), metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one app or daemon goes by. Durations are in seconds, sizes in bytes."""

    workers: int = _setting(default_workers(), count, "threads", "Threads that run items.", shown="min(4, processors)")
    durability: str = _setting(
        "normal",
        durability,
        "normal or full",
        "Whether a completion that was acknowledged also survives a power cut (full), at the cost of a disk flush for"
        " each commit.",
    )
    drain: float = _setting(
        "30s", duration, "duration", "How long a daemon that was asked to stop waits for what runs."
    )
    grace: float = _setting(
        "10m", duration, "duration", "How long silence lasts before it counts as death, where there is no proof."
    )
    heartbeat: float = _setting("5s", duration, "duration", "How often a daemon says that it is alive.")
    recover_every: float = _setting("1m", duration, "duration", "How often a daemon looks for items that nobody runs.")
    checkpoint_bytes: int = _setting(
        "8 MB", size, "bytes", "The size of the write-ahead log at which the daemon empties it."
    )
    checkpoint_every: float = _setting(
        "1m", duration, "duration", "How often the daemon empties the write-ahead log whatever its size."
    )
    stall_after: float = _setting(
        "1h", duration, "duration", "How long a running job without progress is shown as stalled."
    )


class Setting(NamedTuple):
    """One row of the table. ``default`` is text for people; ``parse`` reads what a keyword or a variable holds."""

    name: str
    default: str
    parse: Callable[[Any], Any]
    unit: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()


SETTINGS: Final = tuple(Setting(row.name, **row.metadata) for row in fields(Settings))
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def settings(keywords: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that ``keywords``, the environment and the defaults add up to; None counts as not given.

    Raises:
        UsageError: an unknown keyword or ``JOBD_*`` variable, or a value that cannot be meant.
    """
    environment = os.environ if environment is None else environment
    refuse_unknown("setting", keywords, _BY_NAME)
    variables = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    known = [setting.variable for setting in SETTINGS]
    refuse_unknown("variable", variables, [DATABASE, *known])
    given = {
        **{setting.name: variables[setting.variable] for setting in SETTINGS if setting.variable in variables},
        **{name: value for name, value in keywords.items() if value is not None},
    }
    return Settings(**{name: _read(_BY_NAME[name], value, keywords) for name, value in given.items()})


def _read(setting: Setting, value: Any, keywords: Mapping[str, Any]) -> Any:
    try:
        return setting.parse(value)
    except UsageError as error:
        where = setting.name if keywords.get(setting.name) is not None else setting.variable
        raise UsageError(f"{where}: {error}", hint=error.hint) from None


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first name that is not known, with those that look like it."""
    names = list(known)
    for name in sorted(set(given) - set(names)):
        from difflib import get_close_matches  # noqa: PLC0415 - only who mistypes pays for it

        close = get_close_matches(name, names, cutoff=0.7)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(names) or 'none'}"
        raise UsageError(f"unknown {what} {name!r}", hint=hint)


def database_path(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the database that the environment names, or None."""
    return (os.environ if environment is None else environment).get(DATABASE) or None


def user_database() -> Path:
    """Return the path of the database in the user's data folder; neither needs to exist."""
    from pathlib import Path  # noqa: PLC0415 - who names a database pays for neither

    import platformdirs  # noqa: PLC0415 - as above

    return Path(platformdirs.user_data_dir("jobd", appauthor=False)) / "jobs.db"


def as_markdown() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        'A keyword of `Jobd("jobs.db", …)`, an environment variable, or an option of `jobd start`: the keyword comes',
        "before the variable, the variable before the default. The database is `JOBD_DB`.",
        "A duration is a number of seconds or text like `30s`, `5m`, `1h30m`; a size is a number of bytes or text like",
        "`8 MB`.",
        "",
        "| setting | variable | default | unit | |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{row.name}` | `{row.variable}` | {row.default} | {row.unit} | {row.help} |" for row in SETTINGS]
    return "\n".join(lines) + "\n"
