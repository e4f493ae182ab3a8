"""The file as a whole: copied while it is in use, replaced by a copy, or brought to the present schema.

What replaces or changes it does so under the daemon's lock: no daemon lives meanwhile, and none can start.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobd import config, process
from jobd.engine import lock, points
from jobd.errors import DaemonRunning, StoreUnusable
from jobd.store import backup as backups
from jobd.store import copies, migrations
from jobd.store import restore as restores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store.backup import Backup
    from jobd.store.copies import Watch
    from jobd.store.migrations import Migrated
    from jobd.store.restore import Restored

log = logging.getLogger("jobd.migrate")


def backup(path: str, target: str, *, force: bool = False, watch: Watch = copies.unwatched) -> Backup:
    """Copy the database at ``path`` to ``target``, as :func:`jobd.store.backup.backup`; it needs no lock."""
    return backups.backup(path, target, force=force, watch=watch)


def restore(path: str, source: str, *, now: int, watch: Watch = copies.unwatched) -> Restored:
    """Put a backup in the database's place, as :func:`jobd.store.restore.restore`.

    Raises:
        DaemonRunning: a daemon owns the database.
        StoreUnusable: its folder is not there.
    """
    folder = Path(path).parent
    if folder == config.user_database().resolve().parent:
        # The one folder that jobd makes by itself; any other that is missing is a mistyped name.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder.is_dir():
        raise StoreUnusable(f"{path}: there is no folder {folder}", hint="--db names another database")
    with _owned(path, now):
        return restores.restore(path, source, now=now, at=points.reach, watch=watch)


def migrate(path: str, *, now: int, check_only: bool = False, watch: Watch = copies.unwatched) -> Migrated:
    """Bring the database to the present schema, as :func:`jobd.store.migrations.migrate`; or say what that would do.

    Raises:
        DaemonRunning: a daemon owns the database.
    """
    # Where there is nothing to do no lock is needed, nor made beside what is not ours.
    if check_only or not migrations.half_changed(path):
        found = migrations.preview(path, now=now, counted=check_only)
        if check_only or not found.steps:
            return found._replace(check_only=check_only)
    with _owned(path, now):
        return migrations.migrate(path, now=now, at=points.reach, watch=watch)


def upgrade(path: str, *, now: int) -> None:
    """Do what ``migrate`` does for somebody who did not ask for it, and say so in the log.

    Raises:
        DaemonRunning: a daemon owns the database.
    """
    found = migrate(path, now=now)
    if found.backup is not None:
        log.warning(
            "%s has schema %d now, it had %d; the file from before is kept as %s",
            path, found.to_version, found.from_version, found.backup,
        )  # fmt: skip


@contextmanager
def _owned(path: str, now: int) -> Iterator[None]:
    claim = lock.Lock(path)
    me = process.myself()
    try:
        claim.acquire(lock.Owner(me.pid, me.host, now))
    except DaemonRunning as error:
        if error.hint == lock.IN_USE:
            error.hint = "end it (SIGTERM lets it finish what runs), then the same again"
        raise
    try:
        yield
    finally:
        claim.release()
