"""How a slot of a schedule becomes a job: in one transaction with the row that says that it has fired, once ever.

The slot is the job's key: of two who fire the same slot, the second finds the job. The row moves on in the job's own
transaction, so that a slot stays fired also when its job is deleted.
"""

from __future__ import annotations

from dataclasses import replace
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.errors import Conflict
from jobd.store.chunks import CHUNK
from jobd.store.events import note_job
from jobd.store.schedules import SKIP, WATCHLIST, find
from jobd.store.submit import submit
from jobd.store.views import iso
from jobd.store.wording import span

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection, Store
    from jobd.store.schedules import Declared, Row

# A slot that is seen to later was missed: nobody was there, or the machine slept.
LATE_MS: Final = 60_000
_BEFORE: Final = "it was fired before"


class Fired(NamedTuple):
    """What became of a slot: ``job_id`` is that of its job; or of the one in whose way it came, and ``why`` it did not.

    ``job_status`` is that job's. Only a clock that was put back leads to one that was
    fired before.
    """

    slot: int
    job_id: int | None
    why: str | None = None
    job_status: str | None = None


def fire_slot(
    store: Store, declared: Declared, *, now: int, check_only: bool = False, reached: Callable[[str], None]
) -> Fired | None:
    """Fire the slot of a schedule that is due, or move on without; None where none is due.

    However many slots have passed since it was last seen to, this fires one, the last of them. ``reached`` is called
    at the points before and after the commit. With ``check_only`` nothing is written.

    Raises:
        Conflict: the slot's job is being submitted by somebody else, or deleted.
    """
    looked = store.read(lambda connection: _decide(connection, declared, now))
    if looked is None or check_only:
        return looked
    if looked.why is None:
        _ahead(store, declared, _key(declared, looked.slot), now)

    def work(connection: Connection) -> Fired | None:
        # Decided under the write lock: whoever was faster has moved the row on.
        found = _decide(connection, declared, now)
        if found is not None:
            found = _carry_out(store, connection, declared, found, now)
            reached("fire.before_commit")
        return found

    fired = store.write(work)
    if fired is not None:
        reached("fire.after_commit")
        store.wake()
    return fired


def fire_by_hand(store: Store, declared: Declared, *, now: int) -> int:
    """Make a job of a schedule apart from its slots, and return its id.

    Raises:
        Conflict: the job that it fired last has not ended.
    """
    key = f"schedule {declared.name} by hand at {iso(now)}"
    _ahead(store, declared, key, now)

    def work(connection: Connection) -> int:
        row = find(connection, declared.name)
        if row is not None and row.job_open:
            raise Conflict(_running(row), hint=f"jobd show {row.last_job_id}")
        job_id = _job(store, connection, declared, key, now)
        connection.execute("update schedules set last_job_id = ? where name = ?", (job_id, declared.name))
        return job_id

    job_id = store.write(work)
    store.wake()
    return job_id


def _decide(connection: Connection, declared: Declared, now: int) -> Fired | None:
    """Return what is to become of the slot that is due: with ``why`` it is left out."""
    row = find(connection, declared.name)
    if row is None or row.paused_at is not None or row.next_at is None or row.next_at > now:
        return None
    slot = declared.recurrence(row.created_at).latest(row.next_at, now)
    if row.last_fired_at is not None and slot <= row.last_fired_at and not row.fired_wrongly(now):
        return Fired(slot, None, _BEFORE)
    if declared.catch_up == SKIP and now - slot > LATE_MS:
        return Fired(slot, None, f"it was missed, {span(now - slot)} ago")
    if row.job_open:
        return Fired(slot, row.last_job_id, _running(row), row.job_status)
    return Fired(slot, None)


def _running(row: Row) -> str:
    return f"job {row.last_job_id}, which {row.name} fired last, is still {row.job_status}"


def _carry_out(store: Store, connection: Connection, declared: Declared, found: Fired, now: int) -> Fired:
    row = find(connection, declared.name)
    assert row is not None  # noqa: S101 - it has just been decided on
    sets: dict[str, object] = {"next_at": declared.recurrence(row.created_at).after(now)}
    if found.why is not None and found.why != _BEFORE:
        sets |= {"skipped_at": found.slot, "skipped_why": found.why}
        if found.job_id is not None and (row.skipped_at is None or row.skipped_at < (row.job_created_at or 0)):
            # Once for each job that is in the way: one that hangs would gather an event with every slot.
            message = f"the slot of {iso(found.slot)} was left out: this job has not ended"
            note_job(
                store, connection, found.job_id, "skip_slot", now=now, actor=f"schedule {row.name}", message=message
            )
    elif found.why is None:
        found = found._replace(job_id=_fire(store, connection, declared, row, found.slot, now))
        sets |= {"last_fired_at": found.slot, "last_job_id": found.job_id}
    columns = ", ".join(f"{column} = ?" for column in sets)
    connection.execute(f"update schedules set {columns} where name = ?", (*sets.values(), row.name))
    return found


def _fire(store: Store, connection: Connection, declared: Declared, row: Row, slot: int, now: int) -> int:
    job_id = _job(store, connection, declared, _key(declared, slot), now)
    if now - slot > LATE_MS or (row.next_at is not None and row.next_at < slot):
        late = f"late by {span(now - slot)}" if now - slot > LATE_MS else "on time"
        since = f"; those since {iso(row.next_at)} were missed" if row.next_at != slot else ""
        note_job(
            store, connection, job_id, "catch_up", now=now, actor=f"schedule {row.name}",
            message=f"the slot of {iso(slot)}, {late}{since}",
        )  # fmt: skip
    return job_id


def _key(declared: Declared, slot: int) -> str:
    return f"schedule {declared.name} at {iso(slot)}"


def _ahead(store: Store, declared: Declared, key: str, now: int) -> None:
    """Make a job of many items before the row moves on: in one transaction they would keep the others waiting.

    Its key guards the slot as well: killed in between, the same slot finds it.
    """
    pairs = store.read(lambda connection: _pairs(connection, declared))
    if len(pairs) > CHUNK and store.read(lambda connection: _known(connection, declared, key)) is None:
        _submit(store, declared, pairs, key, now)


def _job(store: Store, connection: Connection, declared: Declared, key: str, now: int) -> int:
    """Return the job of that key, made now where there is none."""
    known = _known(connection, declared, key)
    if known is not None:
        return known
    return _submit(store, declared, _pairs(connection, declared), key, now)


def _known(connection: Connection, declared: Declared, key: str) -> int | None:
    text = "select id from jobs where task = ? and key = ? and sealed_at is not null"
    found = connection.execute(text, (declared.submission.task, key)).fetchone()
    return int(found[0]) if found else None


def _pairs(connection: Connection, declared: Declared) -> tuple[tuple[str, str], ...]:
    if declared.items != WATCHLIST:
        return declared.pairs
    # Its keys as they are now; a key is its own payload, as in a submission of them.
    text = "select key from watchlist where task = ? order by key"
    found = connection.execute(text, (declared.submission.task,)).fetchall()
    return tuple((key, encode_basestring(key)) for (key,) in found)


def _submit(store: Store, declared: Declared, pairs: tuple[tuple[str, str], ...], key: str, now: int) -> int:
    submission = replace(declared.submission, key=key)
    return submit(store, submission, pairs, now=now, actor=f"schedule {declared.name}").job_id
