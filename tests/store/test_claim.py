"""Claiming: whose turn it is, what is never claimed, and that no two claim the same item."""

from __future__ import annotations

import collections
import re
import threading

import pytest

from jobd.store import ready
from jobd.store.claim import Lane, Turns, claim, claim_interrupted
from jobd.store.interrupted import interrupted
from jobd.store.invariants import check
from jobd.store.ready import tasks_due
from jobd.store.sqlite import SqliteStore

NOW = 1_795_305_600_000
DAEMON = 7


class World:
    def __init__(self, store, rows):
        self.store = store
        self.rows = rows
        self.turns = Turns()

    def job(self, items=1, **columns):
        return self.rows.job(["queued"] * items, **columns)

    def claim(self, limit=1_000, lane=Lane.FRESH, tasks=("work",), now=NOW):
        options = {"limit": limit, "daemon_id": DAEMON, "now": now, "actor": "test"}

        def work(connection):
            if lane is Lane.FRESH:
                return claim(self.store, connection, self.turns, tasks=tasks, **options)
            found = interrupted(self.store, connection, tasks, after=0, now=now)
            jobs = found.careful if lane is Lane.CAREFUL else found.alone
            return claim_interrupted(self.store, connection, self.turns, jobs, lane=lane, **options)

        return self.store.write(work)

    def interrupted(self, now=NOW):
        """Look for what was interrupted; return how many jobs have some, and the ids of those in either lane."""
        found = self.store.read(lambda c: interrupted(self.store, c, ["work"], after=0, now=now))
        return found.jobs, [job.id for job in found.careful], [job.id for job in found.alone]

    def jobs(self, *arguments, **options):
        """Claim, and return the job of each item in the order in which they would run."""
        return [item.job_id for item in self.claim(*arguments, **options)]

    def spoil(self, job_id, interruptions, *, only=None):
        """Say that items of a job were interrupted so often."""
        ids = self.rows.ids(job_id) if only is None else [self.rows.ids(job_id)[only]]
        for item_id in ids:
            self.rows.change("update job_items set interruptions=? where id=?", interruptions, item_id)


@pytest.fixture
def world(store, rows):
    world = World(store, rows)
    yield world
    assert check(store) == []


# -- what a claim does ------------------------------------------------------------------------------------------------


def test_a_claimed_item_runs_as_its_next_attempt_of_this_daemon(world):
    job_id = world.job(params='{"a":1}')
    (item,) = world.claim()
    (item_id,) = world.rows.ids(job_id)
    assert item == (item_id, job_id, "key-00000", "null", 1, "work", '{"a":1}', NOW, Lane.FRESH, NOW, False, 0, "{}")
    columns = "status, attempt, daemon_id, started_at, completed_at, available_at"
    row = world.rows.one(f"select {columns} from job_items where id=?", item_id)
    assert row == ("running", 1, DAEMON, NOW, None, 0)


def test_a_job_starts_with_its_first_item_once_and_keeps_its_first_start(world):
    job_id = world.job(2)
    world.claim(1)
    world.claim(1, now=NOW + 5)
    assert world.rows.events(job_id) == [("start", "queued", "running", None)]
    row = world.rows.one("select status, started_at, progress_at, items_running from jobs where id=?", job_id)
    assert row == ("running", NOW, NOW, 2)


def test_a_reopened_job_keeps_the_time_of_its_first_start(world):
    job_id = world.job(1, started_at=NOW - 99)
    world.claim()
    assert world.rows.one("select started_at from jobs where id=?", job_id) == NOW - 99


def test_what_a_former_attempt_left_to_look_at_goes_with_the_next(world):
    job_id = world.job(1)
    world.rows.change("update job_items set progress='[1,2,null]', attempt=4 where job_id=?", job_id)
    (item,) = world.claim()
    assert item.attempt == 5
    assert world.rows.one("select progress, attempt from job_items where job_id=?", job_id) == (None, 5)


def test_no_more_are_claimed_than_asked_for(world):
    world.job(10)
    assert len(world.claim(3)) == 3
    assert len(world.claim(100)) == 7
    assert world.claim(100) == []


def surveys(world, *arguments, **options):
    """Claim, and return how many items that were and how often it was looked at what is ready."""
    seen = []
    connection = world.store.connection()
    connection.set_trace_callback(seen.append)
    try:
        claimed = world.claim(*arguments, **options)
    finally:
        connection.set_trace_callback(None)
    return len(claimed), sum("as standing" in text for text in seen)


def test_a_claim_that_takes_all_there_is_does_not_look_again(world):
    world.job(1)
    assert surveys(world, 4) == (1, 1)
    world.job(2)
    world.job(1)
    assert surveys(world, 8) == (3, 1)


@pytest.mark.parametrize("other", [{"priority": -1}, {"priority": 1, "task": "other"}, {"items": 4}])
def test_a_claim_that_leaves_something_looks_again(world, other):
    world.job(1)
    world.job(**other)
    claimed, looks = surveys(world, 6, tasks=("work", "other"))
    assert claimed == 1 + other.get("items", 1)
    assert looks > 1


def test_an_item_that_is_due_later_is_not_lost_with_one_that_is_taken_now(world):
    job_id = world.job(2)
    world.rows.change("update job_items set available_at=? where id=?", NOW + 7, world.rows.ids(job_id)[1])
    assert len(world.claim(4)) == 1
    assert world.turns.due == NOW + 7
    assert len(world.claim(4, now=NOW + 7)) == 1


# -- whose turn it is -------------------------------------------------------------------------------------------------


def test_a_higher_priority_comes_first_whatever_is_older(world):
    low, high, middle = world.job(2), world.job(2, priority=9), world.job(2, priority=1)
    negative = world.job(2, priority=-3)
    assert world.jobs(3) == [high, high, middle]
    assert world.jobs(100) == [middle, low, low, negative, negative]


def test_jobs_of_one_priority_take_turns(world):
    first, second, third = world.job(10), world.job(10), world.job(10)
    assert [job for _ in range(6) for job in world.jobs(1)] == [first, second, third] * 2


def test_a_claim_of_many_gives_each_job_an_equal_share(world):
    jobs = [world.job(100) for _ in range(4)]
    assert collections.Counter(world.jobs(40)) == dict.fromkeys(jobs, 10)


def test_the_turn_goes_on_where_the_last_claim_stopped(world):
    first, second, third = (world.job(100) for _ in range(3))
    counts = collections.Counter()
    for _ in range(30):
        counts.update(world.jobs(2))
    assert counts == {first: 20, second: 20, third: 20}


def test_what_a_small_job_leaves_of_its_share_goes_to_the_others(world):
    small, large = world.job(1), world.job(100)
    assert collections.Counter(world.jobs(40)) == {small: 1, large: 39}


def test_a_job_that_was_submitted_later_is_served_in_the_next_claim(world):
    old = world.job(100)
    world.jobs(10)
    new = world.job(100)
    assert collections.Counter(world.jobs(10)) == {old: 5, new: 5}


def test_fewer_than_asked_for_means_that_no_more_is_due_however_the_shares_fall(world):
    """Many jobs of uneven sizes, more of them than one claim looks at together."""
    sizes = [1, 1, 2, 50, 3, 1, 7] * 10
    for size in sizes:
        world.job(size)
    assert len(world.claim(sum(sizes) - 1)) == sum(sizes) - 1
    assert len(world.claim(2)) == 1


def test_however_many_jobs_there_are_one_claim_takes_of_as_many_as_it_was_asked_for(world):
    """More than one round of jobs, and more rounds than a few."""

    def add(connection):
        numbers = [(number,) for number in range(2_600)]
        connection.executemany(
            "insert into jobs (task, status_updated_at, version, sealed_at, created_at, items_total)"
            " values ('work', ?, 1, 1, 1, 1)",
            numbers,
        )
        connection.execute("insert into job_items (job_id, key, payload) select id, 'key', 'null' from jobs")
        connection.execute(
            "insert into job_events (job_id, name, to_status, at, actor) select id, 'submit', 'queued', 1, '' from jobs"
        )

    world.store.write(add)
    assert len(set(world.jobs(2_599))) == 2_599
    assert len(world.claim(2)) == 1


@pytest.mark.parametrize("limit", [1, 2, 600])
def test_a_job_of_which_nothing_is_due_keeps_no_other_job_from_its_turn(world, limit):
    for _ in range(3):
        later = world.job(1)
        world.rows.change("update job_items set available_at=? where job_id=?", NOW + 1, later)
    due = world.job(1)
    assert world.jobs(limit) == [due]


def test_jobs_of_which_nothing_is_due_do_not_hide_those_of_a_lower_priority(world):
    later = world.job(1, priority=5)
    world.rows.change("update job_items set available_at=? where job_id=?", NOW + 1, later)
    low = world.job(1)
    assert world.jobs(1) == [low]


# -- what is never claimed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        {"paused_at": NOW},
        {"cancel_requested_at": NOW},
        {"fail_requested_at": NOW},
        {"sealed_at": None},
        {"deleted_at": NOW},
        {"not_before": NOW + 1},
        {"task": "unknown here"},
    ],
    ids=str,
)
@pytest.mark.parametrize("lane", Lane)
def test_it_is_not_claimed_and_hides_nothing(world, columns, lane):
    held = world.job(3, priority=5, **columns)
    free = world.job(1)
    for job_id in (held, free):
        world.spoil(job_id, {Lane.FRESH: 0, Lane.CAREFUL: 1, Lane.ALONE: 2, Lane.INTERRUPTED: 3}[lane])
    assert world.jobs(10, lane) == [free]
    assert world.rows.items(held) == ["queued"] * 3
    assert world.interrupted()[1:] == ([], [])


@pytest.mark.parametrize("status", ["running", "waiting", "completed", "failed", "skipped", "cancelled"])
def test_an_item_that_is_not_queued_is_not_claimed(store, rows, status):
    job_id = rows.job([status, "queued"], status="running")
    assert [item.item_id for item in World(store, rows).claim()] == rows.ids(job_id)[1:]
    rows.assert_sound(job_id)


def test_only_known_tasks_are_claimed_each_by_its_name(world):
    jobs = {name: world.job(1, task=name) for name in ("a", "b", 'quo"ted', "ä")}
    assert world.jobs(tasks=["b"]) == [jobs["b"]]
    assert world.jobs(tasks=[]) == []
    assert sorted(world.jobs(tasks=['quo"ted', "ä", "never seen"])) == sorted([jobs['quo"ted'], jobs["ä"]])


def test_it_is_known_which_tasks_have_something_to_claim(world, plans):
    for task, columns in (("a", {}), ("a", {}), ("b", {"priority": -9}), ("c", {"paused_at": NOW}), ("unknown", {})):
        world.job(1, task=task, **columns)
    world.job(1, task="d", not_before=NOW + 1, available_at=NOW + 1)
    connection = world.store.connection()
    tasks = ["a", "b", "c", "d", "e"]
    assert tasks_due(world.store, connection, tasks, NOW) == {"a", "b"}
    assert tasks_due(world.store, connection, tasks, NOW + 1) == {"a", "b", "d"}
    (plan,) = plans(lambda: tasks_due(world.store, connection, tasks, NOW)).values()
    assert plan.count("SEARCH jobs USING INDEX jobs_claimable (task=? AND available_at") == 3
    assert "ORDER BY" not in plan


# -- when -------------------------------------------------------------------------------------------------------------


def test_items_are_claimed_in_the_order_in_which_they_came_due(world):
    job_id = world.job(4)
    first, second, third, fourth = world.rows.ids(job_id)
    for item_id, available_at in ((first, NOW - 1), (second, NOW - 5), (third, 0), (fourth, NOW + 1)):
        world.rows.change("update job_items set available_at=? where id=?", available_at, item_id)
    assert [item.item_id for item in world.claim()] == [third, second, first]
    assert world.claim() == []
    assert [item.item_id for item in world.claim(now=NOW + 1)] == [fourth]


def test_a_job_is_claimed_from_its_time_on_and_not_before(world):
    job_id = world.job(1, not_before=NOW)
    assert world.claim(now=NOW - 1) == []
    assert world.jobs(now=NOW) == [job_id]


# -- what was interrupted ---------------------------------------------------------------------------------------------


def test_each_lane_takes_only_its_own(world):
    job_id = world.job(5)
    ids = world.rows.ids(job_id)
    for number, interruptions in enumerate((0, 1, 2, 3, 1)):
        world.spoil(job_id, interruptions, only=number)
    assert [(item.item_id, item.lane) for item in world.claim(lane=Lane.CAREFUL)] == [
        (ids[1], Lane.CAREFUL), (ids[4], Lane.CAREFUL),
    ]  # fmt: skip
    assert [item.item_id for item in world.claim(1, Lane.ALONE)] == [ids[2]]
    assert [item.item_id for item in world.claim()] == [ids[0]]
    assert [item.item_id for item in world.claim(lane=Lane.ALONE)] == [ids[3]]


def test_an_item_that_must_run_alone_is_found_behind_any_number_of_jobs(world):
    for _ in range(20):
        world.job(3)
    job_id = world.job(3)
    world.spoil(job_id, 2, only=1)
    assert world.interrupted() == (1, [], [job_id])
    assert [item.item_id for item in world.claim(1, Lane.ALONE)] == [world.rows.ids(job_id)[1]]
    assert world.interrupted() == (0, [], [])


def test_what_was_interrupted_is_claimed_only_when_due(world):
    alone, careful = world.job(1), world.job(1)
    world.spoil(alone, 2)
    world.spoil(careful, 1)
    world.rows.change("update job_items set available_at=?", NOW + 1)
    assert world.interrupted() == (2, [], [])
    assert world.claim(1, Lane.ALONE) == world.claim(1, Lane.CAREFUL) == []
    assert world.interrupted(now=NOW + 1) == (2, [careful], [alone])


def test_a_job_may_have_items_in_every_lane(world):
    job_id = world.job(3)
    for number in range(3):
        world.spoil(job_id, number, only=number)
    assert world.interrupted() == (1, [job_id], [job_id])
    assert len(world.claim()) == 1


def test_of_interrupted_items_too_those_of_a_higher_priority_come_first_and_shares_are_equal(world):
    low, first, second = world.job(2), world.job(4, priority=1), world.job(1, priority=1)
    for job_id in (low, first, second):
        world.spoil(job_id, 1)
    assert world.jobs(2, Lane.CAREFUL) == [first, second]
    assert world.jobs(9, Lane.CAREFUL) == [first, first, first, low, low]


def test_jobs_of_interrupted_items_take_turns(world):
    jobs = [world.job(3) for _ in range(3)]
    for job_id in jobs:
        world.spoil(job_id, 1)
    assert [job for _ in range(6) for job in world.jobs(1, Lane.CAREFUL)] == jobs * 2


def test_a_look_goes_on_behind_the_last_and_says_where_it_stopped(world, monkeypatch):
    monkeypatch.setattr("jobd.store.interrupted.JOBS", 2)
    jobs = [world.job(2) for _ in range(5)]
    for job_id in jobs:
        world.spoil(job_id, 1)
    looks, after = [], 0
    while True:
        found = world.store.read(lambda c, after=after: interrupted(world.store, c, ["work"], after=after, now=NOW))
        looks.append([job.id for job in found.careful])
        after = found.last
        if not after:
            break
    assert looks == [jobs[:2], jobs[2:4], jobs[4:]]


# -- two who claim at once --------------------------------------------------------------------------------------------


def test_two_who_claim_at_once_never_get_the_same_item(world):
    jobs = [world.job(100) for _ in range(3)]
    barrier = threading.Barrier(2)
    taken = [[], []]

    def run(number):
        # A store of its own: no mutex in common, only the database's lock.
        store = SqliteStore(world.store.path)
        rival = World(store, world.rows)
        barrier.wait(20)
        while found := rival.claim(7):
            taken[number] += [item.item_id for item in found]
        store.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    both = taken[0] + taken[1]
    assert len(both) == len(set(both)) == 300
    assert [world.rows.items(job_id) for job_id in jobs] == [["running"] * 100] * 3
    for job_id in jobs:
        world.rows.assert_sound(job_id)


def test_a_claim_that_does_not_commit_leaves_everything_queued(world):
    job_id = world.job(3)

    def work(connection):
        options = {"limit": 3, "tasks": ["work"], "daemon_id": 1, "now": NOW, "actor": "test"}
        claim(world.store, connection, world.turns, **options)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.store.write(work)
    assert world.rows.items(job_id) == ["queued"] * 3
    world.rows.assert_sound(job_id)


# -- what it costs ----------------------------------------------------------------------------------------------------

SCAN = re.compile(r"SCAN (jobs|job_items|i)\b(?! USING (COVERING )?INDEX)")


@pytest.fixture
def plans(world):
    """Run something, and return the plan of each statement that it ran."""

    def plans(work):
        statements = []
        connection = world.store.connection()
        connection.set_trace_callback(statements.append)
        try:
            work()
        finally:
            connection.set_trace_callback(None)
        reading = [text for text in statements if text.startswith(("select", "update"))]
        return {
            text: " | ".join(row[3] for row in connection.execute(f"explain query plan {text}").fetchall())
            for text in reading
        }

    return plans


def test_no_statement_of_a_claim_passes_over_a_whole_table(world, plans):
    world.job(5)
    world.job(5)
    found = plans(lambda: (world.claim(1), world.claim(4), world.claim(10), world.claim(1)))
    assert len(found) > 8
    assert {text: plan for text, plan in found.items() if SCAN.search(plan)} == {}
    items = [plan for text, plan in found.items() if "order by i.available_at, i.id" in text]
    assert len(items) > 1
    assert all("USING INDEX job_items_queued (job_id=? AND available_at<?)" in plan for plan in items)


def test_jobs_are_found_among_the_claimable_alone_not_among_all_that_the_task_ever_had(world, plans):
    world.job(5)
    world.job(5)
    found = plans(lambda: (world.claim(4), world.claim(10), world.claim(1)))
    jobs = [plan for text, plan in found.items() if "from jobs where" in text and "paused_at" in text]
    assert len(jobs) > 2
    assert all("USING INDEX jobs_claimable" in plan for plan in jobs)


@pytest.mark.parametrize("lane", [Lane.CAREFUL, Lane.ALONE])
def test_an_interrupted_item_is_found_without_passing_over_the_fresh_ones(world, plans, lane):
    for _ in range(2):
        job_id = world.job(5)
        world.spoil(job_id, 1 if lane is Lane.CAREFUL else 2, only=3)
    found = plans(lambda: (world.claim(1, lane), world.claim(5, lane)))
    assert {text: plan for text, plan in found.items() if SCAN.search(plan)} == {}
    items = [plan for text, plan in found.items() if "i.interruptions >" in text]
    assert len(items) > 2
    assert all("job_items_interrupted" in plan and "job_items_queued" not in plan for plan in items)


def test_every_term_of_the_index_of_claimable_jobs_is_one_that_a_claim_asks_for(world):
    text = world.rows.one("select sql from sqlite_master where name='jobs_claimable'")
    terms = " ".join(text.split("where")[1].split()).split(" and ")
    assert set(terms) <= set(ready.CLAIMABLE.split(" and "))
