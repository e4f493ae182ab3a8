"""A recorded run, cut off after each frame of its log: what a kill, or a power cut that keeps the order, can leave.

Of a log SQLite takes the frames up to the last commit that is whole; so the files that are cut between two commits,
torn, zeroed or spoilt behind the first are all in the first one's state.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import struct
from typing import NamedTuple

from jobd.store.sqlite import SqliteStore
from kit import acts
from kit.children import in_child
from kit.worlds import World

_HEADER, _FRAME = 32, 24
LATER = 1_000

ACTS = (
    acts.submitted("complete-1 fail-2 save-3"),
    acts.drained,
    acts.submitted("defer-1 later-2 add-3", key="second", task="again"),
    acts.drained,
    acts.steered("retry"),
    acts.submitted("complete-1 complete-2 complete-3", key="third"),
    acts.steered("cancel", key="third"),
    acts.steered("deliver", "defer-1", "given", key="second"),
    acts.steered("resume", key="third"),
    acts.drained,
    acts.steered("delete", key="third"),
)


class Prefixes(NamedTuple):
    """What was seen: how many frames the log had, how many commits, how many files were opened, what was wrong."""

    frames: int
    commits: int
    files: int
    wrong: list[str]


class Log:
    """The bytes of a database and of its log, before any connection opens them again."""

    def __init__(self, folder):
        self.database = (folder / "jobs.db").read_bytes()
        self.bytes = (folder / "jobs.db-wal").read_bytes()
        self._size = _FRAME + struct.unpack(">I", self.bytes[8:12])[0]
        self.frames = (len(self.bytes) - _HEADER) // self._size

    def up_to(self, frame, share=0.0):
        """Return the log's first so many frames, and a share of the next."""
        return self.bytes[: _HEADER + frame * self._size + int(self._size * share)]

    def frames_in(self, size):
        return (size - _HEADER) // self._size

    def commits(self, frame):
        """Say whether the frame is the last of a transaction."""
        at = _HEADER + (frame - 1) * self._size
        return frame > 0 and struct.unpack(">I", self.bytes[at + 4 : at + 8])[0] > 0

    def spoilt(self, frame):
        """Return, by name, files that hold no more than the first so many frames hold."""
        kept = self.up_to(frame)
        following = bytearray(self.up_to(frame + 1))
        following[-1] ^= 0xFF
        return {
            "torn": self.up_to(frame, 0.5),
            "zeroed": kept + bytes(2 * self._size),
            "flipped": bytes(following),
            "old": kept + self.bytes[_HEADER : _HEADER + self._size],
        }


def record(folder, acts_):
    """Do it in one process that is killed at its end; return how all stood at which size of the log."""
    stood = folder / "stood"

    def live():
        world = World(folder)
        world.app.store.open()
        # While another connection is open, and nobody checkpoints, all that is committed stays in the log.
        reader = sqlite3.connect(folder / "jobs.db")
        reader.execute("select count(*) from jobs").fetchone()
        SqliteStore.checkpoint = lambda store, timeout_ms: (0, 0)
        with stood.open("w") as told:
            for act in acts_:
                act(world)
                told.write(f"{world.app.store.wal_bytes()} {world.rows()}\n")
                told.flush()
        world.kill()

    folder.mkdir(parents=True)
    was_killed, _ = in_child(live)
    assert was_killed
    lines = [line.split() for line in stood.read_text().splitlines()]
    stood.unlink()
    return {int(size): state for size, state in lines}


def prefixes(folder, *, every=1, times=1):
    """Judge each ``every``-th prefix of a run, ``times`` as long as ACTS, and what may lie behind it."""
    recorded = folder / "recorded"
    stood = record(recorded, _rounds(times))
    log = Log(recorded)
    killed, (files, states, wrong) = in_child(_judge_all, folder, log, every)
    assert not killed
    expected = {log.frames_in(size): state for size, state in stood.items()}
    wrong += [
        f"after {frame} frames it is not what was acknowledged"
        for frame, state in expected.items()
        if states.get(str(frame), state) != state
    ]
    return Prefixes(log.frames, sum(map(log.commits, range(log.frames + 1))), files, wrong)


def _rounds(times):
    return [*ACTS, *itertools.chain.from_iterable(_again(number) for number in range(1, times))]


def _again(number):
    key = f"round {number}"
    return (
        acts.submitted("complete-1 fail-2 save-3 raise-4 skip-5 tell-6", key=key),
        acts.drained,
        acts.steered("retry", key=key),
        acts.drained,
    )


def _judge_all(folder, log, every):
    """Return how many files were opened, the state after each frame, and what was wrong."""
    files, wrong, states, committed = 0, [], {}, None
    tails = itertools.cycle(("torn", "zeroed", "flipped", "old"))
    for frame in range(log.frames + 1):
        new = log.commits(frame) or not states
        if frame % every and not new:
            continue
        state, found = _judge(folder, log, log.up_to(frame), look=new)
        wrong += [f"cut after {frame} of {log.frames} frames: {one}" for one in found]
        committed = state if new else committed
        if state != committed:
            wrong.append(f"cut after {frame} of {log.frames} frames: half of a transaction is there")
        states[frame] = state
        files += 1
        if frame < log.frames:
            name = next(tails)
            spoilt, _ = _judge(folder, log, log.spoilt(frame)[name], look=False)
            files += 1
            if spoilt != state:
                wrong.append(f"{name} after {frame} of {log.frames} frames: not what stood there before")
    return files, states, wrong


def _judge(folder, log, tail, *, look):
    """Return the state of a file with that log; where it is to be looked at, also what is wrong there and after."""
    place = folder / "cut"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "recorded", place, ignore=shutil.ignore_patterns("jobs.db*", "witness"))
    (place / "jobs.db").write_bytes(log.database)
    (place / "jobs.db-wal").write_bytes(tail)
    world, wrong = World(place, later=LATER), []
    state = world.rows()
    if look:
        wrong += world.wrong()
        world.recover()
        world.drain()
        wrong += world.wrong()
    world.app.close()
    return state, wrong
