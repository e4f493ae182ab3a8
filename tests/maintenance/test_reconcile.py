"""reconcile: what a stored result says is what its item becomes, and the job follows."""

from __future__ import annotations

import itertools

import pytest
from kit.rows import NOW

from jobd.maintenance import reconcile as reconciling
from jobd.maintenance.evidence import Holder
from jobd.maintenance.reconcile import reconcile
from jobd.store import contradicted
from jobd.store.invariants import check
from jobd.store.sqlite import SqliteStore

LATER = NOW + 5_000
STORED = "a result is stored"
FAILED = "ValueError: no"  # what Rows gives a failed item
SOURCES = ["running", "waiting", "queued", "failed"]
NOBODY = Holder()


@pytest.fixture
def mend(store, rows):
    """Run the pass; afterwards every rule holds but that rows were never submitted."""

    def run(*, holder=NOBODY, **options):
        return reconcile(store, holder=holder, now=LATER, actor="test", **options)

    yield run
    assert [broken for broken in check(store) if broken.name != "job_events"] == []
    for (job_id,) in rows.all("select id from jobs where deleted_at is null"):
        rows.assert_sound(job_id)


@pytest.fixture
def one(rows):
    """Add a job of one item of this status, with a result where it is named, and return (job id, item id)."""

    def add(status, said=None, value='"kept"', **columns):
        job = {"running": "running", "waiting": "running", "failed": "failed", "queued": "running"}.get(status, status)
        job_id = rows.job([status], status=job, **({"last_error": FAILED} if status == "failed" else {}) | columns)
        (item,) = rows.ids(job_id)
        rows.change("update job_items set attempt=1 where id=?", item)
        if status == "queued":
            rows.change("update job_items set interruptions=1 where id=?", item)
        if said is not None:
            rows.result(item, said, value)
        return job_id, item

    return add


def moved(report):
    return [(change.item_id, change.from_status, change.to_status, change.evidence) for change in report.changes]


# -- what an item becomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", SOURCES)
def test_what_has_a_result_is_complete_and_so_is_its_job(mend, one, rows, status):
    job_id, item = one(status, "completed")
    assert moved(mend()) == [(item, status, "completed", STORED)]
    columns = "status, attempt, error, error_type, available_at, deadline_at"
    assert rows.one(f"select {columns} from job_items") == ("completed", 1, None, None, 0, None)
    assert rows.one("select status, last_error from jobs") == ("completed", None)
    events = rows.all(
        "select name, from_status, to_status, attempt, actor, message from job_events where item_id=?", item
    )
    assert events == [("reconcile", status, "completed", 1, "test", STORED)]
    edge = (
        ("reconcile", "failed", "completed", None) if status == "failed" else ("complete", "running", "completed", None)
    )
    assert rows.events(job_id) == [edge]


@pytest.mark.parametrize("status", ["running", "waiting", "queued"])
def test_what_has_a_failed_result_has_failed_for_the_reason_that_it_gives(mend, one, rows, status):
    job_id, item = one(status, "failed", '"the vendor gave up"')
    assert moved(mend()) == [(item, status, "failed", STORED)]
    assert rows.one("select status, error, error_type from job_items") == ("failed", "the vendor gave up", None)
    assert rows.one("select status, last_error from jobs") == ("failed", "the vendor gave up")
    assert rows.events(job_id) == [("fail", "running", "failed", None)]


def test_a_failed_item_with_a_failed_result_is_as_it_should_be(mend, one):
    one("failed", "failed", '"no"')
    assert mend().changes == mend(every=True).changes == []


@pytest.mark.parametrize("status", ["cancelled", "skipped"])
@pytest.mark.parametrize("every", [False, True])
def test_what_was_cancelled_or_skipped_stays_so(mend, one, rows, status, every):
    job = "cancelled" if status == "cancelled" else "completed"
    rows.result(rows.ids(rows.job([status], status=job))[0])
    assert mend(every=every).changes == []


@pytest.mark.parametrize("status", SOURCES)
@pytest.mark.parametrize("every", [False, True])
def test_the_result_of_another_attempt_says_nothing(mend, one, rows, status, every):
    _, item = one(status)
    rows.result(item, attempt=7)
    assert mend(every=every).changes == []


@pytest.mark.parametrize("status", SOURCES)
@pytest.mark.parametrize("every", [False, True])
def test_what_has_no_result_stays_as_it_is(mend, one, status, every):
    one(status)
    assert mend(every=every).changes == []


@pytest.mark.parametrize("every", [False, True])
def test_a_job_that_is_being_deleted_is_left_to_its_removal(mend, one, rows, every):
    one("failed", "completed")
    rows.change("update jobs set deleted_at=?", NOW)
    assert mend(every=every).changes == []


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ('"no"', "no"),
        ('"  "', '"  "'),
        ('{"code": 5}', '{"code": 5}'),
        ("null", "null"),
        ('"\\ud800"', '"\\ud800"'),
        ('"a\\u0000b"', '"a\\u0000b"'),
        ("[" * 100_000 + "]" * 100_000, "[" * 100_000 + "]" * 100_000),
    ],
    ids=["text", "blank", "object", "null", "surrogate", "NUL", "deep"],
)
def test_a_failed_results_words_are_always_some_that_can_be_stored(value, error):
    assert contradicted.words(value) == error


def test_a_failed_result_that_is_no_json_is_its_own_words():
    assert contradicted.words("{") == "{"
    assert contradicted.words(None) == contradicted.words("") == "failed"


# -- who runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [False, True])
def test_what_the_live_daemon_has_in_hand_is_left_to_its_own_settlement(mend, one, every):
    _, item = one("running", "completed")
    assert mend(holder=Holder(1, {item}), every=every).changes == []
    assert mend(holder=Holder(1, {item}), every=every, check_only=True).changes == []
    assert len(mend(holder=Holder(1, {item + 1}), every=every).changes) == 1


def test_what_another_daemon_ran_is_nobodys_though_the_live_one_knows_the_number(mend, one):
    _, item = one("running", "completed")
    assert len(mend(holder=Holder(2, {item})).changes) == 1


def test_what_the_daemon_takes_in_hand_while_the_pass_runs_is_left_to_it(mend, one, store, monkeypatch):
    _, item = one("running", "completed")
    registry = {}
    of_items = contradicted.of_items

    def claimed_meanwhile(*arguments):
        registry[item] = "attempt"
        return of_items(*arguments)

    monkeypatch.setattr(contradicted, "of_items", claimed_meanwhile)
    assert mend(holder=Holder(1, registry)).changes == []


# -- what becomes of the job ------------------------------------------------------------------------------------------


def test_a_job_that_was_failed_falsely_completes_and_keeps_no_error(mend, rows):
    job_id = rows.job(["completed", "failed"], status="failed", last_error=FAILED, status_message="1 of 2 items failed")
    for item in rows.ids(job_id):
        rows.result(item)
    mend()
    columns = "status, last_error, status_message, items_completed, items_failed, completed_at, version"
    assert rows.one(f"select {columns} from jobs") == ("completed", None, None, 2, 0, NOW, 2)
    assert rows.events(job_id) == [("reconcile", "failed", "completed", None)]


def test_a_job_completes_with_warnings_when_what_still_failed_is_within_its_tolerance(mend, rows):
    job_id = rows.job(["failed", "failed"], status="failed", last_error=FAILED, tolerance="1")
    rows.result(rows.ids(job_id)[0])
    mend()
    message = "select message from job_events where item_id is null and name='reconcile'"
    assert rows.one("select status, last_error, items_failed from jobs") == ("completed", FAILED, 1)
    assert rows.one(message) == "with warnings: 1 of 2 items failed"


def test_a_job_of_which_enough_failed_stays_failed_and_names_an_error_that_is_true(mend, rows):
    job_id = rows.job(["failed", "failed"], status="failed", last_error="KeyError: gone")
    _, second = rows.ids(job_id)
    rows.change("update job_items set error='gone', error_type='KeyError' where id=?", second)
    rows.result(second)
    mend()
    assert rows.items(job_id) == ["failed", "completed"]
    assert rows.one("select status, last_error from jobs") == ("failed", FAILED)
    assert rows.events(job_id) == []


def test_a_completed_job_whose_one_failure_was_none_has_no_error_any_more(mend, rows):
    job_id = rows.job(["failed"], status="completed", last_error=FAILED, tolerance="1")
    rows.result(rows.ids(job_id)[0])
    mend()
    assert rows.one("select status, last_error, items_failed from jobs") == ("completed", None, 0)
    assert rows.events(job_id) == []


def test_a_reason_that_is_no_items_stays_with_its_job(mend, rows):
    job_id = rows.job(["failed", "failed"], status="failed", last_error="timed out: no progress for 30 m")
    rows.result(rows.ids(job_id)[0])
    mend()
    assert rows.one("select last_error from jobs") == "timed out: no progress for 30 m"


def test_a_completed_job_fails_by_a_failure_that_turns_up(mend, rows):
    """Rows as another hand left them: a job that ended with an item open is decided by that item."""
    job_id = rows.job(["completed", "waiting"], status="running")
    rows.result(rows.ids(job_id)[0])
    rows.result(rows.ids(job_id)[1], "failed", '"no"')
    rows.change("update jobs set status='completed', completed_at=?", NOW)
    rows.change("update job_events set to_status='completed'")
    mend()
    assert rows.one("select status, last_error from jobs") == ("failed", "no")
    assert rows.events(job_id) == [("reconcile", "completed", "failed", None)]


@pytest.mark.parametrize("requested_at", [NOW, None])
def test_a_cancelled_job_stays_cancelled(mend, rows, requested_at):
    items = ["failed", "cancelled"] if requested_at else ["failed"]
    job_id = rows.job(items, status="cancelled", cancel_requested_at=requested_at, last_error=FAILED)
    rows.result(rows.ids(job_id)[0])
    mend()
    assert rows.items(job_id)[0] == "completed"
    assert rows.one("select status from jobs") == "cancelled"
    assert rows.events(job_id) == []


@pytest.mark.parametrize(
    ("others", "status"), [(["cancelled"], "failed"), (["completed"], "completed"), ([], "completed")]
)
def test_a_job_that_was_failed_by_request_stays_so_while_anything_of_it_was_cancelled(mend, rows, others, status):
    job_id = rows.job(["failed", *others], status="failed", fail_requested_at=NOW, last_error=FAILED)
    for item, was in zip(rows.ids(job_id), rows.items(job_id), strict=True):
        if was != "cancelled":
            rows.result(item)
    mend()
    assert rows.one("select status from jobs") == status


def test_a_job_with_something_open_goes_on(mend, rows):
    job_id = rows.job(["waiting", "queued"], status="running")
    rows.result(rows.ids(job_id)[0], attempt=1)
    mend()
    assert rows.items(job_id) == ["completed", "queued"]
    assert rows.one("select status, items_waiting, items_completed, progress_at from jobs") == ("running", 0, 1, LATER)


def test_a_paused_job_and_one_that_is_being_cancelled_follow_as_well(mend, rows):
    for columns in ({"paused_at": NOW}, {"cancel_requested_at": NOW}):
        rows.result(rows.ids(rows.job(["waiting"], status="running", **columns))[0])
    assert mend().counts == {"completed": 2}
    assert rows.all("select status from jobs") == [("completed",), ("completed",)]


# -- how much is looked at --------------------------------------------------------------------------------------------


def test_the_beat_looks_at_the_newest_failures_alone_and_all_finds_the_others(mend, rows, monkeypatch):
    monkeypatch.setattr(contradicted, "RECENT", 2)
    jobs = [rows.job(["failed"], status="failed", last_error=FAILED) for _ in range(4)]
    rows.result(rows.ids(jobs[0])[0])
    rows.result(rows.ids(jobs[3])[0])
    assert [change.job_id for change in mend().changes] == [jobs[3]]
    assert mend().changes == []
    assert [change.job_id for change in mend(every=True).changes] == [jobs[0]]


def test_what_was_never_interrupted_is_found_by_who_looks_at_all(mend, one, rows):
    _, item = one("queued", "completed")
    rows.change("update job_items set interruptions=0")
    assert mend().changes == []
    assert moved(mend(every=True)) == [(item, "queued", "completed", STORED)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_all_looks_at_every_result_whatever_the_pages(mend, rows, monkeypatch, count):
    monkeypatch.setattr(contradicted, "RECENT", 2)
    job_id = rows.job(["failed"] * count, status="failed", last_error=FAILED)
    for item in rows.ids(job_id):
        rows.result(item)
    assert mend(every=True).counts == ({"completed": count} if count else {})


def test_many_are_moved_in_batches_and_each_counts_once(mend, rows, store, monkeypatch):
    monkeypatch.setattr("jobd.store.batches.FIRST", 2)
    monkeypatch.setattr("jobd.store.batches.HOLD_SECONDS", 0.0)
    monkeypatch.setattr("jobd.store.batches.SMALLEST", 2)
    job_id = rows.job(["failed"] * 5, status="failed", last_error=FAILED)
    for item in rows.ids(job_id):
        rows.result(item)
    batches = []
    carry_out = reconciling.carry_out

    def counted(store, connection, found, **options):
        outside = SqliteStore(store.path)
        done = "select count(*) from job_items where status='completed'"
        committed = outside.read(lambda other: other.execute(done).fetchone()[0])
        outside.close()
        batches.append((committed, len(found)))
        return carry_out(store, connection, found, **options)

    monkeypatch.setattr(reconciling, "carry_out", counted)
    assert mend().counts == {"completed": 5}
    assert batches == [(0, 2), (2, 2), (4, 1)]


@pytest.mark.parametrize("every", [False, True])
def test_who_is_told_to_leave_stops_between_two_batches_and_the_next_call_goes_on(mend, rows, monkeypatch, every):
    monkeypatch.setattr("jobd.store.batches.FIRST", 2)
    job_id = rows.job(["failed"] * 5, status="failed", last_error=FAILED)
    for item in rows.ids(job_id):
        rows.result(item)
    assert mend(every=every, go_on=lambda: False).counts == {"completed": 2}
    assert rows.one("select status from jobs") == "failed"
    assert mend(every=every).counts == {"completed": 3}
    assert rows.one("select status from jobs") == "completed"


def test_who_is_told_to_leave_looks_at_no_further_page(mend, rows, monkeypatch):
    monkeypatch.setattr(contradicted, "RECENT", 2)
    for item in rows.ids(rows.job(["completed"] * 6, status="completed")):
        rows.result(item)
    looked = []
    after = contradicted.after

    def look(connection, last):
        looked.append(last)
        return after(connection, last)

    monkeypatch.setattr(contradicted, "after", look)
    mend(every=True, go_on=lambda: False)
    assert looked == [0]


@pytest.mark.parametrize("every", [False, True])
def test_check_only_changes_nothing_and_reports_the_same(mend, one, rows, store, every):
    for status in SOURCES:
        one(status, "completed")
    one("waiting", "failed", '"no"')
    tables = ("jobs", "job_items", "results", "job_events")
    before = [rows.all(f"select * from {table}") for table in tables]
    store.connection().execute("pragma query_only=on")
    would = mend(every=every, check_only=True)
    store.connection().execute("pragma query_only=off")
    assert [rows.all(f"select * from {table}") for table in tables] == before
    did = mend(every=every)
    assert would.check_only
    assert would.changes == did.changes
    assert would.counts == did.counts == {"completed": 4, "failed": 1}
    assert mend(every=every).changes == []


def test_what_has_moved_between_the_look_and_the_act_is_left_alone(mend, one, rows, store, monkeypatch):
    _, first = one("failed", "completed")
    _, second = one("failed", "completed")
    of_items = contradicted.of_items

    def moved_meanwhile(store, connection, items):
        found = of_items(store, connection, items)
        # As on a database where the look takes no lock.
        connection.execute("update job_items set attempt=2 where id=?", (first,))
        return found

    monkeypatch.setattr(contradicted, "of_items", moved_meanwhile)
    assert [change.item_id for change in mend().changes] == [second]
    assert rows.all("select status from job_items order by id") == [("failed",), ("completed",)]
    assert rows.all("select items_failed, items_completed from jobs order by id") == [(1, 0), (0, 1)]


def test_a_batch_that_does_not_commit_is_as_if_it_had_not_been(mend, one, rows, monkeypatch):
    one("failed", "completed")
    tables = ("jobs", "job_items", "results", "job_events")
    before = [rows.all(f"select * from {table}") for table in tables]

    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jobd.store.reconcile.decide_anew", cut)
    with pytest.raises(KeyboardInterrupt):
        mend()
    assert [rows.all(f"select * from {table}") for table in tables] == before


def fill(rows, status, count, *, results):
    """Add a job of many items of one status, at attempt 1, each with a result where ``results``."""
    job = "running" if status in {"waiting", "queued", "running"} else status
    job_id = rows.job([], status=job)
    ended = NOW if status in {"completed", "failed"} else None
    rows.change(
        "insert into job_items (job_id, key, payload, status, attempt, interruptions, started_at, completed_at, error,"
        " daemon_id) with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)"
        " select ?, 'key-' || i, 'null', ?, 1, 1, ?, ?, case when ? = 'failed' then 'no' end, 1 from n",
        count, job_id, status, NOW, ended, status,
    )  # fmt: skip
    counter = "" if status == "queued" else f", items_{status}={count}"
    rows.change(f"update jobs set items_total={count}{counter} where id=?", job_id)
    if results:
        rows.change(
            "insert into results (item_id, attempt, task, key, status, value, created_at)"
            " select id, 1, 'work', key, status, 'null', ? from job_items where job_id=?",
            NOW, job_id,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "results"), [("completed", True), ("failed", False), ("waiting", False), ("queued", False)]
)
def test_a_beat_with_nothing_to_do_costs_the_same_however_many_rows_there_are(rows, store, status, results):
    fill(rows, status, 30_000, results=results)
    steps = itertools.count()
    store.connection().set_progress_handler(lambda: next(steps) and 0, 100)
    assert reconcile(store, holder=NOBODY, now=LATER, actor="test").changes == []
    store.connection().set_progress_handler(None, 0)
    # 10,000 ids of an index, and one step down to a result that is not there for each.
    assert next(steps) * 100 < (1_000 if status == "completed" else 200_000)
