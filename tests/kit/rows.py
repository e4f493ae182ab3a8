"""Jobs as rows: tests start from any state, also from one that only a crash leaves behind."""

from __future__ import annotations

import collections
import itertools
import shutil

import pytest

from jobd.states import ITEM_STATUSES, JOB_ENDS
from jobd.store.sqlite import SqliteStore

NOW = 1_795_305_600_000
COUNTED = [status for status in ITEM_STATUSES if status != "queued"]


class Rows:
    """Writes and reads rows directly, past every guard."""

    def __init__(self, store):
        self.store = store

    def all(self, sql, *params):
        return self.store.read(lambda connection: connection.execute(sql, params).fetchall())

    def one(self, sql, *params):
        (row,) = self.all(sql, *params)
        return row[0] if len(row) == 1 else row

    def change(self, sql, *params):
        return self.store.write(lambda connection: connection.execute(sql, params).rowcount)

    def job(self, items=(), **columns):
        """Add a job whose items have these statuses, with counters that agree, and return its id."""
        counts = collections.Counter(items)
        status = columns.get("status", "queued")
        values = {
            "task": "work",
            "status": status,
            "status_updated_at": NOW,
            "created_at": NOW,
            "sealed_at": NOW,
            "version": 1,
            "completed_at": NOW if status in JOB_ENDS else None,
            "items_total": len(items),
            **{f"items_{name}": counts[name] for name in COUNTED},
            **columns,
        }

        def add(connection):
            names, marks = ", ".join(values), ", ".join("?" * len(values))
            cursor = connection.execute(f"insert into jobs ({names}) values ({marks})", tuple(values.values()))
            job_id = cursor.lastrowid
            connection.execute(
                "insert into job_events (job_id, name, to_status, at, actor) values (?, 'submit', ?, ?, 'test')",
                (job_id, status, NOW),
            )
            connection.executemany(
                "insert into job_items (job_id, key, payload, status, attempt, started_at, completed_at, error,"
                " daemon_id) values (?, ?, 'null', ?, ?, ?, ?, ?, ?)",
                [_item(job_id, number, item) for number, item in enumerate(items)],
            )
            return job_id

        return self.store.write(add)

    def daemon(self, daemon_id, *, boot):
        """Add a daemon that has given its last sign of life now."""
        self.change(
            "insert into daemons (id, host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
            " values (?, 'here', ?, 1, 1, 1, ?, '1')",
            daemon_id,
            boot,
            NOW,
        )

    def result(self, item_id, status="completed", value='"kept"', *, attempt=None, **columns):
        """Store a result of an item's present attempt, or of another."""
        values = {"status": status, "value": value, "created_at": NOW, **columns}
        self.change(
            f"insert into results (item_id, attempt, task, key, {', '.join(values)})"
            f" select i.id, coalesce(?, i.attempt), j.task, i.key, {', '.join('?' * len(values))}"
            " from job_items as i join jobs as j on j.id = i.job_id where i.id = ?",
            attempt,
            *values.values(),
            item_id,
        )

    def items(self, job_id):
        """Return the statuses of a job's items, in their order."""
        return [row[0] for row in self.all("select status from job_items where job_id=? order by id", job_id)]

    def ids(self, job_id):
        return [row[0] for row in self.all("select id from job_items where job_id=? order by id", job_id)]

    def item_events(self):
        """Return the names of all events of items, in their order."""
        return [row[0] for row in self.all("select name from job_events where item_id is not null order by id")]

    def events(self, job_id):
        """Return the events after the first as (name, from, to, count)."""
        rows = self.all(
            "select name, from_status, to_status, count from job_events where job_id=? and item_id is null order by id",
            job_id,
        )
        return [tuple(row) for row in rows[1:]]

    def assert_sound(self, job_id):
        """Counters equal aggregates, an end has a time and nothing open, and each own event is one version."""
        names = ["total", *COUNTED]
        kept = self.one(f"select {', '.join(f'items_{name}' for name in names)} from jobs where id=?", job_id)
        counts = collections.Counter(self.items(job_id))
        assert dict(zip(names, kept, strict=True)) == {"total": counts.total(), **{n: counts[n] for n in COUNTED}}
        status, completed_at, version = self.one("select status, completed_at, version from jobs where id=?", job_id)
        assert (status in JOB_ENDS) == (completed_at is not None)
        if status in JOB_ENDS:
            assert not {"queued", "running", "waiting"} & set(counts)
        own = self.all(
            "select from_status, to_status from job_events where job_id=? and item_id is null and count is null"
            " order by id",
            job_id,
        )
        assert version == len(own)
        assert own[-1][1] == status
        assert all(after[0] == before[1] for before, after in itertools.pairwise(own))


def _item(job_id, number, status):
    begun = status not in {"queued", "cancelled"}
    ended = status in {"completed", "failed", "skipped", "cancelled"}
    return (
        job_id,
        f"key-{number:05}",
        status,
        int(begun),
        NOW if begun else None,
        NOW if ended else None,
        "ValueError: no" if status == "failed" else None,
        1 if status == "running" else None,
    )


@pytest.fixture
def rows(store):
    return Rows(store)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, new_file):
    """One file for the many small tests of a module, each with rows of its own: (store, rows)."""
    store = SqliteStore(shutil.copy(new_file, tmp_path_factory.mktemp("shared")))
    store.open()
    yield store, Rows(store)
    store.close()
