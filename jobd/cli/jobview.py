"""A job as people read it: pure functions from its record (the dict of ``job.json()``) to lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd.cli import signs, times
from jobd.cli.screen import Cell, bar
from jobd.cli.signs import GLYPHS, mark
from jobd.cli.text import cut, escape, pad, width

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jobd.cli.screen import Screen

    Record = dict[str, Any]
    # Makes a line to type out of a verb and its arguments: `errors 7` becomes `jobd --db x errors 7`.
    Command = Callable[[str], str]

OPEN: Final = ("queued", "running")
# Of events that move no status: a request, a pause.
_PAST: Final = {
    "cancel": "cancel asked for",
    "fail": "fail asked for",
    "pause": "paused",
    "unpause": "unpaused",
    "time_out": "timed out",
    "delete": "delete asked for",
    "prune": "values pruned",
}


def alive(job: Record) -> bool:
    """Say whether a live daemon owns the file."""
    return bool((job["daemon"] or {}).get("alive"))


def nobody_runs(job: Record) -> bool:
    """Say whether the job is open while nobody alive will run it."""
    return job["status"] in OPEN and (not alive(job) or job["health"] == "unknown_task")


def state(job: Record) -> tuple[str, str]:
    """Return what a row says of the job, glyph and words, and the colour.

    What keeps a job from running comes before its status: a row that said "running" alone while nobody runs it would
    not be true.
    """
    status, health = job["status"], job["health"]
    if health == "submitting":
        return "… submitting", "dim"
    if status in OPEN and not alive(job):
        return "! nobody runs it", "yellow"
    if status in OPEN and health == "unknown_task":
        return "! unknown task", "yellow"
    if health in {"paused", "stalled", "orphaned"} and status in OPEN:
        return {
            "paused": ("‖ paused", "blue"),
            "stalled": ("! stalled", "yellow"),
            "orphaned": ("! orphaned", "yellow"),
        }[health]
    if status == "completed" and job["warnings"]:
        return "✔ with warnings", "yellow"
    return mark(status), GLYPHS[status][1]


def settled(job: Record) -> int:
    """Return how many items have ended."""
    counts = job["counts"]
    return int(counts["total"] - counts["queued"] - counts["running"] - counts["waiting"])


def percent(job: Record) -> str:
    """Return the progress, or a dash where there are no items."""
    return "-" if job["progress_percent"] is None else f"{job['progress_percent']}%"


def rate(job: Record) -> str:
    """Return the items a second, or a dash."""
    pace = job["rate_per_second"]
    return "-" if pace is None else f"{pace:,.0f}/s" if pace >= 10 else f"{pace:.2g}/s"


def list_rows(jobs: Iterable[Record], columns: int) -> tuple[list[str], list[list[Cell]]]:
    """Return the header and the cells of the table of jobs; narrow screens get a shorter bar."""
    bars = 8 if columns >= 100 else 4
    header = ["ID", "TASK", "STATUS", "COMPLETED", "FAILED", "ITEMS", "PROGRESS", "RATE", "AGE"]
    rows = []
    for job in jobs:
        counts = job["counts"]
        words, colour = state(job)
        share = (job["progress_percent"] or 0) / 100
        rows.append(
            [
                Cell(str(job["id"]), right=True),
                Cell(cut(escape(job["task"]), 24)),
                Cell(words, colour),
                Cell(f"{counts['completed']:,}", right=True),
                Cell(f"{counts['failed']:,}", "red" if counts["failed"] else "", right=True),
                Cell(f"{counts['total']:,}", right=True),
                Cell(bar(bars, share) + f"{percent(job):>4}", right=True),
                Cell(rate(job) if job["status"] == "running" else "-", right=True),
                Cell(times.age(job["age_seconds"]), right=True),
            ]
        )
    return header, rows


def counted(job: Record, screen: Screen, *, always: Sequence[str] = ("completed", "failed")) -> str:
    """Return the counts as glyph, word and number; of what is zero only ``always`` is said."""
    counts = job["counts"]
    parts = [
        screen.paint(f"{mark(name)} {counts[name]:,}", GLYPHS[name][1] if counts[name] else "dim")
        for name in ("completed", "failed", "skipped", "cancelled", "running", "waiting", "queued")
        if counts[name] or name in always
    ]
    return "   ".join(parts)


def tried(attempts: Mapping[int, int]) -> str:
    """Return how many items took more than one attempt; after three such counts the rest as one."""
    first = sorted(attempts)[:3]
    parts = [f"{_ordinal(attempt)} {attempts[attempt]:,}" for attempt in first]
    rest = sum(attempts.values()) - sum(attempts[attempt] for attempt in first)
    return "attempts " + ", ".join([*parts, f"more {rest:,}"] if rest else parts)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{'th' if number % 100 in {11, 12, 13} else ending}"


def show(
    job: Record,
    events: list[Record],
    errors: list[Record],
    screen: Screen,
    *,
    now: dt.datetime,
    command: Command,
    statuses: Sequence[str] = (),
    attempts: Mapping[int, int] | None = None,
) -> list[str]:
    """Return the page of one job; without ``statuses`` of its stretches the strip shows shares."""
    columns = min(screen.columns, 120)
    name = f"job {job['id']}  {escape(job['task'])}" + (f"  ={escape(job['key'])}" if job["key"] else "")
    lines = [_headline(name, job, screen, columns), *wrapped(_when(job, now), columns)]
    if job["phases"]:
        lines += _chain(job, screen, columns)
    lines += [f"  {line}" for line in trouble(job, screen, command)]
    if job["counts"]["total"]:
        lines += [
            "  " + signs.strip(statuses or signs.shares(job["counts"], signs.strip_columns(screen)), screen),
            "  " + counted(job, screen),
        ]
        if attempts:
            together = f"{lines[-1]}   {tried(attempts)}"
            lines[-1:] = [together] if screen.fit(together) == together else [lines[-1], f"  {tried(attempts)}"]
    else:
        lines.append("  no items")
    if job["last_error"] and not errors:
        lines.append(screen.paint(f"  ✗ {escape(job['last_error'])}", "red"))
    if errors:
        lines += _errors(job, errors, screen, now=now, command=command)
    if events:
        first, *rest = [_event(event, now) for event in events]
        lines += wrapped([f"HISTORY  {first}", *rest], columns)
    return lines


def _chain(job: Record, screen: Screen, columns: int) -> list[str]:
    """Return how far the job has come with all that it is linked to, and what it comes after itself."""
    phases = job["phases"]
    named = [f"{phase['id']} {cut(escape(phase['task']), 24)} {mark(phase['status'])}" for phase in phases["jobs"]]
    left = phases["total"] - len(named)
    parts = [*named, f"and {left:,} more" if left or phases["more"] else ""]
    whole = f"PHASES  {phases['completed']:,} of {phases['total']:,}{'+' * phases['more']} phases completed"
    colour = GLYPHS["completed"][1] if phases["completed"] == phases["total"] else ""
    lines = wrapped([whole, *filter(None, parts)], columns)
    lines[0] = screen.paint(lines[0], colour) if colour else lines[0]
    after = ", ".join(str(parent) for parent in job["after"])
    return [*lines, *wrapped([f"after job {after}"] if after else [], columns)]


def _headline(name: str, job: Record, screen: Screen, columns: int) -> str:
    words, colour = state(job)
    said = f"{words.split()[0]} {escape(job['status_description'])}"
    parts = [] if job["progress_percent"] is None else [percent(job)]
    if job["eta_seconds"] is not None and not nobody_runs(job):
        parts.append(f"ETA {times.clock(job['eta_seconds'])}")
    room = columns - min(width(name), columns // 3) - 2 - sum(width(part) + 2 for part in parts)
    if width(said) > room:
        said = cut(said.partition(":")[0], room)
    right = "  ".join([said, *parts])
    name = cut(name, max(10, columns - width(right) - 2))
    gap = max(2, min(columns, 76) - width(name) - width(right))
    return screen.paint(name, "bold") + " " * gap + screen.paint(right, colour)


def wrapped(parts: list[str], columns: int) -> list[str]:
    """Return the parts on as few lines as they fit, none of them cut in two."""
    lines: list[str] = []
    for part in parts:
        if lines and width(lines[-1]) + 3 + width(part) <= columns:
            lines[-1] += " · " + part
        else:
            lines.append("  " + part)
    return lines


def _when(job: Record, now: dt.datetime) -> list[str]:
    parts = [f"for {times.age(job['in_status_seconds'])}"]
    parts += [
        f"{label} {times.short(job[name], now)}"
        for name, label in (("created_at", "created"), ("started_at", "started"), ("completed_at", "ended"))
        if job[name] and not (name == "created_at" and job["started_at"])
    ]
    if job["timeout_at"] and job["status"] in OPEN and alive(job):
        parts.append(f"timeout {times.short(job['timeout_at'], now)}")
    parts[-1] += f" {times.zone(now)}"
    daemon = job["daemon"]
    if daemon and daemon.get("alive"):
        beat = daemon.get("heartbeat_at")
        ago = f", beat {max(0.0, (now - times.parse(beat)).total_seconds()):.1f} s ago" if beat else ""
        parts.append(f"daemon pid {daemon['pid']}{ago}")
    return parts


def trouble(job: Record, screen: Screen, command: Command) -> list[str]:
    """Return the warnings of a job, and what to type where it does not run."""
    lines = [screen.paint(f"warning: {escape(warning)}", "yellow") for warning in job["warnings"]]
    if job["status"] not in OPEN or job["health"] in {"submitting", "paused"}:
        return lines
    if job["counts"]["running"] and not alive(job):
        lines.append(f"hint: {command('recover --check-only')}    (a daemon that starts recovers by itself)")
    elif nobody_runs(job):
        lines.append(f"hint: {go_on(job, command)}")
    elif job["health"] == "stalled":
        number = job["id"]
        lines.append(f"hint: {command(f'items {number} --status running')}")
    return lines


def go_on(job: Record, command: Command) -> str:
    """Return the line that makes an open job run: what its submitter typed, where that is known."""
    from jobd.commands import TASK

    if job["task"] == TASK:
        # What was typed is a command, and no code; every program knows the task.
        return command(f"run {TASK} --job {job['id']}")
    target = job.get("target")
    if target and ":" in target:
        return command(f"run {shell_word(target)} --job {job['id']}")
    return f"{command('start')}    (the program that registers {escape(job['task'])})"


def shell_word(words: str) -> str:
    """Quote for a shell what is offered for copying; where that takes an escape, it is no longer what was meant."""
    import shlex

    return shlex.quote(escape(words))


def _errors(job: Record, errors: list[Record], screen: Screen, *, now: dt.datetime, command: Command) -> list[str]:
    number, columns = job["id"], min(screen.columns, 120)
    title = f"  ERRORS ({command(f'errors {number}')})"
    room = max(10, columns - 4 - 20)
    lines = [screen.paint(pad(title, room + 4) + "FIRST    LAST", "dim")]
    for group in errors[:5]:
        words = pad(f"✗ ×{group['count']:,}  {error_text(group)}", room)
        span = f"{times.short(group['first_at'], now)} {times.short(group['last_at'], now)}"
        lines.append(f"  {screen.paint(words, 'red')}  {span}")
    if len(errors) > 5:
        lines.append(f"  and {len(errors) - 5} more")
    return lines


def error_text(record: Record) -> str:
    """Return an error's type and message, on one line, the type once."""
    kind, message = record.get("error_type"), record.get("error")
    if not kind:
        return escape(message or "")
    if not message or message == kind:
        return escape(kind)
    return escape(message if message.startswith(f"{kind}:") else f"{kind}: {message}")


def _event(event: Record, now: dt.datetime) -> str:
    by = f" by {escape(event['actor'])}" if event["actor"] else ""
    name, to_status = str(event["name"]), event["to_status"]
    moved = to_status and to_status != event["from_status"]
    word = str(to_status) if moved else _PAST.get(name, name)
    return f"{times.short(event['at'], now)} {escape(word)}{by}"
