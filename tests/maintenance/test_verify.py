"""recover asks a task's own code about its orphans: outside of every transaction, and of nothing that may still run."""

from __future__ import annotations

import pytest
from kit.rows import Rows

from jobd.maintenance.evidence import Holder, Rules, Unanswered
from jobd.maintenance.recover import recover
from jobd.store.claim import Turns, claim
from jobd.store.invariants import check
from jobd.store.sqlite import SqliteStore
from jobd.store.steer import request_cancel
from jobd.store.submission import Submission
from jobd.store.submit import submit

NOW = 1_795_305_600_000
GRACE = 600_000
BOOT = "this boot"
DEAD, MINE = 1, 2
GONE = "its daemon is gone"
DONE = f"{GONE}; verify: it is done"


class World(Rows):
    """Two running items of one job whose daemon died, and what is asked about them."""

    def __init__(self, store):
        super().__init__(store)
        for daemon_id in (DEAD, MINE):
            self.daemon(daemon_id, boot=BOOT)
        items = [("a", '{"path": "a"}'), ("b", "null")]
        self.job = submit(store, Submission("send", params='{"to": 1}'), items, now=NOW, actor="test").job_id

        def start(connection):
            return claim(
                store, connection, Turns(), limit=2, tasks=["send"], daemon_id=DEAD, now=NOW,
                actor="test",
            )  # fmt: skip

        store.write(start)
        self.first, self.second = (row[0] for row in self.all("select id from job_items order by id"))
        self.asked = []

    def statuses(self):
        return [row[0] for row in self.all("select status from job_items order by id")]

    def recover(self, answer, *, daemon=MINE, known=(), now=NOW, tasks=("send",), check_only=False, **options):
        def verify(subject):
            assert not self.store.connection().in_transaction
            self.asked.append(subject)
            return answer(subject)

        return recover(
            self.store,
            holder=Holder(daemon, frozenset(known)),
            rules=Rules(BOOT, grace_ms=GRACE, tasks=frozenset(tasks), verify={"send": verify} if answer else {}),
            now=now,
            actor="test",
            check_only=check_only,
            **options,
        )


@pytest.fixture
def world(tmp_path):
    store = SqliteStore(tmp_path / "jobs.db")
    store.open()
    world = World(store)
    yield world
    assert check(store) == []
    store.close()


def changes(report):
    return [(change.item_id, change.to_status, change.evidence) for change in report.changes if change.item_id]


def only_first(subject):
    return '"sent"' if subject.key == "a" else None


def unanswered(subject):
    raise Unanswered


def test_what_is_done_completes_with_the_result_that_was_found_and_the_rest_is_queued_again(world):
    report = world.recover(only_first)
    assert changes(report) == [(world.first, "completed", DONE), (world.second, "queued", GONE)]
    assert world.all("select item_id, attempt, task, key, status, source, value, created_at from results") == [
        (world.first, 1, "send", "a", "completed", "verify", '"sent"', NOW)
    ]
    assert world.all("select name, to_status, attempt, message from job_events where item_id=?", world.first) == [
        ("reconcile", "completed", 1, DONE)
    ]
    assert world.one("select items_completed, items_running, status from jobs") == (1, 0, "running")
    assert world.all("select interruptions from job_items order by id") == [(0,), (1,)]


def test_it_is_asked_about_the_item_whole(world):
    world.change("update job_items set intent='msg-17' where key='a'")
    world.recover(only_first)
    assert [tuple(subject) for subject in world.asked] == [
        (world.first, world.job, "send", "a", 1, '{"path": "a"}', '{"to": 1}', "msg-17", NOW),
        (world.second, world.job, "send", "b", 1, "null", '{"to": 1}', None, NOW),
    ]


def test_the_job_ends_with_its_last_item(world):
    world.recover(lambda subject: "null")
    assert world.one("select status from jobs") == "completed"


def test_while_it_cannot_say_the_item_stays_as_it_is(world):
    assert world.recover(unanswered).changes == []
    assert world.statuses() == ["running", "running"]
    assert len(world.asked) == 2
    assert [change[1] for change in changes(world.recover(only_first))] == ["completed", "queued"]


def test_check_only_asks_and_writes_nothing(world):
    before = world.all("select * from job_items") + world.all("select * from results")
    would = world.recover(only_first, check_only=True)
    assert world.all("select * from job_items") + world.all("select * from results") == before
    assert would.changes == world.recover(only_first).changes


def test_a_stored_result_needs_no_asking(world):
    world.change(
        "insert into results (item_id, attempt, task, key, value, created_at) values (?, 1, 'send', 'a', '1', ?)",
        world.first, NOW,
    )  # fmt: skip
    world.recover(lambda subject: None)
    assert [subject.item_id for subject in world.asked] == [world.second]


@pytest.mark.parametrize(
    ("known", "age"), [(True, 100 * GRACE), (False, GRACE)], ids=["in the registry", "within the grace"]
)
def test_nothing_is_asked_about_what_may_still_run(world, known, age):
    world.change("update job_items set daemon_id=?", MINE)
    items = (world.first, world.second) if known else ()
    assert world.recover(only_first, known=items, now=NOW + age).changes == []
    assert world.asked == []


def test_after_the_grace_it_is_asked_about_what_is_silent(world):
    world.change("update job_items set daemon_id=?", MINE)
    report = world.recover(only_first, now=NOW + GRACE + 1)
    assert [change[1] for change in changes(report)] == ["completed", "queued"]


def test_what_is_done_is_done_under_a_cancel_request_too(world):
    request_cancel(world.store, world.job, now=NOW, actor="test")
    world.recover(only_first)
    assert world.statuses() == ["completed", "cancelled"]
    assert world.one("select status from jobs") == "cancelled"


def test_a_cancel_that_comes_while_it_is_asked_is_heeded(world):
    def cancelled_meanwhile(subject):
        request_cancel(world.store, world.job, now=NOW, actor="test")

    world.recover(cancelled_meanwhile)
    assert world.statuses() == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    "moved",
    ["status='queued', daemon_id=null", "attempt=2"],
    ids=["it was queued again", "another attempt runs"],
)
def test_an_answer_counts_for_the_attempt_that_was_asked_about_alone(world, moved):
    def meanwhile(subject):
        if subject.key == "a":
            world.change(f"update job_items set {moved} where id=?", subject.item_id)
            world.change("update jobs set items_running=(select count(*) from job_items where status='running')")
        return '"sent"'

    report = world.recover(meanwhile)
    assert changes(report) == [(world.second, "completed", DONE)]
    assert world.all("select item_id from results") == [(world.second,)]


def test_who_is_told_to_leave_while_it_is_asked_asks_no_more_and_writes_nothing(world):
    assert world.recover(only_first, go_on=lambda: not world.asked).changes == []
    assert [subject.key for subject in world.asked] == ["a"]
    assert world.statuses() == ["running", "running"]


def test_what_an_item_of_an_unknown_task_meant_to_do_nobody_here_can_judge(world):
    world.change("update job_items set intent='msg-17' where id=?", world.first)
    report = world.recover(None, tasks=())
    assert changes(report) == [(world.second, "queued", GONE)]
    assert world.statuses() == ["running", "queued"]
    assert [change[1] for change in changes(world.recover(None))] == ["queued"]
