"""drain and tick: the daemon in the calling thread, for what is due now."""

from __future__ import annotations

import datetime as dt
import os
import threading
from pathlib import Path

import pytest

from jobd import DaemonRunning, Fail, Jobd, NoDaemon, Skip, StoreBusy, UsageError
from jobd.engine import lock
from jobd.engine.inline import Drained
from jobd.engine.passes import PASSES
from jobd.store.failures import Transient

SECONDS = 20
BEATS = {name for name, found in PASSES.items() if found.every is not None}


@pytest.fixture
def ran():
    return []


@pytest.fixture
def work(app, ran):
    @app.task
    def work(value):
        ran.append(value)
        if value == "fail":
            raise Fail("no")
        if value == "skip":
            raise Skip("not needed")
        return value

    return work


# -- what drain runs --------------------------------------------------------------------------------------------------


def test_everything_that_is_due_runs_in_the_calling_thread_in_order(app, ran):
    threads = set()

    @app.task
    def here(value):
        threads.add(threading.get_ident())
        ran.append(value)

    jobs = [here.submit([1, 2]), here.submit([3])]
    assert app.drain() == Drained({"completed": 3}, None, [])
    assert sorted(ran) == [1, 2, 3]
    assert threads == {threading.get_ident()}
    assert [job.refresh().status for job in jobs] == ["completed", "completed"]


def test_it_counts_where_the_attempts_left_their_items(app, work):
    job = work.submit(["a", "b", "fail", "skip"])
    assert app.drain().counts == {"completed": 2, "failed": 1, "skipped": 1}
    assert job.refresh().status == "failed"
    assert app.drain().counts == {}


def test_what_its_handlers_submit_is_run_by_the_same_drain(app, ran):
    @app.task
    def countdown(number):
        ran.append(number)
        if number:
            countdown.submit([number - 1])

    countdown.submit([3])
    assert app.drain().counts == {"completed": 4}
    assert ran == [3, 2, 1, 0]


def test_what_is_due_later_stays_and_it_says_when(app, work, ran, jobd_clock):
    jobd_clock.move_to("2031-05-06T12:00:00")
    job = work.submit(["later"], not_before=jobd_clock.now.replace(hour=13))
    work.submit(["now"])
    drained = app.drain()
    assert drained.counts == {"completed": 1}
    assert drained.next_due == int(jobd_clock.now.timestamp() * 1000) + 3_600_000
    jobd_clock.move(minutes=59, seconds=59)
    assert app.drain().counts == {}
    jobd_clock.move(seconds=1)
    assert app.drain() == Drained({"completed": 1}, None, [])
    assert job.refresh().status == "completed"
    assert ran == ["now", "later"]


def test_tasks_of_other_programs_stay(app, work):
    job = app.submit("elsewhere", [1])
    assert app.drain() == Drained({}, None, [])
    assert job.refresh().counts.queued == 1


def test_nothing_is_claimed_ahead_of_what_runs(app, rows, jobd_clock):
    """Under a clock that stands still every item looks quick, and a crash would find thousands running."""
    seen = []

    @app.task
    def look(value):
        seen.append(rows.one("select count(*) from job_items where status = 'running'"))

    look.submit(range(20))
    app.drain()
    assert seen == [1] * 20


def test_an_item_that_was_interrupted_twice_is_drained_like_any_other(app, work, rows):
    work.submit(["a", "b"])
    rows.change("update job_items set interruptions = 2 where key = 'a'")
    assert app.drain().counts == {"completed": 2}


def test_it_recovers_first(app, work, ran, jobd_crash):
    job = work.submit(["a", "b"])
    with jobd_crash("handler.before"):
        app.drain()
    assert job.refresh().counts.running == 1
    drained = app.drain()
    assert [change.evidence for change in drained.recovered] == ["its daemon is gone"]
    assert drained.counts == {"completed": 2}
    assert job.refresh().status == "completed"


def test_it_finishes_what_was_requested_and_left_half_carried_out(app, work, rows):
    job = work.submit(["a", "b"])
    rows.change("update jobs set cancel_requested_at = 1")
    assert app.drain().counts == {}
    assert job.refresh().status == "cancelled"


def test_a_handler_is_told_at_once_that_its_job_is_being_cancelled(app, ran):
    @app.task
    def cancelled(value, ctx):
        app.job(ctx.job_id).cancel()
        ctx.raise_if_cancelled()
        ran.append(value)

    job = cancelled.submit([1, 2])
    assert app.drain().counts == {"cancelled": 1}
    assert job.refresh().counts.cancelled == 2
    assert ran == []


def test_it_says_that_it_lives_while_it_drains(app, rows, jobd_clock):
    @app.task
    def slow(value):
        jobd_clock.move(seconds=3)

    slow.submit(range(10))
    app.drain()
    beats, heard, ended = rows.one("select heartbeats, heartbeat_at, stopped_at from daemons")
    assert beats >= 5
    assert ended - heard <= 5_000


# -- who owns the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["drain", "tick"])
def test_both_own_the_file_while_they_run_and_leave_a_row(app, rows, monkeypatch, call):
    held = []
    recover = PASSES["recover"]

    def look(store, at):
        held.append((lock.probe(store.path), lock.owner(store.path).pid))
        return recover.run(store, at)

    monkeypatch.setitem(PASSES, "recover", recover._replace(run=look))
    getattr(app, call)()
    assert held == [(True, os.getpid())]
    assert not lock.probe(app.path)
    assert not Path(f"{app.path}.wake").exists()
    assert rows.all("select pid, stopped_at is not null from daemons") == [(os.getpid(), 1)]


@pytest.mark.usefixtures("refused_at_once")
@pytest.mark.parametrize("call", ["drain", "tick"])
def test_beside_a_daemon_both_are_refused(app, call):
    with app.daemon():
        with pytest.raises(DaemonRunning) as refused:
            getattr(app, call)()
        assert refused.value.exit_code == 7
        assert str(refused.value) == f"this very process runs the daemon of {app.path}, in app.daemon()"
        assert "job.wait()" in refused.value.hint


def test_a_daemon_and_drain_take_turns_on_one_app(app, work):
    for _ in range(2):
        with app.daemon(workers=1):
            assert work.submit(["a"]).wait(SECONDS).status == "completed"
        job = work.submit(["b"])
        assert app.drain().counts == {"completed": 1}
        assert job.refresh().status == "completed"
        app.tick()
    with app.daemon(workers=1):
        assert work.submit(["c"]).wait(SECONDS).status == "completed"


def test_what_is_submitted_after_a_drain_still_wakes_a_daemon_elsewhere(app, work, path):
    app.drain()
    other = Jobd(path)
    other.task(lambda value: value, name="work")
    with other.daemon(workers=1):
        assert work.submit(["a"]).wait(SECONDS).status == "completed"
    other.close()


@pytest.mark.parametrize("call", ["drain", "tick"])
def test_a_handler_cannot_run_its_own_queue(app, call):
    errors = []

    @app.task
    def recursive(value):
        try:
            getattr(app, call)()
        except UsageError as error:
            errors.append(str(error))

    recursive.submit()
    app.drain()
    with app.daemon():
        recursive.submit().wait(SECONDS)
    assert errors == ["a handler cannot run its own queue"] * 2


@pytest.mark.parametrize("call", ["drain", "tick"])
def test_in_an_open_transaction_both_are_refused(app, work, rows, call):
    job = work.submit(["a"])
    with app.database.atomic("immediate"), pytest.raises(UsageError, match="a transaction is open"):
        getattr(app, call)()
    assert rows.one("select count(*) from daemons") == 0
    assert job.refresh().counts.queued == 1


def test_a_handler_that_waits_for_what_nobody_else_runs_is_told(app, work):
    errors = []

    @app.task
    def waits(value):
        with pytest.raises(NoDaemon) as error:
            work.submit(["a"]).wait()
        errors.append(str(error.value))

    waits.submit()
    assert app.drain().counts == {"completed": 2}
    assert "one handler after the other" in errors[0]


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_handler_leaves_and_its_item_is_queued_again(app, ran, rows):
    @app.task
    def interrupted(value):
        ran.append(value)
        if len(ran) == 1:
            raise KeyboardInterrupt

    job = interrupted.submit([1, 2])
    with pytest.raises(KeyboardInterrupt):
        app.drain()
    assert not lock.probe(app.path)
    assert job.refresh().counts.queued == 2
    assert rows.one("select stopped_at is not null from daemons") == 1
    assert rows.one("select interruptions from job_items where key = '1'") == 0
    assert app.drain().counts == {"completed": 2}


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, BaseException])
def test_whatever_else_a_handler_raises_fails_its_item_alone(app, error):
    @app.task
    def raises(value):
        if value:
            raise error("no")

    job = raises.submit([1, 0])
    assert app.drain().counts == {"failed": 1, "completed": 1}
    assert job.refresh().status == "failed"


def test_an_outcome_that_cannot_be_written_is_kept_and_settled_by_the_next(app, path, work, ran, monkeypatch):
    job = work.submit(["a"])
    dispatched = []

    def busy(work, *, patience):
        dispatched.append(patience)
        if len(ran):
            raise Transient("database is locked", reason="locked", waited=10.0)
        return write(work, patience=patience)

    write = app.store.write
    monkeypatch.setattr("jobd.engine.turn.Turn.take", turn_with(busy))
    with pytest.raises(StoreBusy):
        app.drain()
    assert dispatched[-1] >= 10
    assert job.refresh().counts.running == 1
    monkeypatch.undo()
    assert app.drain().counts == {}
    assert job.refresh().status == "completed"
    assert ran == ["a"]


def turn_with(write):
    """A turn whose write is replaced."""
    from jobd.engine.turn import Turn

    whole = Turn.take

    def turn(self, outcomes, patience=0):
        store = self._store
        self._store = Written(store, write)
        try:
            return whole(self, outcomes, patience)
        finally:
            self._store = store

    return turn


class Written:
    """A store with another ``write``."""

    def __init__(self, store, write):
        self._store, self.write = store, write

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_a_forked_child_of_a_handler_is_no_second_daemon(app, ran, rows):
    @app.task
    def forks(value):
        child = os.fork()
        if child:
            ran.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    forks.submit()
    assert app.drain().counts == {"completed": 1}
    assert ran == [0]
    assert rows.one("select count(*) from daemons") == 1


# -- tick -------------------------------------------------------------------------------------------------------------


def test_a_tick_runs_the_passes_whose_beat_has_elapsed_and_no_item(app, work, jobd_clock):
    job = work.submit(["a"])
    assert {report.name for report in app.tick()} == BEATS
    assert app.tick() == []
    jobd_clock.move(seconds=59)
    assert app.tick() == []
    jobd_clock.move(seconds=1)
    assert "recover" in [report.name for report in app.tick()]
    assert job.refresh().counts.queued == 1


def test_a_drain_counts_as_a_run_of_recover_and_so_does_a_daemon(app, jobd_clock):
    app.drain()
    assert "recover" not in [report.name for report in app.tick()]
    jobd_clock.move(minutes=1)
    with app.daemon():
        pass
    assert "recover" not in [report.name for report in app.tick()]


def test_a_clock_that_was_put_back_starves_no_pass(app, jobd_clock):
    app.tick()
    jobd_clock.move(hours=-2)
    assert "recover" in [report.name for report in app.tick()]
    assert "recover" not in [report.name for report in app.tick()]


def test_a_pass_that_somebody_has_asked_for_is_run_before_its_beat(app, rows):
    app.tick()
    rows.change("update passes set requested_at = 1, started_at = null, finished_at = null where name = 'recover'")
    assert [report.name for report in app.tick()] == ["recover"]
    assert rows.one("select finished_at is not null from passes where name = 'recover'") == 1


def test_a_tick_recovers_and_what_it_recovered_is_drained_later(app, work, jobd_crash, jobd_clock):
    job = work.submit(["a"])
    with jobd_crash("settle.before_commit"):
        app.drain()
    jobd_clock.move(minutes=1)
    (report,) = [report for report in app.tick() if report.name == "recover"]
    assert [change.to_status for change in report.changes] == ["queued"]
    assert job.refresh().counts.queued == 1
    assert app.drain() == Drained({"completed": 1}, None, [])


# -- what is due next -------------------------------------------------------------------------------------------------


@pytest.fixture
def order(app):
    """A task whose items wait for the outside, for as long as their payload says."""

    @app.task
    def order(deadline, ctx):
        ctx.defer("s-1", deadline=deadline)

    return order


def ms(clock):
    return int(clock.now.timestamp() * 1000)


def test_the_deadline_of_what_waits_is_due_next_and_the_drain_of_that_time_times_it_out(app, order, jobd_clock):
    job = order.submit(["2h"])
    late = order.submit(["3h"])
    assert app.drain().next_due == ms(jobd_clock) + 7_200_000
    jobd_clock.move(hours=1, minutes=59, seconds=59)
    assert app.drain().counts == {}
    jobd_clock.move(seconds=1)
    drained = app.drain()
    assert (drained.counts, drained.next_due) == ({"failed": 1}, ms(jobd_clock) + 3_600_000)
    assert (job.refresh().status, job.item("2h").error_type) == ("failed", "TimeOut")
    assert late.refresh().counts.waiting == 1


def test_what_waits_in_a_paused_job_is_not_due(app, order, jobd_clock):
    job = order.submit(["2h"])
    app.drain()
    job.pause()
    assert app.drain().next_due is None


def test_a_poll_is_due_next_where_it_comes_before_the_deadline(app, order, jobd_clock):
    order.poll(lambda external_id: None)
    order.submit(["2h"])
    assert app.drain().next_due == ms(jobd_clock) + 10_000


def test_what_a_rate_holds_back_is_due_next_and_the_drains_of_an_app_count_together(app, jobd_clock):
    @app.task(rate="2/m")
    def work(value):
        return value

    assert work.submit([1]).id
    assert app.drain() == Drained({"completed": 1}, None, [])
    jobd_clock.move(seconds=20)
    job = work.submit(range(4), key="k")
    drained = app.drain()
    assert (drained.counts, drained.next_due) == ({"completed": 1}, ms(jobd_clock) + 40_001)
    assert app.drain().counts == {}
    jobd_clock.move(seconds=41)
    assert app.drain().counts == {"completed": 1}
    jobd_clock.move(minutes=2)
    assert app.drain() == Drained({"completed": 2}, None, [])
    assert job.refresh().status == "completed"


def test_on_another_file_a_rate_begins_anew(app, tmp_path, jobd_clock):
    @app.task(rate="1/m")
    def work(value):
        return value

    work.submit([1])
    assert app.drain().counts == {"completed": 1}
    with app.using(tmp_path / "other.db"):
        work.submit([1])
        assert app.drain().counts == {"completed": 1}
    work.submit([2])
    assert app.drain().counts == {}


def test_a_job_is_due_to_time_out_only_while_something_of_it_runs(app, jobd_clock, jobd_crash):
    @app.task(job_timeout="30m")
    def work(value):
        return value

    job = work.submit([1], not_before=jobd_clock.now + dt.timedelta(hours=9))
    assert app.drain().next_due == ms(jobd_clock) + 9 * 3_600_000
    job.delete()
    # Its verify cannot say yet: it stays running.
    work.verify(lambda value: 1 / 0)
    work.submit([1])
    with jobd_crash("handler.after"):
        app.drain()
    assert app.drain().next_due == ms(jobd_clock) + 1_800_000
