"""What jobd promises of jobs and items, as a plain dictionary that no process can kill."""

from __future__ import annotations

from dataclasses import dataclass, field

from kit.worlds import MINUTE

POLL_MS, HOUR = MINUTE, 60 * MINUTE
OPEN = {"queued", "waiting"}
ENDS = {"completed", "failed", "cancelled"}


class Refused(Exception):
    """The verb is not for a job or an item that stands so."""


@dataclass
class Item:
    does: str
    status: str = "queued"
    value: str | None = None
    poll_at: int = 0
    deadline_at: int = 0

    def complete(self, value):
        self.status, self.value = "completed", value

    def again(self):
        self.status, self.value = "queued", None


@dataclass
class Job:
    task: str
    items: dict[str, Item] = field(default_factory=dict)
    status: str = "queued"
    parent: str | None = None
    fell: bool = False  # with its parent
    paused_at: int | None = None
    requested: str | None = None
    ended_at: int | None = None

    @property
    def open(self):
        return self.status not in ENDS

    def count(self, *statuses):
        return sum(item.status in statuses for item in self.items.values())

    def reopen(self):
        if not self.open:
            self.status, self.paused_at, self.requested, self.ended_at = "queued", None, None, None

    def verdict(self):
        if self.requested == "failed" and self.count("failed", "cancelled"):
            return "failed"
        if self.requested == "cancelled" and self.count("cancelled"):
            return "cancelled"
        return "failed" if self.count("failed") and self.task == "strict" else "completed"


class Model:
    """All jobs by key. ``now`` is in Unix ms; ``mended`` says that what is flaky works now."""

    def __init__(self, now):
        self.now = now
        self.mended = False
        self.jobs = {}
        self.next_at = None  # the next slot of the schedule, from when a life has first seen it
        self.fired = []  # when each of its jobs ended; None: it has not

    def summary(self):
        jobs = [
            [key, job.status, job.open and job.paused_at is not None, len(job.items)]
            for key, job in sorted(self.jobs.items())
        ]
        items = [
            [f"{key}/{name}", item.status, item.value]
            for key, job in sorted(self.jobs.items())
            for name, item in sorted(job.items.items())
        ]
        return [jobs, items]

    # -- verbs --------------------------------------------------------------------------------------------------------

    def submit(self, key, does, task, parent=None):
        job = self.jobs.setdefault(key, Job(task, parent=parent))
        new = [name for name in does if name not in job.items]
        if new and job.items:
            job.reopen()
        self._add(job, new)
        self._settle()

    def _add(self, job, names):
        for name in names:
            job.items.setdefault(name, Item(name.split("-")[0]))

    def cancel(self, key):
        self._request(self.jobs[key], "cancelled")

    def fail(self, key):
        self._request(self.jobs[key], "failed")

    def _request(self, job, target):
        if not job.open and job.status != target:
            raise Refused
        job.fell = False
        if job.open:
            job.requested = target
            for item in job.items.values():
                if item.status in OPEN:
                    item.status = "cancelled"
        self._settle()

    def pause(self, key):
        job = self._open(key)
        job.paused_at = self.now if job.paused_at is None else job.paused_at

    def unpause(self, key):
        job = self._open(key)
        for item in job.items.values():
            if job.paused_at is not None and item.status == "waiting":
                item.deadline_at += self.now - job.paused_at
        job.paused_at = None

    def _open(self, key):
        if not self.jobs[key].open:
            raise Refused
        return self.jobs[key]

    def retry(self, key):
        self._requeue(self.jobs[key], {"failed"})

    def resume(self, key):
        job = self.jobs[key]
        if job.open and not job.count("failed", "cancelled"):
            return
        self._requeue(job, {"failed", "cancelled"})

    def _requeue(self, job, statuses):
        if not job.count(*statuses) or self._lost(job):
            raise Refused
        for item in job.items.values():
            if item.status in statuses:
                item.again()
        job.reopen()
        job.fell = False
        self._settle()

    def delete(self, key):
        if self.jobs[key].status == "running" or self._waited_for(key):
            raise Refused
        self._remove(key)

    def _waited_for(self, key):
        return any(job.parent == key and job.open for job in self.jobs.values())

    def _remove(self, key):
        del self.jobs[key]
        for job in self.jobs.values():
            if job.parent == key:
                job.parent, job.fell = None, False

    def deliver(self, key, name, value):
        job, item = self.jobs[key], self.jobs[key].items[name]
        if item.status in {"skipped", "cancelled"} or (item.status == "completed" and item.value != value):
            raise Refused
        if item.status != "completed":
            item.complete(value)
            if job.status == "failed":
                # Decided anew, by the same rule.
                job.status = job.verdict()
        self._settle()

    # -- time ---------------------------------------------------------------------------------------------------------

    def poll(self):
        for job in self.jobs.values():
            for name, item in job.items.items():
                if job.task == "outside" and item.status == "waiting" and item.poll_at <= self.now:
                    item.complete(f'"outside {name}"')
        self._settle()

    def time_out(self):
        for job in self.jobs.values():
            for item in job.items.values():
                if item.status == "waiting" and item.deadline_at <= self.now and job.paused_at is None:
                    item.status = "failed"
        self._settle()

    def fire(self):
        """Fire once for all slots that have come, unless the last job has not ended."""
        if self.next_at is None:
            self.next_at = self.now + HOUR
        elif self.now >= self.next_at:
            if None not in self.fired:
                self.fired.append(None)
            self.next_at += HOUR * (1 + (self.now - self.next_at) // HOUR)

    def prune(self, age):
        self.fired = [at for at in self.fired if at is None or at >= self.now - age]
        for key, job in list(self.jobs.items()):
            if job.ended_at is not None and job.ended_at < self.now - age and not self._waited_for(key):
                self._remove(key)

    # -- running ------------------------------------------------------------------------------------------------------

    def drain(self):
        """Time out what is due, and run all that is queued, of jobs that nothing keeps back, until nothing is."""
        self.fire()
        self.poll()
        self.time_out()
        self.fired = [self.now if at is None else at for at in self.fired]
        while ready := [job for job in self.jobs.values() if self._ready(job)]:
            for job in ready:
                job.status = "running"
                for name in [name for name, item in job.items.items() if item.status == "queued"]:
                    self._run(job, name)
            self._settle()

    def _ready(self, job):
        return job.open and job.paused_at is None and not self._blocked(job) and job.count("queued")

    def _run(self, job, name):
        item = job.items[name]
        does = "complete" if item.does == "flaky" and self.mended else item.does
        if does in {"fail", "raise", "flaky"}:
            item.status = "failed"
        elif does == "skip":
            item.status = "skipped"
        elif does == "defer":
            item.status, item.poll_at, item.deadline_at = "waiting", self.now + POLL_MS, self.now + HOUR
        else:
            item.complete(f'"{name}"')
        if does == "add":
            self._add(job, ["complete-added", "tell-added"])

    # -- what follows -------------------------------------------------------------------------------------------------

    def _blocked(self, job):
        return job.parent is not None and self.jobs[job.parent].status != "completed"

    def lost(self, key):
        """Say whether a job comes after one that will not complete as it is."""
        return self._lost(self.jobs[key])

    def _lost(self, job):
        return job.parent is not None and self.jobs[job.parent].status in {"failed", "cancelled"}

    def _settle(self):
        """End what has nothing open, and have children follow their parents, until nothing moves."""
        before = None
        while before != (before := self.summary()):
            for job in self.jobs.values():
                if job.open and job.items and not job.count(*OPEN):
                    job.status, job.ended_at = job.verdict(), self.now
                self._follow(job)

    def _follow(self, job):
        if self._lost(job) and job.open:
            job.fell, job.requested = True, "cancelled"
            for item in job.items.values():
                if item.status in OPEN:
                    item.status = "cancelled"
        elif job.fell and not self._lost(job):
            job.fell = False
            for item in job.items.values():
                if item.status == "cancelled":
                    item.again()
            job.reopen()
