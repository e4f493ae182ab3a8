"""What a handler says of its attempt: fenced, bounded, and true whatever the handler does next."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from jobd import Cancelled, Fail, Lost, Skip
from jobd.codec import NotStorable
from jobd.context import OUTPUT_LIMIT, Context, Line, Tail, storable, tail

SECONDS = 20


class Runner:
    """Whoever runs the attempt, as its context sees it."""

    def __init__(self):
        self.awake = 100.0
        self.cancelled = False
        self.said = []
        self.results = []
        self.refusal = None

    def take(self, into, text):
        if self.refusal:
            raise self.refusal
        into.append(json.loads(text))

    def context(self):
        return Context(
            job_id=1,
            item_id=2,
            key="k",
            attempt=3,
            params={"a": 1},
            idempotency_key="work:1:2",
            task="work",
            line=Line(
                awake=lambda: self.awake,
                cancelled=lambda: self.cancelled,
                progress=lambda _, text: self.take(self.said, text),
                result=lambda _, text: self.take(self.results, text),
                intent=lambda *_: None,
                data=lambda *_: None,
                items=lambda *_: 0,
                defer=lambda *_: None,
            ),
        )


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def ctx(runner):
    return runner.context()


@pytest.fixture
def ended(app):
    """Run a handler over items under a daemon and return the job when it has ended."""

    def run(handler, items=(1,), **options):
        task = app.task(handler, name="work")
        with app.daemon(workers=2):
            return task.submit(list(items), **options).wait(SECONDS)

    return run


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_said_at_most_four_times_a_second(runner, ctx):
    for step in range(1_000):
        ctx.progress(step, 1_000)
        runner.awake += 0.01
    assert 35 <= len(runner.said) <= 41
    assert runner.said[0] == [0, 1_000, None]


def test_the_first_progress_is_said_at_once_and_so_is_one_after_a_pause(runner, ctx):
    ctx.progress(1)
    ctx.progress(2)
    runner.awake += 0.25
    ctx.progress(3, 4, "almost")
    assert runner.said == [[1, None, None], [3, 4, "almost"]]


def test_progress_that_was_refused_is_no_progress(runner, ctx):
    runner.refusal = Lost("not yours")
    with pytest.raises(Lost):
        ctx.progress(1)
    runner.refusal = None
    ctx.progress(2)
    assert runner.said == [[2, None, None]]


@pytest.mark.parametrize("bad", [(float("nan"),), (object(),), (1, 2, "x" * 5_000)])
def test_progress_that_cannot_be_shown_fails_no_item_and_is_said_once(runner, ctx, bad):
    for _ in range(3):
        ctx.progress(*bad)
    assert runner.said == []
    ctx.progress(1)
    assert runner.said == [[1, None, None]]
    text, _ = ctx.output()
    assert [line.split(" ", 2)[2].split(" ")[0] for line in text.splitlines()] == ["WARNING"]


def test_progress_is_on_the_items_row_and_moves_the_jobs(app, rows, gate):
    seen = []

    @app.task
    def work(value, ctx):
        before = rows.one("select progress_at from jobs")
        ctx.progress(3, 10, "halfway ✓")
        seen.append((rows.one("select progress from job_items"), rows.one("select progress_at from jobs") >= before))

    with app.daemon():
        work.submit([1]).wait(SECONDS)
    assert [(json.loads(progress), moved) for progress, moved in seen] == [([3, 10, "halfway ✓"], True)]


# -- an attempt that is no longer the item's --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "taken", ["attempt = attempt + 1", "status = 'queued'", "status = 'cancelled', completed_at = 1"]
)
@pytest.mark.parametrize("call", ["progress", "save_result"])
def test_who_lost_the_item_is_told_and_records_nothing(app, rows, until, taken, call):
    caught, done = [], threading.Event()

    @app.task
    def work(value, ctx):
        rows.change(f"update job_items set {taken} where id = ?", ctx.item_id)
        try:
            getattr(ctx, call)(1)
        except Lost as error:
            caught.append(str(error))
            raise
        finally:
            done.set()

    with app.daemon():
        job = work.submit([1])
        assert done.wait(SECONDS)
        until(lambda: "late" in rows.item_events())
        rows.change("delete from jobs where id = ?", job.id)
    assert caught == ["attempt 1 is no longer that of item 1"]
    assert rows.all("select * from results") == []


# -- a result before the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("too late"), "failed: ValueError: too late"),
        (Fail("no"), "failed: Fail: no"),
        (Skip("nothing to do"), "skipped: Skip: nothing to do"),
        (Cancelled("who asked"), "failed: Cancelled: who asked"),
        (SystemExit(3), "failed: SystemExit: 3"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_saved_result_wins_over_what_the_handler_raises(ended, rows, error, says):
    def work(value, ctx):
        ctx.save_result({"kept": value})
        raise error

    job = ended(work)
    assert (job.status, job.counts.completed, job.counts.failed) == ("completed", 1, 0)
    assert [result.value for result in job.results()] == [{"kept": 1}]
    event = rows.one("select name, from_status, to_status, message from job_events where item_id is not null")
    assert tuple(event[:3]) == ("complete", "running", "completed")
    assert event[3] == f"its result was stored before it ended as {says}"
    assert job.last_error is None


@pytest.mark.parametrize(("returned", "kept"), [("later", "later"), (0, 0), (False, False), (None, "saved")])
def test_only_a_later_return_that_says_something_replaces_it(ended, rows, returned, kept):
    def work(value, ctx):
        ctx.save_result("saved")
        return returned

    job = ended(work)
    assert [result.value for result in job.results()] == [kept]
    assert rows.one("select count(*) from results") == 1
    assert rows.item_events() == []


def test_a_later_return_that_is_not_json_leaves_the_saved_one(ended, rows):
    def work(value, ctx):
        ctx.save_result("saved")
        return {1, 2}

    job = ended(work)
    assert job.status == "completed"
    assert [result.value for result in job.results()] == ["saved"]
    assert rows.item_events() == ["complete"]


def test_the_last_of_several_saved_results_counts(ended):
    def work(value, ctx):
        for step in range(3):
            ctx.save_result(step)

    assert [result.value for result in ended(work).results()] == [2]


def test_a_saved_result_is_there_before_the_handler_ends(app, held, gate, rows):
    saved = threading.Event()

    @app.task
    def work(value, ctx):
        ctx.save_result("early")
        saved.set()
        gate.pass_through()

    with app.daemon():
        job = work.submit([1])
        assert saved.wait(SECONDS)
        assert rows.one("select value, attempt from results") == ('"early"', 1)
        assert job.refresh().counts.completed == 0
        gate.opened.set()
        assert job.wait(SECONDS).counts.completed == 1


def test_a_saved_result_wins_over_a_daemon_that_stops_before_the_handler_ends(make_app, rows, gate):
    app, saved = make_app(drain=0.01), threading.Event()

    @app.task
    def work(value, ctx):
        ctx.save_result("early")
        saved.set()
        gate.pass_through()

    with app.daemon(workers=1):
        job = work.submit([1])
        assert saved.wait(SECONDS)
    assert job.refresh().status == "completed"
    assert [result.value for result in job.results()] == ["early"]


@pytest.mark.parametrize("value", [{1}, float("inf"), "x" * (1 << 20), b"bytes", "\ud800", 2**80])
def test_a_result_that_cannot_be_stored_is_refused_where_it_is_saved(runner, ctx, value):
    with pytest.raises(NotStorable, match="result"):
        ctx.save_result(value)
    assert runner.results == []
    assert not ctx.saved


def test_a_result_that_was_refused_is_not_saved(runner, ctx):
    runner.refusal = Lost("not yours")
    with pytest.raises(Lost):
        ctx.save_result(1)
    assert not ctx.saved


# -- being cancelled --------------------------------------------------------------------------------------------------


def test_it_leaves_only_when_its_job_is_being_cancelled(runner, ctx):
    ctx.raise_if_cancelled()
    runner.cancelled = True
    with pytest.raises(Cancelled, match="is being cancelled"):
        ctx.raise_if_cancelled()


def test_a_handler_that_asks_leaves_when_its_job_is_cancelled(app):
    entered = threading.Event()

    @app.task
    def patient(value, ctx):
        entered.set()
        pause = threading.Event()
        while not pause.wait(0.002):
            ctx.raise_if_cancelled()

    with app.daemon(workers=1):
        job = patient.submit([1, 2])
        assert entered.wait(SECONDS)
        job.cancel("enough")
        assert job.wait(SECONDS).status == "cancelled"
    assert [item.status for item in job.items()] == ["cancelled", "cancelled"]


# -- what it logs -----------------------------------------------------------------------------------------------------


def output_of(rows):
    text, truncated = rows.one("select text, truncated from item_output")
    return text, bool(truncated)


def test_what_it_logs_is_kept_with_the_item(ended, rows):
    def work(value, ctx):
        ctx.log.debug("first %d", value)
        ctx.log.warning("second")

    ended(work)
    text, truncated = output_of(rows)
    assert [line.split(" ", 2)[2] for line in text.splitlines()] == ["DEBUG first 1", "WARNING second"]
    assert truncated is False


def test_of_much_the_last_64_kib_are_kept_and_that_is_said(ended, rows):
    def work(value, ctx):
        for number in range(5_000):
            ctx.log.info("line %06d", number)

    ended(work)
    text, truncated = output_of(rows)
    assert truncated is True
    assert len(text) <= OUTPUT_LIMIT == 65_536
    assert len(text) > OUTPUT_LIMIT - 100
    lines = text.splitlines()
    assert lines[-1].endswith("line 004999")
    # Whole lines, without a gap.
    numbers = [int(line[-6:]) for line in lines]
    assert numbers == list(range(numbers[0], 5_000))


def test_just_64_kib_are_not_said_to_be_cut():
    kept = Tail()
    lines = ["x" * 1_023] * 63 + ["x" * 1_024]
    for line in lines:
        kept.keep(line)
    assert kept.text() == ("\n".join(lines), False)
    assert len(kept.text()[0]) == OUTPUT_LIMIT
    kept.keep("y")
    text, truncated = kept.text()
    assert truncated
    assert text.endswith("x\ny")


def test_of_one_endless_line_the_end_is_kept():
    kept = Tail()
    kept.keep("before")
    kept.keep("x" * 100_000 + "end")
    text, truncated = kept.text()
    assert truncated
    assert text.endswith("end")
    assert len(text) <= OUTPUT_LIMIT


def test_nothing_logged_keeps_nothing(ended, rows, ctx):
    ended(lambda value, ctx: ctx.log and None)
    assert rows.all("select * from item_output") == []
    assert ctx.output() is None


@pytest.mark.parametrize(("text", "kept"), [("a\ud800b", "a\\ud800b"), ("a\0b", "a\\x00b"), ("ünï ✓", "ünï ✓")])
def test_what_the_database_cannot_hold_is_escaped(text, kept):
    assert storable(text) == kept


def test_the_tail_of_a_text_says_whether_it_was_cut():
    assert tail("abc", 3) == ("abc", False)
    assert tail("abcd", 3) == ("bcd", True)


def test_a_line_that_cannot_be_formatted_fails_no_item(ended, rows, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)

    class Broken:
        def __str__(self):
            raise RuntimeError("no text")

    def work(value, ctx):
        ctx.log.info("%d", "not a number")
        ctx.log.info("%s", Broken())
        ctx.log.info("good")
        return "done"

    job = ended(work)
    assert job.status == "completed"
    assert output_of(rows)[0].endswith("INFO good")
    assert len(output_of(rows)[0].splitlines()) == 1


def test_the_log_of_one_attempt_is_not_that_of_another(ended, rows):
    def work(value, ctx):
        ctx.log.info("of %s", value)

    ended(work, ["a", "b", "c"])
    texts = [row[0].rsplit(" ", 1)[1] for row in rows.all("select text from item_output order by item_id")]
    assert texts == ["a", "b", "c"]


# -- who it is --------------------------------------------------------------------------------------------------------


def test_it_knows_its_job_its_item_and_what_was_submitted_with_them(app, rows):
    seen = []

    @app.task
    def work(value, ctx):
        seen.append((ctx.job_id, ctx.item_id, ctx.key, ctx.attempt, ctx.params, ctx.deadline))

    with app.daemon():
        job = work.submit(["a"], params={"folder": "x", "deep": [1, None]}).wait(SECONDS)
        bare = work.submit(["b"]).wait(SECONDS)
    assert seen == [
        (job.id, 1, "a", 1, {"folder": "x", "deep": [1, None]}, None),
        (bare.id, 2, "b", 1, None, None),
    ]


def test_the_idempotency_key_is_the_same_for_each_attempt_and_for_no_other_item(app):
    seen = []

    @app.task
    def work(value, ctx):
        seen.append((value, ctx.attempt, ctx.idempotency_key))
        if ctx.attempt == 1:
            raise ValueError("once")

    with app.daemon():
        job = work.submit(["a", "b"]).wait(SECONDS)
        job.retry()
        job.wait(SECONDS)
        work.submit(["a"]).wait(SECONDS)
    keys = {}
    for value, attempt, key in seen:
        keys.setdefault(key, []).append((value, attempt))
    assert sorted(keys.values()) == [[("a", 1)], [("a", 1), ("a", 2)], [("b", 1), ("b", 2)]]


def test_data_is_kept_beside_the_result_and_read_only_when_asked_for(app):
    large = bytes(range(256)) * 8_192

    @app.task
    def fetch(value, ctx):
        ctx.save_data(large if value == "large" else b"")
        return len(large)

    @app.task
    def wrong(value, ctx):
        ctx.save_data("text")

    with app.daemon():
        job = fetch.submit(["large", "empty"]).wait(20)
        refused = wrong.submit(["a"]).wait(20)
    assert [result.has_data for result in job.results()] == [True, True]
    assert (job.data("large"), job.data("empty"), refused.data("a")) == (large, b"", None)
    assert refused.item("a").error == "save_data() takes bytes, not str"


def test_data_of_an_attempt_that_is_no_longer_the_items_is_refused(app):
    from jobd.store.attempt import load_data, save_data

    job = app.task(lambda value: value, name="echo").submit(["a"])
    with pytest.raises(Lost):
        save_data(app.store, job.item("a").id, 1, b"late", patience=0)
    assert load_data(app.store, job.item("a").id) is None
