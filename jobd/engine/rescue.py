"""The rescue file: outcomes that the database would not take, kept beside it until it does.

One JSON object a line, fsynced. Each line names the daemon that wrote it, so that the file of another database that
stood at the same path settles nothing here.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobd.store.outcome import BACK, KINDS, Outcome, Printed
from jobd.store.settle import settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jobd.store.base import Connection
    from jobd.store.sqlite import SqliteStore

log = logging.getLogger("jobd.rescue")

# Who holds the database's lock is one process; in it, what is kept between the reading and the renaming would be lost.
_file: Final = threading.Lock()
_BATCH: Final = 200


def keep(path: str, daemon: tuple[int, int], outcomes: Sequence[Outcome]) -> None:
    """Append outcomes to the rescue file of the database at ``path``; ``daemon`` is (id, started_at)."""
    if not outcomes:
        return
    target = f"{path}.rescue"
    # ASCII: what could not be stored may be what no encoding takes. A first line break, for the last line may be torn.
    text = "".join(f"\n{json.dumps({'daemon': daemon, **outcome._asdict()})}" for outcome in outcomes)
    with _file, os.fdopen(os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text.encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    log.error("%d outcomes could not be stored; they are kept in %s", len(outcomes), target)


def settle_kept(store: SqliteStore, *, now: int, actor: str) -> int:
    """Settle what the rescue file holds, each by its attempt, and rename the file; return how many were written.

    Outcomes of another database's daemon, and lines that are torn, stay in the renamed file for a person to read.
    """
    path = Path(f"{store.path}.rescue")
    with _file:
        return _settle_file(store, path, now=now, actor=actor) if path.is_file() else 0


def _settle_file(store: SqliteStore, path: Path, *, now: int, actor: str) -> int:
    outcomes = _one_each(outcome for daemon, outcome in _read(path) if _ours(store, daemon))
    written = 0
    for start in range(0, len(outcomes), _BATCH):

        def work(connection: Connection, start: int = start) -> int:
            return len(settle(store, connection, outcomes[start : start + _BATCH], now=now, actor=actor).applied)

        written += store.write(work)
    path.rename(f"{store.path}.rescue.{now}")
    log.warning("%d of %d kept outcomes were settled from %s", written, len(outcomes), path)
    return written


def _one_each(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return one outcome for each attempt: an end that came after it was to be given back is what counts."""
    chosen: dict[tuple[int, int], Outcome] = {}
    for outcome in outcomes:
        token = (outcome.item_id, outcome.attempt)
        if token not in chosen or chosen[token].kind in BACK:
            chosen[token] = outcome
    return list(chosen.values())


def _read(path: Path) -> Iterator[tuple[tuple[int, int], Outcome]]:
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if not line:
            continue
        try:
            fields = json.loads(line)
            daemon = fields.pop("daemon")
            output = fields.pop("output")
            printed = fields.pop("printed", None)
            outcome = Outcome(
                **fields,
                output=tuple(output) if output else None,
                printed=Printed(*printed) if printed else None,
            )
            writer = int(daemon[0]), int(daemon[1])
        except (ValueError, TypeError, LookupError, AttributeError):
            log.warning("a line of %s cannot be read", path)
            continue
        if outcome.kind in KINDS:
            yield writer, outcome


def _ours(store: SqliteStore, daemon: tuple[int, int]) -> bool:
    def work(connection: Connection) -> bool:
        found = connection.execute("select 1 from daemons where id = ? and started_at = ?", daemon).fetchone()
        return found is not None

    return store.read(work)
