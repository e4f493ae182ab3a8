"""Every boundary that a process passes on its way through a database, and its end at one of them.

A boundary is before and after each statement, between the steps of a copy, before a file gets or loses a name, and
wherever a handler says so. All connections of a process have one cursor here, through which every statement goes.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys

_OF_FILES = {"os.rename", "os.remove", "os.link"}


class Boundaries:
    """Counts what this process passes from now on; at the ``end_at``-th boundary it is killed.

    ``statements`` counts what SQLite says that it has begun. ``commits`` are the boundaries on both sides of what makes
    a state that outlives the process.
    """

    def __init__(self, end_at=None):
        self.passed = self.statements = 0
        self.commits = []
        self._end_at = end_at
        self._watching = _connection(_cursor(self.reach), self.reach)
        self._connect = sqlite3.connect
        sqlite3.connect = self._watched
        sys.addaudithook(self._audited)

    def reach(self):
        self.passed += 1
        if self.passed == self._end_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _watched(self, *arguments, **settings):
        connection = self._connect(*arguments, factory=self._watching, **settings)
        connection.set_trace_callback(self._traced)
        return connection

    def _traced(self, statement):
        # "--" is what a trigger does within a statement.
        if not statement.startswith("--"):
            self.statements += 1
            self.reach()
            if statement.lower() == "commit":
                self.commits += [self.passed, self.passed + 1]

    def _audited(self, event, _):
        if event in _OF_FILES:
            self.reach()
            self.commits += [self.passed, self.passed + 1]


def _cursor(reach):
    class Cursor(sqlite3.Cursor):
        def execute(self, *arguments):
            answer = super().execute(*arguments)
            reach()
            return answer

        def executemany(self, *arguments):
            answer = super().executemany(*arguments)
            reach()
            return answer

        def executescript(self, *arguments):
            answer = super().executescript(*arguments)
            reach()
            return answer

    return Cursor


def _connection(watched, reach):
    class Connection(sqlite3.Connection):
        def cursor(self, factory=watched):
            return super().cursor(factory)

        # What the driver's own shortcuts use is not the cursor of this class.
        def execute(self, *arguments):
            return self.cursor().execute(*arguments)

        def executemany(self, *arguments):
            return self.cursor().executemany(*arguments)

        def executescript(self, *arguments):
            return self.cursor().executescript(*arguments)

        def backup(self, target, *, pages=-1, progress=None, **settings):
            def step(*told):
                reach()
                if progress is not None:
                    progress(*told)

            # A page at a time: the more steps, the more places to be killed at.
            super().backup(target, pages=min(pages, 8) if pages > 0 else 8, progress=step, **settings)

    return Connection
