"""A job that is being watched, as lines: the panel of a terminal, the line for a log, the last line of all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobd.cli import times
from jobd.cli.jobview import counted, nobody_runs, percent, rate, settled, state, trouble
from jobd.cli.screen import bar
from jobd.cli.text import cut, escape, pad, width

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from jobd.cli.jobview import Command
    from jobd.cli.screen import Screen

    Record = dict[str, Any]

_BAR: Final = 56


def panel(
    job: Record,
    *,
    running: Sequence[Record],
    errors: Sequence[Record],
    workers: int | None,
    foot: str,
    command: Command,
    screen: Screen,
    now: dt.datetime,
) -> list[str]:
    """Return the panel of a job that is watched."""
    columns = min(screen.columns, 120)
    counts = job["counts"]
    head = f"job {job['id']} {escape(job['task'])}   {counts['total']:,} items" + (
        f"   {workers} workers" if workers else ""
    )
    figures = f"{percent(job):>4}  {settled(job):,}/{counts['total']:,}  {rate(job)}"
    if job["eta_seconds"] is not None:
        figures += f"  ETA {times.clock(job['eta_seconds'])}"
    room = max(8, min(_BAR, columns - width(figures) - 6))
    lines = [
        head,
        f"  {screen.paint(bar(room, settled(job) / counts['total'] if counts['total'] else 0), 'green')}  {figures}",
    ]
    lines.append("  " + counted(job, screen, always=("completed", "failed", "running", "queued")))
    if nobody_runs(job):
        lines += [f"  {line}" for line in trouble(job, screen, command)]
    lines += _in_columns(
        [f"▶ {_running_for(item, now)} {escape(item['key'])}" for item in running], columns - 2, screen
    )
    if errors:
        lines.append("  " + screen.paint(_kinds(errors), "red"))
    lines.append(screen.paint(f"  {foot}", "dim"))
    return lines


def _kinds(errors: Sequence[Record]) -> str:
    """Return how often each type of error came, the most frequent first."""
    kinds: Counter[str] = Counter()
    for group in errors:
        kinds[_kind(group)] += group["count"]
    return "  ".join(f"✗ {escape(kind)} ×{count:,}" for kind, count in kinds.most_common(4))


def _kind(group: Record) -> str:
    """Return what to call an error: of a command how it ended, as its type is the same for all of them."""
    kind = group["error_type"] or "error"
    return (group["error"] or kind).partition(":")[0] if kind in {"Exit", "Signal"} else kind


def _running_for(item: Record, now: dt.datetime) -> str:
    if not item["started_at"]:
        return "-"
    seconds = max(0.0, (now - times.parse(item["started_at"])).total_seconds())
    return f"{seconds:.1f}s" if seconds < 60 else times.age(seconds)


def _in_columns(words: Sequence[str], columns: int, screen: Screen) -> list[str]:
    """Return words in two columns; each keeps its end where it is cut, as the end of a path says more."""
    half = max(10, (columns - 2) // 2)
    cells = [screen.paint(pad(_cut_middle(word, half), half), "cyan") for word in words]
    return ["  " + "  ".join(cells[place : place + 2]) for place in range(0, len(cells), 2)]


def _cut_middle(words: str, columns: int) -> str:
    if width(words) <= columns:
        return words
    tail = words[-(columns * 2 // 3) :]
    return cut(words, columns - width(tail)) + tail if width(tail) < columns - 4 else cut(words, columns)


def line(job: Record, now: dt.datetime) -> str:
    """Return the one line of a watched job where there is no terminal."""
    eta = f"  ETA {times.clock(job['eta_seconds'])}" if job["eta_seconds"] is not None else ""
    counts = job["counts"]
    failed = f"  failed {counts['failed']:,}" if counts["failed"] else ""
    said = f"{state(job)[0]}  " if nobody_runs(job) else ""
    name = f"{times.short(now.isoformat(), now)} job {job['id']} {escape(job['task'])}"
    way = f"{settled(job):,}/{counts['total']:,}  {rate(job)}{eta}{failed}"
    return f"{name}  {said}{job['status']} {percent(job)}  {way}"


def interrupted(job: Record) -> str:
    """Return the last line of a job that was stopped on its way."""
    total = job["counts"]["total"]
    left = f"{total - settled(job):,} of {total:,} items are left"
    return f"job {job['id']} {escape(job['task'])}   interrupted: {left}; nothing is lost"


def ended(job: Record, spread: tuple[float, float] | None) -> str:
    """Return the last line of a job that has ended."""
    counts = job["counts"]
    items = f"{counts['total']:,} item{'' if counts['total'] == 1 else 's'}"
    said = {
        "completed": f"completed: {items}" + (f", {counts['failed']:,} failed" if counts["failed"] else ""),
        "failed": f"failed: {counts['failed']:,} of {items}",
        "cancelled": f"cancelled: {counts['cancelled']:,} of {items}",
    }[job["status"]]
    if counts["skipped"]:
        said += f", {counts['skipped']:,} skipped"
    took = ""
    if job["started_at"] and job["completed_at"]:
        seconds = (times.parse(job["completed_at"]) - times.parse(job["started_at"])).total_seconds()
        took = f"   {times.length(seconds * 1000)}"
    pace = f"   p50 {times.length(spread[0])}  p95 {times.length(spread[1])}" if spread else ""
    return f"job {job['id']} {escape(job['task'])}   {said}{took}{pace}"
