"""health: whether jobs are looked after, in one page. It changes nothing, and costs the same whatever the file's size.

Broken is what keeps work from being done or a status from being true; a warning is what may come to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.maintenance.beats import Beat, checked, passes
from jobd.maintenance.doctor import BROKEN, OK, WARNING, Check
from jobd.process import Process, alive
from jobd.store import reads, vitals
from jobd.store.views import iso
from jobd.store.wording import span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobd.maintenance.beats import PassHealth
    from jobd.store.sqlite import SqliteStore
    from jobd.store.views import DaemonView, JobView, Runner
    from jobd.store.vitals import Files, Vitals

# A daemon that missed so many beats is not well, though it holds the lock.
BEATS: Final = 3
WAL_LIMIT: Final = 16_000_000
DISK_LOW, DISK_FULL = 256_000_000, 32_000_000
# Of more open jobs the oldest are looked at: what does not go on is among them.
JOBS: Final = 500
_SHOWN: Final = 5
_QUIET: Final = 3
_RECOVER: Final = "jobd recover"
_START: Final = "jobd start"


class Health(NamedTuple):
    """What was found at ``at`` (Unix ms). ``daemon`` is the one that runs items, or the last that did."""

    database: str
    at: int
    checks: tuple[Check, ...]
    runner: Runner
    limit_ms: int
    passes: tuple[PassHealth, ...]
    open_jobs: int
    files: Files

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken; warnings do not count."""
        return not any(check.level == BROKEN for check in self.checks)

    @property
    def summary(self) -> str:
        """The whole in one line: what is broken, else what to watch; empty where there is nothing to say."""
        broken = [f"{check.name}: {check.text}" for check in self.checks if check.level == BROKEN]
        warned = [f"{check.name}: {check.text}" for check in self.checks if check.level == WARNING]
        return "; ".join((broken or warned)[:_QUIET])

    def json(self) -> dict[str, Any]:
        runner = self.runner
        state = {name: value for name, value in runner.state.items() if name not in {"settings", "passes"}}
        return {
            "healthy": self.healthy,
            "database": self.database,
            "at": iso(self.at),
            "checks": [check._asdict() for check in self.checks],
            "daemon": {
                "alive": runner.alive,
                "id": runner.id,
                "pid": runner.pid,
                "host": runner.host,
                "started_at": iso(runner.started_at),
                "heartbeat_at": iso(runner.heartbeat_at),
                "heartbeat_limit_seconds": self.limit_ms / 1000,
                "state": state,
            },
            "open_jobs": self.open_jobs,
            "files": {
                "database_bytes": self.files.database,
                "wal_bytes": self.files.wal,
                "free_bytes": self.files.free,
            },
            "passes": [one.json() for one in self.passes],
        }


class _Found(NamedTuple):
    """All that the checks look at."""

    runner: Runner
    newest: DaemonView | None
    limit_ms: int
    facts: Vitals
    files: Files
    jobs: Sequence[JobView]
    now: int

    @property
    def late(self) -> int:
        """Milliseconds since the last beat; a clock that was set back makes none of it."""
        beat = self.runner.heartbeat_at or self.runner.started_at
        return 0 if beat is None else max(0, self.now - beat)

    @property
    def who(self) -> str:
        return f"daemon {self.runner.id} (pid {self.runner.pid})" if self.runner.id is not None else "the daemon"


def examine(
    store: SqliteStore,
    *,
    runner: Runner,
    heartbeat: float,
    beats: Mapping[str, float],
    stall_after: float,
    now: int,
) -> Health:
    """Look at the whole. ``runner`` is who runs items by the lock's word.

    ``heartbeat`` and ``beats``, those of the passes by name, are in seconds: a daemon's own, where it has said them.

    Raises:
        NotFound: there is no such file.
        StoreUnusable: it cannot be used as it is.
        StoreBusy: it cannot be read now.
    """
    store.open(create=False)
    found = _Found(
        runner=runner,
        newest=reads.daemon(store),
        limit_ms=int(heartbeat * 1000) * BEATS,
        facts=vitals.vitals(store),
        files=vitals.files(store),
        jobs=reads.open_jobs(store, now=now, runner=runner, stall_after=stall_after, limit=JOBS),
        now=now,
    )
    ran = passes(
        found.facts.passes,
        [Beat(name, int(every * 1000)) for name, every in beats.items()],
        runner=runner,
        now=now,
    )
    checks = (
        *_daemon(found), *_items(found), *_jobs(found), *checked(ran, runner, now), *_database(store, found),
        *_disk(found), *_clock(found),
    )  # fmt: skip
    return Health(store.path, now, checks, runner, found.limit_ms, ran, found.facts.open_jobs, found.files)


# -- who runs items ---------------------------------------------------------------------------------------------------


def _daemon(at: _Found) -> Iterator[Check]:
    yield _alive(at) if at.runner.alive else _absent(at)
    if at.runner.alive:
        yield Check("lock", OK, f"held by pid {at.runner.pid} on {at.runner.host}")
    else:
        yield Check("lock", OK, "free")
    state = at.runner.state if at.runner.alive else {}
    if degraded := state.get("degraded"):
        yield Check("degraded", BROKEN, str(degraded), "jobd start -v says more; what is finished is kept meanwhile")
    if abandoned := state.get("abandoned_threads"):
        text = f"{abandoned} threads hang in handlers that timed out; they are replaced, and end with the daemon"
        yield Check("threads", WARNING, text, "start the daemon again when it suits")
    if at.files.rescue:
        yield Check("rescue", WARNING, "outcomes wait beside the database to be settled", _RECOVER)


def _alive(at: _Found) -> Check:
    runner, limit = at.runner, f"limit {span(at.limit_ms)}"
    if runner.id is None:
        text = f"pid {runner.pid} holds the lock and has not said what it runs for {span(at.late)} ({limit})"
        level = OK if at.late <= at.limit_ms else BROKEN
        return Check("daemon", level, text, None if level == OK else f"ps -p {runner.pid} shows what it is")
    if at.late <= at.limit_ms:
        up = f", up {span(at.now - runner.started_at)}" if runner.started_at is not None else ""
        return Check("daemon", OK, f"pid {runner.pid}, last beat {span(at.late)} ago ({limit}){up}")
    gone = at.newest is not None and alive(_process(at.newest)) is False
    how = "is gone, and its lock is held by what it left behind" if gone else "holds the lock and does not move"
    text = f"last beat {span(at.late)} ago ({limit}), pid {runner.pid} {how}"
    return Check("daemon", BROKEN, text, f"ps -p {runner.pid} shows what it is; stop it, then {_START}")


def _absent(at: _Found) -> Check:
    newest, limit = at.newest, f"limit {span(at.limit_ms)}"
    if newest is not None and newest.stopped_at is None:
        text = f"last beat {span(at.late)} ago ({limit}), pid {newest.pid} is gone"
        return Check("daemon", BROKEN, text, _START)
    since = "none has run yet" if newest is None else f"none runs; the last left {span(at.now - _end(newest))} ago"
    if not at.facts.open_jobs:
        return Check("daemon", OK, f"{since}; no job needs one")
    return Check("daemon", BROKEN, f"{since}; {_number(at.facts.open_jobs, 'job')} to run", _START)


def _end(newest: DaemonView) -> int:
    return newest.heartbeat_at if newest.stopped_at is None else newest.stopped_at


def _process(row: DaemonView) -> Process:
    return Process(row.host, row.boot, row.pid, row.process_started_at)


# -- what is run ------------------------------------------------------------------------------------------------------


def _items(at: _Found) -> Iterator[Check]:
    own = at.runner.id if at.runner.alive else None
    lost = {named: count for named, count in at.facts.running.items() if named is None or named != own}
    if lost:
        yield Check("items", BROKEN, f"{_number(sum(lost.values()), 'running item')} that nobody runs", _RECOVER)
    elif running := sum(at.facts.running.values()):
        yield Check("items", OK, f"{running:,} running")
    if endless := at.facts.endless:
        some = f"{'at least ' * (endless == vitals.MOST)}{_number(endless, 'item')}"
        text = f"{some} waiting for the outside without a deadline, the oldest in job {at.facts.endless_job}"
        yield Check("waiting", WARNING, text, f"jobd items {at.facts.endless_job} --status waiting")


def _jobs(at: _Found) -> Iterator[Check]:
    """What of the open jobs does not go on, job by job; that nobody runs them is told once, above."""
    told = [(job, warning) for job in at.jobs for warning in job.warnings if not _told_above(warning)]
    for job, warning in told[:_SHOWN]:
        text, _, mends = warning.rpartition(": ")
        level = WARNING if job.health in {"stalled", "unknown_task", "submitting"} else BROKEN
        yield Check("jobs", level, f"job {job.id} {text or mends}", mends if text else None)
    if len(told) > _SHOWN:
        yield Check("jobs", WARNING, f"and {len(told) - _SHOWN:,} more", "jobd list")
    waiting = [job for job in at.jobs if job.blocked_by]
    if waiting:
        named = "; ".join(f"job {job.id} for {_jobs_named(job.blocked_by)}" for job in waiting[:_SHOWN])
        more = f"; and {len(waiting) - _SHOWN:,} more" if len(waiting) > _SHOWN else ""
        yield Check("waiting", OK, f"{named}{more}")
    if not told:
        some = f"{'at least ' * (at.facts.open_jobs == vitals.MOST)}{at.facts.open_jobs:,} open"
        yield Check("jobs", OK, some if at.facts.open_jobs else "none open")


def _jobs_named(job_ids: Sequence[int]) -> str:
    shown = ", ".join(str(job_id) for job_id in job_ids[:_SHOWN])
    return f"job {shown}" + (f" and {len(job_ids) - _SHOWN:,} more" if len(job_ids) > _SHOWN else "")


def _told_above(warning: str) -> bool:
    return " in flight: " in warning or warning.startswith("no daemon is running") or " is degraded (" in warning


# -- where it lies ----------------------------------------------------------------------------------------------------


def _database(store: SqliteStore, at: _Found) -> Iterator[Check]:
    small = at.files.database <= vitals.CHECKED_BYTES
    damage = vitals.damage(store) if small else None
    facts = [f"schema {at.facts.schema}", megabytes(at.files.database), f"wal {megabytes(at.files.wal)}"]
    facts.append("integrity ok" if small else "integrity: jobd doctor")
    if damage is not None:
        yield Check("database", BROKEN, f"damaged: {damage}", "jobd restore BACKUP")
    else:
        yield Check("database", OK, ", ".join(facts))
    if at.runner.alive and at.runner.state.get("wal_pinned"):
        text = f"a reader keeps the log from being emptied ({megabytes(at.files.wal)})"
        yield Check("wal", WARNING, text, "end the program that keeps a reading transaction open")
    elif at.files.wal > WAL_LIMIT:
        text = f"the log has {megabytes(at.files.wal)}, a daemon empties it at 8 MB"
        yield Check("wal", WARNING, text, None if at.runner.alive else _START)


def _disk(at: _Found) -> Iterator[Check]:
    free = at.files.free
    level = BROKEN if free < DISK_FULL else WARNING if free < DISK_LOW else OK
    hint = None if level == OK else "jobd prune --check-only shows what may go; or free some space"
    yield Check("disk", level, f"{megabytes(free)} free", hint)


def _clock(at: _Found) -> Iterator[Check]:
    ahead = at.facts.newest_job_at
    if ahead is not None and ahead > at.now + 1_000:
        text = f"the newest job is {span(ahead - at.now)} in the future: the clock was set back"
        yield Check("clock", WARNING, text, "check the clock")


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    if size < 100_000:
        return f"{size / 1e3:,.0f} kB"
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
