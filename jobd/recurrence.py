"""When something recurs: a length of time counted from a beginning, or cron text in a time zone.

Pure arithmetic on Unix ms: whoever asks says what time it is. The text that a schedule is stored as is ``every 10m`` or
the five fields of cron.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final, Protocol

from jobd import zones
from jobd.errors import UsageError
from jobd.measures import duration

_EVERY: Final = "every "
_SHORTEST_MS: Final = 1_000
_FIELDS: Final = 5
_UNITS: Final = (("d", "day", 86_400_000), ("h", "hour", 3_600_000), ("m", "minute", 60_000), ("s", "second", 1_000))
_LEAP: Final = dt.datetime(2028, 1, 1, tzinfo=dt.UTC)
_HOURS: Final = frozenset(range(24))
# From how long before a time on its last slot is looked for: the slots of a minute are passed over one by one.
_BACK: Final = (3_600_000, 2 * 86_400_000, 32 * 86_400_000, 367 * 86_400_000)
_CLOCK: Final = re.compile(r"At (\d\d:\d\d(?:(?:, and |, | and )\d\d:\d\d)*) (.+)")


class Recurrence(Protocol):
    """What gives the slots of a schedule, in Unix ms."""

    def after(self, at: int) -> int:
        """Return the first slot after ``at``."""
        ...

    def latest(self, slot: int, at: int) -> int:
        """Return the last slot up to ``at``; ``slot`` is one that is not later."""
        ...

    def words(self) -> str:
        """Return it as a sentence."""
        ...


class Every:
    """Every so many ms since ``began``: a fixed grid, which no late firing moves."""

    def __init__(self, period: int, began: int) -> None:
        self._period = period
        self._began = began

    def after(self, at: int) -> int:
        return self.latest(self._began, max(at, self._began)) + self._period

    def latest(self, slot: int, at: int) -> int:
        return slot + (at - slot) // self._period * self._period

    def words(self) -> str:
        parts = _parts(self._period)
        if len(parts) == 1 and parts[0][0] == 1:
            return f"every {parts[0][2]}"
        return "every " + " ".join(f"{count} {_plural(word, count)}" for count, _, word in parts)


class Cron:
    """Cron text in a zone.

    A time of day that a night of spring leaves out comes at the next minute that there is, one that a night of autumn
    has twice comes once. What comes in every hour comes in each hour that there is.
    """

    def __init__(self, text: str, zone: str) -> None:
        self._text = text
        self._zone = zones.zone(zone)
        self._name = zone
        self._fixed = _of_fixed_hours(text)

    def after(self, at: int) -> int:
        from cronsim import CronSim  # noqa: PLC0415 - only who has such a schedule pays for it

        # Behind 2:10 for the second time it would give the first 2:30, which is over.
        for found in CronSim(self._fixed, dt.datetime.fromtimestamp(at / 1000, tz=self._zone)):
            slot = int(found.timestamp()) * 1000
            if slot > at:
                return slot
        raise UsageError(f"there is no time of {self._text!r} after {at}")

    def latest(self, slot: int, at: int) -> int:
        for back in _BACK:
            if at - back <= slot:
                break
            if (found := self.after(at - back)) <= at:
                slot = found
                break
        while (following := self.after(slot)) <= at:
            slot = following
        return slot

    def words(self) -> str:
        from cronsim import CronSim  # noqa: PLC0415 - as above

        said = CronSim(self._text, _LEAP).explain()
        if found := _CLOCK.fullmatch(said):
            # "At 03:00 every day" is read from the wrong end.
            said = f"{found[2]} at {found[1]}"
        return f"{said[0].lower()}{said[1:]}, {self._name}"


def every(value: Any) -> str:
    """Return the text of a length of time, in one spelling: ``every 1h30m``.

    Raises:
        UsageError: it is none, or less than a second.
    """
    ms = int(duration(value) * 1000)
    if ms < _SHORTEST_MS:
        raise UsageError(f"every {value!r}: a schedule's shortest period is a second")
    text = "".join(f"{count}{unit}" for count, unit, _ in _parts(ms))
    return f"{_EVERY}{text}"


def cron(text: Any) -> str:
    """Return cron text in one spelling.

    Raises:
        UsageError: it is none, or no time ever fits it.
    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - as above

    spelt = " ".join(text.upper().split()) if isinstance(text, str) else ""
    if not spelt.isascii() or len(spelt.split()) != _FIELDS:
        raise UsageError(f"not cron text: {text!r}", hint='five fields: minute hour day month weekday, as "0 3 * * *"')
    try:
        known = next(CronSim(spelt, _LEAP), None) is not None
    except (CronSimError, ValueError, AssertionError, OverflowError) as error:
        raise UsageError(
            f"not cron text: {text!r}: {error}", hint='for example "0 3 * * *", "*/10 8-17 * * MON-FRI"'
        ) from None
    if not known:
        raise UsageError(f"no time ever fits {text!r}")
    return spelt


def parse(spec: str, zone: str, began: int) -> Recurrence:
    """Read what ``every`` or ``cron`` returned; ``began`` (Unix ms) is where the slots of a length are counted from.

    Raises:
        UsageError: it is neither, or the zone is unknown here.
    """
    if spec.startswith(_EVERY):
        return Every(int(duration(spec[len(_EVERY) :]) * 1000), began)
    return Cron(cron(spec), zones.checked(zone))


def _parts(ms: int) -> list[tuple[int, str, str]]:
    """Return a length of time as counts of units, the largest first."""
    parts = []
    for unit, word, size in (*_UNITS, ("ms", "ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append((count, unit, word))
    return parts


def _plural(word: str, count: int) -> str:
    return word if count == 1 or word == "ms" else f"{word}s"


def _of_fixed_hours(text: str) -> str:
    """Return cron text as cronsim takes it for one of fixed times, where it is one.

    By a star at the start of a field it knows what goes on by the real hour; then "*/10 2 * * *" would be left out in
    spring and come twice in autumn.
    """
    from cronsim import CronSim  # noqa: PLC0415 - as above

    if CronSim(text, _LEAP).hours >= _HOURS:
        return text
    minute, hour, *rest = text.split()
    return " ".join([minute.replace("*", "0-59"), hour.replace("*", "0-23"), *rest])
