"""Reading and writing in a file of a million items, results and jobs. It is built once and used in every round."""

from __future__ import annotations

import random
import sqlite3
import time
from statistics import median
from typing import TYPE_CHECKING, Final

from measure import timed

from jobd import Jobd
from jobd.store import reads
from jobd.store.claim import Turns, claim
from jobd.store.outcome import Outcome
from jobd.store.settle import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from measure import Scale

    from jobd.store.base import Connection

FILE: Final = "million.db"
_NOW: Final = 1_760_000_000_000
_TASK: Final = "checksum"
_KEY: Final = "/data/{:07d}"
# Of every 100 items or jobs one has failed; as many items again as every 20th are queued; 20 jobs are in progress.
_NUMBERS: Final = "with recursive n (i) as (select 1 union all select i + 1 from n where i < :rows)"
_BIG_JOB: Final = """
insert into jobs (id, task, status, status_updated_at, version, sealed_at, created_at, started_at, items_total,
  items_completed, items_failed)
values (1, :task, 'running', :now, 2, :now, :now, :now, :rows + :rows / 20, :rows - :rows / 100, :rows / 100)"""
_ENDED: Final = f"""
{_NUMBERS}
insert into job_items (id, job_id, key, payload, status, attempt, failures, started_at, completed_at, error_type, error)
select i, 1, printf('/data/%07d', i), printf('"/data/%07d"', i), iif(i % 100 = 0, 'failed', 'completed'), 1,
  i % 100 = 0, :now, :now, iif(i % 100 = 0, 'OSError', null), iif(i % 100 = 0, 'unreadable', null)
from n"""
# Their keys lie scattered among the others, so that each result goes to a page of its own.
_QUEUED: Final = f"""
{_NUMBERS}
insert into job_items (id, job_id, key, payload)
select :rows + i, 1, printf('/data/%07d+', i * 7919 % :rows), 'null' from n where i <= :rows / 20"""
_RESULTS: Final = """
insert into results (item_id, attempt, task, key, status, value, created_at)
select id, 1, :task, key, status, '{"bytes": ' || id || '}', :now from job_items where status <> 'queued'"""
_JOBS: Final = f"""
{_NUMBERS}
insert into jobs (id, task, status, status_updated_at, version, sealed_at, created_at, started_at, completed_at,
  last_error, items_total)
select i, 'task' || i % 20, case when i % (:rows / 20) = 3 then 'running' when i % 100 = 0 then 'failed'
  else 'completed' end, :now, 2, :now, :now, :now, iif(i % (:rows / 20) = 3, null, :now),
  iif(i % 100 = 0, 'fail requested', null), i % (:rows / 20) = 3
from n where i > 1"""
_EVENTS: Final = f"""
{_NUMBERS}
insert into job_events (job_id, name, from_status, to_status, at, actor)
select i, 'submit', null, 'queued', :now, 'bench' from n"""


def build(folder: Path, scale: Scale) -> dict[str, float]:
    """Make the file by SQL: with the schema of jobd, and quicker than through it."""
    path = folder / FILE
    app = Jobd(path)
    app.writing()
    app.close()
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=delete", "synchronous=off", "cache_size=-500000", "foreign_keys=off"):
        connection.execute(f"pragma {pragma}")
    connection.execute("begin")
    for text in (_BIG_JOB, _ENDED, _QUEUED, _RESULTS, _JOBS, _EVENTS):
        connection.execute(text, {"task": _TASK, "now": _NOW, "rows": scale.rows})
    connection.execute("commit")
    connection.execute("pragma journal_mode=wal")
    connection.close()
    return {}


def reading(folder: Path, scale: Scale) -> dict[str, float]:
    app, middle = Jobd(folder / FILE), scale.rows // 2
    store, job = app.store, app.job(1)
    figures = {
        "progress": _typical(lambda: reads.progress(store, 1)),
        "refresh": _typical(job.refresh),
        "latest": _typical(lambda: app.results(_TASK, _any_key(scale), limit=1)),
        "in-progress": _typical(lambda: app.jobs(status="running", limit=50), 20),
        "page-jobs": _typical(lambda: app.jobs(status="failed", before=middle, limit=20), 20),
        "page-items": _typical(lambda: job.items(status="failed", after=middle, limit=20), 20),
        "add-one": _typical(lambda: app.submit("added", [_any_key(scale)]), 20),
        "add-hundred": _typical(lambda: app.submit("added", _hundred_keys(scale)), 5),
    }
    settling = _Settling(app)
    figures["settle-one"] = median(settling.milliseconds(1) for _ in range(20))
    figures["settle-hundred"] = median(settling.milliseconds(100) for _ in range(scale.repeats))
    return figures


def _typical(work: Callable[[], object], times: int = 200) -> float:
    return median(timed(work) for _ in range(times)) * 1000


def _any_key(scale: Scale) -> str:
    return _KEY.format(random.randint(1, scale.rows))  # noqa: S311 - no secret


def _hundred_keys(scale: Scale) -> list[str]:
    return [_KEY.format(number) for number in random.sample(range(1, scale.rows), 100)]


class _Settling:
    """Claims items of the large job as a daemon does, and stores their results."""

    def __init__(self, app: Jobd) -> None:
        self._store = app.store
        self._turns = Turns()

    def milliseconds(self, count: int) -> float:
        """Return how long the commit with ``count`` results takes."""
        now = int(time.time() * 1000)

        def take(connection: Connection) -> list[Outcome]:
            claimed = claim(
                self._store, connection, self._turns, limit=count, tasks={_TASK}, daemon_id=1,
                now=now, actor="bench",
            )  # fmt: skip
            return [
                Outcome(one.item_id, one.job_id, one.attempt, one.task, one.key, "completed", now, now, '{"bytes": 1}')
                for one in claimed
            ]

        outcomes = self._store.write(take)
        if len(outcomes) != count:
            raise RuntimeError(f"{len(outcomes)} of {count} items were left to claim")
        return 1000 * timed(
            lambda: self._store.write(lambda c: settle(self._store, c, outcomes, now=now, actor="bench"))
        )
