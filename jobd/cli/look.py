"""`list`, `show`, `history` and `tasks`: reading that needs only the file."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import click

from jobd import clock
from jobd.cli import ids, jobview, signs, times
from jobd.cli.output import COUNT_FIELDS, Output, shape_options
from jobd.cli.screen import Cell
from jobd.cli.text import cut, escape
from jobd.cli.verb import pass_session, verb
from jobd.errors import NotFound
from jobd.states import JOB_STATUSES

if TYPE_CHECKING:
    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session

JOB_FIELDS: Final = [
    "id",
    "task",
    "key",
    "status",
    "status_description",
    "health",
    "progress_percent",
    *COUNT_FIELDS,
    "rate_per_second",
    "eta_seconds",
    "retry_count",
    "last_error",
    "created_at",
    "started_at",
    "completed_at",
    "age_seconds",
    "daemon_id",
    "daemon_pid",
    "daemon_alive",
]
EVENT_FIELDS: Final = [
    "id",
    "job_id",
    "item_key",
    "name",
    "from_status",
    "to_status",
    "at",
    "actor",
    "attempt",
    "external_id",
    "message",
    "count",
]
_SHOWN_EVENTS: Final = 4
# Of more items nobody counts the attempts: that passes over all of them, 20 ms for these.
_ATTEMPTS_OF: Final = 100_000


def now() -> dt.datetime:
    """Return the present, for ages and for the date that need not be said."""
    return dt.datetime.fromtimestamp(clock.now() / 1000, tz=dt.UTC)


@verb(
    "list",
    examples=(
        "jobd list --status running",
        "jobd list --task checksum --since 1d",
        "jobd list --json | jq '.[].id'",
    ),
)
@click.option("--status", type=click.Choice(JOB_STATUSES), help="Only jobs of this status.")
@click.option("--task", metavar="NAME", shell_complete=ids.complete_tasks, help="Only jobs of this task.")
@click.option("--since", metavar="TIME", help="Only jobs created since: 2h, 1d, or a time.")
@click.option("--key", metavar="KEY", help="Only the job of this key.")
@click.option("--external", metavar="ID", help="Only jobs with an item of this external id.")
@click.option("--stalled", is_flag=True, help="Only running jobs without progress.")
@click.option("--orphaned", is_flag=True, help="Only jobs with running items that nobody runs.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="At most so many."
)
@shape_options(rows=True)
@pass_session
def list_(session: Session, /, *, as_json: bool, as_jsonl: bool, limit: int, since: str | None, **filters: Any) -> int:
    """List jobs, newest first, with their progress and whether anybody runs them."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    wanted = {name: value for name, value in filters.items() if value}
    if since is not None:
        wanted["since"] = times.since(since, now())
    jobs = _jobs(session, limit, wanted)

    def show(screen: Screen, records: list[Record]) -> None:
        header, rows = jobview.list_rows(records, screen.columns)
        screen.table(header, rows, stretch=1)

    output.many(jobs, show, JOB_FIELDS)
    if not jobs and output.human:
        session.say("no jobs match" if wanted else f"no jobs yet in {escape(str(session.app.path))}")
        session.say("  next: jobd list" if wanted else "  next: jobd demo, or jobd run ./file.py:func ITEM...")
    if len(jobs) == limit and output.human:
        session.say(f"the newest {limit}; --limit N shows more")
    return 0


def _jobs(session: Session, limit: int, wanted: dict[str, Any]) -> list[Record]:
    try:
        return [job.json() for job in session.app.jobs(limit=limit, **wanted)]
    except NotFound:  # no file yet, and so no jobs
        return []


@verb(examples=("jobd show 7", "jobd show @last --json", "jobd show =nightly-2026-11-21"))
@ids.job_argument(required=False)
@shape_options()
@pass_session
def show(session: Session, id_: str, *, as_json: bool) -> int:
    """Show one job: its status, who runs it, its counts and its errors. Without ID the newest."""
    output = Output(session, as_json=as_json)
    job = ids.job(session.app, id_)
    record = job.json()

    def page(screen: Screen) -> None:
        errors = [group.json() for group in job.errors()] if record["counts"]["failed"] else []
        events = [event.json() for event in job.events(limit=_SHOWN_EVENTS)]
        few = record["counts"]["total"] <= _ATTEMPTS_OF
        lines = jobview.show(
            record,
            events,
            errors,
            screen,
            now=now(),
            command=session.line,
            statuses=job.strip(signs.strip_columns(screen)),
            attempts=job.attempts() if few else None,
        )
        for line in lines:
            screen.write(line)

    output.one(record, page, JOB_FIELDS)
    return 0


@verb(examples=("jobd history 7", "jobd history 7 --items --jsonl"))
@ids.job_argument()
@click.option("--items", "items", is_flag=True, help="Also the events of its items.")
@shape_options(rows=True)
@pass_session
def history(session: Session, id_: str, *, items: bool, as_json: bool, as_jsonl: bool) -> int:
    """List the events of a job: what moved from which status to which, when, by whom, why."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    events = [event.json() for event in ids.job(session.app, id_).events(items=items)]

    def table(screen: Screen, records: list[Record]) -> None:
        present = now()
        screen.table(
            [f"AT ({times.zone(present)})", "EVENT", "FROM", "TO", "BY", "ITEM", "WHY"],
            [
                [
                    Cell(times.short(event["at"], present)),
                    Cell(escape(event["name"])),
                    Cell(event["from_status"] or "-"),
                    Cell(event["to_status"] or "-", signs.GLYPHS.get(event["to_status"], ("", ""))[1]),
                    Cell(escape(event["actor"] or "-")),
                    Cell(cut(_whose(event), 32)),
                    Cell(escape(event["message"] or "")),
                ]
                for event in records
            ],
        )

    output.many(events, table, EVENT_FIELDS)
    return 0


def _whose(event: Record) -> str:
    if event["item_key"] is not None:
        attempt = f" #{event['attempt']}" if event["attempt"] else ""
        return escape(event["item_key"]) + attempt
    return f"{event['count']:,} items" if event["count"] else "-"


@verb(examples=("jobd tasks", "jobd --app ./program.py tasks"))
@shape_options(rows=True)
@pass_session
def tasks(session: Session, *, as_json: bool, as_jsonl: bool) -> int:
    """List the tasks: those that --app registers, and those that the live daemon knows."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    app, daemon = session.app, session.app.daemon_status()
    theirs = set(daemon.tasks) if daemon.alive else set()
    records = [
        {"name": name, "registered": name in app.tasks, "daemon": name in theirs}
        for name in sorted({*app.tasks, *theirs})
    ]

    def table(screen: Screen, rows: list[Record]) -> None:
        screen.table(
            ["TASK", "REGISTERED HERE", "KNOWN TO THE DAEMON"],
            [[Cell(escape(row["name"])), Cell(_yes(row["registered"])), Cell(_yes(row["daemon"]))] for row in rows],
        )

    output.many(records, table, ["name", "registered", "daemon"])
    if not daemon.alive and output.human:
        session.say("no daemon runs")
        session.say("  next: jobd --app ./program.py start")
    return 0


def _yes(value: object) -> str:
    return "yes" if value else "-"
