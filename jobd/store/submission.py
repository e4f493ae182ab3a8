"""What is asked of a submission, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Submission:
    """What a job is made of, beside its items. ``not_before`` is in Unix milliseconds."""

    task: str
    params: str = "null"  # JSON
    key: str | None = None
    target: str | None = None
    priority: int = 0
    not_before: int | None = None
    job_timeout_ms: int | None = None
    tolerance: str = "0"  # a count or a percentage
    policy: str = "{}"  # JSON
    after: tuple[int, ...] = ()  # jobs
    on: Literal["completed", "ended"] = "completed"
    changed: Literal["error", "keep", "requeue"] = "error"
    duplicates: Literal["error", "skip"] = "error"


class Submitted(NamedTuple):
    """What became of a submission.

    ``added`` items are new; ``known`` ones the job had before, ``changed`` of them with another input; ``skipped``
    ones came twice in this submission. ``total`` counts all items of the job.
    """

    job_id: int
    status: str
    created: bool
    added: int
    known: int
    changed: int
    skipped: int
    total: int
