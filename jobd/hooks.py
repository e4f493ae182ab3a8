"""What a task's own code is asked: whether an orphan's work was done, and whether deferred work is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from jobd import codec


@dataclass(frozen=True, slots=True)
class HookContext:
    """One attempt at one item, as a hook sees it that is asked for its ``ctx``.

    Attributes:
        job_id, item_id: the numbers that the command line shows.
        key: the item's key, unique in its job.
        attempt: the attempt that is asked about.
        params: what the submission gave to all the job's items.
        idempotency_key: what the attempt's own context had.
        intent: what the attempt noted by ``ctx.intend``; None where it noted nothing.
    """

    job_id: int
    item_id: int
    key: str
    attempt: int
    params: Any
    idempotency_key: str
    intent: str | None

    @property
    def log(self) -> logging.Logger:
        """The logger of the task hooks: what it is given goes to the program's own log."""
        return logging.getLogger("jobd.task")


class Asked(Protocol):
    """What a hook is asked about, as the store tells of it; ``params`` is JSON text, ``job_created_at`` Unix ms."""

    @property
    def job_id(self) -> int: ...
    @property
    def item_id(self) -> int: ...
    @property
    def task(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def params(self) -> str: ...
    @property
    def intent(self) -> str | None: ...
    @property
    def job_created_at(self) -> int: ...


def context_of(asked: Asked) -> HookContext:
    """Return the context of a hook that is asked about it."""
    return HookContext(
        job_id=asked.job_id,
        item_id=asked.item_id,
        key=asked.key,
        attempt=asked.attempt,
        params=codec.loads(asked.params),
        idempotency_key=idempotency_key(asked.task, asked.job_created_at, asked.item_id),
        intent=asked.intent,
    )


def idempotency_key(task: str, job_created_at: int, item_id: int) -> str:
    """Return what is the same for every attempt at an item, and for no other item."""
    return f"{task}:{job_created_at}:{item_id}"
