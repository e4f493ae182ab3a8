"""Which verbs a job takes, and how one that it does not take is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from jobd.store.base import Connection


class Asked(NamedTuple):
    """What decides whether a job takes a verb. ``failed`` and ``cancelled`` count its items."""

    status: str
    requested: int
    submitting: int
    deleting: int
    failed: int
    cancelled: int


def asked(connection: Connection, job_id: int) -> Asked:
    """Read a job that somebody asks something of.

    Raises:
        NotFound: there is no such job.
    """
    found = connection.execute(
        "select status, cancel_requested_at is not null or fail_requested_at is not null, sealed_at is null,"
        " deleted_at is not null, items_failed, items_cancelled from jobs where id=?",
        (job_id,),
    ).fetchone()
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    return Asked(*found)


def operations(status: str, *, failed: int, cancelled: int, requested: bool) -> tuple[str, ...]:
    """Return the verbs that a job takes now.

    ``failed`` and ``cancelled`` count its items; ``requested`` says that a cancel or a fail is still being worked off.
    """
    if status not in JOB_ENDS and requested:
        return ()
    legal = {"cancel": status not in JOB_ENDS, "retry": failed > 0, "resume": failed + cancelled > 0}
    return tuple(verb for verb, takes in legal.items() if takes)


def refusal(job_id: int, job: Asked, verb: str, why: str = "") -> IllegalTransition:
    """Return the error that says what the job is, and which verbs it takes; ``why`` follows its id."""
    legal = operations(job.status, failed=job.failed, cancelled=job.cancelled, requested=bool(job.requested))
    return IllegalTransition(f"job {job_id}{why}", verb, job.status, legal)


def refuse_halves(job_id: int, job: Asked) -> None:
    """Raise Conflict for a job that is not whole: its submitter, or whoever deletes it, has the last word."""
    if job.submitting:
        raise Conflict(f"job {job_id} is still being submitted", hint="again when its submitter is through")
    if job.deleting:
        raise Conflict(f"job {job_id} is being deleted")
