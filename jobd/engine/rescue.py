"""The rescue file: outcomes that the database would not take, kept beside it until it does.

One JSON object a line, fsynced. Each line names the daemon that wrote it, so that the file of another database that
stood at the same path settles nothing here.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jobd.store.settle import Outcome, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobd.store.base import Connection
    from jobd.store.sqlite import SqliteStore

log = logging.getLogger("jobd.rescue")


def keep(path: str, daemon: tuple[int, int], outcomes: Sequence[Outcome]) -> None:
    """Append outcomes to the rescue file of the database at ``path``; ``daemon`` is (id, started_at)."""
    if not outcomes:
        return
    target = f"{path}.rescue"
    descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for outcome in outcomes:
            line = {"daemon": daemon, **outcome._asdict()}
            # ASCII: what could not be stored may be what no encoding takes.
            os.write(descriptor, json.dumps(line).encode("ascii") + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    log.error("%d outcomes could not be stored; they are kept in %s", len(outcomes), target)


def settle_kept(store: SqliteStore, *, now: int, actor: str) -> int:
    """Settle what the rescue file holds, each by its attempt, and rename the file; return how many were written.

    Outcomes of another database's daemon, and lines that are torn, stay in the renamed file for a person to read.
    """
    path = Path(f"{store.path}.rescue")
    if not path.exists():
        return 0
    outcomes = [outcome for daemon, outcome in _read(path) if _ours(store, daemon)]
    written = 0
    for outcome in outcomes:

        def work(connection: Connection, outcome: Outcome = outcome) -> int:
            return len(settle(store, connection, [outcome], now=now, actor=actor).applied)

        written += store.write(work)
    path.rename(f"{store.path}.rescue.{now}")
    log.warning("%d of %d kept outcomes were settled from %s", written, len(outcomes), path)
    return written


def _read(path: Path) -> Iterator[tuple[tuple[int, int], Outcome]]:
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        try:
            fields = json.loads(line)
            daemon = fields.pop("daemon")
            output = fields.pop("output")
            outcome = Outcome(**fields, output=tuple(output) if output else None)
        except (ValueError, TypeError, KeyError):
            log.warning("a line of %s cannot be read", path)
            continue
        yield (int(daemon[0]), int(daemon[1])), outcome


def _ours(store: SqliteStore, daemon: tuple[int, int]) -> bool:
    def work(connection: Connection) -> bool:
        found = connection.execute("select 1 from daemons where id = ? and started_at = ?", daemon).fetchone()
        return found is not None

    return store.read(work)
