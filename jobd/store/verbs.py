"""Which verbs a job takes, and how one that it does not take is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.states import JOB_ENDS, RUNNING
from jobd.store.links import LOST_PARENT

if TYPE_CHECKING:
    from jobd.store.base import Connection

# Of a row of ``jobs``: another job, which has not ended, comes after it.
WAITED_FOR: Final = (
    "exists (select 1 from job_dependencies as d join jobs as c on c.id = d.job_id"
    " where d.after_id = jobs.id and c.completed_at is null and c.deleted_at is null)"
)


class Asked(NamedTuple):
    """What decides whether a job takes a verb. ``failed`` and ``cancelled`` count its items.

    ``cancelling`` and ``failing``: it was asked for and is not worked off; ``waited_for``: another job comes after it;
    ``lost_parent``: one that it comes after itself, and that will not complete as it is.
    """

    status: str
    cancelling: bool
    failing: bool
    submitting: bool
    deleting: bool
    paused: bool
    failed: int
    cancelled: int
    waited_for: bool
    lost_parent: int | None = None

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.status not in JOB_ENDS

    @property
    def requested(self) -> bool:
        """Whether its open items are about to be cancelled, or were when it ended."""
        return self.cancelling or self.failing


_ASKED: Final = (
    "select status, cancel_requested_at is not null, fail_requested_at is not null, sealed_at is null,"
    f" deleted_at is not null, paused_at is not null, items_failed, items_cancelled, {WAITED_FOR}, {LOST_PARENT}"
    " from jobs where id=?"
)


def asked(connection: Connection, job_id: int) -> Asked:
    """Read a job that somebody asks something of.

    Raises:
        NotFound: there is no such job.
    """
    found = connection.execute(_ASKED, (job_id,)).fetchone()
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    return Asked(*found)


def operations(job: Asked) -> tuple[str, ...]:
    """Return the verbs that a job takes now; none while it is being submitted or deleted."""
    if job.submitting or job.deleting:
        return ()
    again = not (job.open and job.requested) and job.lost_parent is None
    legal = {
        "cancel": job.open and not job.requested,
        "pause": job.open and not job.requested and not job.paused,
        "unpause": job.open and not job.requested and job.paused,
        "retry": again and job.failed > 0,
        "resume": again and job.failed + job.cancelled > 0,
        # It has the last word: what is being cancelled may still be failed.
        "fail": job.open and not job.failing,
        # Under a running job handlers would go on, for nothing.
        "delete": job.status != RUNNING and not job.waited_for,
    }
    return tuple(verb for verb, takes in legal.items() if takes)


def refusal(job_id: int, job: Asked, verb: str, why: str = "") -> IllegalTransition:
    """Return the error that says what the job is, and which verbs it takes; ``why`` follows its id."""
    return IllegalTransition(f"job {job_id}{why}", verb, job.status, operations(job))


def refuse_halves(job_id: int, job: Asked) -> None:
    """Raise Conflict for a job that is not whole: its submitter, or whoever deletes it, has the last word."""
    if job.submitting:
        raise Conflict(f"job {job_id} is still being submitted", hint="again when its submitter is through")
    if job.deleting:
        raise Conflict(f"job {job_id} is being deleted")
