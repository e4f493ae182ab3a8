"""Every verb, crashes, recoveries and time in any order, beside a plain dictionary that says how all must stand.

scripts/soak looks longer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from kit.acts import every_hour
from kit.model import ENDS, Model, Refused
from kit.worlds import DAY, MINUTE, World

from jobd import clock
from jobd.engine import points
from jobd.engine.lock import Lock
from jobd.errors import JobdError
from jobd.store import batches, chunks

DOES = ("complete", "fail", "raise", "skip", "flaky", "save", "tell", "add", "defer")
TASKS = ("work", "strict", "outside", "sure")
names = st.lists(
    st.builds("{}-{}".format, st.sampled_from(DOES), st.integers(0, 3)), min_size=1, max_size=4, unique=True
)
# How many lives, of how many steps.
EXAMPLES, STEPS = map(int, os.environ.get("MODEL", "25 20").split())
DEEP = EXAMPLES > 25


class Life(RuleBasedStateMachine):
    """One file, and the processes that come and go with it."""

    jobs = Bundle("jobs")

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(prefix="jobd-model"))
        self.world = World(
            self.folder, declare=every_hour, keep_completed="30d", keep_failed="30d", keep_cancelled="30d"
        )
        self.model = Model(self.world.now)
        self.count = 0
        self.world._flaky = self.flaky

    def flaky(self, ctx):
        if not self.model.mended:
            raise ValueError("not mended")
        return ctx.key

    def teardown(self):
        if hasattr(self, "folder"):
            self.world.app.close()
            shutil.rmtree(self.folder)

    def both(self, verb, *arguments, act):
        """Ask both; either both take it, or both refuse it."""
        try:
            getattr(self.model, verb)(*arguments)
        except Refused:
            with pytest.raises(JobdError):
                act()
        else:
            act()

    def pass_time(self, milliseconds):
        self.world.pass_time(milliseconds)
        self.model.now = self.world.now

    # -- verbs --------------------------------------------------------------------------------------------------------

    @rule(target=jobs, names=names, task=st.sampled_from(TASKS))
    def submit(self, names, task):
        self.count += 1
        key = f"job {self.count:03}"
        self.model.submit(key, names, task)
        self.world.submit(" ".join(names), task=task, key=key)
        return key

    @rule(target=jobs, parent=jobs, names=names, task=st.sampled_from(TASKS))
    def submit_after(self, parent, names, task):
        if parent not in self.model.jobs:
            return self.submit(names, task)
        self.count += 1
        key = f"job {self.count:03}"
        self.model.submit(key, names, task, parent)
        self.world.submit(" ".join(names), task=task, key=key, after=self.world.job(parent))
        return key

    @rule(key=jobs, names=names)
    def submit_again(self, key, names):
        if key in self.model.jobs:
            job = self.model.jobs[key]
            act = functools.partial(self.world.submit, " ".join(names), task=job.task, key=key)
            self.both("submit", key, names, job.task, job.parent, act=act)

    @rule(key=jobs, verb=st.sampled_from(("cancel", "pause", "unpause", "retry", "resume")))
    def steer(self, key, verb):
        if key in self.model.jobs:
            self.both(verb, key, act=getattr(self.world.job(key), verb))

    @rule(key=jobs)
    def fail(self, key):
        if key in self.model.jobs:
            self.both("fail", key, act=lambda: self.world.job(key).fail("why"))

    @rule(key=consumes(jobs))
    def delete(self, key):
        if key in self.model.jobs:
            self.both("delete", key, act=lambda: self.world.job(key).delete())

    @rule(key=jobs, data=st.data())
    def deliver(self, key, data):
        if key in self.model.jobs:
            name = data.draw(st.sampled_from(sorted(self.model.jobs[key].items)))
            self.both("deliver", key, name, '"given"', act=lambda: self.world.job(key).deliver(name, "given"))

    # -- lives --------------------------------------------------------------------------------------------------------

    @rule()
    def drain(self):
        self.model.drain()
        self.world.drain()

    @rule(place=st.sampled_from(sorted(points.RUNNING)), count=st.integers(1, 4))
    def crash(self, place, count):
        """End a life wherever it comes to; the next one goes on."""

        def end(name):
            raise points.Crash(name)

        points.arm(place, count, end=end)
        try:
            with contextlib.suppress(points.Crash):
                self.world.drain()
        finally:
            points.disarm(place)
        assert not self.world.wrong()
        self.drain()

    @rule()
    def mend(self):
        self.model.mended = not self.model.mended

    @rule()
    def passes_find_nothing(self):
        for one in ("recover", "reconcile"):
            assert getattr(self.world.app, one)().changes == []

    @rule(minutes=st.sampled_from((1, 7, 61)))
    def wait(self, minutes):
        self.pass_time(minutes * MINUTE)
        self.model.poll()
        self.model.time_out()
        self.model.fire()
        self.world.app.tick()
        self._prune()

    @rule()
    def prune(self):
        self.pass_time(20 * DAY)
        self._prune()

    def _prune(self):
        self.model.prune(30 * DAY)
        self.world.app.prune()

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def all_stands_as_the_model_says(self):
        if hasattr(self, "world"):
            jobs, items = self.world.summary()
            told = [[key, status, bool(paused) and status not in ENDS, total]
                    for key, status, paused, total in jobs if not key.startswith("schedule")]  # fmt: skip
            assert [told, [item for item in items if not item[0].startswith("schedule")]] == self.model.summary()
            ended = [status in ENDS for key, status, *_ in jobs if key.startswith("schedule")]
            assert ended == [at is not None for at in self.model.fired]
            assert self.world.wrong() == []


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """Have what a world changes be as it was afterwards."""
    monkeypatch.setattr(clock, "now", clock.now)
    for owner, name in ((batches, "FIRST"), (batches, "GAP_SECONDS"), (chunks, "CHUNK"), (batches.Pace, "held")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setitem(Lock.acquire.__kwdefaults__, "patience", 0.0)


Life.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=not DEEP,
    # To shrink one takes minutes: what is shown is what was found.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestLife = Life.TestCase
