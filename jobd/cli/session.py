"""What one call of the command line carries: the global options, and the app that they lead to."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from jobd.cli.importing import uncollected
from jobd.cli.screen import Screen
from jobd.cli.text import escape, escape_lines

if TYPE_CHECKING:
    from jobd.app import Jobd
    from jobd.cli.screen import Panel


# In a hint, with the verb of jobd that comes next.
_COMMAND: Final = re.compile(r"(^|; |&& |, )jobd (?=[a-z])")


class Session:
    """The global options, the talk on stderr, and the app, opened when a verb first asks for it."""

    def __init__(self) -> None:
        self.db: str | None = None
        self.app_name: str | None = None
        self.colour = "auto"
        self.verbose = 0
        self.debug = False
        self.panel: Panel | None = None
        self._app: Jobd | None = None
        self._talk: Screen | None = None

    @property
    def talk(self) -> Screen:
        """Return stderr, where everything that is not data goes."""
        if self._talk is None or self._talk.stream is not sys.stderr:
            self._talk = Screen(sys.stderr, self.colour)
        return self._talk

    @property
    def app(self) -> Jobd:
        """Return the app of ``--app``, or a bare one on the database of ``--db``, ``JOBD_DB`` or the data folder."""
        if self._app is None:
            if self.app_name is not None:
                from jobd.cli.target import load_app

                self.adopt(load_app(self.app_name))
            else:
                with uncollected():
                    from jobd.app import Jobd

                self.adopt(Jobd(self.db))
        assert self._app is not None  # noqa: S101 - one of the branches has set it
        return self._app

    def adopt(self, app: Jobd) -> Jobd:
        """Make a user's app the session's; ``--db`` and ``JOBD_DB`` come before the app's own database."""
        database = self.db or os.environ.get("JOBD_DB")
        if database and app is not self._app:
            app.use(database)
        app.actor = "cli"
        self._app = app
        return app

    def judged(self, error: BaseException) -> BaseException:
        """Return what an error is: one that nobody foresaw may come of a damaged file, and the file is asked."""
        from click import Abort, ClickException

        from jobd.errors import JobdError

        known = (JobdError, ClickException, Abort, KeyboardInterrupt, SystemExit, OSError, MemoryError)
        if self._app is None or isinstance(error, known):
            return error
        from jobd.maintenance.doctor import damage
        from jobd.store import open_store

        store = open_store(self._app.path)
        # Whatever keeps the file from being asked must not hide what happened.
        with suppress(Exception), closing(store):
            return damage(store) or error
        return error

    @property
    def app_or_none(self) -> Jobd | None:
        """Return the app if there is one already."""
        return self._app

    def say(self, line: str, colour: str = "") -> None:
        """Write a line of talk; where a panel is drawn, above it.

        Nobody may be listening, and the disk that a log goes to may be full: no reason to stop what runs.
        """
        with suppress(OSError):
            if self.panel is not None:
                self.panel.above(lambda: self.talk.sentence(self.talk.paint(line, colour)))
            else:
                self.talk.sentence(self.talk.paint(line, colour))
            self.talk.flush()

    def line(self, words: str) -> str:
        """Return a command to type next, with the global options that this call was given.

        A daemon needs a program to know any task: where none was named, a name stands for it.
        """
        import shlex

        program = "./program.py" if words.startswith(("start", "service install")) else None
        given = {"--db": self.db, "--app": self.app_name or program}
        options = " ".join(f"{name} {shlex.quote(value)}" for name, value in given.items() if value)
        return escape(f"jobd {options + ' ' if options else ''}{words}")

    def whole(self, hint: str) -> str:
        """Return a hint whose commands have the global options that this call was given: they are typed as they are."""
        return _COMMAND.sub(lambda found: f"{found[1]}{self.line('')}", hint)

    def warn(self, line: str, hint: str | None = None) -> None:
        """Write a warning and what to type."""
        self.say(f"warning: {line}", "yellow")
        if hint:
            self.say(f"  hint: {hint}")

    def log(self, level: int = logging.WARNING) -> None:
        """Send jobd's log to stderr, from ``level`` on, or further down with -v."""
        if self.verbose:
            level = min(level, logging.INFO if self.verbose == 1 else logging.DEBUG)
        logger = logging.getLogger("jobd")
        for handler in list(logger.handlers):
            if isinstance(handler, _Talk):
                logger.removeHandler(handler)
        logger.addHandler(_Talk(self))
        logger.setLevel(level)

    def close(self) -> None:
        """Close what the session has opened."""
        logger = logging.getLogger("jobd")
        for handler in list(logger.handlers):
            if isinstance(handler, _Talk):
                logger.removeHandler(handler)
        if self._app is not None:
            self._app.close()


class _Talk(logging.Handler):
    """Log lines as talk, escaped: they quote what items said."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        self._whole = session.debug

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._session.say(escape_lines(self._words(record)) if self._whole else escape(self._words(record)))

    def _words(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows only with --debug, else the error's own line."""
        if record.exc_info is None or self._whole:
            return self.format(record)
        error = record.exc_info[1]
        plain = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        return f"{self.format(plain)}: {type(error).__name__}: {error}" if error is not None else self.format(plain)
