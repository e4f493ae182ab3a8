"""`deliver`: the result of an item whose work was done elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli import ids
from jobd.cli.output import Output, shape_options
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.errors import UsageError

if TYPE_CHECKING:
    from jobd.cli.session import Session

FIELDS: Final = ["id", "job_id", "key", "status", "delivered"]


@verb(
    examples=(
        'jobd deliver 7:a.txt \'{"sha256": "…"}\'',
        "curl -s https://vendor.example/42 | jobd deliver 7:a.txt --from -",
        "jobd deliver 7:a.txt --failed 'the vendor gave up'",
    )
)
@ids.item_argument()
@click.argument("value", required=False)
@click.option("--from", "source", type=click.File("rb"), metavar="FILE|-", help="Read the value from a file.")
@click.option("--failed", metavar="REASON", help="The work has failed, for good, and why.")
@shape_options()
@pass_session
def deliver(session: Session, id_: str, value: str | None, *, source: Any, failed: str | None, as_json: bool) -> int:
    """Store the result (JSON) of an item whose work was done elsewhere, and complete the item at once.

    It may wait, run, be queued again or have failed. The same result once more changes nothing.
    """
    output = Output(session, as_json=as_json)
    if sum(given is not None for given in (value, source, failed)) != 1:
        raise UsageError("one of VALUE, --from and --failed is needed", hint="jobd deliver --help")
    job, item = ids.item(session.app, id_)
    name = f"#{item.id}"
    if failed is not None:
        new = job.deliver_failure(name, failed)
    else:
        new = job.deliver(name, _read(source.read() if source is not None else value))
    now = job.item(name)
    record = {"id": now.id, "job_id": job.id, "key": now.key, "status": now.status, "delivered": new}
    why = f": {escape(now.error)}" if now.status == "skipped" and now.error else ""
    if as_json:
        output.document(record)
    elif not output.human:
        output.many([record], lambda screen, rows: None, FIELDS)  # noqa: ARG005 - on a terminal the talk has said it
    if output.human:
        said = f"is {now.status} now{why}" if new else f"was {now.status} with that very result: nothing was changed"
        session.say(f"{job.id}:{escape(now.key)} {said}")
    return 0


def _read(text: str | bytes | None) -> Any:
    try:
        return json.loads(text or b"")
    except (ValueError, RecursionError):
        raise UsageError("the value is not JSON", hint="""text needs quotes of its own: '"text"'""") from None
