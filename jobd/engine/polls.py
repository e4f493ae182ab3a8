"""Asking the outside, by a task's own code, about the items that wait for it.

It is the user's: it may raise, answer what is not JSON, or take its time. Whatever goes wrong counts as not yet, is in
the log, and is asked again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from jobd import clock, codec
from jobd.engine.answer import answer_to
from jobd.engine.points import Crash
from jobd.errors import Fail, Retry
from jobd.hooks import context_of
from jobd.maintenance.poll import MOST, Asker
from jobd.store.polling import Said, Waiting, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.tasks import Hook, Task

log = logging.getLogger("jobd.task")

# Not less, whatever a hook says: asked again at once, it would be asked without end.
_SOONEST_MS: Final = 100


def askers(tasks: Mapping[str, Task[..., Any]]) -> dict[str, Asker]:
    """Return the hooks of those tasks that have one."""
    return {name: _asker(task, task.poller) for name, task in tuple(tasks.items()) if task.poller is not None}


def polled(tasks: Mapping[str, Task[..., Any]]) -> list[str]:
    """Return the names of those tasks."""
    return [name for name, task in tuple(tasks.items()) if task.poller is not None]


def _asker(task: Task[..., Any], hook: Hook) -> Asker:
    if hook.many:
        return Asker(lambda items: _ask_many(task, hook, items), MOST)
    return Asker(lambda items: [_ask_one(task, hook, item) for item in items], 1)


def _ask_one(task: Task[..., Any], hook: Hook, item: Waiting) -> Said:
    try:
        answer = _call(hook, item)
    except BaseException as error:  # noqa: BLE001 - the user's own code: SystemExit would end the thread
        _let_through(error)
        answer = error
    return _said(task, item, answer)


def _call(hook: Hook, item: Waiting) -> Any:
    if not hook.wants_context:
        return hook.function(item.external_id)
    return hook.function(item.external_id, ctx=context_of(item))


def _ask_many(task: Task[..., Any], hook: Hook, items: Sequence[Waiting]) -> list[Said]:
    answers: Any
    try:
        # Several items may wait for the same piece of work.
        answers = hook.function(list(dict.fromkeys(item.external_id for item in items)))
        if not isinstance(answers, Mapping):
            raise TypeError(f"no mapping of ids: {type(answers).__name__}")  # noqa: TRY301 - as what it raises itself
        # A number is its decimal text, as where it was deferred.
        found = {str(one) if type(one) is int else one: answer for one, answer in answers.items()}
    except BaseException as error:
        _let_through(error)
        if not isinstance(error, Retry | Fail):
            log.exception("poll of %s could not say how %d items are", task.name, len(items))
        # Of none of them in particular: not even a Fail says which.
        after = _after(error) if isinstance(error, Retry) else None
        return [Said(item, Word.NOT_YET, clock.now(), after_ms=after) for item in items]
    if strange := found.keys() - {item.external_id for item in items}:
        # An id that was changed on the way is another one, and its item would wait for ever without a word.
        log.warning("poll of %s answered about %d ids that it was not asked about", task.name, len(strange))
    return [_said(task, item, found.get(item.external_id)) for item in items]


def _let_through(error: BaseException) -> None:
    keyboard = isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
    if keyboard or isinstance(error, Crash):
        raise error


def _said(task: Task[..., Any], item: Waiting, answer: object) -> Said:
    now = clock.now()
    match answer:
        case None:
            return Said(item, Word.NOT_YET, now)
        case Retry():
            return Said(item, Word.NOT_YET, now, after_ms=_after(answer))
        case Fail():
            return Said(item, Word.FAILURE, now, answer_to(answer, ()).error)
        case BaseException():
            _log(task, item, answer)
            return Said(item, Word.NOT_YET, now)
    try:
        return Said(item, Word.VALUE, now, codec.result(answer))
    except BaseException as error:  # noqa: BLE001 - not JSON, or with a method of its own that raises
        _let_through(error)
        _log(task, item, error)
        return Said(item, Word.NOT_YET, now)


def _log(task: Task[..., Any], item: Waiting, error: BaseException) -> None:
    log.error("poll of %s could not say how item %d is", task.name, item.item_id, exc_info=error)


def _after(error: Retry) -> int | None:
    after = answer_to(error, ()).after
    return None if after is None else max(_SOONEST_MS, int(after * 1000))
