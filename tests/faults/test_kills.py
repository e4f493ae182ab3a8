"""Twenty SIGKILLs of one job of 2,000 items, at points that a seed chooses, with the next process going on each time.

What ran is told by a witness outside the database: a file to which every handler appends what it begins.
"""

from __future__ import annotations

import collections
import random
import shutil
import signal
from typing import NamedTuple

import pytest

from jobd.store.invariants import check
from jobd.store.sqlite import SqliteStore

ITEMS = 2_000
SEEDS = (1,)
# The recovery of a start has to come from evidence: the clock would speak after 600 s.
SOON_MS = 5_000

PROGRAM = """
    from jobd.engine import points

    witness, place, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
    app = Jobd(path)
    said = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    turn = threading.Lock()
    begun = 0

    @app.task
    def work(number):
        global begun
        os.write(said, b"%d\\n" % number)
        with turn:
            begun += 1
            if place == "handler.inside" and begun == count:
                os.kill(os.getpid(), signal.SIGKILL)
        return sum(range(1_000)) + number

    if place in points.NAMES:
        points.arm(place, count)
    work.submit(range(2_000), key="kills")
    with app.daemon(workers=4):
        app.job("=kills").wait(timeout=40)
"""


class AtTheKill(NamedTuple):
    """What the file said when its process died."""

    completed: set[int]
    running: set[int]
    ran: collections.Counter[int]


def places(seed):
    """Five kills at each place and five more anywhere, in an order and at counts that the seed gives."""
    rng = random.Random(seed)
    between = ["claim.after_commit"] * 3 + ["handler.before"] * 2
    settling = ["settle.before_commit"] * 3 + ["settle.after_commit"] * 2
    inside = ["handler.inside"] * 5
    anywhere = rng.choices(["claim.before_commit", "handler.after", "handler.inside", "settle.before_commit"], k=5)
    chosen = between + settling + inside + anywhere
    rng.shuffle(chosen)
    # A count of 1 would hit, at every start, the item that was hit before: it runs first and alone.
    return [(place, rng.randint(2, 12 if place.startswith(("claim", "settle")) else 60)) for place in chosen]


class Life:
    """Processes that work on one job, one after the other."""

    def __init__(self, folder, program):
        self._program = program
        self.database = folder / "jobs.db"
        self.witness = folder / "witness"
        self.copies = folder / "copies"

    def run(self, place="nowhere", count=0):
        """Run one process to its end and return its exit code."""
        one = self._program(PROGRAM, self.witness, place, count)
        code = one.leaves(60)
        assert one.log() == ""
        return code

    def look(self):
        """Examine a copy, so that the next process finds the file as the kill left it."""
        shutil.rmtree(self.copies, ignore_errors=True)
        self.copies.mkdir()
        for suffix in ("", "-wal"):
            found = self.database.with_name(self.database.name + suffix)
            if found.exists():
                shutil.copy(found, self.copies / found.name)
        store = SqliteStore(self.copies / self.database.name)
        try:
            assert check(store) == []
            items = dict(store.read(lambda c: c.execute("select key, status from job_items").fetchall()))
        finally:
            store.close()
        ran = collections.Counter(map(int, self.witness.read_text().split())) if self.witness.exists() else None
        return AtTheKill(
            {int(key) for key, status in items.items() if status == "completed"},
            {int(key) for key, status in items.items() if status == "running"},
            ran or collections.Counter(),
        )

    def recoveries(self):
        """Return for each recovered item how long after its daemon's start that was, in ms."""
        store = SqliteStore(self.database)
        try:
            rows = store.read(
                lambda c: c.execute(
                    "select e.at - d.started_at from job_events e join daemons d on 'daemon ' || d.id = e.actor"
                    " where e.name = 'recover'"
                ).fetchall()
            )
        finally:
            store.close()
        return [row[0] for row in rows]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_that_is_killed_twenty_times_completes_every_item_once(tmp_path, program, seed):
    life = Life(tmp_path, program)
    kills = []
    for place, count in places(seed):
        assert life.run(place, count) == -signal.SIGKILL, f"the job ended before it could be killed at {place} {count}"
        kills.append(life.look())

    assert life.run() == 0
    last = life.look()
    assert last.completed == set(range(ITEMS))
    assert set(last.ran) == set(range(ITEMS))

    for kill in kills:
        assert not {n for n in kill.completed if last.ran[n] > kill.ran[n]}, "what was acknowledged never runs again"
    interrupted = collections.Counter(number for kill in kills for number in kill.running)
    unexplained = {n for n in last.ran if last.ran[n] - 1 > interrupted[n]}
    assert not unexplained, "what ran again was running in the file at a kill"

    late = [waited for waited in life.recoveries() if not 0 <= waited < SOON_MS]
    assert life.recoveries(), "nothing was running at any kill: nothing was shown"
    assert late == []
