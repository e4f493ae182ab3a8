"""One table of settings: the keywords of ``Jobd``, the ``JOBD_*`` variables, the help of ``jobd start`` and the docs.

A keyword comes before a variable, a variable before the default. Durations are seconds once they are read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import UsageError
from jobd.measures import age, amount, count, durability, duration, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

PREFIX: Final = "JOBD_"
DATABASE: Final = "JOBD_DB"


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
    reconcile_every: float = _setting(
        "1m", duration, "duration", "How often a daemon looks for items that are not what their stored results say."
    )
    recover_every: float = _setting("1m", duration, "duration", "How often a daemon looks for items that nobody runs.")
    poll_every: float = _setting(
        "1m",
        duration,
        "duration",
        "How often a daemon begins the pass that asks about deferred items, though none is due; those that are due are"
        " asked about within a second.",
    )
    job_timeout: float = _setting(
        "30m",
        duration,
        "duration",
        "How long nothing of a job may start that could. A task or a submission that has a job_timeout of its own"
        " says how long the job may be without progress.",
    )
    job_timeout_retries: int = _setting(
        "2", amount, "times", "How often a job may time out and go on; the next time it fails."
    )
    time_out_every: float = _setting("1m", duration, "duration", "How often a daemon looks for jobs that timed out.")
    checkpoint_bytes: int = _setting(
        "8 MB", size, "bytes", "The size of the write-ahead log at which the daemon empties it."
    )
    checkpoint_every: float = _setting(
        "1m", duration, "duration", "How often the daemon empties the write-ahead log whatever its size."
    )
    stall_after: float = _setting(
        "1h", duration, "duration", "How long a running job without progress is shown as stalled."
    )
    keep_completed: float | None = _setting(
        "30d", age, "duration or forever", "How long a completed job is kept, with all that it left."
    )
    keep_failed: float | None = _setting("90d", age, "duration or forever", "How long a failed job is kept.")
    keep_cancelled: float | None = _setting("7d", age, "duration or forever", "How long a cancelled job is kept.")
    keep_values: float | None = _setting(
        "forever",
        age,
        "duration or forever",
        "How long the values of results, and the data beside them, are kept once their job has ended; at most as long"
        " as the job.",
    )
    keep_last: int = _setting(
        "0", amount, "jobs", "How many ended jobs of each task are kept whole whatever their age: the newest ones."
    )
    prune_every: float = _setting(
        "1h", duration, "duration", "How often a daemon looks for what is not kept for longer."
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
# What a command of `map` is told of its item: it may be jobd itself.
_FOR_COMMANDS: Final = ("JOBD_ITEM", "JOBD_JOB", "JOBD_ATTEMPT")
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def settings(keywords: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that ``keywords``, the environment and the defaults add up to; None counts as not given.

    Raises:
        UsageError: an unknown keyword or ``JOBD_*`` variable, or a value that cannot be meant.
    """
    environment = os.environ if environment is None else environment
    refuse_unknown("setting", keywords, _BY_NAME)
    variables = {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in _FOR_COMMANDS and not name.startswith(f"{_FOR_COMMANDS[0]}_")
    }
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
