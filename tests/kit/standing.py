"""A job as a reader finds it: raw rows, who runs items, and how long after."""

from __future__ import annotations

import pytest

from jobd.store import reads
from jobd.store.views import Runner
from kit.rows import NOW

MINUTE, HOUR = 60_000, 3_600_000
ALIVE = Runner(alive=True, id=1, pid=101, host="here", started_at=NOW - HOUR, heartbeat_at=NOW, tasks=("work",))
GONE = ALIVE._replace(alive=False)
OTHER = ALIVE._replace(id=2, pid=102)
RUN = {"status": "running"}


@pytest.fixture
def told(store, rows):
    """Read a job of the given items and columns as ``runner`` leaves it to be seen, a minute later."""
    rows.change(
        "insert into daemons (id, host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
        " values (1, 'here', 'boot', 101, 0, ?, ?, '0')",
        NOW - HOUR,
        NOW,
    )

    def read(items=(), runner=ALIVE, *, after=MINUTE, **columns):
        if columns.get("status", "queued") != "queued":
            columns.setdefault("started_at", NOW)
            columns.setdefault("progress_at", NOW)
        job_id = rows.job(items, **columns)
        return reads.job(store, job_id, now=NOW + after, runner=runner)

    return read
