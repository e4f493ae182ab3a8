"""Any exception as one line of what, and one hint with the command to type."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from jobd.cli.text import escape
from jobd.errors import JobdError

if TYPE_CHECKING:
    from collections.abc import Iterable


def explain(error: BaseException) -> tuple[str, str | None]:
    """Return what happened, on one line, and a hint or None."""
    if isinstance(error, JobdError):
        return escape(str(error)), escape(error.hint) if error.hint else None
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", None
    if isinstance(error, click.exceptions.NoSuchCommand):
        return _unknown("verb", error.command_name, error.possibilities, "jobd --help lists the verbs")
    if isinstance(error, click.NoSuchOption):
        return _unknown("option", error.option_name, error.possibilities, _help(error))
    if isinstance(error, click.UsageError):
        message = error.format_message().rstrip(".")
        if isinstance(error, click.MissingParameter):
            # The choices of an argument come on lines of their own.
            message = " ".join(message.split())
        return escape(message[:1].lower() + message[1:]), _help(error)
    if isinstance(error, click.ClickException):
        return escape(error.format_message()), None
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return escape(f"{error.strerror or type(error).__name__}{where}"), None
    return escape(f"unexpected {type(error).__name__}: {error}"), "the same again with --debug shows where"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a hint with the names that are close to ``name``."""
    close = get_close_matches(name, list(known))
    return f"did you mean {' or '.join(map(escape, close))}?" if close else None


def _unknown(what: str, name: str, close: list[str] | None, otherwise: str | None) -> tuple[str, str | None]:
    hint = f"did you mean {' or '.join(close)}?" if close else otherwise
    return f"no {what} '{escape(name)}'", hint


def _help(error: click.UsageError) -> str | None:
    return f"{error.ctx.command_path} --help" if error.ctx is not None else None
