"""The schedules: what a program declares, the row that is kept of it, and when the next is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd import recurrence
from jobd.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobd.recurrence import Recurrence
    from jobd.store.base import Connection, Store
    from jobd.store.submission import Submission

ONCE: Final = "once"
SKIP: Final = "skip"
WATCHLIST: Final = '"watchlist"'  # in place of items: the keys of the task that are on the list when it fires
# A last firing that lies further ahead is that of a clock which was wrong.
PUT_BACK_MS: Final = 86_400_000


class Declared(NamedTuple):
    """A schedule as a program declares it. ``items`` is the JSON that its row keeps of ``pairs``."""

    name: str
    spec: str
    zone: str
    catch_up: str
    submission: Submission
    pairs: tuple[tuple[str, str], ...] = ()
    items: str | None = None

    def recurrence(self, began: int) -> Recurrence:
        """Return when it recurs; ``began`` is where its slots are counted from."""
        return recurrence.parse(self.spec, self.zone, began)


class Row(NamedTuple):
    """A row of ``schedules``; of its last job the status, and whether it is open."""

    name: str
    task: str
    spec: str
    zone: str
    catch_up: str
    items: str | None
    params: str
    created_at: int
    last_fired_at: int | None
    next_at: int | None
    skipped_at: int | None
    skipped_why: str | None
    last_job_id: int | None
    paused_at: int | None
    job_status: str | None
    job_open: int | None
    job_created_at: int | None

    def recurrence(self) -> Recurrence:
        return recurrence.parse(self.spec, self.zone, self.created_at)

    def fired_wrongly(self, now: int) -> bool:
        """Say whether its last firing was that of a clock which has been put back by more than a day since."""
        return self.last_fired_at is not None and self.last_fired_at > now + PUT_BACK_MS


_STORED: Final = Row._fields[: Row._fields.index("job_status")]
_COLUMNS: Final = ", ".join(f"s.{name}" for name in _STORED)
_JOB: Final = "j.status, j.id is not null and j.deleted_at is null and j.completed_at is null, j.created_at"
_READ: Final = f"select {_COLUMNS}, {_JOB} from schedules as s left join jobs as j on j.id = s.last_job_id"


def rows(connection: Connection) -> list[Row]:
    """Return all of them by name."""
    return [Row(*row) for row in connection.execute(f"{_READ} order by s.name").fetchall()]


def find(connection: Connection, name: str) -> Row | None:
    """Return one of them."""
    row = connection.execute(f"{_READ} where s.name = ?", (name,)).fetchone()
    return Row(*row) if row else None


def next_due(store: Store, declared: Mapping[str, Declared], *, now: int) -> int | None:
    """Return when (Unix ms) the next of ``declared`` is to be seen to, at once where its row is not as declared."""
    if not declared:
        return None
    by_name = {row.name: row for row in store.read(rows)}
    due = []
    for name, wanted in declared.items():
        row = by_name.get(name)
        if row is None or _changes(row, wanted, now):
            return now
        if row.paused_at is None and row.next_at is not None:
            due.append(row.next_at)
    return min(due, default=None)


# -- taking over ------------------------------------------------------------------------------------------------------


def take_over(store: Store, declared: Iterable[Declared], *, now: int) -> None:
    """Bring the rows in line with what a program declares; one that recurs otherwise counts from now.

    A clock that was put back by more than a day leaves next slots that lie as far ahead: they are sought anew.
    """

    def work(connection: Connection) -> None:
        for wanted in declared:
            row = find(connection, wanted.name)
            if row is None:
                _insert(connection, wanted, now)
            elif changes := _changes(row, wanted, now):
                sets = ", ".join(f"{column} = ?" for column in changes)
                connection.execute(f"update schedules set {sets} where name = ?", (*changes.values(), row.name))

    store.write(work)


def as_declared(wanted: Declared, now: int) -> Row:
    """Return the row of a schedule that nobody has seen before now."""
    return Row(
        name=wanted.name, task=wanted.submission.task, spec=wanted.spec, zone=wanted.zone, catch_up=wanted.catch_up,
        items=wanted.items, params=wanted.submission.params, created_at=now, last_fired_at=None,
        next_at=wanted.recurrence(now).after(now), skipped_at=None, skipped_why=None, last_job_id=None, paused_at=None,
        job_status=None, job_open=None, job_created_at=None,
    )  # fmt: skip


def _insert(connection: Connection, wanted: Declared, now: int) -> None:
    row = as_declared(wanted, now)
    values = {name: getattr(row, name) for name in _STORED}
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"insert into schedules ({columns}) values ({marks})", tuple(values.values()))


def _changes(row: Row, wanted: Declared, now: int) -> dict[str, object]:
    """Return what is to be set in the row, by column."""
    said = _said(wanted)
    changes = {column: value for column, value in said.items() if getattr(row, column) != value}
    wrong = row.fired_wrongly(now)
    anew = row.next_at is None or not changes.keys().isdisjoint(("spec", "zone"))
    if anew or wrong:
        fired = now if row.last_fired_at is None or wrong else row.last_fired_at
        following = wanted.recurrence(row.created_at).after(max(now, fired))
        if anew or row.next_at is None or following < row.next_at:
            changes["next_at"] = following
    return changes


def _said(wanted: Declared) -> dict[str, object]:
    return {
        "task": wanted.submission.task, "spec": wanted.spec, "zone": wanted.zone, "catch_up": wanted.catch_up,
        "items": wanted.items, "params": wanted.submission.params,
    }  # fmt: skip


# -- steering ---------------------------------------------------------------------------------------------------------


def pause(store: Store, name: str, *, now: int) -> bool:
    """Have it fire no more; say whether it did so far.

    Raises:
        NotFound: there is no such schedule.
    """

    def work(connection: Connection) -> bool:
        if find(connection, name) is None:
            raise unknown(name)
        text = "update schedules set paused_at = ? where name = ? and paused_at is null"
        return bool(connection.execute(text, (now, name)).rowcount)

    return store.write(work)


def unpause(store: Store, name: str, *, now: int) -> bool:
    """Have it fire again from its next slot on, none of those in between; say whether it was paused.

    Raises:
        NotFound: there is no such schedule.
    """

    def work(connection: Connection) -> bool:
        row = find(connection, name)
        if row is None:
            raise unknown(name)
        if row.paused_at is None:
            return False
        text = "update schedules set paused_at = null, next_at = ? where name = ?"
        connection.execute(text, (row.recurrence().after(now), name))
        return True

    return store.write(work)


def unknown(name: str) -> NotFound:
    """Return the refusal of a name that no schedule has."""
    return NotFound(f"there is no schedule {name!a}", hint="jobd schedule list shows them")
