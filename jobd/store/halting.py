"""A job that says after how many failures the rest of it is not worth running: it fails as if somebody had asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jobd.store.steer import fail_in
from jobd.store.transitions import OPEN

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobd.store.base import Connection, Store

HALT: Final = "halt"  # in the policy of a job: a count of failed items

_FAILING: Final = (
    f" as m where id = m.job and {OPEN} and policy <> '{{}}'"
    " and fail_requested_at is null and cancel_requested_at is null and items_failed > 0"
)


def halt(store: Store, connection: Connection, job_ids: Collection[int], *, now: int, actor: str) -> list[int]:
    """Ask those of ``job_ids`` to fail of which as many items have failed as they allow, and return them.

    In the transaction that writes the failures: nothing more of them is claimed. The work is
    :func:`~jobd.store.steer.work_off`'s.
    """
    source = f"from jobs, {store.rows('job')}{_FAILING}"
    found = store.gather(connection, "id, policy, items_failed", source, (store.pack([(i,) for i in job_ids]),))
    halted = []
    for job_id, policy, failed in found:
        allowed = _allowed(policy)
        if allowed is not None and failed >= allowed:
            reason = f"halted: {failed:,} item{'' if failed == 1 else 's'} failed"
            fail_in(store, connection, job_id, now=now, actor=actor, reason=reason)
            halted.append(job_id)
    return halted


def _allowed(policy: str) -> int | None:
    try:
        own: Any = json.loads(policy)
    except ValueError:  # a foreign hand's: no reason not to settle
        return None
    allowed = own.get(HALT) if isinstance(own, dict) else None
    return allowed if isinstance(allowed, int) else None
