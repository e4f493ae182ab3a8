"""The job of a key as one that goes on: what it has of an input already, and what is changed of it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobd.store.events import note_job
from jobd.store.verbs import asked, refuse_halves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


class Held(NamedTuple):
    """What a job has of an item: its status and its payload (JSON text)."""

    status: str
    payload: str


def held(store: Store, job_id: int, keys: Sequence[str]) -> dict[str, Held]:
    """Return those items of a job that have one of ``keys``, by key; at most some thousands."""
    source = f"from {store.rows('key')} as m cross join job_items as i where i.job_id = ? and i.key = m.key"
    packed = store.pack([(key,) for key in keys])
    rows = store.read(lambda c: c.execute(f"select i.key, i.status, i.payload {source}", (packed, job_id)).fetchall())
    return {key: Held(status, payload) for key, status, payload in rows}


def release_key(store: Store, job_id: int, *, now: int, actor: str) -> None:
    """Take a job's key from it: the next submission under the key is a new job.

    Raises:
        NotFound: there is no such job.
        Conflict: it is being submitted or deleted.
    """

    def work(connection: Connection) -> None:
        refuse_halves(job_id, asked(connection, job_id))
        key = connection.execute("select key from jobs where id = ?", (job_id,)).fetchone()[0]
        if key is not None:
            connection.execute("update jobs set key = null where id = ?", (job_id,))
            note_job(store, connection, job_id, "release_key", now=now, actor=actor, message=f"its key was {key}")

    store.write(work)


def change_params(store: Store, job_id: int, params: str, *, now: int, actor: str) -> None:
    """Give a job other params (JSON text), for what starts from now on; what has ended stays as it is.

    Raises:
        NotFound: there is no such job.
        Conflict: it is being submitted or deleted.
    """

    def work(connection: Connection) -> None:
        refuse_halves(job_id, asked(connection, job_id))
        former = connection.execute("select params from jobs where id = ?", (job_id,)).fetchone()[0]
        connection.execute("update jobs set params = ? where id = ?", (params, job_id))
        note_job(store, connection, job_id, "change_params", now=now, actor=actor, message=f"they were {former}")

    store.write(work)
