"""The dispatcher in a real daemon: the store first and memory after, 50 ms ahead and no more, and nothing stops it."""

from __future__ import annotations

import signal
import sqlite3
import sys
import threading
import types

import pytest
from kit.beats import WITHOUT_BEATS

from jobd import Skip
from jobd.engine import dispatcher as dispatching
from jobd.engine import held_up
from jobd.engine import turn as turning
from jobd.engine.arrivals import Arrivals
from jobd.engine.dispatcher import HOLD
from jobd.engine.pace import Pace
from jobd.engine.turn import Turn
from jobd.store.claim import Lane
from jobd.store.failures import Transient
from jobd.store.invariants import check

SECONDS = 20
MIB = 1024 * 1024


class Watch:
    """Counts the dispatcher's turns and keeps what each of them claimed."""

    def __init__(self):
        self.claims = []
        self.turns = 0
        self._changed = threading.Condition()

    def note(self, turn):
        with self._changed:
            self.turns += 1
            if turn.claimed:
                self.claims.append([(item.item_id, item.lane) for item in turn.claimed])
            self._changed.notify_all()

    def until(self, fact):
        with self._changed:
            assert self._changed.wait_for(fact, SECONDS)

    def after_a_ring(self, store):
        """Ring, and return when the dispatcher has looked at the store once more."""
        before = self.turns
        store.wake()
        self.until(lambda: self.turns > before)


@pytest.fixture
def watch(monkeypatch):
    watch = Watch()
    take = Turn.take

    def noted(self, outcomes):
        answer = take(self, outcomes)
        watch.note(answer)
        return answer

    monkeypatch.setattr(Turn, "take", noted)
    return watch


@pytest.fixture
def app(make_app):
    """Without the beats that write: nothing but what is under test wakes the dispatcher."""
    return make_app(heartbeat=600.0, recover_every=600.0)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def at(monkeypatch):
    """Have something done when the dispatcher reaches a named point."""
    hooks = {}
    reach = turning.reach

    def reached(name):
        reach(name)
        hooks.get(name, lambda: None)()

    monkeypatch.setattr(turning, "reach", reached)
    return hooks.__setitem__


@pytest.fixture
def outside(path, app):
    """Another program's connection: it sees what has committed, and nothing else."""
    assert app.store
    connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    yield connection
    connection.close()


def count(rows, status):
    return rows.one("select count(*) from job_items where status=?", status)


def statuses(job):
    return {item.key: item.status for item in job.items()}


# -- the store first, memory after ------------------------------------------------------------------------------------


def test_the_registry_forgets_an_item_only_after_its_settlement_has_committed(app, at, outside):
    @app.task
    def work(_):
        return 1

    seen = []
    with app.daemon(workers=1) as daemon:
        registry = daemon._dispatcher.registry

        def look(point):
            (status,) = outside.execute("select status from job_items").fetchone()
            seen.append((point, status, len(registry)))

        for point in ("settle.before_commit", "settle.after_commit"):
            at(point, lambda point=point: look(point))
        work.submit().wait(SECONDS)
    assert seen == [("settle.before_commit", "running", 1), ("settle.after_commit", "completed", 1)]
    assert registry == {}


def test_a_handler_begins_only_after_its_claim_has_committed(app, at, outside):
    seen = []

    @app.task
    def work(_):
        seen.append(outside.execute("select status, attempt from job_items").fetchone())

    def before():
        seen.append(outside.execute("select status, attempt from job_items").fetchone())

    at("claim.before_commit", before)
    with app.daemon(workers=1):
        work.submit().wait(SECONDS)
    assert seen == [("queued", 0), ("running", 1)]


def test_what_a_turn_had_claimed_before_it_failed_is_claimed_again_at_once(app, at, rows):
    """Also an item that was to run alone: nobody runs alone before the claim has committed."""
    failures = []

    @app.task
    def work(_):
        return 1

    def fail():
        if len(failures) < 2:
            failures.append(1)
            raise Transient("locked", reason="locked", waited=0.001)

    at("claim.before_commit", fail)
    alone, other = work.submit([1]), work.submit([2])
    rows.change("update job_items set interruptions=2 where job_id=?", alone.id)
    with app.daemon(workers=2):
        alone.wait(SECONDS)
        other.wait(SECONDS)
    assert failures == [1, 1]
    assert rows.all("select attempt from job_items") == [(1,), (1,)]


def test_outcomes_of_a_turn_that_failed_are_settled_by_the_next(app, at, rows):
    failures = []

    @app.task
    def work(value):
        return value

    def fail():
        if len(failures) < 2:
            failures.append(1)
            raise Transient("locked", reason="locked", waited=0.001)

    at("settle.before_commit", fail)
    with app.daemon(workers=2) as daemon:
        job = work.submit(range(50)).wait(SECONDS)
        assert daemon.degraded is None
    assert failures == [1, 1]
    assert (job.status, job.counts.completed) == ("completed", 50)
    assert rows.one("select count(*) from results") == 50
    assert rows.item_events() == []


def test_a_ring_that_could_not_be_attended_to_is_attended_to_later(app, held, until, monkeypatch):
    """Who asks for something beside items rings once; nothing else may happen in the file for hours."""
    tried = []

    def attend():
        tried.append(None)
        if len(tried) == 1:
            raise Transient("jobs.db: I/O error", reason="I/O error", waited=1.0)

    with app.daemon(workers=1) as daemon:
        until(lambda: not daemon._dispatcher._wake._rung and daemon._dispatcher._wake._sleeping)
        monkeypatch.setattr(daemon._dispatcher, "_has_changed", lambda: False)
        monkeypatch.setattr(daemon._dispatcher, "_rung", attend)
        app.store.wake()
        until(lambda: len(tried) > 1 and daemon.degraded is None)
        assert daemon.failure is None


# -- claiming ahead ---------------------------------------------------------------------------------------------------


@pytest.fixture
def paced(monkeypatch):
    """Say how long an item takes, whatever it took."""

    def paced(seconds):
        monkeypatch.setattr(
            Pace, "observe", lambda self, ended: self._seconds.update(dict.fromkeys(dict(ended), seconds))
        )

    return paced


@pytest.fixture
def holds(app, gate):
    """A task whose items with an even number pass, and whose odd ones wait at the gate."""

    @app.task
    def holds(number):
        if number % 2:
            gate.pass_through()
        return number

    return holds


def test_until_a_task_has_shown_its_pace_only_free_slots_are_filled(app, held, gate, watch, until, rows):
    job = held.submit(range(100))
    with app.daemon(workers=3) as daemon:
        until(lambda: count(rows, "running") == 3)
        for _ in range(5):
            app.store.wake()
            until(lambda: not daemon._dispatcher._wake._rung and daemon._dispatcher._wake._sleeping)
            assert count(rows, "running") == 3
        assert [len(claim) for claim in watch.claims] == [3]
        gate.opened.set()
        job.wait(SECONDS)


@pytest.mark.parametrize(("seconds", "ahead"), [(0.01, 10), (0.02, 5), (0.05, 2), (0.06, 0)])
def test_no_more_is_claimed_ahead_than_50_ms_of_work(app, holds, gate, paced, monkeypatch, until, rows, seconds, ahead):
    paced(seconds)
    monkeypatch.setattr(dispatching, "STALE", 1_000.0)
    job = holds.submit([0, 1, 3, 5, *range(7, 100, 2)])
    with app.daemon(workers=2) as daemon:
        until(lambda: count(rows, "completed") == 1 and count(rows, "running") == 2 + ahead)
        until(lambda: not daemon._dispatcher._turn.wanted() and daemon._dispatcher._wake._sleeping)
        assert count(rows, "running") == 2 + ahead
        gate.opened.set()
        job.wait(SECONDS)


def test_the_dispatcher_wakes_for_a_deadline_though_nobody_rings(make_app, gate, monkeypatch, until):
    monkeypatch.setattr(dispatching, "GLANCE", 1_000.0)
    app = make_app(**WITHOUT_BEATS)
    slow = app.task(lambda _: gate.pass_through(), name="slow", timeout=0.3)
    with app.daemon(workers=1):
        job = slow.submit([1])
        until(lambda: job.refresh().counts.failed == 1)
        assert [item.error_type for item in job.items()] == ["TimeOut"]
        gate.opened.set()


def test_what_waited_100_ms_for_its_slot_is_given_back_and_runs_later(app, gate, paced, until, rows):
    """The two slots are held; the ten that were claimed ahead must not look as if they ran."""
    ran = []

    @app.task
    def work(number):
        if number in (1, 2):
            gate.pass_through()
        ran.append(number)

    paced(0.01)
    job = work.submit(range(40))
    with app.daemon(workers=2) as daemon:
        until(lambda: count(rows, "running") > 2)
        until(lambda: count(rows, "running") == 2)
        until(lambda: daemon._dispatcher._wake._sleeping)
        assert len(daemon._dispatcher.registry) == 2
        assert rows.one("select max(attempt) from job_items where status='queued'") == 0
        assert rows.one("select count(*) from job_items where status='queued' and started_at is not null") == 0
        assert rows.one("select items_running from jobs") == 2
        gate.opened.set()
        job.wait(SECONDS)
    assert sorted(ran) == list(range(40))
    assert rows.all("select attempt, count(*) from job_items group by 1") == [(1, 40)]
    assert rows.item_events() == []


def test_slots_that_were_slow_to_take_what_was_claimed_are_claimed_for_again_though_nothing_ends(
    app, gate, jobd_clock, until
):
    """On a busy machine a worker may need longer for its start than anything waits: what runs may take hours."""

    @app.task
    def work(number):
        if number:
            gate.pass_through()

    with app.daemon(workers=2) as daemon:
        first = work.submit([1])
        assert gate.entered.wait(SECONDS)
        (pool,) = daemon._dispatcher._pools._all()
        pool.claims.given_back()
        second = work.submit([0])
        until(lambda: not daemon._dispatcher._wake._rung and daemon._dispatcher._wake._sleeping)
        assert second.refresh().status == "queued"
        jobd_clock.move(seconds=held_up.FIRST)
        assert second.wait(SECONDS).status == "completed"
        assert first.refresh().status == "running"
        gate.opened.set()


def test_the_slot_that_comes_free_goes_to_who_is_next_once_what_waited_was_given_back(app, gate, paced, until, rows):
    """The buffer of one task must not keep a job of another, of a higher priority, from the slot that comes free."""
    begun, last = [], threading.Event()

    @app.task
    def work(number):
        begun.append(number)
        if number == 1:
            gate.pass_through()
        elif number:
            assert last.wait(SECONDS)

    @app.task
    def other(name):
        begun.append(name)

    paced(0.01)
    work.submit(range(40))
    with app.daemon(workers=2) as daemon:
        until(lambda: count(rows, "running") > 2)
        until(lambda: count(rows, "running") == 2)
        until(lambda: daemon._dispatcher._wake._sleeping)
        urgent = other.submit(["urgent"], priority=5)
        gate.opened.set()
        urgent.wait(SECONDS)
        last.set()
    assert begun[:4] == [0, 1, 2, "urgent"]


# -- the gap ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gaps(app, monkeypatch, outside):
    """Count the gaps, and have a rival write in each: it does not wait, so that it fails where the lock is held.

    Other threads of this process may write then, too: with the mutex, which this thread may take twice, none does.
    """
    taken = []

    def sleep(seconds):
        if seconds == dispatching.GAP:
            with app.writing().mutex:
                outside.execute("begin immediate")
                outside.execute("update daemons set version=version")
                outside.execute("commit")
            taken.append(seconds)

    monkeypatch.setattr(dispatching, "time", types.SimpleNamespace(sleep=sleep))
    return taken


def test_under_load_the_lock_is_left_alone_after_each_10_ms_of_work(app, gaps, watch):
    @app.task
    def work(_):
        return 1

    job = work.submit(range(4_000))
    with app.daemon(workers=2):
        job.wait(60)
    assert (dispatching.GAP, HOLD) == (0.001, 0.010)
    assert gaps
    assert job.counts.completed == 4_000


@pytest.mark.parametrize(("hold", "every"), [(0.0, True), (1_000.0, False)])
def test_the_gap_follows_the_work_and_not_the_clock(app, gaps, monkeypatch, hold, every):
    monkeypatch.setattr(dispatching, "HOLD", hold)

    @app.task
    def work(_):
        return 1

    job = work.submit(range(500))
    with app.daemon(workers=2):
        job.wait(60)
    assert bool(gaps) is every


def test_a_transaction_that_took_too_long_makes_the_next_smaller_and_a_short_one_larger(app, monkeypatch):
    """The batch follows what 10 ms hold, between 64 and 2,000 items."""
    with app.daemon(workers=1) as daemon:
        turn = daemon._dispatcher._turn
        daemon.stop()
        assert daemon.join(SECONDS)
    seconds = []
    turn.batch.size = 64
    monkeypatch.setattr(turning.clock, "awake", seconds.pop)

    def sized(lasted):
        seconds[:] = [lasted, 0.0]
        turn.take([])
        return turn.batch.size

    assert [sized(0.001) for _ in range(6)] == [128, 256, 512, 1_024, 2_000, 2_000]
    assert sized(0.007) == 2_000
    assert sized(0.016) == 1_000
    assert sized(0.1) == 80
    assert sized(10.0) == 64


# -- what is not JSON -------------------------------------------------------------------------------------------------


def circular():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(200_000):
        value = [value]
    return value


RESULTS = {
    "nan": (lambda: float("nan"), "result is not JSON: Out of range float values are not JSON compliant"),
    "set": (lambda: {1}, "result is not JSON: Object of type set is not JSON serializable"),
    "bytes": (lambda: b"x", "result is not JSON: Object of type bytes is not JSON serializable"),
    "surrogate": (lambda: "\udc80", "result is not JSON: a lone surrogate"),
    "2**80": (lambda: 2**80, "result is not JSON: an integer beyond 64 bits"),
    "circular": (circular, "result is not JSON: nested too deeply, or circular"),
    "deep": (deep, "result is not JSON: nested too deeply, or circular"),
    "2 MiB": (lambda: "x" * 2 * MIB, "result is 2 MiB, the limit is 1 MiB: save_data()"),
}


def test_a_result_that_cannot_be_stored_fails_its_item_with_the_reason_and_no_other(app):
    @app.task
    def work(name):
        return RESULTS[name][0]() if name in RESULTS else name

    job = work.submit([*RESULTS, *"abcdefgh"], tolerance=len(RESULTS))
    with app.daemon(workers=4):
        job.wait(SECONDS)
    assert {item.key: (item.error or "").removesuffix(": nan") for item in job.items(status="failed")} == {
        name: sentence for name, (_, sentence) in RESULTS.items()
    }
    assert (job.status, job.counts.completed, job.counts.failed) == ("completed", 8, len(RESULTS))
    assert job.warnings == (f"{len(RESULTS)} of {len(RESULTS) + 8} items failed",)


# -- whatever a handler does ------------------------------------------------------------------------------------------


class Mute(BaseException):
    def __str__(self):
        raise SystemExit("from __str__")


def nothing_ends(payload):
    return nothing_ends(payload)


def raises(error):
    raise error


HANDLERS = {
    "SystemExit": lambda _: sys.exit(3),
    "KeyboardInterrupt": lambda _: raises(KeyboardInterrupt),
    "GeneratorExit": lambda _: raises(GeneratorExit),
    "Mute": lambda _: raises(Mute),
    "RecursionError": nothing_ends,
    "ValueError": lambda _: raises(ValueError("\udc80\0")),
}


def test_whatever_a_handler_raises_the_pool_stays_whole(app):
    @app.task
    def work(name):
        return HANDLERS[name.split("-")[0]](None)

    @app.task
    def fine(value):
        return value

    with app.daemon(workers=2) as daemon:
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("jobd-worker-")]
        job = work.submit([f"{name}-{number}" for name in HANDLERS for number in range(5)]).wait(SECONDS)
        assert job.counts.failed == 5 * len(HANDLERS)
        assert {item.key.split("-")[0]: item.error_type for item in job.items()} == {name: name for name in HANDLERS}
        assert fine.submit(range(50)).wait(SECONDS).status == "completed"
        assert all(thread.is_alive() for thread in workers)
        assert daemon.failure is None


def test_a_skip_is_no_failure_and_its_reason_is_kept(app):
    @app.task
    def work(number):
        if number % 2:
            raise Skip("odd")

    with app.daemon():
        job = work.submit(range(4)).wait(SECONDS)
    assert job.status == "completed"
    assert [(item.status, item.error_type, item.error) for item in job.items(status="skipped")] == [
        ("skipped", "Skip", "odd"), ("skipped", "Skip", "odd"),
    ]  # fmt: skip


def test_an_item_of_a_task_that_is_not_known_here_stays_queued(app, rows, watch):
    @app.task
    def known(_):
        return 1

    app.submit("unknown", [1], priority=9)
    with app.daemon():
        known.submit([1]).wait(SECONDS)
        watch.after_a_ring(app.store)
        assert rows.all("select task, status from jobs") == [("unknown", "queued"), ("known", "completed")]


def test_a_job_starts_by_itself_when_its_time_has_come(app, rows):
    import datetime as dt

    @app.task
    def work(_):
        return 1

    with app.daemon():
        when = dt.datetime.now(tz=dt.UTC) + dt.timedelta(milliseconds=150)
        job = work.submit([1], not_before=when).wait(SECONDS)
    assert job.started_at >= int(when.timestamp() * 1000)


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_what_a_handler_saved_counts_though_it_did_not_end_in_time(app, gate, rows, until):
    under_way = []

    @app.task
    def work(how, ctx):
        if how == "saves":
            ctx.save_result("kept")
        under_way.append(how)
        gate.pass_through()

    job = work.submit(["saves", "does not"])
    with app.daemon(workers=2) as daemon:
        until(lambda: len(under_way) == 2)
        daemon.stop(drain=False)
        assert daemon.join(SECONDS)
    assert statuses(job) == {"saves": "completed", "does not": "queued"}
    assert [result.value for result in job.results()] == ["kept"]
    assert sorted(rows.item_events()) == ["complete", "release"]


def test_who_ends_while_it_is_being_given_back_has_ended(app, gate, until, rows, monkeypatch):
    give_back = Arrivals.give_back

    def late(self, pending):
        give_back(self, pending)
        if len(self._arrived) == 1:
            gate.opened.set()
            until(lambda: len(self._arrived) == 2)

    monkeypatch.setattr(Arrivals, "give_back", late)

    @app.task
    def work(_):
        gate.pass_through()
        return "in time"

    job = work.submit([1])
    with app.daemon(workers=1) as daemon:
        assert gate.entered.wait(SECONDS)
        daemon.stop(drain=False)
        assert daemon.join(SECONDS)
    assert job.refresh().status == "completed"
    assert rows.item_events() == []


# -- what was interrupted ---------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(rows):
    def interrupted(job, times):
        rows.change("update job_items set interruptions=? where job_id=?", times, job.id)

    return interrupted


class Beside:
    """Who runs beside whom: each handler notes how many of them are under way."""

    def __init__(self):
        self.most = {}
        self._running = set()
        self._lock = threading.Lock()

    def __call__(self, name):
        with self._lock:
            self._running.add(name)
            for other in self._running:
                self.most[other] = max(self.most.get(other, 0), len(self._running))

    def over(self, name):
        with self._lock:
            self._running.discard(name)


def test_after_two_deaths_an_item_runs_alone(app, rows, interrupted, watch):
    beside = Beside()

    @app.task
    def work(name):
        beside(name)
        threading.Event().wait(0.005)
        beside.over(name)

    fresh, twice, thrice = (
        work.submit([f"{kind}-{n}" for n in range(many)]) for kind, many in (("a", 30), ("b", 3), ("c", 2))
    )
    interrupted(twice, 2)
    interrupted(thrice, 3)
    with app.daemon(workers=4):
        for job in (fresh, twice, thrice):
            job.wait(SECONDS)
    assert {name: most for name, most in beside.most.items() if name[0] != "a"} == {
        "b-0": 1, "b-1": 1, "b-2": 1, "c-0": 1, "c-1": 1,
    }  # fmt: skip
    alone = [claim for claim in watch.claims if any(lane is Lane.ALONE for _, lane in claim)]
    assert [len(claim) for claim in alone] == [1] * 5
    assert rows.all("select attempt, count(*) from job_items group by 1") == [(1, 35)]


def test_nobody_starts_beside_it_for_60_seconds_and_then_everybody(app, interrupted, jobd_clock, gate, watch, rows):
    @app.task
    def work(name):
        if name == "alone":
            gate.pass_through()

    alone, others = work.submit(["alone"]), work.submit(range(20))
    interrupted(alone, 2)
    with app.daemon(workers=4):
        assert gate.entered.wait(SECONDS)
        for seconds in (0, 30, 25):
            jobd_clock.move(seconds=seconds)
            watch.after_a_ring(app.store)
            watch.after_a_ring(app.store)
            assert count(rows, "running") == 1
            assert count(rows, "completed") == 0
        jobd_clock.move(seconds=6)
        watch.after_a_ring(app.store)
        others.wait(SECONDS)
        assert statuses(alone) == {"alone": "running"}
        gate.opened.set()
        alone.wait(SECONDS)


def test_the_pool_is_emptied_for_it_and_it_starts_as_soon_as_the_last_has_ended(
    app, interrupted, gate, watch, rows, until
):
    order = []

    @app.task
    def work(name):
        order.append(name)
        if name.startswith("long"):
            gate.pass_through()

    long = work.submit(["long-1", "long-2"])
    with app.daemon(workers=4):
        until(lambda: len(order) == 2)
        # All at once, so that nobody slips in before it is known that one of them must run alone.
        with app.store.mutex:
            alone = work.submit(["alone"])
            interrupted(alone, 2)
        app.recover()
        fresh = work.submit(range(3), priority=9)
        watch.after_a_ring(app.store)
        assert (len(order), count(rows, "queued")) == (2, 4)
        gate.opened.set()
        alone.wait(SECONDS)
        fresh.wait(SECONDS)
        long.wait(SECONDS)
    assert order[2] == "alone"


def test_where_the_pool_does_not_empty_others_go_on_after_a_minute(app, interrupted, gate, watch, rows, jobd_clock):
    @app.task
    def work(name):
        if name == "long":
            gate.pass_through()

    work.submit(["long"])
    with app.daemon(workers=2):
        assert gate.entered.wait(SECONDS)
        with app.store.mutex:
            alone = work.submit(["alone"])
            interrupted(alone, 2)
        app.recover()
        fresh = work.submit(range(3))
        watch.after_a_ring(app.store)
        assert count(rows, "queued") == 4
        jobd_clock.move(seconds=61)
        watch.after_a_ring(app.store)
        fresh.wait(SECONDS)
        assert statuses(alone) == {"alone": "queued"}
        gate.opened.set()
        alone.wait(SECONDS)


def test_what_was_interrupted_once_goes_into_free_slots_only(app, interrupted, paced, gate, watch, rows, until):
    paced(0.0001)

    @app.task
    def work(number):
        if number:
            gate.pass_through()

    job = work.submit(range(30))
    interrupted(job, 1)
    with app.daemon(workers=2) as daemon:
        until(lambda: count(rows, "completed") == 1 and count(rows, "running") == 2)
        for _ in range(3):
            app.store.wake()
            until(lambda: not daemon._dispatcher._wake._rung and daemon._dispatcher._wake._sleeping)
            assert (len(daemon._dispatcher.registry), daemon._dispatcher._pools.waiting()) == (2, 0)
        gate.opened.set()
        job.wait(SECONDS)
    assert {lane for claim in watch.claims for _, lane in claim} == {Lane.CAREFUL}
    assert max(len(claim) for claim in watch.claims) <= 2


# An item that kills the process: it runs in real daemons that die of it and are started again.
KILLER = """
app = Jobd(path)
witness, how = sys.argv[2:]

@app.task
def work(name):
    with open(witness, "a") as file:
        file.write(name + "\\n")
    if name == "killer":
        if how == "exits":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

names = [f"item-{number}" for number in range(8)]
names.insert(3, "killer")
with app.daemon(workers=3):
    job = work.submit(names, key="once", tolerance=1)
    say(job.wait(20).status)
"""


def test_an_item_that_kills_its_daemon_fails_at_the_sixth_lone_death_and_its_neighbours_complete(
    app, program, rows, tmp_path
):
    witness = tmp_path / "witness"
    codes = []
    while len(codes) < 12:
        one = program(KILLER, witness, "exits" if len(codes) % 2 else "is killed")
        codes.append(one.leaves())
        if codes[-1] == 0:
            break
        assert codes[-1] in {-signal.SIGKILL, 3}, one.log()
        assert count(rows, "running") >= 1
        assert rows.one("select lone_deaths from job_items where key='killer'") <= 5
    # It died beside others at most twice before it ran alone, and then six times.
    assert 6 <= len(codes) - 1 <= 8
    job = app.job("=once")
    assert (job.status, job.counts.completed, job.counts.failed) == ("completed", 8, 1)
    (failed,) = job.items(status="failed")
    assert (failed.key, failed.error) == ("killer", "interrupted: its daemon died 6 times while it ran alone")
    runs = witness.read_text().split()
    assert runs.count("killer") == len(codes) - 1
    # Each neighbour ran again at most as often as it was interrupted, and is recorded once.
    attempts = dict(rows.all("select key, attempt from job_items"))
    assert all(runs.count(name) <= attempts[name] for name in attempts)
    assert rows.one("select count(*) from results") == 8
    assert rows.one("select max(lone_deaths) from job_items where key <> 'killer'") == 0
