"""A handler's own transactions: what its context does beside one, and what becomes of one that it leaves open.

Where the handler and its context share a connection, what the context writes joins that transaction. Where they do not,
in a process or with a second app on the same file, it would wait for the handler's lock, and the handler for it: the
whole file would be locked until the handler is killed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobd.errors import UsageError
from jobd.store import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.context import Context, Line
    from jobd.engine.answer import Answer
    from jobd.store import Store

_LEFT_OPEN: Final = "jobd: the handler left a transaction open; it was rolled back"


def beside(line: Line, path: str, store: Store | None) -> Line:
    """Return ``line`` with those calls refused that cannot be, while the calling thread has a transaction open.

    ``path`` is that of the context's file, ``store`` what the line writes by; None where that is another process's.
    Nobody waits for a progress, and a deferral goes with the handler's outcome.
    """

    def apart() -> bool:
        return here.holds(path, but=store)

    def guarded(name: str, call: Callable[..., Any], holds: Callable[[], bool]) -> Callable[..., Any]:
        def guard(context: Context, what: Any) -> Any:
            if holds():
                raise UsageError(
                    f"a transaction is open: ctx.{name} would not be stored before its end",
                    hint="call it before or after",
                )
            return call(context, what)

        return guard

    def unless_apart(call: Callable[[Context, Any], None]) -> Callable[[Context, Any], None]:
        return lambda context, what: None if apart() else call(context, what)

    return replace(
        line,
        progress=unless_apart(line.progress),
        defer=unless_apart(line.defer),
        result=guarded("save_result", line.result, apart),
        data=guarded("save_data", line.data, apart),
        items=guarded("add_items", line.items, apart),
        # What is intended must be there before it is done, whoever dies then.
        intent=guarded("intend", line.intent, lambda: here.holds(path)),
    )


def none_left_open(answer: Answer, path: str) -> Answer:
    """Roll back what a handler left open in the file at ``path``, and return its answer, which says so.

    It would hold the write lock for as long as the thread lives, and take every later write of it along.
    """
    if not here.drop_transactions(path):
        return answer
    return answer._replace(trace="\n".join(filter(None, (answer.trace, _LEFT_OPEN))))
