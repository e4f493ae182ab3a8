"""The line from a context to the store: where the handler runs in this process, or in one that opened the same file."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from jobd import clock
from jobd.context import Line
from jobd.engine.beside import beside
from jobd.store.attempt import save_data, save_intent, save_progress, save_result
from jobd.store.defer import defer
from jobd.store.failures import Transient
from jobd.store.growing import add_items

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.context import Context
    from jobd.store import Store
    from jobd.store.defer import Deferral


def line_to(
    store: Store,
    cancelled: Callable[[], bool],
    *,
    period: str | None,
    refresh: bool,
    polled: bool,
    patience: float = math.inf,
) -> Line:
    """Return the line of one attempt to ``store``.

    ``period`` is what its result claims where its task is unique, ``refresh`` takes it over from an older result.
    ``polled`` says that its task asks the outside about what is deferred.
    ``patience`` (seconds) is how long what the work depends on is tried where the store cannot be written: for ever,
    as work that is complete must not fail for that; less where others wait for the same thread.
    """
    line = Line(
        awake=clock.awake,
        cancelled=cancelled,
        progress=lambda ctx, text: _save_progress(store, ctx, text),
        result=lambda ctx, text: save_result(
            store,
            ctx.item_id,
            ctx.attempt,
            text,
            now=clock.now(),
            patience=patience,
            period=period,
            refresh=refresh,
        ),
        intent=lambda ctx, note: save_intent(store, ctx.item_id, ctx.attempt, note, patience=patience),
        data=lambda ctx, data: save_data(store, ctx.item_id, ctx.attempt, data, patience=patience),
        items=lambda ctx, chunk: add_items(
            store,
            ctx.item_id,
            ctx.attempt,
            chunk,
            now=clock.now(),
            actor=f"item {ctx.item_id}",
            patience=patience,
        ),
        defer=lambda ctx, deferral: _defer(store, ctx, deferral, polled=polled, patience=patience),
    )
    return beside(line, store.path, store)


def _defer(store: Store, ctx: Context, deferral: Deferral, *, polled: bool, patience: float) -> None:
    defer(
        store,
        ctx.item_id,
        ctx.attempt,
        deferral._replace(polled=polled),
        now=clock.now(),
        actor=f"item {ctx.item_id}",
        patience=patience,
    )


def _save_progress(store: Store, ctx: Context, text: str) -> None:
    # Progress is for who looks on: no item fails for want of it.
    with contextlib.suppress(Transient):
        save_progress(store, ctx.job_id, ctx.item_id, ctx.attempt, text, now=clock.now(), patience=0)
