"""What the dispatcher asks for, turn by turn: an idle one asks for next to nothing, whatever lies in the store."""

from __future__ import annotations

import datetime as dt

import pytest

from jobd import clock
from jobd.engine.claims import Claims
from jobd.store import claim as claiming
from jobd.store import interrupted as looking
from jobd.store.claim import Lane
from jobd.store.invariants import check

SECONDS = 20
NOW = 1_795_305_600_000


class Turn:
    """Claims turn by turn, as the dispatcher does, with the statements that each turn took."""

    def __init__(self, store, tasks=("work",), slots=2):
        self.store = store
        self.claims = Claims(store, daemon_id=1, tasks=list(tasks), slots=slots)
        self.statements = []

    def __call__(self, now=NOW):
        connection = self.store.connection()
        self.statements.clear()
        connection.set_trace_callback(self.statements.append)
        try:
            claimed, _ = self.store.write(lambda connection: self.claims.claim(connection, [], 500, now))
        finally:
            connection.set_trace_callback(None)
        if claimed:
            self.claims.started(claimed, clock.awake())
        return [(item.task, item.lane) for item in claimed]

    @property
    def looks(self):
        """How often the last turn looked for what was interrupted."""
        return sum("with recursive" in statement and "interruptions > 0" in statement for statement in self.statements)


@pytest.fixture
def awake(monkeypatch):
    """The time that passes while the machine is awake, moved by hand."""
    now = [5_000.0]
    monkeypatch.setattr(clock, "awake", lambda: now[0])

    def go(seconds):
        now[0] += seconds

    return go


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def add(app, rows):
    """Submit jobs of one item, and change their items."""

    def add(count, task="work", **columns):
        if task not in app.tasks:
            app.task(lambda _: None, name=task)
        jobs = [app.submit(task, [number]).id for number in range(count)]
        for name, value in columns.items():
            rows.change(f"update job_items set {name}=? where job_id between ? and ?", value, jobs[0], jobs[-1])
        return jobs

    return add


# -- what is due later ------------------------------------------------------------------------------------------------


def test_a_crowd_that_is_due_later_is_passed_by_in_small_turns_and_then_only_its_time_is_known(store, add, monkeypatch):
    monkeypatch.setattr(claiming, "MOST", 10)
    add(35, available_at=NOW + 50)
    add(1)
    turn = Turn(store)
    taken = []
    while turn.claims.more:
        assert turn.claims.wanted()
        taken.append(turn())
    assert 4 <= len(taken) <= 6
    assert [item for claimed in taken for item in claimed] == [("work", Lane.FRESH)]
    assert turn.claims.due == NOW + 50
    assert not turn.claims.wanted()
    turn.claims.more = True
    assert turn() == []
    assert len(turn.statements) == 5


def test_jobs_of_tasks_that_nobody_here_knows_wake_nobody(store, add):
    add(3, "unknown", available_at=NOW + 50)
    turn = Turn(store)
    assert turn() == []
    assert (turn.claims.more, turn.claims.due) == (False, None)


# -- what was interrupted ---------------------------------------------------------------------------------------------


@pytest.fixture
def leftovers(store, add, awake, monkeypatch):
    """A turn beside interrupted items of five jobs that nobody here can run, looked at two at a time."""
    monkeypatch.setattr(looking, "JOBS", 2)
    add(5, "unknown", interruptions=2)
    turn = Turn(store)
    turn.claims.solitude.anybody = True
    return turn


def round_of(turn, now=NOW):
    """Take turns until none is wanted; return what they claimed and how often they looked."""
    claimed, looks = [], 0
    turn.claims.more = True
    while turn.claims.more and len(claimed) < 2:
        claimed += turn(now)
        looks += turn.looks
    return claimed, looks


def test_a_round_over_what_was_interrupted_is_not_repeated_while_nothing_happens(leftovers, awake):
    assert round_of(leftovers) == ([], 3)
    for _ in range(5):
        awake(1)
        assert round_of(leftovers) == ([], 0)
        assert len(leftovers.statements) == 6
    awake(60)
    assert round_of(leftovers) == ([], 3)


def test_whatever_becomes_of_a_job_is_a_reason_for_another_round(app, leftovers, awake, rows):
    assert round_of(leftovers) == ([], 3)
    app.submit("unknown", [1])
    leftovers.claims.more = True
    assert leftovers() == []
    # Not at once, while it is busy, but then by itself.
    assert leftovers.claims.due == NOW + 101
    awake(0.11)
    assert round_of(leftovers, NOW + 101) == ([], 3)


def test_what_can_run_is_found_behind_what_cannot(leftovers, add):
    add(1, interruptions=1)
    assert round_of(leftovers)[0] == [("work", Lane.CAREFUL)]


def test_an_interrupted_item_is_found_when_its_time_has_come(leftovers, add, awake):
    add(1, interruptions=1, available_at=NOW + 5_000)
    assert round_of(leftovers)[0] == []
    assert leftovers.claims.due == NOW + 5_000
    awake(5)
    assert round_of(leftovers, NOW + 5_000)[0] == [("work", Lane.CAREFUL)]


def test_who_waits_for_the_pool_to_itself_is_not_lost_sight_of(leftovers, add, awake):
    """Others run, so the pool is emptied for it, turn after turn, though more jobs come after it than are looked at."""
    add(1)
    leftovers.claims.solitude.anybody = False
    assert leftovers() == [("work", Lane.FRESH)]
    add(1, interruptions=2)
    add(9, "another", interruptions=2)
    add(1)
    leftovers.claims.solitude.anybody = leftovers.claims.more = True
    for _ in range(9):
        leftovers.claims.more = True
        assert leftovers() in ([], [("work", Lane.FRESH)])
    assert leftovers() == []
    assert leftovers.claims.due > NOW


def test_where_nothing_is_left_that_was_interrupted_nobody_looks(store, add, awake):
    add(1, interruptions=1)
    turn = Turn(store)
    turn.claims.solitude.anybody = True
    assert turn() == [("work", Lane.CAREFUL)]
    turn()
    assert turn.claims.solitude.anybody is False
    awake(100)
    turn()
    assert turn.looks == 0


# -- in a daemon ------------------------------------------------------------------------------------------------------


def test_a_daemon_runs_who_can_run_in_the_midst_of_those_that_cannot(app, rows, add, monkeypatch):
    monkeypatch.setattr(claiming, "MOST", 7)
    monkeypatch.setattr(looking, "JOBS", 3)
    add(40, available_at=9_000_000_000_000)
    add(20, interruptions=2, available_at=9_000_000_000_000)
    add(10)
    add(10, interruptions=1)
    add(2, interruptions=2)
    add(40, available_at=9_000_000_000_000)
    app.submit("work", [1], not_before=dt.datetime(2999, 1, 1, tzinfo=dt.UTC))
    with app.daemon(workers=2):
        app.submit("work", ["the last"]).wait(SECONDS)
        for job in app.jobs(limit=200):
            if rows.one("select available_at from job_items where job_id=?", job.id) == 0 and job.not_before is None:
                job.wait(SECONDS)
    assert rows.one("select count(*) from job_items where status='completed'") == 23
