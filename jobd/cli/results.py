"""`results`: what the items of a job left, the history of a key, and the data beside a result."""

from __future__ import annotations

import shlex
import sys
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from jobd.cli import ids, times
from jobd.cli.look import now
from jobd.cli.output import Output, dump, shape_options
from jobd.cli.screen import Cell
from jobd.cli.text import cut, escape
from jobd.cli.verb import pass_session, verb
from jobd.errors import NotFound, UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.store.item_views import ResultView

FIELDS: Final = [
    "job_id", "key", "value", "status", "source", "created_at", "has_data", "item_id", "period", "pruned_at",
]  # fmt: skip
_KEY: Final = 48


@verb(
    examples=(
        "jobd results 7 --jsonl",
        "jobd results checksum --key a.txt                # the history of a key, over all jobs",
        "jobd results 7 --key a.txt --data > a.bin        # what ctx.save_data stored",
    ),
)
@click.argument("of", metavar="ID|TASK", shell_complete=ids.complete_jobs)
@click.option("--key", metavar="KEY", help="Only the results of this key; of a task its history, newest first.")
@click.option("--before", type=int, metavar="NUMBER", help="Of a task: only results before this item's, the next page.")
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N", help="At most so many; 0 for all. 50 on a terminal, else all."
)
@click.option("--data", is_flag=True, help="Write the data of --key's newest result instead, as it is.")
@shape_options(rows=True)
@pass_session
def results(
    session: Session,
    of: str,
    *,
    key: str | None,
    before: int | None,
    limit: int | None,
    data: bool,
    as_json: bool,
    as_jsonl: bool,
) -> int:
    """List what the items of a job left, or every result of a task."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    if ids.is_job(of) and before is not None:
        raise UsageError("--before goes with a task: the results of a job are in the order of its items")
    if data:
        return _data(session, output, of, key, before)
    most = limit if limit is not None else 50 if output.human else 0
    found = _found(session, of, key, before, most)
    shown: list[Record] = []

    def table(screen: Screen, rows: list[Record]) -> None:
        shown.extend(rows)
        _table(screen, rows)

    output.many((result.json() for result in found), table, FIELDS)
    if output.human and not shown:
        session.say("no results")
    if output.human and most and len(shown) == most:
        session.say(f"the first {most}; {_onward(session, of, key, shown[-1])}")
    return 0


def _found(session: Session, of: str, key: str | None, before: int | None, most: int) -> Iterable[ResultView]:
    if ids.is_job(of):
        found = ids.job(session.app, of).results(key=key)
        return islice(found, most) if most else found
    return session.app.results(of, key=key, before=before, limit=most or None)


def _onward(session: Session, of: str, key: str | None, last: Record) -> str:
    if ids.is_job(of):
        return "--limit 0 shows all"
    which = f" --key {shlex.quote(key)}" if key is not None else ""
    return "go on with: " + session.line(f"results {shlex.quote(of)}{which} --before {last['item_id']}")


def _table(screen: Screen, rows: list[Record]) -> None:
    present = now()
    periods = any(row["period"] for row in rows)
    header = ["JOB", "ITEM", f"AT ({times.zone(present)})", *(["PERIOD"] if periods else []), "RESULT"]
    screen.table(header, [_row(row, present, periods=periods) for row in rows])


def _row(row: Record, present: dt.datetime, *, periods: bool) -> list[Cell]:
    value = Cell(dump(row["value"]))
    if row["pruned_at"] is not None:
        value = Cell(f"pruned {times.short(row['pruned_at'], present)}", "dim")
    elif row["has_data"]:
        value = Cell(f"{value.text}  + data")
    return [
        Cell(str(row["job_id"]), right=True),
        Cell(cut(escape(row["key"]), _KEY)),
        Cell(times.short(row["created_at"], present)),
        *([Cell(escape(row["period"] or "-"))] if periods else []),
        value,
    ]


def _data(session: Session, output: Output, of: str, key: str | None, before: int | None) -> int:
    if key is None or output.shape in {"json", "jsonl"}:
        raise UsageError("--data writes the bytes of one result: it goes with --key, and not with --json")
    if output.screen.tty:
        raise UsageError("data is bytes, and not for a terminal", hint="the same again with: > FILE")
    if ids.is_job(of):
        found = ids.job(session.app, of).data(key)
    else:
        newest = session.app.results(of, key=key, before=before, limit=1)
        found = newest[0].data() if newest else None
    if found is None:
        raise NotFound(
            f"{escape(of)} has no data under the key '{escape(key)}'",
            hint="data is what a handler gave to ctx.save_data",
        )
    output.screen.flush()
    sys.stdout.buffer.write(found)
    return 0
