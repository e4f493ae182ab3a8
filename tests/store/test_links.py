"""Jobs that come after others: what they wait for, how they fall, how they come back."""

from __future__ import annotations

import pytest
from kit.rows import NOW

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.maintenance.finish import finish_requests
from jobd.store import cascade, chunks, fall, follow, links, removal, retry, steer
from jobd.store.batches import Pace
from jobd.store.chain import phases
from jobd.store.claim import Turns, claim
from jobd.store.deliver import deliver
from jobd.store.ending import end_jobs, finished_but_open
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.submission import Submission
from jobd.store.submit import submit


class Chain:
    """Jobs of one or more items, one after the other or all after one, and what can be done with them."""

    def __init__(self, store, rows):
        self.store, self.rows, self.at = store, rows, NOW

    def submit(self, *after, on="completed", items=1, **columns):
        pairs = [(f"k{number}", "null") for number in range(items)]
        wanted = Submission("work", after=after, on=on, **columns)
        return submit(self.store, wanted, pairs, now=self.now, actor="test").job_id

    @property
    def now(self):
        self.at += 1
        return self.at

    def claim(self, limit=100):
        options = {"limit": limit, "tasks": ["work"], "daemon_id": 1, "now": self.now, "actor": "daemon 1"}
        return self.store.write(lambda connection: claim(self.store, connection, Turns(), **options))

    def settle(self, *claimed, kind="completed"):
        error = None if kind == "completed" else "no"
        outcomes = [
            Outcome(one.item_id, one.job_id, one.attempt, "work", one.key, kind, NOW, self.at, error=error)
            for one in claimed
        ]
        return self.store.write(lambda connection: settle(self.store, connection, outcomes, now=self.now, actor="d"))

    def run(self, kind="completed"):
        """Run what there is to claim, once, and return of which jobs that was."""
        claimed = self.claim()
        self.settle(*claimed, kind=kind)
        return sorted({one.job_id for one in claimed})

    def follow(self, **options):
        return finish_requests(self.store, now=self.now, actor="d", **options)

    def cancel(self, job_id):
        steer.request_cancel(self.store, job_id, now=self.now, actor="ann")
        steer.work_off(self.store, job_id, now=self.now, actor="ann")

    def resume(self, job_id):
        return retry.resume(self.store, job_id, now=self.now, actor="ann")

    def statuses(self, *job_ids):
        return [self.rows.one("select status from jobs where id=?", job_id) for job_id in job_ids]

    def blocked(self, job_id):
        return self.rows.one("select blocked from jobs where id=?", job_id)

    def events(self, job_id):
        rows = self.rows.all(
            "select name, message from job_events where job_id=? and item_id is null and count is null order by id",
            job_id,
        )
        return [tuple(row) for row in rows]


@pytest.fixture
def chain(store, rows):
    chain = Chain(store, rows)
    yield chain
    # Whatever was done: every rule holds, and with them that each counter says what its job waits for.
    assert check(store) == []


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_a_child_is_claimed_when_its_parent_has_completed_and_not_before(chain):
    first = chain.submit()
    second = chain.submit(first)
    third = chain.submit(second)
    assert chain.blocked(second) == 1
    assert [chain.run(), chain.run(), chain.run()] == [[first], [second], [third]]
    assert chain.statuses(first, second, third) == ["completed"] * 3


def test_a_child_of_several_waits_for_the_last_of_them(chain):
    parents = [chain.submit() for _ in range(3)]
    child = chain.submit(*parents)
    assert chain.blocked(child) == 3
    *two, last = chain.claim()
    chain.settle(*two)
    assert chain.blocked(child) == 1
    assert chain.claim() == []
    chain.settle(last)
    assert chain.run() == [child]


def test_the_child_is_free_in_the_very_transaction_that_ends_its_parent(chain, store):
    first = chain.submit()
    second = chain.submit(first)
    (one,) = chain.claim()
    outcome = Outcome(one.item_id, first, 1, "work", one.key, "completed", NOW, NOW)

    def turn(connection):
        settle(store, connection, [outcome], now=NOW, actor="d")
        options = {"limit": 9, "tasks": ["work"], "daemon_id": 1, "now": NOW, "actor": "d"}
        return claim(store, connection, Turns(), **options)

    assert [one.job_id for one in store.write(turn)] == [second]


@pytest.mark.parametrize(("on", "kind", "runs"), [
    ("ended", "completed", True), ("ended", "failed", True), ("completed", "completed", True),
    ("completed", "failed", False),
])  # fmt: skip
def test_what_a_child_waits_for_is_its_own_word(chain, on, kind, runs):
    first = chain.submit()
    second = chain.submit(first, on=on)
    chain.run(kind)
    assert chain.run() == ([second] if runs else [])


def test_two_links_of_one_child_may_ask_for_different_ends(chain):
    first, second = chain.submit(), chain.submit()
    child = chain.submit(first, on="ended", key="k")
    chain.submit(second, on="completed", key="k")
    one, other = chain.claim()
    chain.settle(one, kind="failed")
    assert chain.blocked(child) == 1
    chain.settle(other)
    assert chain.run() == [child]


def test_a_parent_that_has_ended_already_holds_nobody_back(chain):
    first = chain.submit()
    chain.run()
    second = chain.submit(first)
    assert chain.blocked(second) == 0
    assert chain.run() == [second]


def test_a_parent_that_is_reopened_holds_back_what_has_not_ended(chain):
    first = chain.submit(key="k")
    second = chain.submit(first, items=2)
    chain.run()
    chain.settle(*chain.claim(limit=1))
    chain.submit(key="k", items=2)
    assert chain.blocked(second) == 1
    assert chain.run() == [first]
    assert chain.run() == [second]


def test_a_job_of_no_items_completes_with_its_parent_and_not_before(chain, store):
    first = chain.submit()
    second = chain.submit(first, items=0)
    third = chain.submit(second, items=0)
    fourth = chain.submit(third)
    assert chain.statuses(second, third) == ["queued", "queued"]
    assert finished_but_open(store) == []
    chain.run()
    assert chain.statuses(first, second, third) == ["completed"] * 3
    assert chain.run() == [fourth]


def test_a_row_of_jobs_without_items_that_is_too_long_for_a_transaction_ends_all_the_same(chain, store):
    first = last = chain.submit()
    empty = [last := chain.submit(last, items=0) for _ in range(120)]
    final = chain.submit(last)
    assert chain.run() == [first]
    assert len({*chain.statuses(*empty)}) == 2
    assert chain.follow()
    assert {*chain.statuses(*empty)} == {"completed"}
    assert links.untold(store) == []
    assert chain.run() == [final]


def test_a_job_of_no_items_that_waits_is_cancelled_like_any_other(chain):
    first = chain.submit()
    second = chain.submit(first, items=0)
    chain.cancel(second)
    assert chain.statuses(first, second) == ["queued", "cancelled"]


def test_a_program_that_ends_a_parent_wakes_whoever_runs_items(chain, store):
    first = chain.submit()
    chain.submit(first)
    alone = chain.submit()
    chain.claim()
    rung = []
    store.wake = lambda: rung.append(1)
    store.write(lambda connection: _end(chain, connection, alone))
    assert rung == []
    store.write(lambda connection: _end(chain, connection, first))
    assert rung == [1]


def _end(chain, connection, job_id):
    ended = "update job_items set status='skipped', completed_at=?, error='no' where job_id=?"
    connection.execute(ended, (NOW, job_id))
    connection.execute("update jobs set items_running=0, items_skipped=1 where id=?", (job_id,))
    end_jobs(chain.store, connection, [job_id], now=NOW, actor="test")


def test_what_was_rolled_back_wakes_nobody(chain, store):
    first = chain.submit()
    chain.submit(first)
    chain.claim()
    rung = []
    store.wake = lambda: rung.append(1)

    def work(connection):
        _end(chain, connection, first)
        raise KeyError

    with pytest.raises(KeyError):
        store.write(work)
    store.write(lambda connection: None)
    assert rung == []


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_parent_has_to_be_there_and_whole(chain, rows):
    gone, half = chain.submit(), chain.submit()
    rows.change("update jobs set deleted_at=1 where id=?", gone)
    rows.change("update jobs set sealed_at=null where id=?", half)
    for parent, error, says in (
        (99, NotFound, "there is no job 99 to come after"),
        (gone, Conflict, f"job {gone} is being deleted: nothing can come after it"),
        (half, Conflict, f"job {half} is still being submitted: nothing can come after it yet"),
    ):
        with pytest.raises(error, match=says):
            chain.submit(parent)
    assert rows.one("select count(*) from jobs") == 2
    rows.change("update jobs set sealed_at=1, deleted_at=null")


def test_a_known_job_cannot_be_linked_into_a_circle(chain):
    first = chain.submit(key="k")
    second = chain.submit(first)
    third = chain.submit(second)
    with pytest.raises(Conflict, match=f"^job {first} cannot come after job {third}, which comes after job {first}$"):
        chain.submit(third, key="k")
    with pytest.raises(Conflict, match=f"^job {first} cannot come after itself$"):
        chain.submit(first, key="k")
    assert chain.run() == [first]


def test_a_known_job_may_come_after_more(chain):
    child = chain.submit(key="k")
    parent = chain.submit()
    assert chain.submit(parent, key="k") == child
    assert chain.blocked(child) == 1
    chain.submit(parent, key="k")
    assert chain.blocked(child) == 1
    assert [chain.run(), chain.run()] == [[parent], [child]]


# -- falling ----------------------------------------------------------------------------------------------------------


def test_what_comes_after_a_job_that_failed_falls_with_the_reason_down_to_the_last(chain):
    first = chain.submit()
    second = chain.submit(first)
    third = chain.submit(second, items=3)
    fourth = chain.submit(third, items=0)
    chain.run("failed")
    assert chain.statuses(first, second, third) == ["failed", "queued", "queued"]
    assert chain.follow()
    assert chain.statuses(second, third, fourth) == ["cancelled"] * 3
    assert chain.events(second)[1:] == [("cancel", f"job {first} failed"), ("cancel", "1 of 1 items cancelled")]
    assert chain.events(third)[1] == ("cancel", f"job {second} was cancelled")
    assert links.untold(chain.store) == []


def test_a_child_falls_at_once_where_its_parent_had_failed_before(chain):
    first = chain.submit()
    chain.run("failed")
    second = chain.submit(first, items=3)
    third = chain.submit(second, items=0)
    assert chain.statuses(second, third) == ["cancelled", "cancelled"]
    assert chain.statuses(chain.submit(first, on="ended")) == ["queued"]


def test_a_long_submission_falls_when_it_is_whole(chain, store, monkeypatch):
    from jobd.store import chunks

    monkeypatch.setattr(chunks, "CHUNK", 2)
    first = chain.submit()
    chain.run("failed")
    second = chain.submit(first, items=5)
    assert chain.statuses(second) == ["cancelled"]
    assert chain.rows.items(second) == ["cancelled"] * 5


def test_what_ran_of_a_child_is_left_to_its_daemon_and_the_child_falls_with_its_end(chain):
    first = chain.submit(key="k")
    second = chain.submit(first, items=2)
    chain.run()
    (running,) = chain.claim(limit=1)
    chain.submit(key="k", items=2)
    chain.settle(*chain.claim(), kind="failed")
    chain.follow()
    assert chain.statuses(first, second) == ["failed", "running"]
    assert steer.open_requests(chain.store) == [second]
    chain.settle(running, kind="cancelled")
    assert chain.statuses(second) == ["cancelled"]


def test_the_fall_of_many_goes_in_batches_and_goes_on_after_a_kill(chain, monkeypatch):
    monkeypatch.setattr(follow, "BATCH", 4)
    first = chain.submit()
    children = [chain.submit(first, items=3) for _ in range(20)]
    chain.run("failed")
    assert not chain.follow(go_on=lambda: False)
    assert 0 < chain.statuses(*children).count("cancelled") < 20
    assert links.untold(chain.store) == [first]
    assert chain.follow()
    assert chain.statuses(*children) == ["cancelled"] * 20


def test_where_a_parent_has_more_children_than_a_transaction_counts_they_are_told_in_batches(chain, monkeypatch):
    monkeypatch.setattr(links, "MOST", 3)
    first = chain.submit()
    children = [chain.submit(first) for _ in range(5)] + [chain.submit(first, items=0)]
    chain.run()
    assert [chain.blocked(child) for child in children] == [1] * 6
    assert chain.run() == []
    chain.follow()
    assert [chain.blocked(child) for child in children] == [0] * 6
    assert chain.run() == children[:-1]
    assert chain.statuses(*children) == ["completed"] * 6


def test_a_parent_that_changes_while_its_many_children_are_told_is_told_from_the_beginning(chain, monkeypatch):
    monkeypatch.setattr(links, "MOST", 3)
    monkeypatch.setattr(follow, "BATCH", 2)
    first = chain.submit(key="k")
    children = [chain.submit(first) for _ in range(6)]
    chain.run()
    changes = [{"key": "k", "items": 2}]
    # Whoever adds to it meanwhile is killed before it has told anybody.
    monkeypatch.setattr("jobd.store.submit.follow", lambda *_, **__: True)
    monkeypatch.setattr(follow, "breathe", lambda: changes and chain.submit(**changes.pop()))
    chain.follow()
    assert [chain.blocked(child) for child in children] == [1] * 6
    assert links.untold(chain.store) == []


# -- coming back ------------------------------------------------------------------------------------------------------


def test_a_parent_that_is_resumed_brings_back_what_fell_with_it_down_to_the_last(chain):
    first = chain.submit()
    second = chain.submit(first, items=2)
    third = chain.submit(second, items=0)
    chain.cancel(first)
    chain.follow()
    assert chain.statuses(first, second, third) == ["cancelled"] * 3
    chain.resume(first)
    chain.follow()
    assert chain.statuses(first, second, third) == ["queued"] * 3
    assert chain.events(second)[-1] == ("reopen", f"job {first} is queued")
    assert [chain.run(), chain.run(), chain.run()] == [[first], [second], []]
    assert chain.statuses(third) == ["completed"]
    assert chain.rows.one("select count(*) from job_dependencies where cancelled_at is not null") == 0


def test_a_result_from_outside_for_a_failed_parent_brings_back_what_fell_with_it(chain):
    first = chain.submit()
    second = chain.submit(first)
    chain.run("failed")
    chain.follow()
    (item,) = chain.rows.ids(first)
    deliver(chain.store, item, "1", now=chain.now, actor="outside")
    assert chain.statuses(first, second) == ["completed", "cancelled"]
    chain.follow()
    assert chain.run() == [second]


@pytest.mark.parametrize("when", ["before", "while it falls", "after"])
def test_a_child_that_a_person_cancelled_stays_so(chain, when):
    first = chain.submit()
    second = chain.submit(first)
    if when == "before":
        chain.cancel(second)
    chain.run("failed")
    if when == "while it falls":
        chain.store.write(lambda connection: fall.fall(chain.store, connection, [second], now=chain.now, actor="d"))
        chain.cancel(second)
    chain.follow()
    if when == "after":
        chain.cancel(second)
    chain.resume(first)
    chain.follow()
    assert chain.statuses(first, second) == ["queued", "cancelled"]


def test_a_child_with_two_failed_parents_comes_back_with_the_last_of_them(chain):
    parents = first, second = chain.submit(), chain.submit()
    child = chain.submit(*parents)
    one, other = chain.claim()
    chain.settle(one, kind="failed")
    chain.follow()
    chain.settle(other, kind="failed")
    chain.follow()
    chain.resume(first)
    chain.follow()
    assert chain.statuses(child) == ["cancelled"]
    chain.resume(second)
    chain.follow()
    assert chain.statuses(child) == ["queued"]
    assert [chain.run(), chain.run()] == [[first, second], [child]]


def test_a_child_that_still_falls_when_its_parent_is_back_comes_back_with_its_own_end(chain):
    first = chain.submit(key="k")
    second = chain.submit(first, items=2)
    chain.run()
    (running,) = chain.claim(limit=1)
    chain.submit(key="k", items=2)
    chain.settle(*chain.claim(), kind="failed")
    chain.follow()
    chain.resume(first)
    chain.follow()
    assert chain.statuses(first, second) == ["queued", "running"]
    chain.settle(running, kind="cancelled")
    assert chain.statuses(second) == ["cancelled"]
    chain.follow()
    assert chain.statuses(second) == ["queued"]
    assert [chain.run(), chain.run()] == [[first], [second]]


def test_a_child_with_many_items_comes_back_in_batches_and_goes_on_after_a_kill(chain, monkeypatch):
    monkeypatch.setattr(follow, "_LARGE", 3)
    monkeypatch.setattr(retry, "BATCH", 4)
    first = chain.submit()
    second = chain.submit(first, items=10)
    chain.run("failed")
    chain.follow()
    chain.resume(first)

    class Killed(BaseException):
        pass

    def breathe():
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(retry, "breathe", breathe)
        with pytest.raises(Killed):
            chain.follow()
    assert chain.rows.items(second).count("queued") == 4
    chain.follow()
    assert chain.rows.items(second) == ["queued"] * 10
    assert [chain.run(), chain.run()] == [[first], [second]]


def test_nothing_of_a_child_is_queued_again_under_a_parent_that_failed(chain):
    first = chain.submit()
    second = chain.submit(first)
    chain.run("failed")
    chain.follow()
    with pytest.raises(Conflict, match=f"job {second} comes after job {first}, which has failed or was cancelled"):
        chain.resume(second)
    assert chain.statuses(second) == ["cancelled"]


def test_what_is_added_to_a_job_that_fell_falls_too_and_comes_back_with_it(chain):
    first = chain.submit()
    second = chain.submit(first, key="k")
    chain.run("failed")
    chain.follow()
    chain.submit(first, key="k", items=3)
    assert chain.rows.items(second) == ["cancelled"] * 3
    chain.resume(first)
    chain.follow()
    assert chain.rows.items(second) == ["queued"] * 3


def test_what_is_added_page_by_page_to_a_job_that_fell_is_all_taken(chain, monkeypatch):
    """With the first page it is open again and falls at once: the second must not be refused for that."""
    monkeypatch.setattr(chunks, "CHUNK", 2)
    first = chain.submit()
    second = chain.submit(first, key="k")
    chain.run("failed")
    chain.follow()
    assert chain.submit(key="k", items=7) == second
    assert chain.rows.items(second) == ["cancelled"] * 7
    chain.resume(first)
    chain.follow()
    assert chain.rows.items(second) == ["queued"] * 7


def test_what_is_added_to_a_parent_that_fell_brings_its_children_back_at_once(chain):
    first = chain.submit(key="k")
    second = chain.submit(first)
    chain.cancel(first)
    chain.follow()
    assert chain.statuses(first, second) == ["cancelled", "cancelled"]
    chain.submit(key="k", items=3)
    assert chain.statuses(first, second) == ["queued", "queued"]


def test_whose_failed_parent_was_deleted_may_be_resumed_by_hand(chain, store):
    first = chain.submit()
    second = chain.submit(first)
    chain.run("failed")
    chain.follow()
    removal.request_delete(store, first, now=chain.now, actor="ann")
    chain.resume(second)
    assert chain.run() == [second]
    removal.remove_job(store, first)
    assert chain.rows.all("select * from job_dependencies") == []


# -- the two orders of races ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follows", ["first", "last"])
def test_a_retry_meets_the_fall(chain, follows):
    """Whoever comes first, the child waits in the end for a parent that is queued."""
    first = chain.submit()
    second = chain.submit(first)
    chain.run("failed")
    if follows == "first":
        chain.follow()
    chain.resume(first)
    chain.follow()
    assert chain.statuses(first, second) == ["queued", "queued"]
    assert chain.blocked(second) == 1


@pytest.mark.parametrize("cancelled", ["first", "last"])
def test_a_cancel_meets_the_end_of_the_parent(chain, cancelled):
    first = chain.submit()
    second = chain.submit(first)
    claimed = chain.claim()
    if cancelled == "first":
        chain.cancel(second)
    chain.settle(*claimed)
    if cancelled == "last":
        chain.cancel(second)
    assert chain.statuses(first, second) == ["completed", "cancelled"]
    assert chain.run() == []


# -- the whole chain --------------------------------------------------------------------------------------------------


def test_a_chain_is_counted_from_each_of_its_jobs(chain, store):
    first = chain.submit()
    second, beside = chain.submit(first), chain.submit(first)
    third = chain.submit(second)
    chain.run()
    seen = {job: store.read(lambda connection: phases(connection, job))[:2] for job in (first, second, third, beside)}  # noqa: B023
    assert seen == {first: (1, 4), second: (1, 3), third: (1, 3), beside: (1, 2)}


def test_a_chain_longer_than_is_counted_says_so(chain, store, monkeypatch):
    monkeypatch.setattr("jobd.store.chain.MOST", 5)
    first = chain.submit()
    for _ in range(8):
        chain.submit(first)
    found = store.read(lambda connection: phases(connection, first))
    assert (found.total, found.more) == (5, True)


# -- deleting ---------------------------------------------------------------------------------------------------------


def test_a_parent_goes_with_all_that_wait_for_it(chain, store, rows):
    first = chain.submit()
    second, third = chain.submit(first), chain.submit(first)
    fourth = chain.submit(second, third)
    other = chain.submit()
    with pytest.raises(Conflict, match="and others wait for it"):
        removal.request_delete(store, first, now=NOW, actor="ann")
    gone = cascade.request_delete(store, first, now=NOW, actor="ann")
    assert sorted(gone) == [first, second, third, fourth]
    assert (gone[0], gone[-1]) == (fourth, first)
    assert removal.remove_jobs(store, gone) == 4
    assert rows.all("select id from jobs") == [(other,)]


def test_what_has_ended_does_not_go_with_its_parent(chain, store, rows):
    first = chain.submit()
    second = chain.submit(first)
    chain.cancel(second)
    gone = cascade.request_delete(store, first, now=NOW, actor="ann")
    removal.remove_jobs(store, gone)
    assert rows.all("select id from jobs") == [(second,)]


def test_nothing_goes_while_one_of_those_that_wait_runs(chain, store, rows, monkeypatch):
    monkeypatch.setattr(cascade, "Pace", lambda: Pace(1))
    first = chain.submit(key="k")
    second = chain.submit(first)
    chain.submit(second)
    chain.run()
    chain.claim()
    chain.submit(key="k", items=2)
    with pytest.raises(IllegalTransition, match=f"job {second} is running"):
        cascade.request_delete(store, first, now=NOW, actor="ann")
    assert rows.one("select count(*) from jobs where deleted_at is not null") == 0


# -- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "passed_over"), [
    (links._COUNT, {"json_each", "c"}), (links._NOTE.format(rows="{rows}", which="true"), {"json_each"}),
    (links._FREED, {"json_each"}),
])  # fmt: skip
def test_a_parents_end_looks_at_its_own_children_alone(store, rows, text, passed_over):
    statement = text.format(rows="(select value as id, 0 as completed, 0 as ended from json_each('[1]'))")
    statement = statement if statement.startswith("update") else f"select 1 {statement}"
    marks = (None,) * statement.count("?")
    plan = [row[3] for row in rows.all(f"explain query plan {statement}", *marks)]
    assert {line.split()[1] for line in plan if line.startswith("SCAN")} == passed_over
