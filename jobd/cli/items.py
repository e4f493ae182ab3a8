"""`items`, `item` and `errors`: what became of each item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli import ids, jobview, signs, times
from jobd.cli.look import now
from jobd.cli.output import Output, dump, shape_options
from jobd.cli.screen import Cell
from jobd.cli.text import cut, escape
from jobd.cli.verb import pass_session, verb
from jobd.states import ITEM_STATUSES

if TYPE_CHECKING:
    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session

ITEM_FIELDS: Final = [
    "id",
    "job_id",
    "key",
    "status",
    "attempt",
    "failures",
    "interruptions",
    "external_id",
    "started_at",
    "completed_at",
    "duration_ms",
    "error_type",
    "error",
    "progress",
]
ERROR_FIELDS: Final = ["error_type", "error", "count", "first_at", "last_at", "keys"]
_KEY: Final = 48
_KEYS: Final = 20


@verb(examples=("jobd items 7 --status failed", "jobd items @last --limit 0 --jsonl"))
@ids.job_argument()
@click.option("--status", type=click.Choice(ITEM_STATUSES), help="Only items of this status.")
@click.option("--key", metavar="KEY", help="Only the item of this key.")
@click.option("--after", type=int, metavar="NUMBER", help="Only items after this number, for the next page.")
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N", help="At most so many; 0 for all. 50 on a terminal, else all."
)
@shape_options(rows=True)
@pass_session
def items(session: Session, /, id_: str, *, limit: int | None, as_json: bool, as_jsonl: bool, **filters: Any) -> int:
    """List the items of a job, in their order."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    job = ids.job(session.app, id_)
    most = limit if limit is not None else 50 if output.human else 0
    wanted = {name: value for name, value in filters.items() if value is not None}
    found = [item.json() for item in job.items(limit=most or None, **wanted)]

    def table(screen: Screen, records: list[Record]) -> None:
        screen.table(
            ["NUMBER", "ITEM", "STATUS", "ATTEMPT", "TOOK", "ERROR"],
            [_item_row(record) for record in records],
            stretch=1 if not any(record["error"] for record in records) else None,
        )

    output.many(found, table, ITEM_FIELDS)
    if output.human and not found:
        session.say(f"no items of job {job.id} match" if wanted else f"job {job.id} has no items")
    if output.human and most and len(found) == most:
        status = f" --status {filters['status']}" if filters["status"] else ""
        onward = session.line(f"items {job.id}{status} --after {found[-1]['id']}")
        session.say(f"the first {most}; go on with: {onward}")
    return 0


def _item_row(record: Record) -> list[Cell]:
    return [
        Cell(f"#{record['id']}", right=True),
        Cell(cut(escape(record["key"]), _KEY)),
        Cell(signs.mark(record["status"]), signs.GLYPHS[record["status"]][1]),
        Cell(str(record["attempt"] or "-"), right=True),
        Cell(times.length(record["duration_ms"]), right=True),
        Cell(jobview.error_text(record)),
    ]


@verb(examples=("jobd item 7:a.txt", "jobd item 7:#123 --json"))
@ids.item_argument()
@shape_options()
@pass_session
def item(session: Session, id_: str, *, as_json: bool) -> int:
    """Show one item: its attempts, its result or error, and where its output is."""
    output = Output(session, as_json=as_json)
    job, found = ids.item(session.app, id_)
    record = found.json()
    result = next(iter(job.results(key=found.key)), None)
    whole = {**record, "payload": found.payload, "result": result.json() if result is not None else None}

    def page(screen: Screen) -> None:
        words = signs.mark(record["status"])
        screen.write(
            screen.paint(f"item {job.id}:{escape(record['key'])}", "bold")
            + f"  {escape(job.task)}  "
            + screen.paint(words, signs.GLYPHS[record["status"]][1]),
        )
        present = now()
        said = [f"#{record['id']} ({times.zone(present)})", f"attempt {record['attempt']}"]
        said += [f"{name} {record[name]}" for name in ("failures", "interruptions") if record[name]]
        said += [f"{label} {times.short(record[name], present)}" for name, label in _MOMENTS if record[name]]
        if record["duration_ms"] is not None:
            said.append(f"took {times.length(record['duration_ms'])}")
        for line in jobview.wrapped(said, screen.columns):
            screen.write(line)
        screen.write("  payload  " + dump(whole["payload"]))
        if result is not None:
            left = result.json()
            pruned = left["pruned_at"]
            screen.write("  result   " + (f"pruned {times.short(pruned, present)}" if pruned else dump(left["value"])))
        if record["error"]:
            screen.sentence("  error    " + screen.paint(jobview.error_text(record), "red"))
        screen.write(screen.paint("  output   " + session.line(f"logs {job.id}:#{found.id}"), "dim"))

    output.one(whole, page, [*ITEM_FIELDS, "payload", "result"])
    return 0


_MOMENTS: Final = (("started_at", "started"), ("completed_at", "ended"))


@verb(examples=("jobd errors 7", "jobd errors @failed --json"))
@click.argument("id_", metavar="[ID]", default="@last", shell_complete=ids.complete_jobs)
@shape_options(rows=True)
@pass_session
def errors(session: Session, id_: str, *, as_json: bool, as_jsonl: bool) -> int:
    """List the errors of a job, grouped: how often, when, and on which items. Without ID the newest job."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    job = ids.job(session.app, id_)
    groups = [group.json() for group in job.errors(keys=_KEYS)]

    def table(screen: Screen, records: list[Record]) -> None:
        present = now()
        for group in records:
            span = f"{times.short(group['first_at'], present)} to {times.short(group['last_at'], present)}"
            screen.sentence(screen.paint(f"✗ ×{group['count']:,}  {jobview.error_text(group)}", "red"))
            screen.write(screen.paint(f"  {span} {times.zone(present)}", "dim"))
            for key in group["keys"][:5]:
                screen.write(f"  {job.id}:{escape(key)}")
            if group["count"] > len(group["keys"][:5]):
                screen.write(screen.paint(f"  and {group['count'] - len(group['keys'][:5]):,} more", "dim"))

    output.many(groups, table, ERROR_FIELDS)
    if output.human:
        session.say(f"job {job.id} has no errors" if not groups else f"  next: {session.line(f'retry {job.id}')}")
    return 0
