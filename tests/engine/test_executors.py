"""What every executor does alike. The tests know what runs their items only as ``place``."""

from __future__ import annotations

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from kit import scripts
from kit.beats import WITHOUT_BEATS
from kit.doors import Door

from jobd.store.invariants import check

SECONDS = 20
TIMEOUT = 300


@dataclasses.dataclass(frozen=True)
class Place:
    """An executor, the handler that it can run, and whether it can end one that does not look."""

    isolation: str
    handler: object = scripts.plain
    ends: bool = False


PLACES = [
    Place("thread"),
    Place("process", ends=True),
    Place("asyncio", scripts.awaited, ends=True),
    Place("threads of its own"),
    Place("processes of its own"),
]


@pytest.fixture(scope="module")
def executors():
    # Not forked: this process has threads.
    processes = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with ThreadPoolExecutor(2) as threads, processes:
        yield {"threads of its own": threads, "processes of its own": processes}


@pytest.fixture(params=PLACES, ids=lambda place: place.isolation.replace(" ", "_"))
def place(request):
    return request.param


@pytest.fixture
def app(make_app, executors):
    """Without the beats that write: nothing but what is under test wakes the dispatcher."""
    return make_app(executors=executors, **WITHOUT_BEATS)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def door(app):
    door = Door()
    yield door
    door.close()


@pytest.fixture
def submit(app, place, door):
    """Submit scripts, one for each item, in the order of their keys."""

    def submit(*items, **policy):
        options = {"concurrency": 2, **policy}
        if "act" not in app.tasks:
            app.task(name="act", isolation=None if place.isolation == "asyncio" else place.isolation, **options)(
                place.handler
            )
        numbered = enumerate(items)
        return app.submit("act", list(items), item_key=lambda _: next(numbered)[0], params=door.path)

    return submit


@pytest.fixture
def ended(app, submit):
    """Run scripts to their end and return their job."""

    def run(*items, **policy):
        job = submit(*items, **policy)
        with app.daemon(workers=2):
            return job.wait(SECONDS)

    return run


def told(job):
    return [(item.status, item.error_type, item.error) for item in job.items()]


def events(job, name):
    return [event for event in job.events(items=True) if event.item_key and event.name == name]


# -- how an item ends -------------------------------------------------------------------------------------------------


def test_what_a_handler_returns_is_the_result_of_its_item(ended):
    job = ended([["return", {"a": [1, None]}]], [])
    assert job.status == "completed"
    assert [result.value for result in job.results()] == [{"a": [1, None]}, None]


def test_what_a_handler_raises_is_the_error_of_its_item_and_its_traceback_is_kept(ended):
    job = ended([["log", "before"], ["fail", "ValueError", "no such page"]], [["return", 1]])
    assert told(job) == [("failed", "ValueError", "no such page"), ("completed", None, None)]
    text = job.output("0").text
    assert "INFO before\nTraceback" in text
    assert "in _fail\n" in text
    assert text.endswith("ValueError: no such page")
    assert "jobd/engine" not in text


@pytest.mark.parametrize("error", ["SystemExit", "Odd"])
def test_a_handler_that_raises_what_is_no_exception_fails_its_item_and_the_next_one_runs(ended, error):
    job = ended([["fail", error, "odd"]], [["return", 1]], concurrency=1)
    assert told(job) == [("failed", error, "odd"), ("completed", None, None)]


@pytest.mark.parametrize("kind", sorted(scripts.STRANGE))
def test_what_is_not_json_fails_its_item_with_the_reason(ended, kind):
    job = ended([["strange", kind]])
    ((status, error_type, error),) = told(job)
    assert (status, error_type) == ("failed", None)
    assert error.startswith("result is not JSON: ")


def test_skip_fail_and_retry_say_how_it_goes_on(ended):
    job = ended(
        [["fail", "Skip", "known"]],
        [["fail", "Fail", "never"]],
        [["retry_until", 3], ["tell", "attempt"]],
        [["fail_until", 2, "ValueError", "flaky"], ["tell", "attempt"]],
        [["retry_until", 9]],
        retries=2,
        backoff=0.001,
    )
    assert told(job) == [
        ("skipped", "Skip", "known"),
        ("failed", "Fail", "never"),
        ("completed", None, None),
        ("completed", None, None),
        ("failed", "Retry", "not yet"),
    ]
    assert [result.value for result in job.results()] == [{"attempt": 3}, {"attempt": 2}]
    assert [item.failures for item in job.items()] == [0, 1, 2, 1, 3]


# -- what a handler says ----------------------------------------------------------------------------------------------


def test_the_context_says_whose_attempt_it_is(ended, door):
    names = ["key", "attempt", "params", "item_id", "job_id", "deadline", "idempotency_key"]
    job = ended([["tell", *names]], timeout=TIMEOUT)
    (item,) = job.items()
    (result,) = job.results()
    assert [result.value[name] for name in names[:-1]] == [
        "0", 1, door.path, item.id, job.id, item.started_at + TIMEOUT * 1000,
    ]  # fmt: skip
    assert result.value["idempotency_key"].startswith("act:")


def test_progress_is_seen_while_the_handler_runs(app, submit, door):
    with app.daemon(workers=2):
        job = submit([["progress", 1, 4, "a quarter"], ["come", "there"]])
        door.wait_for("there")
        assert job.item("0").progress == [1, 4, "a quarter"]
        door.open("there")
        job.wait(SECONDS)


def test_what_is_logged_is_kept_with_the_item(ended):
    job = ended([["log", "page %d of %d", 1, 2], ["log", "later"]])
    first, last = job.output("0").text.splitlines()
    assert first.endswith("INFO page 1 of 2")
    assert last.endswith("INFO later")


def test_a_result_that_was_saved_wins_over_what_is_raised_after_it(ended):
    job = ended([["save_result", "saved"], ["fail", "ValueError", "too late"]])
    assert [result.value for result in job.results()] == ["saved"]
    (event,) = events(job, "complete")
    assert "too late" in event.message


def test_a_result_that_was_saved_is_stored_before_the_handler_ends(app, submit, door):
    with app.daemon(workers=2):
        job = submit([["save_result", "saved"], ["come", "there"]])
        door.wait_for("there")
        assert [result.value for result in job.results()] == ["saved"]
        door.open("there")
        job.wait(SECONDS)


def test_data_and_intent_are_stored(ended):
    job = ended([["data", "large"], ["intend", "to write"]])
    (item,) = job.items()
    assert (job.data("0"), item.intent) == (b"large", "to write")


def test_items_that_a_handler_adds_are_run(ended):
    job = ended([["add_items", [[["return", 2]]]], ["return", 1]])
    assert (job.status, job.counts.completed) == ("completed", 2)
    assert sorted(result.value for result in job.results()) == [1, 2]


# -- when it is to end ------------------------------------------------------------------------------------------------


def test_a_time_out_fails_its_item_and_the_others_go_on(app, place, submit, door, jobd_clock, until):
    with app.daemon(workers=2) as daemon:
        job = submit([["come", "hangs"]], *[[["come", "passes"]]] * 3, timeout=TIMEOUT)
        door.wait_for("hangs")
        door.wait_for("passes")
        jobd_clock.move(seconds=TIMEOUT - 1)
        door.open("passes")
        until(lambda: job.refresh().counts.completed == 3)
        jobd_clock.move(seconds=1)
        until(lambda: job.refresh().status == "failed")
        assert told(job)[0] == ("failed", "TimeOut", "timed out after 5 m")
        if place.ends:
            door.wait_until_left("hangs")
        else:
            door.open("hangs")
            until(lambda: [event.to_status for event in events(job, "late")] == ["failed"])
        until(lambda: daemon._dispatcher.abandoned == 0)
        again = submit([["come", "both"]], [["come", "both"]])
        door.wait_for("both", times=2)
        door.open("both")
        assert again.wait(SECONDS).counts.completed == 2
        assert daemon.degraded is None
    assert (job.counts.failed, job.counts.completed) == (1, 3)


def test_an_item_that_took_too_long_is_tried_again_where_its_task_says_so(app, submit, door, jobd_clock, until):
    with app.daemon(workers=2):
        job = submit([["come_until", 2, "hangs"], ["tell", "attempt"]], timeout=TIMEOUT, retries=1, backoff=0.001)
        door.wait_for("hangs")
        jobd_clock.move(seconds=TIMEOUT)
        until(lambda: job.refresh().status == "completed")
        door.open("hangs")
    assert [result.value for result in job.results()] == [{"attempt": 2}]
    assert [event.to_status for event in events(job, "time_out")] == ["queued"]


def test_of_a_cancelled_job_every_item_ends_as_what_it_came_to(app, place, submit, door):
    script = [["come", "there"]] if place.ends else [["look", "there"]]
    with app.daemon(workers=2):
        job = submit(script, script, [["return", 3]])
        door.wait_for("there", times=2)
        job.cancel()
        if not place.ends:
            door.open("there")
        assert job.wait(SECONDS).status == "cancelled"
    assert [item.status for item in job.items()] == ["cancelled"] * 3


def test_what_runs_when_the_daemon_leaves_is_queued_again_and_the_next_one_completes_it(app, submit, door):
    with app.daemon(workers=2) as daemon:
        job = submit([["come", "there"], ["tell", "attempt"]], [["come", "there"], ["tell", "attempt"]], [])
        door.wait_for("there", times=2)
        daemon.stop(drain=False)
        assert daemon.join(SECONDS)
    job.refresh()
    assert (job.counts.queued, job.counts.running) == (3, 0)
    assert [event.from_status for event in events(job, "release")] == ["running"] * 2
    door.open("there")
    with app.daemon(workers=2):
        job.wait(SECONDS)
    assert (job.status, job.counts.completed) == ("completed", 3)
    assert [result.value for result in job.results()] == [{"attempt": 2}, {"attempt": 2}, None]


def test_what_runs_when_the_daemon_is_asked_to_leave_may_end(app, submit, door):
    with app.daemon(workers=2) as daemon:
        job = submit([["come", "there"], ["return", 1]], [["come", "there"], ["return", 2]], [])
        door.wait_for("there", times=2)
        daemon.stop(drain=True)
        door.open("there")
        assert daemon.join(SECONDS)
    job.refresh()
    assert (job.counts.completed, job.counts.queued) == (2, 1)


# -- whose turn it is -------------------------------------------------------------------------------------------------


def test_a_job_does_not_wait_for_the_end_of_one_that_came_first(app, submit, door):
    with app.daemon(workers=2):
        first = submit(*[[["come", "first"]]] * 40)
        door.wait_for("first", times=2)
        second = submit(*[[["come", "second"]]] * 3)
        door.open("second")
        door.open("first")
        first.wait(SECONDS)
        second.wait(SECONDS)
    words = [word for word in door.words if word in {"first", "second"}]
    assert words.index("second") < 20
    assert (first.counts.completed, second.counts.completed) == (40, 3)


def test_no_more_items_run_at_once_than_the_task_allows(app, submit, door):
    with app.daemon(workers=2):
        job = submit(*[[["come", str(number)]] for number in range(3)], concurrency=1)
        for number in range(3):
            door.wait_for(str(number))
            assert job.refresh().counts.running == 1
            assert door.words == [str(before) for before in range(number + 1)]
            door.open(str(number))
        job.wait(SECONDS)


# -- work that goes on outside ----------------------------------------------------------------------------------------


def test_a_deferred_item_waits_under_its_id_and_its_slot_is_free(app, submit, until):
    job = submit(
        [["log", "ordered"], ["defer", "snap-7", 3600], ["fail", "ValueError"]], [["return", 1]], concurrency=1
    )
    with app.daemon(workers=1):
        until(lambda: job.refresh().counts.waiting and job.counts.completed)
        waiting = job.item("0")
        assert (waiting.status, waiting.external_id, waiting.attempt, waiting.failures) == ("waiting", "snap-7", 1, 0)
        (deferred,) = events(job, "defer")
        assert (deferred.from_status, deferred.to_status, deferred.attempt) == ("running", "waiting", 1)
        assert deferred.external_id == "snap-7"
        until(lambda: job.output("0"))
        assert "ordered" in job.output("0").text
        assert [found.id for found in app.jobs(external="snap-7")] == [job.id]
        job.deliver("0", {"done": True})
        assert job.wait(SECONDS).status == "completed"
    assert [(result.value, result.source) for result in job.results()] == [({"done": True}, "outside"), (1, "handler")]
    assert events(job, "late") == []


def test_a_result_that_was_saved_before_wins_over_the_deferral(ended):
    job = ended([["save_result", 5], ["defer", "snap-7"]])
    assert (job.status, [result.value for result in job.results()]) == ("completed", [5])
    assert events(job, "defer") == []
    (event,) = events(job, "complete")
    assert event.message == "its result was stored before it ended as deferred: snap-7"
