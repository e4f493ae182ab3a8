"""The command line: `jobd VERB`. Here only the entry, which turns every ending into a line and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.cli.session import Session

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    code = call(arguments)
    # What a full or closed stderr did not take must not fail again when the interpreter flushes at its exit.
    _silence()
    # An interpreter that ends collects all that was imported, twice: a seventh of what `jobd show` costs.
    gc.freeze()
    sys.exit(code)


def call(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception leaves it."""
    try:
        from jobd.cli.importing import uncollected

        with uncollected():
            from jobd.cli.root import ReaderGone
            from jobd.cli.screen import prepare_streams
            from jobd.cli.session import Session
    except KeyboardInterrupt:  # most of what a short command takes is this
        sys.stderr.write("error: interrupted\n")
        return INTERRUPTED

    prepare_streams()
    session = Session()
    try:
        code = _invoke(session, arguments)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        # `jobd list | head`: what is still buffered must not fail again when the interpreter flushes at its exit.
        _silence()
        return 0
    except SystemExit as ended:  # click leaves so after completing for a shell
        return ended.code if isinstance(ended.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - the outermost edge: whatever it is becomes one line
        try:
            code = _report(session, error)
        except BrokenPipeError:
            _silence()
            return 1
    finally:
        session.close()
    return code


def _invoke(session: Session, arguments: Sequence[str] | None) -> int:
    from jobd.cli.root import root

    answer = root.main(
        args=None if arguments is None else list(arguments),
        prog_name="jobd",
        standalone_mode=False,
        obj=session,
    )
    return answer if isinstance(answer, int) else 0


def _report(session: Session, error: BaseException) -> int:
    """Write an error as one line of what and one hint; return its exit code."""
    import click

    from jobd.cli.explain import explain
    from jobd.errors import JobdError

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        return 2
    if session.debug and not isinstance(error, (click.ClickException, click.Abort, KeyboardInterrupt, SystemExit)):
        import traceback

        traceback.print_exception(error)
    error = session.judged(error)
    what, hint = explain(error)
    hint = session.whole(hint) if hint else None
    sys.stderr.write(f"error: {what}\n" + (f"  hint: {hint}\n" if hint else ""))
    sys.stderr.flush()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, JobdError):
        return error.exit_code
    return 2 if isinstance(error, click.ClickException) else 1


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        try:
            stream = sys.stdout if descriptor == 1 else sys.stderr
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, descriptor)
