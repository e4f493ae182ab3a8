"""Items that wait for the outside: which are to be asked about, and what follows from what was answered."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.errors import Conflict, NotFound
from jobd.states import FAILED, WAITING
from jobd.store.batches import BATCH, Pace, always, in_batches
from jobd.store.contradicted import of_items
from jobd.store.deadlines import UNHINDERED
from jobd.store.deliver import found, take, take_failure
from jobd.store.reconcile import carry_out

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from jobd.store.base import Connection, Store
    from jobd.store.deliver import Found

LONGEST_GAP_MS: Final = 3_600_000  # between two questions, unless more was asked for
_ANSWERED: Final = "its poll has answered"
_NEVER: Final = 2**62


class Waiting(NamedTuple):
    """An item that is due to be asked about. ``poll_at`` is Unix ms; ``params`` is JSON text."""

    item_id: int
    job_id: int
    task: str
    key: str
    attempt: int
    external_id: str
    poll_at: int
    poll_gap_ms: int
    params: str
    intent: str | None
    job_created_at: int


class Word(enum.Enum):
    """What the outside says of a piece of work."""

    NOT_YET = "not yet"
    VALUE = "value"
    FAILURE = "failure"


class Said(NamedTuple):
    """What was said of one item ``at`` (Unix ms): a value as JSON text, why it failed, or not yet.

    ``after_ms``: in how long to ask again, where that was said.
    """

    item: Waiting
    word: Word
    at: int
    text: str | None = None
    after_ms: int | None = None

    def again(self) -> tuple[int, int]:
        """Return when to ask again (Unix ms), and the gap that the one after that is counted from."""
        if self.after_ms is not None:
            return self.at + self.after_ms, self.item.poll_gap_ms
        gap = min(2 * self.item.poll_gap_ms, max(self.item.poll_gap_ms, LONGEST_GAP_MS))
        return self.at + gap, gap


# "Cross" keeps the planner on the small index of what is polled: by the task it would pass over all its jobs and all of
# their items, each time that it is asked when the next is due.
_OF_TASKS: Final = (
    " from job_items as i cross join jobs on jobs.id = i.job_id"
    " where i.status = 'waiting' and i.poll_at <= ? and i.external_id is not null"
    f" and jobs.task in (select name from {{tasks}} as m) and {UNHINDERED} order by i.poll_at, i.id limit ?"
)
_COLUMNS: Final = (
    "select i.id, i.job_id, jobs.task, i.key, i.attempt, i.external_id, i.poll_at, i.poll_gap_ms, jobs.params,"
    " i.intent, jobs.created_at"
)


def due(store: Store, connection: Connection, tasks: Collection[str], now: int, limit: int) -> list[Waiting]:
    """Return up to ``limit`` items of ``tasks`` that are to be asked about by ``now``, the longest due first."""
    text = _COLUMNS + _OF_TASKS.format(tasks=store.rows("name"))
    rows = connection.execute(text, (now, _names(store, tasks), limit)).fetchall()
    return [Waiting(*row) for row in rows]


def next_poll(store: Store, tasks: Collection[str]) -> int | None:
    """Return when an item of ``tasks`` is to be asked about next (Unix ms); None where none is."""
    if not tasks:
        return None
    text = "select i.poll_at" + _OF_TASKS.format(tasks=store.rows("name"))
    row = store.read(lambda connection: connection.execute(text, (_NEVER, _names(store, tasks), 1)).fetchone())
    return None if row is None else int(row[0])


def _names(store: Store, tasks: Collection[str]) -> str:
    return store.pack([(task,) for task in tasks])


_NEVER_ASKED: Final = (
    "select i.id from job_items as i cross join jobs on jobs.id = i.job_id"
    " where i.status = 'waiting' and i.poll_at is null and i.external_id is not null"
    " and jobs.task in (select name from {tasks} as m) limit ?"
)


def take_up(store: Store, tasks: Collection[str], *, now: int, go_on: Callable[[], bool] = always) -> int:
    """Have those items of ``tasks`` asked about that were left waiting while their task had no poll; return how many.

    Where ``go_on`` says no between two batches, the rest is left to the next call.
    """
    chosen = _NEVER_ASKED.format(tasks=store.rows("name"))
    statement = f"update job_items set poll_at = ? where id in ({chosen})"
    pace = Pace(BATCH)

    def ask(connection: Connection, size: int) -> int:
        return int(connection.execute(statement, (now, _names(store, tasks), size)).rowcount)

    # Mostly there are none, and nobody else's write has to wait for that.
    params = (_names(store, tasks), 1)
    if not tasks or store.read(lambda connection: connection.execute(chosen, params).fetchone()) is None:
        return 0
    return in_batches(lambda: pace.write(store, ask), go_on=go_on)


_PUT_OFF: Final = (
    "update job_items set poll_at = ?, poll_gap_ms = ?"
    " where id = ? and attempt = ? and status = 'waiting' and poll_at = ?"
)


def settle(store: Store, connection: Connection, said: Said, *, actor: str) -> str | None:
    """Write what was said of one item, and return the status in which that leaves it.

    None where the question is no longer the item's: it has ended, or waits for something else by now. A value that
    comes after its deadline completes it all the same.
    """
    asked = said.item
    if said.word is Word.NOT_YET:
        poll_at, gap = said.again()
        changed = connection.execute(_PUT_OFF, (poll_at, gap, asked.item_id, asked.attempt, asked.poll_at)).rowcount
        return WAITING if changed else None
    item = _still(connection, asked)
    if item is None:
        return None
    if item.said is not None:
        brought = carry_out(store, connection, of_items(store, connection, [item.id]), now=said.at, actor=actor)
        return item.said if brought else None
    text = said.text or ""
    if said.word is Word.FAILURE:
        if item.status != WAITING:
            return None
        take_failure(store, connection, item, text, now=said.at, actor=actor)
        return FAILED
    try:
        take(store, connection, item, text, now=said.at, actor=actor, why=_ANSWERED)
    except Conflict:
        # It has failed, and its day is another's.
        return None
    return _status(connection, item.id)


def _still(connection: Connection, asked: Waiting) -> Found | None:
    try:
        item = found(connection, asked.item_id)
    except (NotFound, Conflict):
        return None
    if (item.attempt, item.external_id) != (asked.attempt, asked.external_id):
        return None
    return item if item.status in {WAITING, FAILED} else None


def _status(connection: Connection, item_id: int) -> str:
    return str(connection.execute("select status from job_items where id = ?", (item_id,)).fetchone()[0])
