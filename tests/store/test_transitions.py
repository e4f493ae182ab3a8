"""Every status against every edge through the one door, and two who come at once."""

from __future__ import annotations

import itertools
import threading

import pytest

from jobd.errors import IllegalTransition, NotFound
from jobd.states import COMPLETED, EDGES, ITEM_STATUSES, JOB_ENDS, JOB_STATUSES, legal
from jobd.store.claim import Turns, claim
from jobd.store.counters import count_moves
from jobd.store.events import Event, note_job, record
from jobd.store.failures import Permanent
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.sqlite import SqliteStore
from jobd.store.steer import request_cancel, work_off
from jobd.store.transitions import Answer, JobMove, Move, job_move, move_jobs, transition, transition_job

NOW = 1_795_305_600_000
LATER = NOW + 1_000
ROUNDS = 15


def pairs(table, statuses):
    """Return every (edge, target, status), also those that make no sense."""
    ways = [(edge, target) for edge in EDGES[table].values() for target in edge.targets]
    return [(edge, target, status) for (edge, target), status in itertools.product(ways, statuses)]


def named(argument):
    return argument if isinstance(argument, str) else argument.name


def ending(edge, target):
    return job_move(edge, target, "completed_at=1" if target in JOB_ENDS else "completed_at=null")


# -- one row ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("edge", "target", "status"), pairs("jobs", JOB_STATUSES), ids=named)
def test_a_job_takes_an_edge_only_from_its_sources(shared, edge, target, status):
    store, rows = shared
    job_id = rows.job(status=status)
    before = rows.all("select * from jobs where id=?", job_id)

    def move():
        door = ending(edge.name, target)
        return store.write(lambda c: transition_job(store, c, door, job_id, now=LATER, actor="test", message="why"))

    if status in edge.sources and status != target:
        assert move() is Answer.APPLIED
        assert rows.one("select status, version, status_updated_at from jobs where id=?", job_id) == (target, 2, LATER)
        assert rows.events(job_id) == [(edge.name, status, target, None)]
        assert rows.one("select at, actor, message from job_events where job_id=? and name<>'submit'", job_id) == (
            LATER, "test", "why",
        )  # fmt: skip
        assert move() is Answer.REPLAYED
        assert len(rows.events(job_id)) == 1
    elif status == target:
        assert move() is Answer.REPLAYED
        assert rows.all("select * from jobs where id=?", job_id) == before
    else:
        with pytest.raises(IllegalTransition, match=f"^job {job_id} is {status}: it cannot {edge.name}$") as refusal:
            move()
        assert refusal.value.legal == legal("jobs", status)
        assert all(name in refusal.value.hint for name in legal("jobs", status))
        assert rows.all("select * from jobs where id=?", job_id) == before
        assert rows.events(job_id) == []
    rows.assert_sound(job_id)


@pytest.mark.parametrize(("edge", "target", "status"), pairs("job_items", ITEM_STATUSES), ids=named)
def test_an_item_takes_an_edge_only_from_its_sources(shared, edge, target, status):
    store, rows = shared
    (item_id,) = rows.ids(rows.job([status]))
    before = rows.all("select * from job_items where id=?", item_id)
    door = Move("job_items", edge.name, target)

    def move():
        return store.write(lambda c: transition(store, c, door, (item_id,)))

    if status in edge.sources and status != target:
        assert move() is Answer.APPLIED
        assert rows.one("select status from job_items where id=?", item_id) == target
        assert move() is Answer.REPLAYED
    elif status == target:
        assert move() is Answer.REPLAYED
    else:
        with pytest.raises(IllegalTransition, match=f"^item {item_id} is {status}: it cannot {edge.name}$") as refusal:
            move()
        assert refusal.value.legal == legal("job_items", status)
    if status not in edge.sources:
        assert rows.all("select * from job_items where id=?", item_id) == before


@pytest.mark.parametrize(("edge", "target", "status"), pairs("job_items", ITEM_STATUSES), ids=named)
def test_what_an_attempt_reports_is_late_when_the_item_went_on(shared, edge, target, status):
    store, rows = shared
    (item_id,) = rows.ids(rows.job([status]))
    rows.change("update job_items set attempt=3 where id=?", item_id)
    before = rows.all("select * from job_items where id=?", item_id)
    door = Move("job_items", edge.name, target, fenced=True)

    def report(attempt):
        return store.write(lambda c: transition(store, c, door, (item_id, attempt)))

    assert [report(attempt) for attempt in (2, 4)] == [Answer.LATE, Answer.LATE]
    assert rows.all("select * from job_items where id=?", item_id) == before
    if status == target:
        assert report(3) is Answer.REPLAYED
    elif status in edge.sources:
        assert report(3) is Answer.APPLIED
        assert report(3) is Answer.REPLAYED
        assert rows.one("select status, attempt from job_items where id=?", item_id) == (target, 3)
    else:
        assert report(3) is Answer.LATE
        assert rows.all("select * from job_items where id=?", item_id) == before


def test_a_row_that_does_not_exist_is_not_found(store):
    cancel = Move("job_items", "cancel", "cancelled")
    with pytest.raises(NotFound, match="there is no item 404"):
        store.write(lambda c: transition(store, c, cancel, (404,)))
    with pytest.raises(NotFound, match="there is no job 404"):
        store.write(lambda c: transition_job(store, c, job_move("start", "running"), 404, now=NOW, actor="test"))


@pytest.mark.parametrize(
    ("table", "edge", "target", "source"),
    [
        ("job_items", "complete", "failed", None),
        ("job_items", "complete", "completed", "cancelled"),
        ("job_items", "start", "queued", None),
        ("jobs", "reopen", "running", None),
    ],
)
def test_a_move_that_no_edge_allows_cannot_even_be_made(table, edge, target, source):
    with pytest.raises(IllegalTransition):
        Move(table, edge, target, source=source)


# -- a batch ----------------------------------------------------------------------------------------------------------


def test_a_batch_moves_the_rows_whose_guard_holds_and_counts_only_those(store, rows):
    job_id = rows.job(["running"] * 3 + ["cancelled", "running"], status="running")
    ids = rows.ids(job_id)
    rows.change("update job_items set attempt=2 where id=?", ids[4])
    complete = Move("job_items", "complete", "completed", fenced=True, columns=("completed_at", "progress"))
    batch = [(item_id, 1, LATER + n, f"[{n}]") for n, item_id in enumerate(ids)]
    assert store.write(lambda c: complete.run(store, c, batch)) == 3
    assert rows.items(job_id) == ["completed"] * 3 + ["cancelled", "running"]
    assert rows.all("select completed_at, progress from job_items where status='completed' order by id") == [
        (LATER + n, f"[{n}]") for n in range(3)
    ]
    assert store.write(lambda c: complete.run(store, c, batch)) == 0


def test_one_illegal_job_among_many_is_named_and_nothing_is_moved(store, rows):
    jobs = [rows.job(status="queued") for _ in range(40)]
    ended = rows.job(status="cancelled")
    before = rows.all("select * from jobs"), rows.all("select * from job_events")
    batch = [JobMove(job_id, "queued") for job_id in (*jobs[:20], ended, *jobs[20:])]
    with pytest.raises(IllegalTransition, match=f"job {ended} is cancelled: it cannot start"):
        store.write(lambda c: move_jobs(store, c, job_move("start", "running"), batch, now=LATER, actor="test"))
    assert (rows.all("select * from jobs"), rows.all("select * from job_events")) == before


def test_a_batch_with_a_job_that_was_moved_before_leaves_no_second_event(store, rows):
    queued, running = rows.job(status="queued"), rows.job(status="running")
    batch = [JobMove(queued, "queued"), JobMove(running, "queued")]
    with pytest.raises(IllegalTransition):
        store.write(lambda c: move_jobs(store, c, job_move("start", "running"), batch, now=LATER, actor="test"))
    for job_id in (queued, running):
        assert rows.events(job_id) == []
        rows.assert_sound(job_id)


def test_a_job_that_is_not_what_the_caller_has_read_is_refused_though_its_edge_is_legal(store, rows):
    job_id = rows.job(status="running")
    with pytest.raises(IllegalTransition, match=f"job {job_id} is running: it cannot fail"):
        store.write(
            lambda c: move_jobs(store, c, ending("fail", "failed"), [JobMove(job_id, "queued")], now=LATER, actor="t")
        )
    assert rows.events(job_id) == []
    rows.assert_sound(job_id)


def test_a_batch_of_jobs_leaves_an_event_and_a_version_for_each(store, rows):
    jobs = [rows.job(status=status) for status in ("queued", "running", "queued")]
    batch = [
        JobMove(job_id, status, status) for job_id, status in zip(jobs, ("queued", "running", "queued"), strict=True)
    ]
    fail = ending("fail", "failed")
    store.write(lambda c: move_jobs(store, c, fail, batch, now=LATER, actor="test"))
    for job in batch:
        assert rows.events(job.job_id) == [("fail", job.source, "failed", None)]
        rows.assert_sound(job.job_id)


# -- in one transaction -----------------------------------------------------------------------------------------------


def test_without_its_event_a_status_does_not_change(store, rows):
    job_id = rows.job(["queued"])
    rows.change("create trigger refuse before insert on job_events begin select raise(abort, 'refused'); end")
    with pytest.raises(Permanent, match="refused"):
        store.write(lambda c: transition_job(store, c, job_move("start", "running"), job_id, now=LATER, actor="test"))
    with pytest.raises(Permanent, match="refused"):
        request_cancel(store, job_id, now=LATER, actor="test")
    rows.assert_sound(job_id)
    assert rows.one("select status, version, cancel_requested_at from jobs") == ("queued", 1, None)


def test_a_counter_that_cannot_be_moves_back_what_was_to_be_counted(store, rows):
    job_id = rows.job(["running"], status="running", items_completed=1, items_total=1, items_running=0)
    (item_id,) = rows.ids(job_id)
    complete = Move("job_items", "complete", "completed")

    def work(connection):
        transition(store, connection, complete, (item_id,))
        count_moves(store, connection, {job_id: 1}, "running", "completed", progress=LATER)

    with pytest.raises(Permanent, match="jobs_counters"):
        store.write(work)
    assert rows.items(job_id) == ["running"]


def test_counters_of_many_jobs_move_in_one_call_and_progress_is_kept_where_nothing_settled(store, rows):
    first, second = (rows.job(["running", "queued"], status="running", progress_at=NOW) for _ in range(2))
    store.write(lambda c: count_moves(store, c, {first: 1, second: 1}, "queued", "running", progress=None))
    assert rows.all("select items_running, progress_at from jobs order by id") == [(2, NOW), (2, NOW)]
    store.write(lambda c: count_moves(store, c, {first: 2, second: 1}, "running", "skipped", progress=LATER))
    assert rows.all("select items_running, items_skipped from jobs order by id") == [(0, 2), (1, 1)]
    assert rows.all("select progress_at from jobs order by id") == [(LATER,), (LATER,)]
    store.write(lambda c: count_moves(store, c, {}, "running", "failed", progress=LATER))


def test_a_note_is_an_event_from_the_status_to_itself_and_one_version(store, rows):
    job_id = rows.job(status="running")
    store.write(lambda c: note_job(store, c, job_id, "pause", now=LATER, actor="test", message="lunch"))
    assert rows.events(job_id) == [("pause", "running", "running", None)]
    rows.assert_sound(job_id)


def test_an_event_is_stored_as_it_is_given(store, rows):
    job_id = rows.job(["queued"])
    event = Event(job_id, 1, "defer", "running", "waiting", LATER, "x\x1b\u202e'", 3, "ext", "é\n", 7)
    store.write(lambda c: record(store, c, [event]))
    names = ", ".join(Event._fields)
    assert rows.one(f"select {names} from job_events where name='defer'") == event


# -- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rival(store, tmp_path):
    """The same file as another process has it: its own connections, and no mutex in common."""
    rival = SqliteStore(tmp_path / "jobs.db")
    rival.open()
    yield rival
    rival.close()


def at_once(*calls):
    """Run the calls in threads that a barrier lets go together, and return what each returned or raised."""
    barrier = threading.Barrier(len(calls), timeout=30)
    answers = [None] * len(calls)

    def run(place, call):
        barrier.wait()
        try:
            answers[place] = call()
        except Exception as error:  # noqa: BLE001 - an answer like another
            answers[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_of_two_who_complete_one_attempt_one_wins_and_the_other_is_told(store, rival, rows):
    complete = Move("job_items", "complete", "completed", fenced=True)
    job_id = rows.job(["running"] * ROUNDS, status="running")

    def answering(store, item_id):
        def work(connection):
            answer = transition(store, connection, complete, (item_id, 1))
            if answer is Answer.APPLIED:
                count_moves(store, connection, {job_id: 1}, "running", "completed", progress=LATER)
            return answer

        return lambda: store.write(work)

    for item_id in rows.ids(job_id):
        answers = at_once(answering(store, item_id), answering(rival, item_id))
        assert sorted(answers, key=str) == [Answer.APPLIED, Answer.REPLAYED]
    rows.assert_sound(job_id)


def test_of_two_who_settle_one_attempt_only_one_leaves_a_result(store, rival, rows):
    job_id = rows.job(["running"] * ROUNDS, status="running")

    def settling(store, item_id, value):
        outcome = Outcome(item_id, job_id, 1, "work", str(item_id), COMPLETED, NOW, LATER, value=value)
        return lambda: store.write(lambda c: settle(store, c, [outcome], now=LATER, actor="daemon"))

    for item_id in rows.ids(job_id):
        answers = at_once(settling(store, item_id, '"a"'), settling(rival, item_id, '"b"'))
        applied = [outcome for answer in answers for outcome in answer.applied]
        told = [outcome for answer in answers for outcome in answer.late + answer.replayed]
        assert (len(applied), len(told)) == (1, 1)
        assert rows.all("select value from results where item_id=?", item_id) == [(applied[0].value,)]
    assert rows.one("select status from jobs") == "completed"
    rows.assert_sound(job_id)


def test_of_a_cancel_and_a_completion_the_first_decides_and_the_job_ends_once(store, rival, rows):
    for _ in range(ROUNDS):
        job_id = rows.job(["running", "queued"], status="running")
        outcome = Outcome(rows.ids(job_id)[0], job_id, 1, "work", "k", COMPLETED, NOW, LATER, value="1")

        def cancel(job_id=job_id):
            request_cancel(rival, job_id, now=LATER, actor="cli")
            return work_off(rival, job_id, now=LATER, actor="cli")

        def complete(outcome=outcome):
            return store.write(lambda c: settle(store, c, [outcome], now=LATER, actor="daemon"))

        cancelled, settled = at_once(cancel, complete)
        assert (cancelled, len(settled.applied)) == (1, 1)
        assert rows.items(job_id) == ["completed", "cancelled"]
        assert rows.one("select status from jobs where id=?", job_id) == "cancelled"
        assert [event[0] for event in rows.events(job_id)].count("cancel") == 3, "request, items, end"
        rows.assert_sound(job_id)


def test_a_cancel_that_comes_after_the_last_completion_is_told_so(store, rival, rows):
    for _ in range(ROUNDS):
        job_id = rows.job(["running"], status="running")
        outcome = Outcome(rows.ids(job_id)[0], job_id, 1, "work", "k", COMPLETED, NOW, LATER, value="1")

        def complete(outcome=outcome):
            return store.write(lambda c: settle(store, c, [outcome], now=LATER, actor="daemon"))

        told, _ = at_once(lambda job_id=job_id: request_cancel(rival, job_id, now=LATER, actor="cli"), complete)
        assert told is Answer.APPLIED or (isinstance(told, IllegalTransition) and told.status == "completed")
        assert rows.one("select status from jobs where id=?", job_id) == "completed", "every item was completed"
        rows.assert_sound(job_id)


def test_two_who_claim_share_the_items_and_start_none_twice(store, rival, rows):
    job_id = rows.job(["queued"] * 400)

    def claiming(store, daemon_id):
        def work(connection):
            return claim(
                store, connection, Turns(), limit=13, tasks=["work"], daemon_id=daemon_id, now=LATER,
                actor="daemon",
            )  # fmt: skip

        def until_nothing_is_left():
            claimed = []
            while found := store.write(work):
                claimed += [item.item_id for item in found]
            return claimed

        return until_nothing_is_left

    first, second = at_once(claiming(store, 1), claiming(rival, 2))
    assert sorted(first + second) == rows.ids(job_id)
    assert rows.one("select min(attempt), max(attempt) from job_items") == (1, 1)
    for daemon_id, claimed in ((1, first), (2, second)):
        assert rows.all("select id from job_items where daemon_id=? order by id", daemon_id) == [(i,) for i in claimed]
    assert [event[0] for event in rows.events(job_id)] == ["start"]
    rows.assert_sound(job_id)
