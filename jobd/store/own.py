"""What a job says itself in place of its task, where the same job is submitted once more: the last word counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jobd.store.halting import HALT

if TYPE_CHECKING:
    from jobd.store.base import Connection

_NAMES: Final = (HALT, "concurrency", "timeout", "retries", "backoff", "rate")
_NOTE: Final = (
    "update jobs set policy = json_patch(policy, ?1)"
    # What a foreign hand has made of it is left alone, and what says this already is not written.
    " where id = ?2 and json_valid(policy) and json_patch(policy, ?1) <> json(policy)"
)


def note_own(connection: Connection, job_id: int, policy: str) -> None:
    """Let the word of the last submission count for a job that is known; what it does not mention stays."""
    own: dict[str, Any] = json.loads(policy)
    said = {name: own[name] for name in _NAMES if name in own}
    if said:
        connection.execute(_NOTE, (json.dumps(said), job_id))
