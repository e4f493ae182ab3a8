"""Asking a task's own code whether an orphan's work was done.

It is the user's: it may raise, answer what is not JSON, or take its time. Whatever goes wrong, its item stays as it is
and is asked about again on the next beat.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobd import codec
from jobd.context import storable
from jobd.engine.sparingly import OfEach
from jobd.hooks import context_of
from jobd.maintenance.evidence import Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.maintenance.evidence import Verify
    from jobd.store.orphans import Subject
    from jobd.tasks import Task

log = logging.getLogger("jobd.task")

_LONGEST: Final = 200
_troubles: Final[weakref.WeakKeyDictionary[Task[..., Any], OfEach]] = weakref.WeakKeyDictionary()


def verifiers(tasks: Mapping[str, Task[..., Any]]) -> dict[str, Verify]:
    """Return the hooks of those tasks that have one."""
    return {name: _asked(task) for name, task in tasks.items() if task.verifier is not None}


def later(tasks: Mapping[str, Task[..., Any]]) -> dict[str, Verify]:
    """Return the same without answers, for who must not wait for a user's code: their items stay as they are."""
    return dict.fromkeys(verifiers(tasks), _not_now)


def _not_now(subject: Subject) -> str | None:  # noqa: ARG001 - the shape of a hook
    raise Unanswered("it was not asked yet")


def _asked(task: Task[..., Any]) -> Verify:
    def ask(subject: Subject) -> str | None:
        try:
            value = _call(task, subject)
            return None if value is None else codec.result(value)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                # Somebody types recover, and does not want to wait for the answer.
                raise
            # SystemExit too: it would end the thread that keeps the daemon in order.
            _tell(task, subject, error)
            raise Unanswered(_words(error)) from error

    return ask


def _tell(task: Task[..., Any], subject: Subject, error: BaseException) -> None:
    # It is asked on every beat, for as long as it cannot say: days, where a vendor is gone.
    trouble = _troubles.setdefault(task, OfEach(log))
    # By its job's time too: the ids of another file are other items.
    item = subject.job_created_at, subject.item_id
    message = "verify of %s could not say whether item %d is done"
    trouble.error(item, error, _words(error), message, task.name, subject.item_id)


def _words(error: BaseException) -> str:
    """Return an error in words that a report can keep, whatever it says of itself."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - the user's own class
        said = ""
    return storable(f"{type(error).__name__}: {said}" if said else type(error).__name__)[:_LONGEST]


def _call(task: Task[..., Any], subject: Subject) -> Any:
    hook = task.verifier
    if hook is None:
        return None
    payload = codec.loads(subject.payload)
    if not hook.wants_context:
        return hook.function(payload)
    return hook.function(payload, ctx=context_of(subject))
