"""A pass and a settlement meet over the same rows: each order at each point, and afterwards every rule holds.

Which pairs there are is data, PAIRS; which cannot be, and why, is APART. A new pass and a new edge has to stand in one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import pkgutil
import threading
from typing import NamedTuple

import pytest
from kit.rows import NOW

import jobd.store
from jobd.engine.passes import PASSES
from jobd.errors import JobdError
from jobd.maintenance.evidence import Holder, Rules
from jobd.maintenance.finish import finish
from jobd.maintenance.poll import Asker, poll
from jobd.maintenance.prune import Retention, prune
from jobd.maintenance.reconcile import reconcile
from jobd.maintenance.recover import recover
from jobd.maintenance.time_out import Limits, time_out
from jobd.states import ITEM_EDGES, JOB_EDGES
from jobd.store import pausing, removal, retry, steer
from jobd.store.claim import Lane, Turns, claim, claim_interrupted
from jobd.store.defer import Deferral, defer
from jobd.store.deliver import deliver, deliver_failure
from jobd.store.interrupted import interrupted
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.polling import Said, Word
from jobd.store.settle import settle
from jobd.store.submission import Submission
from jobd.store.submit import submit
from jobd.store.transitions import Move

SECONDS = 20
GRACE = TIMEOUT = 600_000
LATER = NOW + 2 * GRACE
MINE = 1


class World:
    """One job of one item, as a pass finds it; daemon 1 lives, and its registry knows nothing."""

    def __init__(self, store, rows):
        self.store, self.rows = store, rows
        self.daemon(LATER)
        self.job = submit(store, Submission("work"), [("a", "null")], now=NOW, actor="test").job_id
        (self.item,) = rows.ids(self.job)

    def daemon(self, heartbeat_at):
        self.rows.change(
            "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
            " values ('here', 'boot', 1, 1, 1, ?, '1')",
            heartbeat_at,
        )

    def claim(self):
        options = {"limit": 1, "daemon_id": MINE, "now": NOW, "actor": "test"}
        self.store.write(lambda connection: claim(self.store, connection, Turns(), tasks=["work"], **options))

    def claim_again(self):
        """Start what was interrupted once."""
        options = {"limit": 1, "daemon_id": MINE, "now": LATER, "actor": "test"}

        def start(connection):
            found = interrupted(self.store, connection, ["work"], after=0, now=LATER).careful
            return claim_interrupted(self.store, connection, Turns(), found, lane=Lane.CAREFUL, **options)

        self.store.write(start)

    def settle(self, kind, **fields):
        outcome = Outcome(
            self.item, self.job, 1, "work", "a", kind, NOW, LATER,
            '"own"' if kind == "completed" else None, None if kind == "completed" else "E", "no", **fields,
        )  # fmt: skip
        return self.store.write(lambda connection: settle(self.store, connection, [outcome], now=LATER, actor="test"))

    def ends(self):
        return self.rows.one("select i.status, j.status from jobs as j left join job_items as i on i.job_id = j.id")


# -- what a pass finds ------------------------------------------------------------------------------------------------


def forgotten(world):
    """The daemon's own claim, which its registry does not know."""
    world.claim()


def worn(world):
    """The same, of an item that may not die alone once more; its daemon is gone."""
    world.claim()
    world.rows.change("update job_items set daemon_id=2")
    world.daemon(NOW)


def saved(world):
    forgotten(world)
    world.rows.result(world.item)


def waiting(world):
    forgotten(world)
    world.rows.change("update job_items set status='waiting', daemon_id=null, deadline_at=?", NOW)
    world.rows.change("update jobs set items_running=0, items_waiting=1")


def asked(world):
    """The outside is to be asked about it."""
    waiting(world)
    world.rows.change("update job_items set external_id='x', poll_at=?, poll_gap_ms=1000", NOW)


def asked_answered(world):
    asked(world)
    world.rows.result(world.item)


def answered(world):
    waiting(world)
    world.rows.result(world.item)


def recovered(world):
    """Queued again, though its result is there."""
    forgotten(world)
    world.rows.change("update job_items set status='queued', daemon_id=null, interruptions=1")
    world.rows.change("update jobs set items_running=0")
    world.rows.result(world.item)


def failed(world):
    forgotten(world)
    world.settle("failed")


def falsely_failed(world):
    failed(world)
    world.rows.result(world.item)


def late(world):
    """A job that has made no progress for too long."""
    forgotten(world)
    world.rows.change("update jobs set job_timeout_ms=?, timeout_at=?", TIMEOUT, NOW + TIMEOUT)


def too_late(world):
    late(world)
    world.rows.change("update jobs set retry_count=2")


def finished(world):
    """Nothing of it is open, and nobody has ended it."""
    forgotten(world)
    world.rows.change("update job_items set status='skipped', completed_at=?, error='no'", NOW)
    world.rows.change("update jobs set items_running=0, items_skipped=1")


def cancelled(world):
    steer.request_cancel(world.store, world.job, now=NOW, actor="test")
    steer.work_off(world.store, world.job, now=NOW, actor="test")


def cancelling(world):
    steer.request_cancel(world.store, world.job, now=NOW, actor="test")


def cancelling_waiting(world):
    waiting(world)
    cancelling(world)


def cancelling_answered(world):
    answered(world)
    cancelling(world)


def deleting(world):
    failed(world)
    removal.request_delete(world.store, world.job, now=NOW, actor="test")


# -- the passes -------------------------------------------------------------------------------------------------------

MY = Holder(MINE)


def run_recover(store):
    limits = {"work": 0}
    recover(store, holder=MY, rules=Rules("boot", GRACE, limits), now=LATER + 1, actor="pass")


def run_time_out(store):
    limits = Limits(TIMEOUT, tasks=["work"], free_since=NOW)
    time_out(store, holder=MY, limits=limits, now=LATER, actor="pass")
    finish(store, now=LATER, actor="pass")


def run_poll(store):
    def ask(items):
        return [Said(item, Word.VALUE, LATER, '"kept"') for item in items]

    poll(store, askers={"work": Asker(ask, 1)}, now=LATER, actor="pass")


RUNS = {
    "recover": run_recover,
    "reconcile": lambda store: reconcile(store, holder=MY, now=LATER, actor="pass"),
    "time_out": run_time_out,
    "prune": lambda store: prune(
        store, retention=Retention(dict.fromkeys(("completed", "failed", "cancelled"), 1), None, 0), now=LATER + 10,
        actor="pass",
    ),
    "poll": run_poll,
    "finish": lambda store: finish(store, now=LATER, actor="pass"),
}  # fmt: skip

# -- the settlements --------------------------------------------------------------------------------------------------


def settling(kind, **fields):
    def act(world):
        world.settle(kind, **fields)

    return act


def delivering(world):
    deliver(world.store, world.item, '"given"', now=LATER, actor="rival")


def delivering_the_same(world):
    deliver(world.store, world.item, '"kept"', now=LATER, actor="rival")


def delivering_failure(world):
    deliver_failure(world.store, world.item, "no", now=LATER, actor="rival")


def delivering_what_is_taken(world):
    """Another job's result has the key's day."""
    deliver(world.store, world.item, '"given"', now=NOW, actor="rival")


def deferring(world, attempt=1):
    defer(world.store, world.item, attempt, Deferral("y", deadline_ms=GRACE), now=LATER, actor="rival", patience=0)


def asking_anew(world):
    """It has failed outside, and is tried again."""
    delivering_failure(world)
    retrying(world)


def deferring_anew(world):
    asking_anew(world)
    world.claim()
    deferring(world, 2)


def starting(world):
    world.claim_again()


def cancelling_whole(world):
    steer.request_cancel(world.store, world.job, now=LATER, actor="rival")
    steer.work_off(world.store, world.job, now=LATER, actor="rival")


def failing_whole(world):
    steer.request_fail(world.store, world.job, now=LATER, actor="rival", reason="no")
    steer.work_off(world.store, world.job, now=LATER, actor="rival")


def retrying(world):
    retry.retry(world.store, world.job, now=LATER, actor="rival")


def resuming(world):
    retry.resume(world.store, world.job, now=LATER, actor="rival")


def pausing_it(world):
    pausing.pause(world.store, world.job, now=LATER, actor="rival")


def passing(name):
    def act(world):
        RUNS[name](world.store)

    return act


# -- the pairs --------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A pass over a state, and a settlement along an edge; how (item, job) end where the settlement commits first, and
    where the pass does.
    """

    name: str
    state: object
    edge: str
    act: object
    first: tuple[str | None, str]
    second: tuple[str | None, str]


COMPLETED, FAILED, CANCELLED = (("completed",) * 2, ("failed",) * 2, ("cancelled",) * 2)
SKIPPED, AGAIN = ("skipped", "completed"), ("queued", "running")
COMPLETE, FAIL, SKIP = settling("completed"), settling("failed"), settling("skipped")
RELEASE, STOP, CANCEL = settling("released"), settling("stopped"), settling("cancelled")
TIME_OUT, INTERRUPT = settling("timed_out"), settling("interrupted")
RESCHEDULE, OVERDUE = settling("rescheduled", available_at=LATER), settling("overdue", available_at=LATER)
WAITING = ("waiting", "running")
GONE = None  # with all that it had

PAIRS = [
    # Silence condemns what the registry does not know; its own attempt may still report.
    Pair("recover", forgotten, "complete", COMPLETE, COMPLETED, AGAIN),
    Pair("recover", forgotten, "complete", delivering, COMPLETED, COMPLETED),
    Pair("recover", forgotten, "fail", FAIL, FAILED, AGAIN),
    Pair("recover", forgotten, "fail", delivering_failure, FAILED, FAILED),
    Pair("recover", forgotten, "skip", SKIP, SKIPPED, AGAIN),
    Pair("recover", forgotten, "cancel", cancelling_whole, CANCELLED, CANCELLED),
    Pair("recover", forgotten, "release", RELEASE, AGAIN, AGAIN),
    Pair("recover", forgotten, "release", STOP, AGAIN, AGAIN),
    Pair("recover", forgotten, "reschedule", RESCHEDULE, AGAIN, AGAIN),
    Pair("recover", forgotten, "time_out", TIME_OUT, FAILED, AGAIN),
    Pair("recover", forgotten, "time_out", OVERDUE, AGAIN, AGAIN),
    Pair("recover", forgotten, "time_out", INTERRUPT, AGAIN, AGAIN),
    Pair("recover", forgotten, "recover", passing("recover"), AGAIN, AGAIN),
    Pair("recover", forgotten, "defer", deferring, WAITING, AGAIN),
    Pair("recover", worn, "abandon", passing("recover"), FAILED, FAILED),
    Pair("recover", worn, "complete", COMPLETE, COMPLETED, FAILED),
    Pair("recover", saved, "reconcile", passing("reconcile"), COMPLETED, COMPLETED),
    Pair("recover", saved, "complete", COMPLETE, COMPLETED, COMPLETED),
    Pair("recover", saved, "complete", delivering_the_same, COMPLETED, COMPLETED),
    Pair("recover", saved, "time_out", TIME_OUT, COMPLETED, COMPLETED),
    Pair("recover", finished, "job complete", passing("recover"), SKIPPED, SKIPPED),
    Pair("recover", finished, "job fail", failing_whole, SKIPPED, SKIPPED),
    Pair("recover", finished, "job cancel", cancelling_whole, SKIPPED, SKIPPED),
    # A stored result is carried out: nothing that comes undoes it, and what is gone by then stays.
    Pair("reconcile", saved, "complete", COMPLETE, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "complete", delivering_the_same, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "fail", settling("failed", saved=True), COMPLETED, COMPLETED),
    Pair("reconcile", saved, "fail", FAIL, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "skip", SKIP, SKIPPED, COMPLETED),
    Pair("reconcile", saved, "defer", deferring, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "release", STOP, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "reschedule", RESCHEDULE, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "time_out", INTERRUPT, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "reconcile", passing("recover"), COMPLETED, COMPLETED),
    Pair("reconcile", answered, "complete", delivering_the_same, COMPLETED, COMPLETED),
    Pair("reconcile", answered, "cancel", cancelling_whole, CANCELLED, COMPLETED),
    Pair("reconcile", answered, "time_out", passing("time_out"), COMPLETED, COMPLETED),
    Pair("reconcile", recovered, "start", starting, ("running", "running"), COMPLETED),
    Pair("reconcile", recovered, "cancel", cancelling_whole, CANCELLED, COMPLETED),
    Pair("reconcile", falsely_failed, "requeue", retrying, ("queued", "queued"), COMPLETED),
    Pair("reconcile", falsely_failed, "reconcile", delivering_the_same, COMPLETED, COMPLETED),
    Pair("reconcile", falsely_failed, "job reopen", resuming, ("queued", "queued"), COMPLETED),
    Pair("reconcile", falsely_failed, "job reconcile", passing("reconcile"), COMPLETED, COMPLETED),
    Pair("reconcile", answered, "job complete", delivering_the_same, COMPLETED, COMPLETED),
    Pair("reconcile", saved, "job fail", failing_whole, COMPLETED, COMPLETED),
    Pair("reconcile", answered, "job cancel", cancelling_whole, CANCELLED, COMPLETED),
    # A deadline: what has answered by the time that it is looked at again was not too late.
    Pair("time_out", waiting, "complete", delivering, COMPLETED, COMPLETED),
    Pair("time_out", waiting, "fail", delivering_failure, FAILED, FAILED),
    Pair("time_out", waiting, "cancel", cancelling_whole, CANCELLED, FAILED),
    Pair("time_out", waiting, "time_out", passing("time_out"), FAILED, FAILED),
    Pair("time_out", answered, "reconcile", passing("reconcile"), COMPLETED, COMPLETED),
    Pair("time_out", waiting, "pause", pausing_it, ("waiting", "running"), FAILED),
    Pair("time_out", late, "complete", COMPLETE, COMPLETED, AGAIN),
    Pair("time_out", late, "complete", delivering, COMPLETED, COMPLETED),
    Pair("time_out", late, "fail", FAIL, FAILED, AGAIN),
    Pair("time_out", late, "skip", SKIP, SKIPPED, AGAIN),
    Pair("time_out", late, "defer", deferring, WAITING, AGAIN),
    Pair("time_out", late, "release", STOP, AGAIN, AGAIN),
    Pair("time_out", late, "reschedule", RESCHEDULE, AGAIN, AGAIN),
    Pair("time_out", late, "cancel", cancelling_whole, CANCELLED, CANCELLED),
    Pair("time_out", late, "recover", passing("recover"), AGAIN, AGAIN),
    Pair("time_out", late, "time_out", passing("time_out"), AGAIN, AGAIN),
    Pair("time_out", late, "pause", pausing_it, ("running", "running"), AGAIN),
    Pair("time_out", too_late, "job fail", failing_whole, ("cancelled", "failed"), ("cancelled", "failed")),
    Pair("time_out", too_late, "job cancel", cancelling_whole, CANCELLED, ("cancelled", "failed")),
    Pair("time_out", too_late, "job complete", COMPLETE, COMPLETED, ("cancelled", "failed")),
    # What the outside says of an attempt counts for that one alone; after its deadline too.
    Pair("poll", asked, "complete", delivering, COMPLETED, COMPLETED),
    Pair("poll", asked, "fail", delivering_failure, FAILED, COMPLETED),
    Pair("poll", asked, "cancel", cancelling_whole, CANCELLED, COMPLETED),
    Pair("poll", asked, "time_out", passing("time_out"), COMPLETED, COMPLETED),
    Pair("poll", asked_answered, "reconcile", passing("reconcile"), COMPLETED, COMPLETED),
    Pair("poll", asked, "requeue", asking_anew, ("queued", "queued"), COMPLETED),
    Pair("poll", asked, "job reopen", asking_anew, ("queued", "queued"), COMPLETED),
    Pair("poll", asked, "defer", deferring_anew, WAITING, COMPLETED),
    Pair("poll", asked, "pause", pausing_it, COMPLETED, COMPLETED),
    Pair("poll", asked, "job complete", delivering, COMPLETED, COMPLETED),
    Pair("poll", asked, "job fail", failing_whole, ("cancelled", "failed"), COMPLETED),
    Pair("poll", asked, "job cancel", cancelling_whole, CANCELLED, COMPLETED),
    # What has ended is asked to go, unless it has not ended any more.
    Pair("prune", failed, "requeue", retrying, ("queued", "queued"), GONE),
    Pair("prune", failed, "job reopen", retrying, ("queued", "queued"), GONE),
    Pair("prune", cancelled, "requeue", resuming, ("queued", "queued"), GONE),
    Pair("prune", failed, "reconcile", delivering, COMPLETED, GONE),
    Pair("prune", falsely_failed, "job reconcile", passing("reconcile"), COMPLETED, GONE),
    # What was asked for is carried out over what is left of it.
    Pair("finish", cancelling_waiting, "complete", delivering, COMPLETED, CANCELLED),
    Pair("finish", cancelling_waiting, "fail", delivering_failure, FAILED, CANCELLED),
    Pair("finish", cancelling_waiting, "cancel", passing("finish"), CANCELLED, CANCELLED),
    Pair("finish", cancelling, "complete", delivering, COMPLETED, CANCELLED),
    Pair("finish", cancelling_answered, "reconcile", passing("reconcile"), COMPLETED, CANCELLED),
    Pair("finish", cancelling, "job fail", failing_whole, ("cancelled", "failed"), CANCELLED),
    Pair("finish", cancelling, "job cancel", cancelling_whole, CANCELLED, CANCELLED),
    Pair("finish", cancelling_waiting, "job complete", delivering, COMPLETED, CANCELLED),
    Pair("finish", cancelling, "defer", deferring, CANCELLED, CANCELLED),
    Pair("finish", deleting, "requeue", retrying, None, None),
    Pair("finish", deleting, "job reopen", retrying, None, None),
    Pair("finish", deleting, "job reconcile", delivering, None, None),
]

RUNS_NOT = "what it looks at is not queued"
IS_RUNNING = "what is running or waiting has to end before anybody can queue it again"
WAITS = "what it asks about waits"
IS_ENDED = "it touches only jobs that have ended, and nothing of those is open"
APART = {
    ("recover", "start"): RUNS_NOT,
    ("recover", "requeue"): IS_RUNNING,
    ("recover", "job start"): "a job of which something runs has started",
    ("recover", "job reopen"): "a job of which something is open, or that nobody has ended, is open",
    ("recover", "job reconcile"): "only jobs that have ended are decided anew, and it touches none",
    ("recover", "pause"): "a pause holds what starts; what runs, and so what is recovered, goes on",
    ("reconcile", "recover"): "recover goes by the result first, and so along the edge reconcile",
    ("reconcile", "abandon"): "as recover",
    ("reconcile", "job start"): "a job with an item that was begun has started",
    ("reconcile", "pause"): "a pause holds what starts, and a result is one all the same",
    ("time_out", "start"): RUNS_NOT,
    ("time_out", "abandon"): "what it looks at is the living daemon's; abandoned is what a dead one ran alone",
    ("time_out", "requeue"): IS_RUNNING,
    ("time_out", "job start"): "a job is timed once it has started",
    ("time_out", "job reopen"): "only open jobs are timed",
    ("time_out", "job reconcile"): "only open jobs are timed",
    **{("poll", edge): WAITS for edge in ("start", "release", "reschedule", "recover", "abandon", "job start")},
    ("poll", "skip"): "as complete: a delivery whose day is taken",
    ("poll", "job reconcile"): "a job with an item that waits is open",
    **{
        ("prune", edge): IS_ENDED
        for edge in (
            *(
                "start",
                "complete",
                "fail",
                "defer",
                "release",
                "reschedule",
                "skip",
                "cancel",
                "time_out",
                "recover",
                "abandon",
            ),
            *("job start", "job complete", "job fail", "job cancel", "pause"),
        )
    },
    **{
        ("fire", edge): "it moves nothing that there is: it submits, and asks in that transaction whether a job is open"
        for edge in (*ITEM_EDGES, *(f"job {edge}" for edge in JOB_EDGES), "pause")
    },
    ("finish", "start"): "the request was committed before, and stops claiming",
    ("finish", "release"): "running items are left to their own settlement",
    ("finish", "reschedule"): "as release",
    ("finish", "skip"): "as release",
    ("finish", "time_out"): "a deadline counts no more once its job is asked to end",
    ("finish", "recover"): "as release",
    ("finish", "abandon"): "as release",
    ("finish", "job start"): "as start",
    ("finish", "pause"): "a job that is asked to end is not paused any more",
}


def test_every_pass_stands_against_every_edge_that_it_could_meet():
    edges = [*ITEM_EDGES, *(f"job {edge}" for edge in JOB_EDGES), "pause"]
    every = {(name, edge) for name in (*PASSES, "finish") for edge in edges}
    met = {(pair.name, pair.edge) for pair in PAIRS}
    assert met & set(APART) == set()
    assert met | set(APART) == every


def test_along_every_edge_something_moves():
    for module in pkgutil.iter_modules(jobd.store.__path__):
        importlib.import_module(f"jobd.store.{module.name}")
    gc.unfreeze()  # what was frozen after the collection of the tests is told of again
    moves = {move.edge.name for move in gc.get_objects() if isinstance(move, Move)}
    gc.freeze()  # or each later collection of this process would look through all of it
    assert {*ITEM_EDGES, *JOB_EDGES} - moves == set()


# -- both orders ------------------------------------------------------------------------------------------------------


class Meeting:
    """A pass in a thread of its own, which stops at its first write; and the settlement in this one."""

    def __init__(self, world, pair, monkeypatch):
        self.world, self.pair = world, pair
        self.looked, self.go = threading.Event(), threading.Event()
        self.write = world.store.write
        self.first = True
        monkeypatch.setattr(world.store, "write", self._write)
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            RUNS[self.pair.name](self.world.store)
        finally:
            self.world.store.close()

    def _write(self, work, **options):
        if threading.current_thread() is self.thread and self.first:
            self.first = False
            return self.stop(work, options)
        return self.write(work, **options)

    def act(self):
        # Who comes too late is refused, or told so by an event.
        with contextlib.suppress(JobdError):
            self.pair.act(self.world)

    def end(self):
        self.go.set()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        assert not self.first, "the pass had nothing to do"


class Looked(Meeting):
    """The settlement commits after the pass has looked and before it acts."""

    settlement_first = True

    def stop(self, work, options):
        self.looked.set()
        assert self.go.wait(SECONDS)
        return self.write(work, **options)

    def meet(self):
        self.thread.start()
        assert self.looked.wait(SECONDS)
        self.act()
        self.end()


class Settling(Looked):
    """The settlement has written and holds the lock when the pass acts."""

    def stop(self, work, options):
        self.looked.set()
        assert self.go.wait(SECONDS)
        self.trying.set()
        return self.write(work, **options)

    def meet(self):
        self.trying = threading.Event()
        self.thread.start()
        assert self.looked.wait(SECONDS)

        def hold(_):
            self.act()
            self.go.set()
            assert self.trying.wait(SECONDS)

        self.write(hold)
        self.end()


class Acting(Meeting):
    """The pass has written and holds the lock when the settlement comes."""

    settlement_first = False

    def stop(self, work, options):
        def hold(connection):
            answer = work(connection)
            self.looked.set()
            assert self.go.wait(SECONDS)
            return answer

        return self.write(hold, **options)

    def meet(self):
        self.thread.start()
        assert self.looked.wait(SECONDS)
        self.go.set()
        self.act()
        self.end()


class Acted(Meeting):
    """The settlement comes when the pass is through."""

    settlement_first = False

    def stop(self, work, options):
        return self.write(work, **options)

    def meet(self):
        self.thread.start()
        self.end()
        self.act()


@pytest.mark.parametrize("order", [Looked, Settling, Acting, Acted], ids=lambda order: order.__name__.lower())
@pytest.mark.parametrize(
    "pair", PAIRS, ids=lambda pair: f"{pair.name}-{getattr(pair.state, '__name__', '')}-{pair.edge.replace(' ', '_')}"
)
def test_a_pass_and_a_settlement_meet(store, rows, monkeypatch, pair, order):
    world = World(store, rows)
    pair.state(world)
    order(world, pair, monkeypatch).meet()
    expected = pair.first if order.settlement_first else pair.second
    assert (world.ends() if expected or rows.all("select 1 from jobs") else None) == expected
    assert check(store) == []
    # What a rival commits in between leaves nothing for the same pass to find wrong.
    before = rows.all("select * from job_items")
    if pair.name in {"recover", "reconcile"}:
        RUNS[pair.name](store)
        assert rows.all("select * from job_items") == before
