"""Views of a job while it runs: a panel in place on a terminal, plain lines in a log, records in a pipe."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobd import clock
from jobd.cli import jobview, panel
from jobd.cli.output import COUNT_FIELDS, dump, field, flatten
from jobd.cli.screen import Panel

if TYPE_CHECKING:
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.job import Job

    Record = dict[str, Any]

CHANGE_FIELDS: Final = [
    "at",
    "id",
    "task",
    "status",
    "health",
    "progress_percent",
    *COUNT_FIELDS,
]
_STEP: Final = 10
_QUIET: Final = 10.0
_SHOWN: Final = 8


class View(Protocol):
    """Something that shows how a job goes; ``interval`` is how often, in seconds."""

    interval: float

    def update(self, job: Job, record: Record) -> None:
        """Show the job as it is now."""

    def foot(self, line: str) -> None:
        """Say what Ctrl-C does, or what is happening."""

    def close(self) -> None:
        """Leave the screen as it should stay."""


class PanelView:
    """On a terminal: some lines, drawn again in place."""

    interval = 0.1

    def __init__(self, session: Session, screen: Screen, workers: int | None = None, foot: str = "") -> None:
        self._session, self._screen, self._workers, self._foot = session, screen, workers, foot
        self._panel = Panel(screen)
        self._errors: list[Record] = []
        self._failed = -1
        session.panel = self._panel

    def update(self, job: Job, record: Record) -> None:
        """Draw the panel; errors are grouped again only when there are more of them."""
        failed = record["counts"]["failed"]
        if failed != self._failed:
            self._errors = [group.json() for group in job.errors()] if failed else []
            self._failed = failed
        room = min(_SHOWN, max(0, self._screen.rows - 8) * 2)
        running = [item.json() for item in job.items(status="running", limit=room)] if room else []
        self._panel.draw(
            panel.panel(
                record,
                running=running,
                errors=self._errors,
                workers=self._workers,
                foot=self._foot,
                command=self._session.line,
                screen=self._screen,
                now=_now(),
            ),
        )

    def foot(self, line: str) -> None:
        """Put another last line under the panel."""
        self._foot = line

    def close(self) -> None:
        """Remove the panel: the last lines come in its place."""
        self._session.panel = None
        self._panel.close()


class LinesView:
    """In a log: a line for each change of status and each tenth of the way, and one now and then."""

    interval = 0.25

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last: tuple[object, ...] | None = None
        self._said = 0.0

    def update(self, job: Job, record: Record) -> None:  # noqa: ARG002 - the shape of a view
        """Write a line where something has changed."""
        percent = record["progress_percent"]
        now = (record["status"], jobview.state(record)[0], None if percent is None else percent // _STEP)
        if now == self._last and (clock.awake() - self._said < _QUIET or jobview.nobody_runs(record)):
            return
        self._last, self._said = now, clock.awake()
        self._screen.sentence(panel.line(record, _now()))
        self._screen.flush()

    def foot(self, line: str) -> None:
        """Say it, as it comes."""
        self._screen.sentence(line)

    def close(self) -> None:
        """Nothing to take back."""


class RecordsView:
    """In a pipe: a record for each change that a look finds, TSV or JSONL."""

    interval = 0.5

    def __init__(self, screen: Screen, *, as_json: bool) -> None:
        self._screen, self._as_json = screen, as_json
        self._last: Record | None = None

    def update(self, job: Job, record: Record) -> None:  # noqa: ARG002 - the shape of a view
        """Write a record where something has changed."""
        flat = {"at": f"{_now():%Y-%m-%dT%H:%M:%S}Z", **flatten(record)}
        row = {name: flat.get(name) for name in CHANGE_FIELDS}
        seen = {name: value for name, value in row.items() if name != "at"}
        if seen == self._last:
            return
        if self._last is None and not self._as_json:
            self._screen.raw("\t".join(CHANGE_FIELDS) + "\n")
        self._last = seen
        self._screen.raw((dump(record) if self._as_json else "\t".join(map(field, row.values()))) + "\n")
        self._screen.flush()

    def foot(self, line: str) -> None:
        """Records only."""

    def close(self) -> None:
        """Nothing to take back."""


class Silence:
    """Nowhere: only the document at the end was asked for, or nobody reads any more."""

    interval = 0.25

    def update(self, job: Job, record: Record) -> None:
        """Show nothing."""

    def foot(self, line: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing to take back."""


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(clock.now() / 1000, tz=dt.UTC)
