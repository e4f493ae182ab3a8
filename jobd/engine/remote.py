"""What runs where an executor of the app's own runs an item: in another thread, another process, on another machine.

What goes there is an order, what comes back a report: plain values, which any executor can carry.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, TypedDict

from jobd import clock, codec, loading
from jobd.context import Context
from jobd.engine.answer import Answer, answer_to
from jobd.engine.beside import none_left_open
from jobd.engine.line import line_to
from jobd.engine.wake import Bell
from jobd.states import COMPLETED
from jobd.store.attempt import wanted
from jobd.store.failures import Transient
from jobd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.loading import Place
    from jobd.store import Store

EVERY: Final = 0.25  # seconds between two looks whether the job is being cancelled


class Order(TypedDict):
    """One attempt, as it is handed out. ``payload`` and ``params`` are JSON text, ``deadline`` Unix ms.

    The handler goes by where it is, and ``db`` by its path: the app of its own module may know another one.
    """

    place: Place
    wants_context: bool
    retry_on: tuple[type[BaseException], ...]
    db: str
    durability: str
    job_id: int
    item_id: int
    key: str
    attempt: int
    task: str
    payload: str
    params: str
    deadline: int | None
    idempotency_key: str
    period: str | None
    refresh: bool
    polled: bool


class Report(TypedDict):
    """What came of it: the fields of an :class:`Answer`, what was logged, and how many seconds it took."""

    answer: tuple[Any, ...]
    logged: tuple[str, bool] | None
    saved: bool
    seconds: float


def run(order: Order) -> Report:
    """Run the handler and say what came of it.

    Raises:
        KeyboardInterrupt: somebody wants all of it to end, and not this item to fail.
    """
    pid, began = os.getpid(), clock.awake()
    context: Context | None = None
    try:
        handler = _handler(order["place"])
        payload = codec.loads(order["payload"])
        if order["wants_context"]:
            context = _context(order)
            value = handler(payload, ctx=context)
        else:
            value = handler(payload)
        answer = Answer(COMPLETED, codec.result(value))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too: it would end what runs the items
        answer = answer_to(error, order["retry_on"])
    if os.getpid() != pid:
        # A handler forked and its child came back here: it is a copy of what it must not be.
        os._exit(0)
    answer = none_left_open(answer, order["db"])
    logged = None if context is None else context.output()
    return Report(
        answer=tuple(answer),
        logged=logged,
        saved=context is not None and context.saved,
        seconds=clock.awake() - began,
    )


def _handler(place: Place) -> Callable[..., Any]:
    found: Any = sys.modules.get(place.module)
    for part in place.name.split("."):
        found = getattr(found, part, None)
    if found is None:
        with loading.apart():
            found = loading.find(place)
    handler: Callable[..., Any] = found
    return handler


def _context(order: Order) -> Context:
    store = _store(order["db"], order["durability"])
    return Context(
        job_id=order["job_id"],
        item_id=order["item_id"],
        key=order["key"],
        attempt=order["attempt"],
        params=codec.loads(order["params"]),
        deadline=order["deadline"],
        idempotency_key=order["idempotency_key"],
        task=order["task"],
        line=line_to(
            store,
            _Look(store, order["item_id"], order["attempt"]).cancelled,
            period=order["period"],
            refresh=order["refresh"],
            polled=order["polled"],
        ),
    )


class _Look:
    """Looks into the store whether a job is being cancelled, or the attempt the item's no longer."""

    def __init__(self, store: Store, item_id: int, attempt: int) -> None:
        self._store = store
        self._which = item_id, attempt
        self._looked = float("-inf")
        self._found = False

    def cancelled(self) -> bool:
        """Say so; it is asked of the store at most four times a second."""
        now = clock.awake()
        if not self._found and now - self._looked >= EVERY:
            try:
                self._found = not wanted(self._store, *self._which)
            except Transient:
                return False
            self._looked = now
        return self._found


class _There(SqliteStore):
    """The daemon's file, opened when a handler first needs it; where there is none, none is made."""

    def open(self, *, create: bool = False, upgrade: bool = False) -> None:  # noqa: ARG002 - never, whoever asks
        """Open it."""
        super().open(create=False, upgrade=False)


# By process as well: a child that was forked of this one must not have its connections.
_stores: Final[dict[tuple[int, str], SqliteStore]] = {}


def share(store: SqliteStore) -> None:
    """Have what runs in this very process use the daemon's own store: its threads wait for each other in turn."""
    _stores[os.getpid(), store.path] = store


def unshare(store: SqliteStore) -> None:
    """End that."""
    _stores.pop((os.getpid(), store.path), None)


def _store(path: str, durability: str) -> SqliteStore:
    found = _stores.get((os.getpid(), path))
    if found is None:
        there = _There(path, durability=durability)
        there.wake = Bell(path)
        found = _stores.setdefault((os.getpid(), path), there)
    return found
