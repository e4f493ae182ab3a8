"""`health` and `stats`: whether jobs are looked after, and the figures over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli import ids, times
from jobd.cli.jobview import wrapped
from jobd.cli.look import now
from jobd.cli.output import Output, shape_options
from jobd.cli.screen import Cell
from jobd.cli.text import cut, escape, width
from jobd.cli.verb import pass_session, verb
from jobd.config import SETTINGS

if TYPE_CHECKING:
    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session

CHECK_FIELDS: Final = ["name", "level", "text", "hint"]
TASK_FIELDS: Final = [
    "task",
    "active_jobs",
    "active_items",
    "jobs_completed",
    "jobs_failed",
    "items_completed",
    "items_failed",
    "success_rate",
    "p50_ms",
    "p95_ms",
    "samples",
]
_SIGNS: Final = {"ok": ("✔", "green"), "warning": ("!", "yellow"), "broken": ("✗", "red")}
_ROOM: Final = 60


# -- health -----------------------------------------------------------------------------------------------------------


@verb(examples=("jobd health", "jobd health --quiet || alarm", "jobd health --json | jq .checks"))
@click.option("--quiet", "-q", is_flag=True, help="One line.")
@shape_options()
@pass_session
def health(session: Session, *, quiet: bool, as_json: bool) -> int:
    """Say whether jobs are looked after: the daemon, its items and passes, the database, the disk. 1 where not."""
    output = Output(session, as_json=as_json)
    found = session.app.health()
    word = "healthy" if found.healthy else "unhealthy"
    if quiet and not as_json:
        why = f": {escape(found.summary)}" if found.summary else ""
        output.screen.sentence(f"{word}: {escape(found.database)}{why}")
        return int(not found.healthy)
    record = found.json()
    if as_json:
        output.document(record)
    else:
        title = output.screen.paint(word.upper(), "bold green" if found.healthy else "bold red")
        output.many(
            record["checks"],
            lambda screen, checks: _page(screen, session, f"{title}  {escape(found.database)}", checks),
            CHECK_FIELDS,
        )
    return int(not found.healthy)


def _page(screen: Screen, session: Session, title: str, checks: list[Record]) -> None:
    screen.sentence(title)
    room = max(len(check["name"]) for check in checks)
    texts = [cut(escape(check["text"]), max(_ROOM, screen.columns - room - 6)) for check in checks]
    hinted = [width(text) for check, text in zip(checks, texts, strict=True) if check["hint"]]
    column = min(_ROOM, max(hinted, default=0))
    for check, text in zip(checks, texts, strict=True):
        glyph, colour = _SIGNS[check["level"]]
        line = f"  {screen.paint(glyph, colour)} {check['name']:<{room}}  {text}"
        hint = _hint(session, check["hint"])
        if not hint:
            screen.sentence(line)
        elif width(text) <= column and room + column + len(hint) + 8 <= screen.columns:
            screen.sentence(f"{line}{'':<{column - width(text)}}   {hint}")
        else:
            screen.sentence(line)
            screen.sentence(f"    {'':<{room}}  {hint}")


def _hint(session: Session, hint: str | None) -> str:
    """Return what to type, with the options that lead to this database."""
    if hint is None or not hint.startswith("jobd "):
        return escape(hint or "")
    return session.line(hint.removeprefix("jobd "))


# -- stats ------------------------------------------------------------------------------------------------------------


@verb(examples=("jobd stats", "jobd stats --task checksum --window 7d", "jobd stats --json | jq .recent"))
@click.option("--task", metavar="NAME", shell_complete=ids.complete_tasks, help="Only this task.")
@click.option("--window", metavar="DURATION", default="24h", show_default=True, help="What counts as recent.")
@shape_options()
@pass_session
def stats(session: Session, *, task: str | None, window: str, as_json: bool) -> int:
    """Show what is active, what ended lately, how long items take, the settings, and what the passes have done."""
    output = Output(session, as_json=as_json)
    found = session.app.stats(task, window=window)
    record = found.json()
    if as_json:
        output.document(record)
    else:
        rows = [_flat(one) for one in record["tasks"]]
        output.many(rows, lambda screen, _: _figures(screen, record, rows, whole=task is None), TASK_FIELDS)
    if output.human and not record["tasks"]:
        session.say(f"no jobs of {escape(task)}" if task else f"no jobs yet in {escape(found.database)}")
        session.say("  next: jobd list" if task else "  next: jobd demo, or jobd run ./file.py:func ITEM...")
    if not record["complete"] and not as_json:
        session.say("there are more jobs than are looked at: counts are of the newest", "dim")
    return 0


def _flat(one: Record) -> Record:
    """Return a task's record as the columns of a table."""
    active, recent = one["active"], one["recent"]
    return {
        "task": one["task"],
        "active_jobs": sum(active["jobs"].values()),
        "active_items": sum(active["items"].values()),
        "jobs_completed": recent["jobs"].get("completed", 0),
        "jobs_failed": recent["jobs"].get("failed", 0),
        "items_completed": recent["items"].get("completed", 0),
        "items_failed": recent["items"].get("failed", 0),
        **{name: one[name] for name in ("success_rate", "p50_ms", "p95_ms", "samples")},
    }


def _figures(screen: Screen, record: Record, rows: list[Record], *, whole: bool) -> None:
    window = times.age(record["window_seconds"])
    active, recent = record["active"], record["recent"]
    screen.write(f"active   {_counted(active['jobs'], 'jobs')}   {_counted(active['items'], 'items')}")
    screen.write(
        f"last {window:<4}{_counted(recent['jobs'], 'jobs')}   {_counted(recent['items'], 'items')}"
        f"   success {_percent(recent['success_rate'])}"
    )
    if rows:
        screen.write("")
        screen.table(
            ["TASK", "ACTIVE", "COMPLETED", "FAILED", "SUCCESS", "P50", "P95"],
            [
                [
                    Cell(cut(escape(row["task"]), 32)),
                    Cell(f"{row['active_items']:,}", right=True),
                    Cell(f"{row['items_completed']:,}", right=True),
                    Cell(f"{row['items_failed']:,}", "red" if row["items_failed"] else "", right=True),
                    Cell(_percent(row["success_rate"]), right=True),
                    Cell(times.length(row["p50_ms"]), right=True),
                    Cell(times.length(row["p95_ms"]), right=True),
                ]
                for row in rows
            ],
        )
    if whole:
        _upkeep(screen, record)


def _upkeep(screen: Screen, record: Record) -> None:
    present = now()
    screen.write("")
    screen.table(
        ["PASS", "EVERY", f"LAST ({times.zone(present)})", "RUNS", "HAS DONE"],
        [
            [
                Cell(escape(one["name"])),
                Cell(times.age(one["every_seconds"]), right=True),
                Cell(times.short(one["finished_at"] or one["started_at"], present)),
                Cell(f"{one['runs']:,}", right=True),
                Cell(escape(one["trouble"] or _counted(one["counts"], "")), "red" if one["trouble"] else ""),
            ]
            for one in record["passes"]
        ],
    )
    moved = (record["daemon"]["moved"] or {}).get("items")
    if moved:
        screen.write("")
        screen.write(f"daemon pid {record['daemon']['pid']} has moved items: {_counted(moved, '')}")
    screen.write("")
    screen.write(screen.paint("SETTINGS", "dim"))
    for line in wrapped(
        [f"{name} {_setting(name, value)}" for name, value in record["settings"].items()], screen.columns
    ):
        screen.write(escape(line))


def _counted(counts: dict[str, int], what: str) -> str:
    """Return counts by word, those that are not zero; ``what`` they are comes first."""
    words = " · ".join(f"{escape(name)} {count:,}" for name, count in counts.items() if count) or "none"
    return f"{what} {words}" if what else words


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _setting(name: str, value: Any) -> str:
    """Return a setting as it would be typed."""
    units = {setting.name: setting.unit for setting in SETTINGS}
    if value is None:
        return "-"
    if units.get(name) == "bytes":
        return f"{value / 1e6:g}MB"
    return times.age(value) if units.get(name, "").startswith("duration") else str(value)
