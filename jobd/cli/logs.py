"""`logs`: what an item's last attempt printed or logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO, cast

from jobd.cli import ids
from jobd.cli.output import Output, shape_options
from jobd.cli.text import escape_lines
from jobd.cli.verb import pass_session, verb
from jobd.errors import NotFound

if TYPE_CHECKING:
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.store.item_views import OutputView
    from jobd.store.printed import Streams


@verb(examples=("jobd logs 7:a.txt", "jobd logs 7:#123 | less -R"))
@ids.item_argument()
@shape_options()
@pass_session
def logs(session: Session, id_: str, *, as_json: bool) -> int:
    """Print what an item's last attempt printed or logged: raw in a pipe, escaped on a terminal.

    What a command printed comes on standard output, its errors on standard error, byte for byte.
    """
    output = Output(session, as_json=as_json)
    job, found = ids.item(session.app, id_)
    streams, kept = job.printed(found.key), job.output(found.key)
    if as_json:
        output.document({"job_id": job.id, "key": found.key, **_record(streams, kept)})
        return 0
    if streams is None and (kept is None or not kept.text):
        raise NotFound(f"{job.id}:{found.key} has left no output", hint=f"jobd item {job.id}:#{found.id}")
    if (streams is not None and streams.truncated) or (kept is not None and kept.truncated):
        session.say("only the last 64 KiB were kept")
    if streams is not None:
        _bytes(output.screen, streams.stdout)
        output.screen.flush()
        _bytes(session.talk, streams.stderr)
        session.talk.flush()
    elif kept is not None:
        words = escape_lines(kept.text) if output.screen.tty else kept.text
        output.screen.raw(words if words.endswith("\n") else words + "\n")
    return 0


def _record(streams: Streams | None, kept: OutputView | None) -> dict[str, Any]:
    last = streams or kept
    record: dict[str, Any] = {
        "attempt": last.attempt if last else None,
        "text": kept.text if kept else None,
        "truncated": bool(last and last.truncated),
    }
    if streams is not None:
        from jobd.commands import pack

        record |= {"stdout": pack(streams.stdout), "stderr": pack(streams.stderr)}
    return record


def _bytes(screen: Screen, data: bytes) -> None:
    """Write what a command printed: as it came, but on a terminal so that it cannot act there."""
    if not data:
        return
    if screen.tty:
        words = escape_lines(data.decode("utf-8", "backslashreplace"))
        screen.raw(words if words.endswith("\n") else words + "\n")
        return
    screen.flush()
    cast("TextIO", screen.stream).buffer.write(data)
