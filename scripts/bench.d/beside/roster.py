"""The table of the peers: what each stores, how it is run here, and where its own file says what is open."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from beside.peer import Peer


class Entry(NamedTuple):
    """One peer.

    ``share`` is how much of the units it is given, ``quiet`` for how many seconds after a restart what it says is
    running may be at rest before it counts as left so. ``queued``, ``running`` and ``completed`` count rows of
    ``file``; without a file they are not asked.
    """

    id: str
    title: str
    adapter: str
    package: str
    status: str
    result: str
    attempts: str
    error: str
    told: str
    share: float = 1.0
    quiet: float = 5.0
    file: str = ""
    queued: str = "select 0"
    running: str = "select 0"
    completed: str | None = None

    @property
    def absent(self) -> str | None:
        """Why it cannot be measured here, in one line; None where it can."""
        if self.package == "parallel":
            return None if shutil.which("parallel") else "GNU parallel is not on PATH"
        try:
            metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return f"the package {self.package} is not installed"
        return None

    @property
    def version(self) -> str:
        """The version of what is measured, as it says it itself."""
        if self.package != "parallel":
            return metadata.version(self.package)
        found = shutil.which(self.package) or self.package
        answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
        return answer.stdout.splitlines()[0].rpartition(" ")[2]

    def load(self) -> type[Peer]:
        """Return the adapter's class; only then is the peer imported."""
        module, _, name = self.adapter.partition(":")
        found: type[Peer] = getattr(importlib.import_module(f"beside.{module}"), name or "Adapter")
        return found


_NORMAL: Final = "WAL and `synchronous=NORMAL`"
_ITEMS: Final = "select count(*) from job_items where status="

PEERS: Final = (
    Entry(
        "jobd-job", "jobd, one job of all units", "jobd:OneJob", "jobd-embedded", "of each item", "yes", "yes", "yes",
        f"{_NORMAL}, its own; `submit` of one list, `daemon(workers=…)`", quiet=15.0, file="jobd.db",
        queued=f"{_ITEMS}'queued'", running=f"{_ITEMS}'running'", completed=f"{_ITEMS}'completed'",
    ),
    Entry(
        "jobd-jobs", "jobd, a job for each unit", "jobd", "jobd-embedded", "of each item and job", "yes", "yes", "yes",
        f"{_NORMAL}, its own; `submit` of one item each", quiet=15.0, file="jobd.db",
        queued=f"{_ITEMS}'queued'", running=f"{_ITEMS}'running'", completed=f"{_ITEMS}'completed'",
    ),
    Entry(
        "huey", "huey", "huey", "huey", "no: a row goes when it is taken", "where it is not None", "no",
        "in place of the result",
        f"{_NORMAL}, set here (its own switch knows FULL and OFF); `create_consumer`, threads",
        file="huey.db", queued="select count(*) from task",
    ),
    Entry(
        "apscheduler", "APScheduler", "apscheduler", "apscheduler",
        "no: a row goes when it is handed to a thread", "no", "no", "no",
        f"{_NORMAL}, set here; 3.x, as 4.0 is a pre-release that asks not to be used in production; `add_job` without "
        "a trigger, `SQLAlchemyJobStore`, `misfire_grace_time=None`",
        share=0.2, file="apscheduler.db", queued="select count(*) from apscheduler_jobs",
    ),
    Entry(
        "localqueue", "localqueue", "localqueue", "localqueue", "yes", "no", "yes", "the last",
        f"{_NORMAL}, its default; a `Worker` for each thread; lease 60 s by default, 2 s under the kills",
        share=0.5, file="localqueue.db", queued="select count(*) from messages where status=0",
        running="select count(*) from messages where status=1",
        completed="select count(*) from messages where status=2",
    ),
    Entry(
        "litequeue", "litequeue", "litequeue", "litequeue", "yes", "no", "no", "that it failed",
        f"{_NORMAL}, its own; it has no worker: a loop of `pop` and `done` in each thread; nothing takes back what is "
        "locked (`list_locked` and `retry` are for a person)",
        share=0.5, file="litequeue.db", queued="select count(*) from Queue where status=0",
        running="select count(*) from Queue where status=1", completed="select count(*) from Queue where status=2",
    ),
    Entry(
        "tinyjobs", "tinyjobs", "tinyjobs", "tinyjobs", "yes", "where the task asks", "a row of each", "the last",
        f"{_NORMAL}, its own; `serve(worker=True)`; `max_attempts=5` (with 1, its default, a killed unit is failed); "
        "lease 60 s and reaper 30 s by default, 2 s and 1 s under the kills",
        share=0.3, file="tinyjobs.db", queued="select count(*) from jobs where status='queued'",
        running="select count(*) from jobs where status='running'",
        completed="select count(*) from jobs where status='success'",
    ),
    Entry(
        "dbos", "DBOS", "dbos", "dbos", "yes", "yes", "recoveries", "yes",
        f"{_NORMAL}, set here; workflows on a queue polled each 20 ms (1 s by default), as many threads as workers",
        share=0.05, file="dbos.db",
        queued="select count(*) from workflow_status where name='run' and status='ENQUEUED'",
        running="select count(*) from workflow_status where name='run' and status='PENDING'",
        completed="select count(*) from workflow_status where name='run' and status='SUCCESS'",
    ),
    Entry(
        "parallel", "GNU parallel", "parallel", "parallel", "a line of the log when it has ended", "no", "no",
        "the exit code", "no database: `--joblog --resume`, a shell command for each unit", share=0.03,
    ),
)  # fmt: skip

BY_ID: Final = {peer.id: peer for peer in PEERS}
