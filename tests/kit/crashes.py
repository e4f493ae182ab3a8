"""An operation, killed at each boundary in turn; and what comes after it, killed at each boundary in turn as well.

After each kill a new process finds the file as it is: every rule holds at once; it recovers, and what had completed has
not run again; it does the same again and runs what is left, and all stands as if nobody had ever been killed. What two
kills leave alike is judged once.
"""

from __future__ import annotations

import random
import shutil
from typing import NamedTuple

from kit.boundaries import Boundaries
from kit.children import in_child
from kit.worlds import World

# The second of two lives begins so much later: far below every grace, so that only evidence can speak.
LATER = 1_000
# What is killed between two commits finds what the last one left: of these there are more in a share.
_AT_COMMITS = 20


class Crashed(NamedTuple):
    """What was seen of one operation: the statements of a life in peace, its boundaries, the kills at them, the states
    that these left, the kills in what came after them, and what was wrong.
    """

    operation: str
    statements: int
    boundaries: int
    kills: int
    states: int
    again: int
    wrong: list[str]


class Machine:
    """One operation on files of its own below ``folder``."""

    def __init__(self, operation, folder):
        self._operation = operation
        self._folder = folder
        self._prepared = folder / "prepared"
        self._crashed = folder / "crashed"
        self._known = set()
        self._wrong = []
        self._prepare()

    def run(self, *, share=1.0, recovery=0.0, again=0.0, rng=None):
        """Kill at each boundary, or at a ``share`` of them.

        What each state is left to is killed as well: at the share ``recovery`` of the recovery's own boundaries, and at
        the share ``again`` of those of all that follows it. With 0 for both it is not.
        """
        rng = rng or random.Random(0)
        peace = self._fresh(self._prepared, "peace")
        _, (self._expected, statements, *passed) = in_child(self._life, peace)
        kills, left = 0, []
        for at in _some(passed, share, rng):
            if self._kill(self._operation.act, self._prepared, at):
                kills += 1
                left += self._judge(f"killed at {at} of {passed[0]}", keep=bool(recovery or again))
        twice = sum(self._kill_again(state, recovery, again, rng) for state in left)
        return Crashed(self._operation.name, statements, passed[0], kills, len(self._known), twice, self._wrong)

    def _prepare(self):
        self._prepared.mkdir(parents=True)
        for step in self._operation.prepare:
            in_child(lambda step=step: step(self._world(self._prepared)) and None)

    def _world(self, folder, **settings):
        return World(folder, declare=self._operation.declare, **settings)

    def _fresh(self, source, name):
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.wake"))
        return folder

    # -- lives, each in a child ---------------------------------------------------------------------------------------

    def _life(self, folder):
        """Do it, and what is left; return how all stands, and what was passed on the way until it was done."""
        passed = self._act(self._operation.act, folder, None)
        told = [passed.statements, passed.passed, passed.commits.copy()]
        world = self._world(folder, later=LATER)
        self._operation.restart(world)
        world.drain()
        wrong = world.wrong() + self._operation.look(world)
        assert not wrong, wrong
        return [world.summary(), *told]

    def _act(self, act, folder, end_at, **settings):
        boundaries = Boundaries(end_at)
        world = self._world(folder, reach=boundaries.reach, **settings)
        act(world)
        world.app.close()
        return boundaries

    def _come_back(self, folder, known):
        """Return which state was found, and what is wrong with it and with what came of it."""
        world = self._world(folder, later=LATER)
        operation, wrong = self._operation, []
        if not operation.opens:
            operation.restart(world)
        state = world.state()
        if state in known:
            return state, []
        wrong += world.wrong() + operation.look(world)
        ended = {item[0]: item for item in world.items() if item[2] == "completed"}
        operation.restart(world)
        wrong += world.wrong()
        after = {item[0]: item for item in world.items()}
        wrong += [
            f"{item[1]} had completed, and is {after.get(number)}"
            for number, item in ended.items()
            if after.get(number) != item and not operation.removes
        ]
        world.tolerantly(operation.act)
        world.drain()
        wrong += world.wrong() + operation.look(world)
        if (summary := world.summary()) != self._expected:
            wrong.append(f"it ends as {summary}, not as {self._expected}")
        world.app.close()
        return state, wrong

    # -- kills --------------------------------------------------------------------------------------------------------

    def _kill(self, act, source, at, **settings):
        folder = self._fresh(source, "crashed")
        return in_child(lambda: self._act(act, folder, at, **settings) and None)[0]

    def _judge(self, how, *, keep=False):
        """Look at what a kill has left; return, to ``keep``, a copy of it where nothing like it was seen before."""
        copies = [self._fresh(self._crashed, f"state-{len(self._known)}")] if keep else []
        killed, answer = in_child(self._come_back, self._crashed, self._known)
        assert not killed, "what comes back dies by itself"
        state, wrong = answer
        self._wrong += [f"{self._operation.name}, {how}: {one}" for one in wrong]
        if state in self._known:
            return []
        self._known.add(state)
        return copies

    def _kill_again(self, state, recovery, again, rng):
        def comes_after(world):
            self._operation.restart(world)
            world.tolerantly(self._operation.act)
            world.drain()

        own, every = (self._count(act, state) for act in (self._operation.restart, comes_after))
        chosen = {*_some((own, []), recovery, rng), *(own + at for at in _some((every - own, []), again, rng))}
        kills = 0
        for at in sorted(chosen):
            if self._kill(comes_after, state, at, later=LATER):
                kills += 1
                self._judge(f"killed in {state.name}, then at {at} of {every}")
        shutil.rmtree(state)
        return kills

    def _count(self, act, state):
        peace = self._fresh(state, "peace")
        return in_child(lambda: self._act(act, peace, None, later=LATER).passed)[1]


def _some(passed, share, rng):
    """Return the boundaries to be killed at: all, or a share that the seed chooses, and a larger one of the commits."""
    boundaries, commits = passed
    every = range(1, boundaries + 1)
    if share >= 1:
        return every
    among = rng.sample(commits, min(len(commits), 2 + round(len(commits) * share * _AT_COMMITS)))
    return sorted({*rng.sample(every, min(boundaries, 1 + round(boundaries * share))), *among} & set(every))
