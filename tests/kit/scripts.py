"""Handlers that do what their payload says, step after step: the same ones for whatever runs them."""

from __future__ import annotations

import os

from jobd import Fail, Retry, Skip
from kit.doors import come, come_async


class Odd(BaseException):
    """What is no Exception."""


ERRORS = {error.__name__: error for error in (ValueError, SystemExit, KeyboardInterrupt, Odd, Skip, Fail, Retry)}
STRANGE = {"set": {1}, "nan": float("nan"), "bytes": b"", "object": object()}


def plain(payload, ctx):
    script = _steps(payload, ctx)
    try:
        while True:
            come(ctx.params, next(script))
    except StopIteration as end:
        return end.value


async def awaited(payload, ctx):
    script = _steps(payload, ctx)
    while True:
        try:
            word = next(script)
        except StopIteration as end:
            return end.value
        await come_async(ctx.params, word)


def _steps(payload, ctx):
    """Do the steps, and yield each word that is to be said at the door of ``ctx.params``."""
    for name, *arguments in payload:
        if name in WORDS:
            yield from WORDS[name](ctx, *arguments)
        elif name in VALUES:
            return VALUES[name](ctx, *arguments)
        elif name in ACTS:
            ACTS[name](ctx, *arguments)
        else:
            getattr(ctx, name)(*arguments)
    return None


def _come_until(ctx, attempt, word):
    if ctx.attempt < attempt:
        yield word


def _look(ctx, word):
    while True:
        ctx.raise_if_cancelled()
        yield word


def _fail(ctx, error, *arguments):
    raise ERRORS[error](*arguments)


def _fail_until(ctx, attempt, error, *arguments):
    if ctx.attempt < attempt:
        _fail(ctx, error, *arguments)


def _retry_until(ctx, attempt):
    if ctx.attempt < attempt:
        raise Retry("not yet", after=0)


WORDS = {"come": lambda ctx, word: [word], "come_until": _come_until, "look": _look}
VALUES = {
    "return": lambda ctx, value: value,
    "strange": lambda ctx, kind: STRANGE[kind],
    "tell": lambda ctx, *names: {name: getattr(ctx, name) for name in names},
}
ACTS = {
    "fail": _fail,
    "fail_until": _fail_until,
    "retry_until": _retry_until,
    "log": lambda ctx, *arguments: ctx.log.info(*arguments),
    "defer": lambda ctx, external_id, deadline=None: ctx.defer(external_id, deadline=deadline),
    "data": lambda ctx, text: ctx.save_data(text.encode()),
    "exit": lambda ctx, code: os._exit(code),
}
