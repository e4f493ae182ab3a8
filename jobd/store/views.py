"""What reading returns of jobs and daemons: frozen rows whose attributes are the JSON fields, times in Unix ms.

``json()`` gives the dict in the order of the contract, times as ISO 8601 in UTC. Attributes that are not JSON fields
stand last in each class. Named tuples, because every cold start pays for these classes, and a frozen dataclass of
thirty fields costs ten times as much; annotations are evaluated for the same reason: as texts each is compiled.
"""

import datetime as dt
from typing import Any, Final, NamedTuple

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def iso(ms: int | None) -> str | None:
    """Return Unix milliseconds as ISO 8601 in UTC with milliseconds; what no calendar holds as its number."""
    if ms is None:
        return None
    try:
        at = _EPOCH + dt.timedelta(milliseconds=ms)
    except OverflowError:
        return str(ms)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Runner(NamedTuple):
    """Who runs items now: ``alive`` by the lock's word, the rest from the newest row of ``daemons``."""

    alive: bool = False
    id: int | None = None
    pid: int | None = None
    host: str | None = None
    started_at: int | None = None
    heartbeat_at: int | None = None
    tasks: tuple[str, ...] = ()
    state: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default; nobody changes it


NOBODY: Final = Runner()


class DaemonView(NamedTuple):
    """A row of ``daemons``."""

    id: int
    host: str
    boot: str
    pid: int
    process_started_at: int
    started_at: int
    heartbeat_at: int
    heartbeats: int
    stopped_at: int | None
    state: dict[str, Any]
    tasks: tuple[str, ...]
    version: str

    def runner(self, *, alive: bool) -> Runner:
        """Return the row as the one who runs items, or who did."""
        return Runner(alive, self.id, self.pid, self.host, self.started_at, self.heartbeat_at, self.tasks, self.state)


class Counts(NamedTuple):
    """The items of a job by status. ``queued`` is what remains of the total."""

    total: int
    queued: int
    running: int
    waiting: int
    completed: int
    failed: int
    skipped: int
    cancelled: int

    @property
    def settled(self) -> int:
        """Items that have ended, however they did."""
        return self.completed + self.failed + self.skipped + self.cancelled

    @property
    def open(self) -> int:
        """Items that have not."""
        return self.total - self.settled

    @property
    def progress_percent(self) -> int | None:
        """Settled items in percent, rounded down: 100 only when nothing is open; None where there are no items."""
        return self.settled * 100 // self.total if self.total else None

    def json(self) -> dict[str, int]:
        return self._asdict()


class Progress(NamedTuple):
    """A job in one short row, at the same cost whatever its size."""

    id: int
    task: str
    status: str
    version: int
    counts: Counts
    started_at: int | None
    progress_at: int | None
    completed_at: int | None


class JobDaemon(NamedTuple):
    """The daemon of an open job: that which runs it, or that which did."""

    id: int | None
    pid: int | None
    host: str | None
    heartbeat_at: int | None
    alive: bool

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "pid": self.pid,
            "host": self.host,
            "heartbeat_at": iso(self.heartbeat_at),
            "alive": self.alive,
        }


class Phase(NamedTuple):
    """One job of a chain."""

    id: int
    task: str
    status: str


class Phases(NamedTuple):
    """A job with all that it comes after and all that comes after it, in the order of their ids.

    ``jobs`` are the first few; where ``more`` is true there are more than were counted.
    """

    completed: int
    total: int
    more: bool
    jobs: tuple[Phase, ...]

    def json(self) -> dict[str, Any]:
        return {
            "completed": self.completed,
            "total": self.total,
            "more": self.more,
            "jobs": [phase._asdict() for phase in self.jobs],
        }


class JobView(NamedTuple):
    """A job as it stood at ``now``; times in Unix milliseconds."""

    id: int
    task: str
    key: str | None
    target: str | None
    status: str
    status_description: str
    status_message: str | None
    status_updated_at: int
    version: int
    health: str
    operations: tuple[str, ...]
    progress_percent: int | None
    counts: Counts
    rate_per_second: float | None
    eta_seconds: int | None
    warnings: tuple[str, ...]
    retry_count: int
    last_error: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    timeout_at: int | None
    age_seconds: int
    in_status_seconds: int
    daemon: JobDaemon | None
    after: tuple[int, ...]
    phases: Phases | None

    params: Any
    priority: int
    progress_at: int | None
    paused_at: int | None
    sealed_at: int | None
    not_before: int | None
    blocked_by: tuple[int, ...]

    def json(self) -> dict[str, Any]:
        return {name: plain(name, getattr(self, name)) for name in _JOB_JSON}


_JOB_JSON: Final = JobView._fields[: JobView._fields.index("params")]


def plain(name: str, value: Any) -> Any:
    """Return an attribute as its JSON field: a time as text, a tuple as a list, a part as a dict."""
    if isinstance(value, Counts | JobDaemon | Phases):
        return value.json()
    if name == "at" or name.endswith("_at"):
        return iso(value)
    return list(value) if isinstance(value, tuple) else value
