"""A program with a jobd file, whose clock stands where it is put: what it does, leaves behind, and must keep true."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import signal

from jobd import Jobd, clock
from jobd.engine.lock import Lock
from jobd.errors import Cancelled, Fail, JobdError, Retry, Skip
from jobd.store import batches, chunks
from jobd.store.claim import Turns, claim
from jobd.store.invariants import check

NOW = 1_795_305_600_000  # 2026-11-22
MINUTE = 60_000
DAY = 86_400_000
# Rows of these tell which process wrote them, and nothing else.
_OF_PROCESSES = {"daemons": {"host", "boot", "pid", "process_started_at", "version"}, "jobs": {"submitter"}}
_TABLES = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"

_LEFT_OPEN = (
    "select id from jobs as j where completed_at is null and sealed_at is not null and deleted_at is null"
    " and blocked = 0 and not exists (select 1 from job_items where job_id = j.id"
    " and status in ('queued', 'running', 'waiting'))"
)


class World:
    """The app of one process on the file in ``folder``. ``reach`` is told where a handler begins and ends."""

    def __init__(self, folder, *, reach=lambda: None, declare=None, later=0, **settings):
        self.folder, self.reach = folder, reach
        self._time = folder / "time"
        self.now = (int(self._time.read_text()) if self._time.exists() else NOW) + later
        clock.now = lambda: self.now
        _in_small_batches()
        self.app = Jobd(folder / "jobs.db", **settings)
        self.app.task(self.work, name="work", tolerance="100%")
        self.app.task(self.work, name="strict")
        self.app.task(self.work, name="again", retries=5, backoff="1ms", tolerance="100%")
        self.app.task(self.work, name="daily", unique="day", tolerance="100%")
        self.app.task(self.work, name="outside", tolerance="100%").poll(self._poll)
        self.app.task(self.work, name="sure", tolerance="100%").verify(self._verify)
        if declare is not None:
            declare(self)

    # -- what it does -------------------------------------------------------------------------------------------------

    def submit(self, does, *, task="work", key="job", **options):
        """Submit items whose keys say what their handlers do: "fail-1" fails."""
        return self.app.submit(task, does.split(), key=key, **options)

    def job(self, key="job"):
        return self.app.job(f"={key}")

    def drain(self):
        """Run all that is due within five seconds."""
        while (due := self.app.drain().next_due) is not None and due <= self.now + 5_000:
            self.now = max(self.now, due)

    def recover(self):
        self.app.recover()

    def claim_one(self):
        """Claim an item as the daemon of the first row, and leave it running."""
        self.app.tick()
        options = {"limit": 1, "daemon_id": 1, "now": self.now, "actor": "test", "tasks": ["work"]}
        self.app.store.write(lambda connection: claim(self.app.store, connection, Turns(), **options))

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def tolerantly(self, act):
        """Do what may have been done already."""
        with contextlib.suppress(JobdError):
            act(self)

    def pass_time(self, milliseconds):
        """Let time pass; whoever comes next begins no earlier."""
        self.now += milliseconds
        self._time.write_text(str(self.now))

    def change(self, sql, *params):
        self.app.store.write(lambda connection: connection.execute(sql, params).rowcount)

    def all(self, sql, *params):
        return self.app.store.read(lambda connection: connection.execute(sql, params).fetchall())

    # -- its tasks ----------------------------------------------------------------------------------------------------

    def work(self, payload, ctx):
        with (self.folder / "witness").open("a") as witness:
            witness.write(f"{ctx.item_id} {ctx.attempt}\n")
        self.reach()
        does = payload if isinstance(payload, str) else payload["does"]
        answer = getattr(self, "_" + does.split("-")[0])(ctx)
        self.reach()
        return answer

    def _complete(self, ctx):
        return ctx.key

    _once = _key = _complete

    def _fail(self, _):
        raise Fail("for good")

    def _flaky(self, ctx):
        if ctx.attempt == 1:
            raise ValueError("the first time")
        return ctx.key

    def _later(self, ctx):
        if ctx.attempt < 3:
            raise Retry("not yet", after=1)
        return ctx.key

    def _raise(self, _):
        raise ValueError("always")

    def _skip(self, _):
        raise Skip("nothing to do")

    def _leave(self, _):
        raise Cancelled("its own word")

    def _save(self, ctx):
        ctx.save_data(b"large")
        ctx.save_result(ctx.key)
        raise ValueError("after it was saved")

    def _stop(self, ctx):
        if ctx.attempt == 1:
            raise KeyboardInterrupt
        return ctx.key

    def _tell(self, ctx):
        ctx.progress(1, 2, "half")
        ctx.log.info("a line")
        return ctx.key

    def _add(self, ctx):
        ctx.add_items(["complete-added", "tell-added"])
        return ctx.key

    def _defer(self, ctx):
        ctx.defer(f"outside {ctx.key}", poll_after=60, deadline=3600)

    def _intend(self, ctx):
        ctx.intend("about to")
        return ctx.key

    def _cancel(self, ctx):
        self.app.job(ctx.job_id).cancel()
        ctx.raise_if_cancelled()

    def _halt(self, ctx):
        self.app.job(ctx.job_id).fail("its handler's word")
        ctx.raise_if_cancelled()

    def _die(self, ctx):
        if ctx.attempt == 1:
            ctx.intend("about to")
            self.kill()
        return ctx.key

    def _poll(self, external_id, ctx):
        return external_id

    def _verify(self, payload, ctx):
        return payload if ctx.intent else None

    # -- what it leaves -----------------------------------------------------------------------------------------------

    def state(self):
        """Return what tells one state of the folder from another, whichever process left it."""
        names = sorted(path.name for path in self.folder.iterdir() if not path.name.endswith(("-wal", "-shm")))
        witness = self.folder / "witness"
        return _digest([names, witness.read_text() if witness.exists() else "", self.rows()])

    def rows(self):
        """Return what tells one state of all rows from another."""
        told = []

        def read(connection):
            for (table,) in connection.execute(_TABLES).fetchall():
                cursor = connection.execute(f"select * from {table} order by 1")
                named = [column[0] for column in cursor.description]
                kept = [place for place, name in enumerate(named) if name not in _OF_PROCESSES.get(table, ())]
                told.append([table, [[str(row[place]) for place in kept] for row in cursor.fetchall()]])

        self.app.store.read(read)
        return _digest(told)

    def items(self):
        """Return each item as its id, what names it, its status, attempt and result."""
        return self.all(
            "select i.id, coalesce(j.key, j.task) || '/' || i.key, i.status, i.attempt, r.value"
            " from job_items as i join jobs as j on j.id = i.job_id left join results as r on r.item_id = i.id"
            " where j.deleted_at is null and j.sealed_at is not null order by j.key, i.key"
        )

    def summary(self):
        """Return how all stands, in words that are the same in any life that leads there."""
        jobs = self.all(
            "select coalesce(key, task), status, paused_at is not null, items_total from jobs"
            " where deleted_at is null and sealed_at is not null order by key, task"
        )
        return [list(map(list, jobs)), [[item[1], item[2], item[4]] for item in self.items()]]

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _runs(self):
        witness = self.folder / "witness"
        return collections.Counter(witness.read_text().splitlines() if witness.exists() else ())

    def begun(self):
        """Return how many attempts at each item have begun, as the witness says."""
        return collections.Counter(int(token.split()[0]) for token in self._runs())

    def wrong(self):
        """Return what breaks a rule of truth, or contradicts the witness."""
        found = [violation.text for violation in check(self.app.store)]
        found += [f"job {job} has nothing open, and has not ended" for (job,) in self.all(_LEFT_OPEN)]
        found += [f"attempt {token} of an item ran {count} times" for token, count in self._runs().items() if count > 1]
        begun = self.begun()
        found += [
            f"{name} ran {begun[item]} times in {attempt} attempts"
            for item, name, _, attempt, _ in self.items()
            if begun[item] > attempt
        ]
        return found


def _digest(told):
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _in_small_batches():
    """Two rows in each: where there are thousands, there are places between them to die at."""
    batches.FIRST, batches.GAP_SECONDS, chunks.CHUNK = 2, 0, 2
    batches.Pace.held = lambda pace, seconds: None
    Lock.acquire.__kwdefaults__["patience"] = 0.0
