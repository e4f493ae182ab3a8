"""Seeing a job through, whoever runs it: the daemon that lives, or this process as the daemon for its own job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jobd.cli import following
from jobd.cli.interrupts import Interrupts
from jobd.errors import DaemonRunning, NoDaemon
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.store.views import Counts, Runner


class _Outrun(Exception):
    """The lock was free when we looked and was not when we took it."""


class Through(ABC):
    """One job from its submission to its end: what differs between verbs is what is abstract here."""

    session: Session
    workers: int | None

    @property
    @abstractmethod
    def task_name(self) -> str:
        """The task whose job it is; the app of this process knows it."""

    @abstractmethod
    def before(self) -> Counts | None:
        """Return what was there before: once it runs, what it completes now would be counted in."""

    @abstractmethod
    def submit(self, before: Counts | None, interrupts: Interrupts) -> Job:
        """Return the job, found or submitted, and say what was there before.

        Raises:
            KeyboardInterrupt: not all of its items were read; it is not submitted.
        """

    @abstractmethod
    def view(self, workers: int | None, foot: str) -> View:
        """Return what shows it while it runs."""

    @abstractmethod
    def end(self, job: Job, *, ended: bool) -> int:
        """Write what is left and how to go on; return the exit code."""

    def through(self) -> int:
        """See the items through, whoever runs them; return the exit code."""
        daemon = self.session.app.daemon_status()
        if not daemon.alive:
            try:
                return self._here()
            except _Outrun:
                daemon = self.session.app.daemon_status()
        if not daemon.alive:
            raise NoDaemon("the daemon of the database came and went", hint="the same command again")
        return self._there(daemon)

    def _here(self) -> int:
        """Be the daemon for this job, and for those that are handed over meanwhile.

        Raises:
            _Outrun: another daemon took the lock first.
        """
        before, others = self.before(), following.runnable(self.session.app)
        with ExitStack() as stack:
            # Before there is anything that a Ctrl-C could cut off.
            interrupts = stack.enter_context(Interrupts())
            try:
                daemon = stack.enter_context(following.daemon_here(self.session, self.workers))
            except DaemonRunning:
                raise _Outrun from None
            # While the daemon leaves at the end, what it does for others, a Ctrl-C hurries it.
            stack.callback(interrupts.close)
            job = self.submit(before, interrupts)
            following.say_also_running(self.session, job, others)
            view = self.view(self.workers or self.session.app.settings.workers, following.RUNS_HERE)
            follow = following.Following(self.session, job, view, interrupts, self.workers)
            try:
                ended = follow.run(daemon)
            finally:
                follow.view.close()
            if ended:
                follow.stay(daemon)
        job.refresh()
        return self.end(job, ended=job.status in JOB_ENDS)

    def _there(self, daemon: Runner) -> int:
        """Hand the job to a live daemon and watch it.

        Raises:
            DaemonRunning: it does not know the task.
        """
        if self.task_name not in daemon.tasks:
            raise DaemonRunning(
                f"the daemon of {self.session.app.path} (pid {daemon.pid}) does not know the task {self.task_name}",
                hint="another --db, or restart the daemon with its program: jobd --app ./program.py start",
            )
        before = self.before()
        with Interrupts() as interrupts:
            job = self.submit(before, interrupts)
            self.session.say(f"job {job.id} is with the daemon (pid {daemon.pid})")
            view = self.view(None, following.RUNS_ELSEWHERE)
            follow = following.Following(self.session, job, view, interrupts, self.workers)
            try:
                ended = follow.watch(take_over=True)
            finally:
                follow.view.close()
        if not ended and not follow.took_over:
            self.session.say(f"job {job.id} goes on in the daemon (pid {daemon.pid})")
            self.session.say(f"  next: {self.session.line(f'watch {job.id}')}")
            return following.INTERRUPTED
        return self.end(job, ended=ended)
