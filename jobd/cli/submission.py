"""The options of a submission, which `run` and `submit` share."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from jobd import clock
from jobd.cli import ids, times
from jobd.cli.ids import complete_jobs
from jobd.cli.source import Source, parameters
from jobd.cli.text import escape
from jobd.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobd.app import Jobd
    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.store.views import Counts

_SOURCE: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--from", "lines"), {"metavar": "FILE|-", "help": "Items from a file or standard input, one a line."}),
    (("-0", "nul"), {"is_flag": True, "help": "The items of --from end with NUL instead."}),
    (("--glob", "pattern"), {"metavar": "PATTERN", "help": "Items are the files that match; ** goes down."}),
    (("--range", "span"), {"metavar": "A:B", "help": "Items are the integers from A up to B, B not included."}),
    (("--jsonl", "jsonl"), {"metavar": "FILE|-", "help": "Items are JSON documents, one a line."}),
    (("--csv", "csv"), {"metavar": "FILE|-", "help": "Items are the rows of a CSV file with a header, as objects."}),
    (("--watchlist", "watchlist"), {"is_flag": True, "help": "Items are the keys of the task's watchlist."}),
    (("--key", "key"), {"metavar": "FIELD", "help": "The field of --jsonl or --csv that is an item's key."}),
)
_JOB: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--param", "params"),
        {"multiple": True, "metavar": "NAME=VALUE", "help": "A parameter of the whole job; JSON or text."},
    ),
    (("--job-key", "job_key"), {"metavar": "TEXT", "help": "The job's key: the same again adds only what is new."}),
    (("--priority", "priority"), {"type": int, "metavar": "N", "help": "Higher runs first; 0 by default."}),
    (("--at", "at"), {"metavar": "TIME", "help": "Not before this time: 18:30 or ISO 8601, local."}),
    (
        ("--after", "after"),
        {
            "multiple": True,
            "metavar": "ID",
            "shell_complete": complete_jobs,
            "help": "Nothing starts before this job has ended; may be given several times.",
        },
    ),
    (
        ("--on", "on"),
        {
            "type": click.Choice(["completed", "ended"]),
            "help": "What --after waits for: completed by default, which a failure cancels; ended takes any end.",
        },
    ),
    (
        ("--job-timeout", "job_timeout"),
        {"metavar": "TIME", "help": "How long the job may be without progress before it times out: 90s, 30m."},
    ),
    (
        ("--tolerance", "tolerance"),
        {"metavar": "N|N%", "help": "How many items may fail before the job counts as failed."},
    ),
    (("--timeout", "timeout"), {"metavar": "TIME", "help": "How long an attempt may take, in place of the task's."}),
    (
        ("--retries", "retries"),
        {"type": click.IntRange(min=0), "metavar": "N", "help": "How often an item that failed is tried again."},
    ),
    (("--rate", "rate"), {"metavar": "N/TIME", "help": "How many items of the job may start in a while: 10/s, 100/m."}),
    (
        ("--halt", "halt"),
        {"metavar": "fail=N", "help": "Fail the job, and begin no more of it, once N items have failed."},
    ),
    (
        ("--refresh", "refresh"),
        {"is_flag": True, "help": "Of a unique task: run also what today has a result, and let the new one count."},
    ),
    (
        ("--changed", "changed"),
        {
            "type": click.Choice(["error", "keep", "requeue"]),
            "help": "What to do where a known key comes with another payload.",
        },
    ),
    (
        ("--duplicates", "duplicates"),
        {"type": click.Choice(["error", "skip"]), "help": "What to do where a key comes twice."},
    ),
)


# What only a new submission can take.
_NEW = (
    "params", "job_key", "at", "after", "on", "job_timeout", "tolerance", "timeout", "retries", "rate",
    "halt", "refresh", "changed", "duplicates",
)  # fmt: skip


def submission_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the items and the options of a submission to a verb."""
    for names, settings in reversed(_SOURCE + _JOB):
        function = click.option(*names, **settings)(function)
    function = click.argument("items", nargs=-1, metavar="[ITEM]...")(function)
    return click.argument("target", metavar="TARGET", shell_complete=_tasks)(function)


def source_of(options: dict[str, Any]) -> Source:
    """Take the options that name the items out of ``options``."""
    names = ("lines", "nul", "pattern", "span", "jsonl", "csv", "watchlist", "key")
    return Source(words=options.pop("items"), **{name: options.pop(name) for name in names})


def items_of(app: Jobd, source: Source, task: str) -> Iterable[Any] | None:
    """Return the items that were named, or None where none were.

    Raises:
        NotFound: the keys of a watchlist were, and it has none.
    """

    def watched() -> list[str]:
        keys = app.watchlist.keys(task)
        if not keys:
            raise NotFound(
                f"no key of {escape(task)} is on the watchlist", hint=f"jobd watchlist add {escape(task)} KEY…"
            )
        return keys

    return source.items(watched)


def keywords(app: Jobd, source: Source, options: dict[str, Any]) -> dict[str, Any]:
    """Return what was typed as the keywords of ``Task.submit``; what was not typed keeps its default there.

    Raises:
        NotFound: there is no job of those to wait for.
        UsageError: a value that cannot be meant.
    """
    if options["on"] is not None and not options["after"]:
        raise UsageError("--on says what --after waits for", hint="--after 7 --on ended")
    now = dt.datetime.fromtimestamp(clock.now() / 1000, tz=dt.UTC)
    at, tolerance = options["at"], options["tolerance"]
    wanted = {
        "params": parameters(options["params"]),
        "key": options["job_key"],
        "item_key": source.key,
        "priority": options["priority"],
        "not_before": times.moment(at, now) if at is not None else None,
        "job_timeout": options["job_timeout"],
        "tolerance": _tolerance(tolerance) if tolerance is not None else None,
        "concurrency": options.get("concurrency"),
        "timeout": options["timeout"],
        "retries": options["retries"],
        "rate": options["rate"],
        "halt": halt(options["halt"]) if options["halt"] is not None else None,
        "refresh": options["refresh"] or None,
        "changed": options["changed"],
        "duplicates": options["duplicates"],
        "after": [ids.job(app, name).id for name in options["after"]] or None,
        "on": options["on"],
    }
    return {name: value for name, value in wanted.items() if value is not None}


def typed(source: Source, options: dict[str, Any]) -> list[str]:
    """Return the names of what was typed that only a new submission can take."""
    names = [name for name in _NEW if options[name] is not False and options[name] not in {None, ()}]
    return ["items"] * source.given + [f"--{'param' if name == 'params' else name.replace('_', '-')}" for name in names]


def counts_before(app: Jobd, task: str, key: str | None) -> Counts | None:
    """Return the counts of the job that this key has already; None where there is none."""
    if key is None:
        return None
    try:
        found = app.jobs(task=task, key=key, limit=1)
    except NotFound:  # no file yet
        return None
    return found[0].counts if found else None


def announce(session: Session, job: Job, before: Counts | None) -> None:
    """Say what a submission, or going on with a job, found there."""
    if before is None:
        return
    left = [f"{before.completed:,} completed before", f"{before.open:,} to do"]
    left += [
        f"{getattr(before, name):,} {name}" for name in ("failed", "skipped", "cancelled") if getattr(before, name)
    ]
    session.say(f"job {job.id} goes on: {', '.join([*left, f'{job.added:,} new'])}")


def halt(words: str) -> int:
    """Read ``--halt fail=N``.

    Raises:
        UsageError: it is not that.
    """
    what, _, number = words.partition("=")
    if what != "fail" or not number.isascii() or not number.isdigit() or not int(number):
        raise UsageError(f"--halt: not {words!a}", hint="--halt fail=3")
    return int(number)


def _tolerance(words: str) -> int | str:
    return int(words) if words.isascii() and words.isdigit() else words


def _tasks(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from jobd.cli.complete import targets

    return targets(ctx, parameter, incomplete)
