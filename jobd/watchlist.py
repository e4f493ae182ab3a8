"""The watchlist of an app: keys of its tasks that are run again and again, and how each went last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd import arguments
from jobd.codec import NotStorable, checked_key
from jobd.errors import NotFound, UsageError
from jobd.store import watchlist
from jobd.tasks import Task

if TYPE_CHECKING:
    from typing import Any

    from jobd.app import Jobd
    from jobd.store.item_views import WatchedView


class Watchlist:
    """What ``app.watchlist`` is. A submission takes the keys as items: ``checksum.submit(app.watchlist.keys(...))``."""

    def __init__(self, app: Jobd) -> None:
        self._app = app

    def add(self, task: str | Task[Any, Any], *keys: str | int) -> int:
        """Put keys of a task on the list and return how many were not on it.

        Raises:
            NotFound: nobody knows a task of that name: not this app, no daemon, no job.
            UsageError: a key that no item can have.
        """
        name = _named(task)
        wanted = [_key(key) for key in keys]
        self._check_known(name)
        return watchlist.add(self._app.writing(), name, wanted)

    def remove(self, task: str | Task[Any, Any], *keys: str | int) -> int:
        """Take keys of a task off the list and return how many were on it.

        Raises:
            UsageError: a key that no item can have.
            NotFound: there is no database.
        """
        return watchlist.remove(self._app.reading(), _named(task), [_key(key) for key in keys])

    def entries(self, task: str | Task[Any, Any] | None = None) -> list[WatchedView]:
        """Return the list by task and key, of one task where it is named; empty where there is no database."""
        try:
            return watchlist.entries(self._app.reading(), None if task is None else _named(task))
        except NotFound:
            return []

    def keys(self, task: str | Task[Any, Any]) -> list[str]:
        """Return the keys of a task on the list."""
        return [entry.key for entry in self.entries(task)]

    def _check_known(self, name: str) -> None:
        """Refuse a name that nobody knows: it is mostly a slip, and would never be told."""
        if name in self._app.tasks or name in self._app.daemon_status().tasks:
            return
        try:
            known = watchlist.has_task(self._app.reading(), name)
        except NotFound:
            known = False
        if not known:
            raise NotFound(
                f"nobody knows a task {name!a}", hint="jobd --app ./program.py tasks shows those of a program"
            )


def _named(task: str | Task[Any, Any]) -> str:
    return task.name if isinstance(task, Task) else arguments.text("task", task)


def _key(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    if not isinstance(value, str):
        raise UsageError(f"not a key: {value!a}")
    try:
        return checked_key(value)
    except NotStorable as error:
        raise UsageError(f"not a key: {value!a} ({error})") from None
