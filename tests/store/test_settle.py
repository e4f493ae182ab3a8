"""Settling: one outcome, five hundred of which one is poison, one that comes late, and one that comes twice."""

from __future__ import annotations

import itertools

import pytest

from jobd.errors import JobdError
from jobd.store.claim import Turns, claim
from jobd.store.failures import Transient
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.steer import request_cancel
from jobd.store.submission import Submission
from jobd.store.submit import submit

NOW = 1_795_305_600_000
LATER = NOW + 60_000
BEGAN, ENDED = NOW + 250, NOW + 1_250
MANY = 500


class World:
    """Jobs that were submitted, claimed and settled through the store alone."""

    def __init__(self, store, rows):
        self.store = store
        self.rows = rows

    def job(self, items, **submission):
        """Submit a job of so many items and return its id."""
        pairs = [(f"key-{number:03}", str(number)) for number in range(items)]
        return submit(self.store, Submission(task="work", **submission), pairs, now=NOW, actor="test").job_id

    def claim(self, limit=10_000):
        def work(connection):
            return claim(
                self.store, connection, Turns(), limit=limit, tasks=["work"], daemon_id=1, now=NOW,
                actor="test",
            )  # fmt: skip

        return self.store.write(work)

    def settle(self, *outcomes, now=LATER):
        return self.store.write(lambda connection: settle(self.store, connection, outcomes, now=now, actor="test"))

    def item(self, item_id, *columns):
        return self.rows.one(f"select {', '.join(columns)} from job_items where id=?", item_id)

    def events_of(self, item_id):
        sql = "select name, from_status, to_status, attempt, message from job_events where item_id=? order by id"
        return [tuple(row) for row in self.rows.all(sql, item_id)]

    def result(self, item_id):
        found = self.rows.all("select attempt, status, source, value from results where item_id=?", item_id)
        return tuple(found[0]) if found else None

    def everything(self):
        tables = ("jobs", "job_items", "results", "item_output", "job_events")
        return {table: self.rows.all(f"select * from {table} order by 1") for table in tables}


def outcome(claimed, kind="completed", **changes):
    """Return what an attempt reports."""
    value = "7" if kind == "completed" else None
    row = Outcome(
        claimed.item_id, claimed.job_id, claimed.attempt, claimed.task, claimed.key, kind, BEGAN, ENDED, value
    )
    return row._replace(**changes)


@pytest.fixture
def world(store, rows):
    world = World(store, rows)
    yield world
    assert check(store) == []


# -- one outcome of each kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "row", "event"),
    [
        ("completed", {}, ("completed", 1, BEGAN, ENDED, None, None, 0), None),
        (
            "failed",
            {"error_type": "ValueError", "error": "no"},
            ("failed", 1, BEGAN, ENDED, "ValueError", "no", 1),
            ("fail", "running", "failed", 1, "ValueError: no"),
        ),
        (
            "failed",
            {"error": "result is not JSON: a set"},
            ("failed", 1, BEGAN, ENDED, None, "result is not JSON: a set", 1),
            ("fail", "running", "failed", 1, "result is not JSON: a set"),
        ),
        (
            "skipped",
            {"error_type": "Skip", "error": "nothing to do"},
            ("skipped", 1, BEGAN, ENDED, "Skip", "nothing to do", 0),
            ("skip", "running", "skipped", 1, "Skip: nothing to do"),
        ),
        ("released", {}, ("queued", 0, None, None, None, None, 0), None),
        (
            "stopped",
            {"error": "the daemon stopped before it ended"},
            ("queued", 1, NOW, None, None, None, 0),
            ("release", "running", "queued", 1, "the daemon stopped before it ended"),
        ),
    ],
)
def test_an_outcome_moves_its_item_and_its_counters_and_leaves_its_event(world, kind, changes, row, event):
    job_id = world.job(2)
    first, _ = world.claim()
    settled = world.settle(outcome(first, kind, **changes))
    columns = ("status", "attempt", "started_at", "completed_at", "error_type", "error", "failures")
    assert world.item(first.item_id, *columns) == row
    assert world.events_of(first.item_id) == ([event] if event else [])
    assert [len(part) for part in settled] == [1, 0, 0, 0, 0, 0]
    world.rows.assert_sound(job_id)


def test_a_completed_item_leaves_its_result_of_its_attempt(world):
    world.job(1)
    (item,) = world.claim()
    world.settle(outcome(item, value='{"sha256":"ä"}'))
    assert world.result(item.item_id) == (1, "completed", "handler", '{"sha256":"ä"}')


def test_a_result_of_none_is_kept_as_null(world):
    world.job(1)
    (item,) = world.claim()
    world.settle(outcome(item, value=None))
    assert world.result(item.item_id) == (1, "completed", "handler", "null")


def test_what_was_printed_is_kept_with_the_attempt_whatever_its_end(world):
    world.job(2)
    first, second = world.claim()
    world.settle(outcome(first, output=("hello", False)), outcome(second, "failed", error="no", output=("tail", True)))
    kept = world.rows.all("select item_id, attempt, text, truncated from item_output order by item_id")
    assert [tuple(row) for row in kept] == [(first.item_id, 1, "hello", 0), (second.item_id, 1, "tail", 1)]


def test_a_released_attempt_is_no_attempt_and_leaves_nothing(world):
    job_id = world.job(1)
    (item,) = world.claim()
    before = world.rows.one("select count(*) from job_events")
    world.settle(outcome(item, "released"))
    assert world.item(item.item_id, "status", "attempt", "daemon_id", "started_at") == ("queued", 0, None, None)
    assert world.rows.one("select count(*) from job_events") == before
    (again,) = world.claim()
    assert (again.item_id, again.attempt) == (item.item_id, 1)
    world.rows.assert_sound(job_id)


def test_a_stopped_attempt_counts_and_its_token_is_never_given_again(world):
    world.job(1)
    (item,) = world.claim()
    world.settle(outcome(item, "stopped", error="the daemon stopped before it ended"))
    assert world.item(item.item_id, "status", "attempt", "interruptions", "failures") == ("queued", 1, 0, 0)
    (again,) = world.claim()
    assert again.attempt == 2


def test_an_item_that_completes_after_a_failure_has_no_error_any_more(world):
    world.job(2)
    first, _ = world.claim()
    world.settle(outcome(first, "stopped", error="stopped"))
    world.rows.change("update job_items set error_type='OSError', error='no' where id=?", first.item_id)
    (again,) = world.claim()
    world.settle(outcome(again))
    assert world.item(first.item_id, "status", "error_type", "error") == ("completed", None, None)


# -- progress ---------------------------------------------------------------------------------------------------------


def test_only_a_settled_item_is_progress_and_only_of_its_own_job(world):
    moving = world.job(2)
    stuck = world.job(2)
    claimed = world.claim()
    by_job = {job_id: [item for item in claimed if item.job_id == job_id] for job_id in (moving, stuck)}
    world.settle(
        outcome(by_job[moving][0]), outcome(by_job[stuck][0], "released"), outcome(by_job[stuck][1], "stopped")
    )
    assert world.rows.one("select progress_at from jobs where id=?", moving) == LATER
    assert world.rows.one("select progress_at from jobs where id=?", stuck) == NOW


# -- a job that is being cancelled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["released", "stopped"])
def test_what_would_be_queued_again_under_a_cancel_request_is_cancelled(world, kind):
    job_id = world.job(1)
    (item,) = world.claim()
    request_cancel(world.store, job_id, now=NOW, actor="test")
    settled = world.settle(outcome(item, kind))
    assert world.item(item.item_id, "status", "completed_at") == ("cancelled", ENDED)
    assert world.events_of(item.item_id)[-1][:3] == ("cancel", "running", "cancelled")
    assert [ended.status for ended in settled.ended] == ["cancelled"]
    world.rows.assert_sound(job_id)


def test_a_handler_that_obeys_a_request_ends_as_cancelled_and_one_that_made_it_up_as_failed(world):
    asked, unasked = world.job(1), world.job(1)
    claimed = world.claim()
    request_cancel(world.store, asked, now=NOW, actor="test")
    world.settle(*(outcome(item, "cancelled", error_type="Cancelled", error="as told") for item in claimed))
    found = {item.job_id: world.item(item.item_id, "status", "error_type") for item in claimed}
    assert found == {asked: ("cancelled", None), unasked: ("failed", "Cancelled")}


def test_what_completed_in_spite_of_a_cancel_request_is_completed(world):
    job_id = world.job(1)
    (item,) = world.claim()
    request_cancel(world.store, job_id, now=NOW, actor="test")
    assert [ended.status for ended in world.settle(outcome(item)).ended] == ["completed"]


# -- save_result ------------------------------------------------------------------------------------------------------


def save(world, item, value):
    def work(connection):
        connection.execute(
            "insert into results (item_id, attempt, task, key, value, created_at) values (?, ?, 'work', ?, ?, ?)",
            (item.item_id, item.attempt, item.key, value, NOW),
        )

    world.store.write(work)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("failed", "its result was stored before it ended as failed: OSError: gone"),
        ("skipped", "its result was stored before it ended as skipped: OSError: gone"),
        ("stopped", "its result was stored before it ended as stopped: OSError: gone"),
    ],
)
def test_a_stored_result_wins_over_what_follows_and_says_so(world, kind, message):
    job_id = world.job(1)
    (item,) = world.claim()
    save(world, item, '"done before"')
    settled = world.settle(outcome(item, kind, error_type="OSError", error="gone", saved=True))
    assert world.item(item.item_id, "status", "error_type", "error") == ("completed", None, None)
    assert world.result(item.item_id)[3] == '"done before"'
    assert world.events_of(item.item_id) == [("complete", "running", "completed", 1, message)]
    assert [(ended.job_id, ended.status) for ended in settled.ended] == [(job_id, "completed")]


def test_an_attempt_that_stored_its_result_is_complete_also_where_whoever_stopped_it_did_not_know(world):
    world.job(2)
    first, second = world.claim()
    save(world, first, "1")
    world.settle(outcome(first, "stopped", error="left"), outcome(second, "stopped", error="left"))
    assert world.item(first.item_id, "status") == "completed"
    assert world.item(second.item_id, "status") == "queued"


def test_the_result_of_a_former_attempt_does_not_complete_a_stopped_one(world):
    world.job(1)
    (item,) = world.claim()
    save(world, item._replace(attempt=7), "1")
    world.settle(outcome(item, "stopped", error="left"))
    assert world.item(item.item_id, "status") == "queued"


def test_a_stored_result_wins_over_a_cancel_too(world):
    job_id = world.job(1)
    (item,) = world.claim()
    save(world, item, "1")
    request_cancel(world.store, job_id, now=NOW, actor="test")
    settled = world.settle(outcome(item, "cancelled", error_type="Cancelled", error="as told", saved=True))
    assert world.item(item.item_id, "status") == "completed"
    assert [ended.status for ended in settled.ended] == ["completed"]


@pytest.mark.parametrize(("returned", "kept"), [(None, "1"), ("null", "1"), ("2", "2")])
def test_a_later_return_that_is_not_none_replaces_the_stored_result(world, returned, kept):
    world.job(1)
    (item,) = world.claim()
    save(world, item, "1")
    world.settle(outcome(item, value=returned, saved=True))
    assert world.result(item.item_id)[3] == kept
    assert world.events_of(item.item_id) == []


# -- late, and twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["completed", "failed", "skipped", "stopped", "released"])
def test_an_answer_for_another_attempt_is_refused_with_an_event_and_changes_nothing_else(world, kind):
    job_id = world.job(2)
    first, _ = world.claim()
    world.settle(outcome(first, "stopped"))
    (again,) = world.claim()
    before = world.everything()
    late = outcome(first, kind, error="too late" if kind != "completed" else None, saved=kind == "failed")
    settled = world.settle(late)
    assert [len(part) for part in settled] == [0, 0, 1, 0, 0, 0]
    assert world.events_of(first.item_id)[-1] == (
        "late",
        "running",
        "running",
        1,
        f"{kind}, refused: not the item's attempt",
    )
    after = world.everything()
    assert after.pop("job_events")[:-1] == before.pop("job_events")
    assert after == before
    assert world.item(first.item_id, "attempt") == again.attempt == 2
    world.rows.assert_sound(job_id)


def test_an_answer_of_an_item_that_was_deleted_meanwhile_harms_nobody(world):
    world.job(2)
    first, second = world.claim()
    world.rows.change("delete from job_items where id=?", first.item_id)
    settled = world.settle(outcome(first), outcome(second))
    assert (settled.late, settled.applied) == ([outcome(first)], [outcome(second)])
    world.rows.change("update jobs set items_total=1, items_running=0")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("completed", {}),
        ("failed", {"error": "no"}),
        ("skipped", {"error_type": "Skip", "error": "no"}),
        ("cancelled", {"error_type": "Cancelled", "error": "made up"}),
        ("released", {}),
        ("stopped", {"error": "left"}),
        ("failed", {"error": "no", "saved": True}),
        ("failed", {"error": "\udc80"}),
    ],
)
def test_the_same_outcome_twice_is_replayed_and_leaves_nothing_a_second_time(world, kind, changes):
    world.job(2)
    first, _ = world.claim()
    if changes.get("saved"):
        save(world, first, "1")
    report = outcome(first, kind, **changes)
    world.settle(report)
    before = world.everything()
    settled = world.settle(report, now=LATER + 1)
    assert [len(part) for part in settled] == [0, 1, 0, 0, 0, 0]
    assert world.everything() == before


def test_many_that_share_their_times_are_each_fenced_by_their_attempt(world):
    job_id = world.job(40)
    claimed = world.claim()
    world.settle(*(outcome(item, "stopped") for item in claimed[5:9]))
    again = world.claim()
    settled = world.settle(*(outcome(item) for item in claimed))
    assert [len(part) for part in settled] == [36, 0, 4, 0, 0, 0]
    assert [world.item(item.item_id, "status", "attempt") for item in again] == [("running", 2)] * 4
    world.rows.assert_sound(job_id)


def test_each_of_many_keeps_the_times_that_it_reported(world):
    world.job(30)
    claimed = world.claim()
    times = {item.item_id: (NOW + index % 3, NOW + 10 + index % 3) for index, item in enumerate(claimed)}
    rows = [
        outcome(item)._replace(started_at=NOW + i % 3, completed_at=NOW + 10 + i % 3) for i, item in enumerate(claimed)
    ]
    world.settle(*rows)
    kept = {row[0]: tuple(row[1:]) for row in world.rows.all("select id, started_at, completed_at from job_items")}
    assert kept == times


def test_the_same_outcome_twice_in_one_batch_counts_once(world):
    job_id = world.job(2)
    first, second = world.claim()
    settled = world.settle(outcome(first), outcome(first), outcome(second))
    assert [len(part) for part in settled] == [2, 1, 0, 0, 1, 0]
    world.rows.assert_sound(job_id)


def test_of_an_attempt_that_was_given_back_and_ended_after_all_the_first_word_counts(world):
    job_id = world.job(1)
    (item,) = world.claim()
    settled = world.settle(outcome(item, "stopped"), outcome(item))
    assert [len(part) for part in settled] == [1, 0, 1, 0, 0, 0]
    assert world.item(item.item_id, "status") == "queued"
    assert world.result(item.item_id) is None
    world.rows.assert_sound(job_id)


# -- one poisoned outcome among many ----------------------------------------------------------------------------------

REFUSE_THE_ERROR = (
    "create trigger refuse before update on job_items when new.error = 'poison'"
    " begin select raise(abort, 'the disk gnome refuses'); end"
)
REFUSE_THE_VALUE = (
    "create trigger refuse before insert on results when new.value = '\"poison\"'"
    " begin select raise(abort, 'the disk gnome refuses'); end"
)
REFUSE_THE_ITEM = (
    "create trigger refuse before update on job_items when new.key = 'key-250'"
    " begin select raise(abort, 'the disk gnome refuses'); end"
)
SURROGATES = "'utf-8' codec can't encode character '\\udc80' in position"


def commits(store, work):
    """Return how many transactions ``work`` committed, and how it answered."""
    statements = []
    store.connection().set_trace_callback(statements.append)
    try:
        answer = work()
    finally:
        store.connection().set_trace_callback(None)
    return statements.count("commit"), answer


@pytest.mark.parametrize(
    ("trigger", "kind", "changes", "reason"),
    [
        (REFUSE_THE_ERROR, "failed", {"error": "poison"}, "the disk gnome refuses"),
        (REFUSE_THE_VALUE, "completed", {"value": '"poison"'}, "the disk gnome refuses"),
        (None, "failed", {"error": "lone \udc80"}, SURROGATES),
        (None, "completed", {"value": '"\udc80"'}, SURROGATES),
        (None, "completed", {"output": ("\udc80", False)}, SURROGATES),
        (None, "skipped", {"error_type": "\udc80"}, SURROGATES),
    ],
)
def test_one_bad_outcome_among_500_fails_with_the_reason_and_the_others_commit_with_it(
    world, trigger, kind, changes, reason
):
    job_id = world.job(MANY, tolerance="1")
    if trigger:
        world.rows.change(trigger)
    claimed = world.claim()
    outcomes = [outcome(item) for item in claimed]
    outcomes[250] = outcome(claimed[250], kind, **changes)
    count, settled = commits(world.store, lambda: world.settle(*outcomes))
    assert count == 1
    assert [len(part) for part in settled] == [MANY, 0, 0, 0, 1, 0]
    status, error_type, error, failures = world.item(claimed[250].item_id, "status", "error_type", "error", "failures")
    assert (status, error_type, failures) == ("failed", None, 1)
    assert error.startswith(f"cannot be stored: {reason}")
    assert world.events_of(claimed[250].item_id)[-1][:3] == ("fail", "running", "failed")
    assert world.result(claimed[250].item_id) is None
    counts = world.rows.one("select status, items_completed, items_failed, last_error from jobs where id=?", job_id)
    assert counts == ("completed", MANY - 1, 1, error)
    world.rows.assert_sound(job_id)


def test_an_outcome_that_cannot_even_be_failed_is_handed_back_and_the_others_commit(world):
    job_id = world.job(MANY)
    claimed = world.claim()
    world.rows.change(REFUSE_THE_ITEM)
    outcomes = [outcome(item) for item in claimed]
    count, settled = commits(world.store, lambda: world.settle(*outcomes))
    assert count == 1
    assert settled.unstorable == [outcomes[250]]
    assert settled.applied == outcomes[:250] + outcomes[251:]
    assert settled.ended == []
    assert world.item(claimed[250].item_id, "status", "attempt", "error") == ("running", 1, None)
    assert world.rows.one("select status, items_completed, items_running from jobs where id=?", job_id) == (
        "running", MANY - 1, 1,
    )  # fmt: skip
    world.rows.assert_sound(job_id)


def test_a_late_one_a_poisoned_one_and_a_repeated_one_are_told_apart_in_one_batch(world):
    job_id = world.job(5)
    claimed = world.claim()
    world.settle(outcome(claimed[0]), outcome(claimed[1], "stopped"))
    good = outcome(claimed[3])
    settled = world.settle(
        outcome(claimed[0]), outcome(claimed[1]), outcome(claimed[2], "failed", error="\udc80"), good
    )
    assert settled.replayed == [outcome(claimed[0])]
    assert settled.late == [outcome(claimed[1])]
    assert [row.kind for row in settled.applied] == ["failed", "completed"]
    assert settled.applied[1] == good
    world.rows.assert_sound(job_id)


def test_a_full_disk_is_not_the_outcomes_fault(world, monkeypatch):
    world.job(2)
    first, _ = world.claim()
    before = world.everything()

    def full(error):
        return Transient("disk full", reason="disk full", waited=0.0)

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "judge", full)
        with pytest.raises(Transient):
            world.store.write(
                lambda connection: settle(
                    world.store, connection, [outcome(first, value="\udc80")], now=LATER, actor="test"
                ),
                patience=0,
            )
    assert world.everything() == before


# -- one transaction --------------------------------------------------------------------------------------------------


class Cut(Exception):
    """The power goes."""


class Failing:
    """A connection that dies before its statement of this number."""

    def __init__(self, connection, number):
        self._connection = connection
        self._left = number

    def execute(self, *arguments):
        if self._left == 0:
            raise Cut
        self._left -= 1
        return self._connection.execute(*arguments)


@pytest.mark.parametrize(
    "kinds",
    [("completed", "completed"), ("completed", "failed"), ("skipped", "stopped"), ("completed", "completed", "poison")],
)
def test_result_counter_event_and_the_end_of_the_job_are_in_one_transaction(world, kinds):
    world.job(len(kinds))
    claimed = world.claim()
    outcomes = [
        outcome(
            item, "failed" if kind == "poison" else kind, error={"completed": None, "poison": "\udc80"}.get(kind, "no")
        )
        for item, kind in zip(claimed, kinds, strict=True)
    ]
    outcomes = [row._replace(output=("out", False)) for row in outcomes]
    before = world.everything()
    for number in itertools.count():

        def work(connection, number=number):
            return settle(world.store, Failing(connection, number), outcomes, now=LATER, actor="test")

        try:
            settled = world.store.write(work)
        except Cut:
            assert world.everything() == before, f"statement {number}"
        else:
            break
    assert number > 8
    assert len(settled.applied) == len(kinds)
    assert world.everything() != before


def test_nothing_of_a_batch_is_kept_where_its_transaction_does_not_commit(world):
    world.job(2)
    claimed = world.claim()
    before = world.everything()

    def work(connection):
        settled = settle(world.store, connection, [outcome(item) for item in claimed], now=LATER, actor="test")
        assert len(settled.ended) == 1
        raise Cut

    with pytest.raises(Cut):
        world.store.write(work)
    assert world.everything() == before


# -- how a job ends ---------------------------------------------------------------------------------------------------


def test_the_last_outcome_ends_the_job_in_its_own_transaction(world):
    job_id = world.job(2)
    first, second = world.claim()
    assert world.settle(outcome(first)).ended == []
    count, settled = commits(world.store, lambda: world.settle(outcome(second)))
    assert count == 1
    assert [(ended.job_id, ended.status, ended.message) for ended in settled.ended] == [(job_id, "completed", None)]
    assert world.rows.one("select status, completed_at from jobs where id=?", job_id) == ("completed", LATER)


def test_a_failure_is_the_jobs_last_error_and_a_completion_without_warnings_clears_it(world):
    job_id = world.job(2)
    first, second = world.claim()
    world.settle(outcome(first, "failed", error_type="ValueError", error="no"))
    assert world.rows.one("select last_error from jobs where id=?", job_id) == "ValueError: no"
    world.settle(outcome(second))
    assert world.rows.one("select status, last_error from jobs where id=?", job_id) == ("failed", "ValueError: no")


def test_of_many_jobs_in_one_batch_each_ends_by_its_own_items(world):
    jobs = [world.job(1), world.job(2), world.job(1)]
    claimed = {item.job_id: item for item in world.claim()}
    settled = world.settle(
        outcome(claimed[jobs[0]]), outcome(claimed[jobs[1]]), outcome(claimed[jobs[2]], "failed", error="no")
    )
    assert {(ended.job_id, ended.status) for ended in settled.ended} == {(jobs[0], "completed"), (jobs[2], "failed")}


def test_an_unknown_error_of_the_database_is_raised_and_nothing_is_written(world):
    world.job(1)
    (item,) = world.claim()
    world.rows.change("alter table item_output rename to elsewhere")
    with pytest.raises(Exception, match="no such table") as raised:
        world.settle(outcome(item, output=("text", False)))
    assert not isinstance(raised.value, JobdError)
    world.rows.change("alter table elsewhere rename to item_output")
    assert world.item(item.item_id, "status") == "running"
