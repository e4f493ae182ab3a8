"""An attempt leaves its item waiting for the outside: fenced, counted, told, and undone where its job is to end."""

from __future__ import annotations

import datetime as dt

import pytest

from jobd import Deferred, Fail, Lost
from jobd.store.invariants import check

COLUMNS = "status, external_id, available_at, deadline_at, poll_at, poll_gap_ms, failures, attempt"


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def now(jobd_clock):
    return int(jobd_clock.now.timestamp() * 1000)


@pytest.fixture
def deferred(app):
    """Return the job of one item whose handler defers it so, after one drain."""

    def run(*arguments, before=lambda ctx: None, asks=True, **options):
        name = f"order {len(app.tasks)}"

        @app.task(name=name)
        def order(payload, ctx):
            before(ctx)
            ctx.defer(*arguments, **options)

        if asks:
            order.poll(lambda external_id: None)
        job = app.submit(name, ["a"])
        app.drain()
        return job

    return run


def row(app, job):
    text = f"select {COLUMNS} from job_items where job_id = ?"
    return app.store.read(lambda connection: tuple(connection.execute(text, (job.id,)).fetchone()))


def test_it_waits_and_is_asked_about_at_its_time(app, deferred, now):
    job = deferred("snap-1", poll_after="30s", deadline="1h")
    assert row(app, job) == ("waiting", "snap-1", now, now + 3_600_000, now + 30_000, 30_000, 0, 1)
    assert (job.refresh().status, job.counts.waiting, job.counts.running) == ("running", 1, 0)


def test_a_deadline_may_be_a_time_and_there_may_be_none(app, deferred, now, jobd_clock):
    job = deferred("snap-1", deadline=jobd_clock.now + dt.timedelta(hours=2))
    assert row(app, job) == ("waiting", "snap-1", now, now + 7_200_000, now + 10_000, 10_000, 0, 1)
    assert row(app, deferred("snap-2"))[3] is None


def test_of_a_task_without_a_poll_nobody_asks_unless_it_says_when(app, deferred):
    assert row(app, deferred("snap-1", asks=False))[4] is None
    assert row(app, deferred("snap-1", asks=False, poll_after=5))[4] is not None


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((7.5,), {}),
        ((True,), {}),
        (("",), {}),
        (("x" * 4097,), {}),
        (("a\0b",), {}),
        (("\ud800",), {}),
        (("x",), {"poll_after": 0}),
        (("x",), {"deadline": "soon"}),
    ],
)
def test_what_is_no_id_or_no_time_fails_the_item(deferred, arguments, options):
    (item,) = deferred(*arguments, **options).items()
    assert (item.status, item.external_id) == ("failed", None)
    assert item.error_type == "UsageError"


def test_whose_job_is_being_cancelled_is_cancelled_and_its_id_is_in_the_history(app, deferred):
    job = deferred("snap-1", before=lambda ctx: app.job(ctx.job_id).cancel())
    assert (job.refresh().status, [item.status for item in job.items()]) == ("cancelled", ["cancelled"])
    told = [(event.name, event.external_id) for event in job.events(items=True) if event.item_key]
    assert told == [("defer", "snap-1"), ("cancel", "snap-1")]
    assert [found.id for found in app.jobs(external="snap-1")] == [job.id]


def test_an_attempt_that_is_not_the_items_any_more_is_told_so(app, deferred):
    def lose(ctx):
        app.job(ctx.job_id).deliver("a", 1)

    job = deferred("snap-1", before=lose)
    assert (job.refresh().status, [result.value for result in job.results()]) == ("completed", [1])
    assert "defer" not in {event.name for event in job.events(items=True)}


def test_a_second_deferral_by_the_same_attempt_is_lost(app, deferred):
    errors = []

    def twice(ctx):
        try:
            ctx.defer("snap-0")
        except Deferred:
            try:
                ctx.defer("snap-1")
            except Lost as error:
                errors.append(error)

    job = deferred("snap-2", before=twice)
    assert len(errors) == 1
    assert row(app, job)[:2] == ("waiting", "snap-0")


def test_no_except_exception_of_the_handler_keeps_it(app):
    @app.task
    def order(payload, ctx):
        try:
            ctx.defer("snap-1")
        except Exception as error:
            raise Fail("kept") from error

    job = order.submit(["a"])
    app.drain()
    assert row(app, job)[0] == "waiting"


def test_what_a_transaction_of_the_handler_took_back_is_written_with_the_outcome(app):
    @app.task
    def order(payload, ctx):
        app.database.execute_sql("begin immediate")
        ctx.defer("snap-1", deadline="1h")

    job = order.submit(["a"])
    app.drain()
    assert row(app, job)[:2] == ("waiting", "snap-1")
    assert [event.name for event in job.events(items=True) if event.item_key] == ["defer"]


def test_each_attempt_has_its_id_and_the_history_has_all(app, deferred, jobd_clock):
    ids = iter(["snap-1", "snap-2"])

    @app.task(name="twice")
    def twice(payload, ctx):
        ctx.defer(next(ids))

    job = twice.submit(["a"])
    app.drain()
    job.deliver_failure("a", "lost by the vendor")
    job.retry()
    app.drain()
    assert row(app, job)[:2] == ("waiting", "snap-2")
    assert row(app, job)[-2:] == (0, 2)
    for external_id in ("snap-1", "snap-2"):
        assert [found.id for found in app.jobs(external=external_id)] == [job.id]


def test_what_was_recovered_while_the_outside_still_had_it_is_delivered_at_once(app, deferred):
    job = deferred("snap-1")
    job.deliver_failure("a", "no")
    job.retry()
    assert job.item("a").status == "queued"
    job.deliver("a", "yes")
    assert (job.refresh().status, [result.value for result in job.results()]) == ("completed", ["yes"])


def test_a_pause_moves_the_deadline_by_what_the_item_waited_of_it(app, deferred, now, jobd_clock):
    def pause(ctx):
        app.job(ctx.job_id).pause()
        jobd_clock.move(minutes=5)

    job = deferred("snap-1", deadline="1h", before=pause)
    jobd_clock.move(minutes=10)
    job.unpause()
    assert row(app, job)[3] == now + (5 + 60 + 10) * 60_000
