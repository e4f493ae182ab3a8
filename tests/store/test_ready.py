"""What cannot run is never in the way: not for long at once, not twice, and not for ever."""

from __future__ import annotations

import random

import pytest

from jobd.store import ready
from jobd.store.claim import Turns, claim
from jobd.store.held import LONGEST
from jobd.store.invariants import check
from jobd.store.outcome import RELEASED, STOPPED, Outcome
from jobd.store.ready import FAR, next_due, scout, survey, tasks_due
from jobd.store.retry import retry
from jobd.store.settle import settle
from jobd.store.sqlite import SqliteStore
from jobd.store.submission import Submission
from jobd.store.submit import submit

NOW = 1_795_305_600_000
CROWD = 15_000  # two fifths of it where it takes a look at each
# In steps of SQLite's machine, a fact where a time would be luck. One look at what is ready; one that also holds back
# or lifts as many jobs as it may. Passing over the crowd takes 150,000.
GLANCE, LOOK = 5_000, 80_000
FIRST, LAST = "the one before", "the one behind"


class World:
    def __init__(self, store, rows=None):
        self.store = store
        self.rows = rows
        self.turns = Turns()

    def claim(self, limit=1_000, tasks=("work",), now=NOW):
        def work(connection):
            return claim(
                self.store, connection, self.turns, limit=limit, tasks=tasks, daemon_id=7, now=now, actor="test"
            )

        return self.store.write(work)

    def scout(self, tasks):
        self.store.read(lambda connection: scout(self.store, connection, self.turns, tasks, NOW))

    def jobs(self, *arguments, **options):
        """Claim, and return the job of each item."""
        return [item.job_id for item in self.claim(*arguments, **options)]

    def held(self, job_id):
        return self.rows.one("select available_at from jobs where id=?", job_id)

    def submit(self, *keys, **options):
        submission = Submission("work", "null", **options)
        return submit(self.store, submission, [(key, "null") for key in keys], now=NOW, actor="test").job_id

    def put_off(self, job_id, until):
        self.rows.change("update job_items set available_at=? where job_id=?", until, job_id)

    def steps(self, work):
        """Return what ``work`` returns, and how many steps SQLite took for it, in hundreds."""
        count = 0

        def step():
            nonlocal count
            count += 100

        connection = self.store.connection()
        connection.set_progress_handler(step, 100)
        try:
            return work(), count
        finally:
            connection.set_progress_handler(None, 0)


@pytest.fixture
def world(store, rows):
    world = World(store, rows)
    yield world
    assert check(store) == []


# -- held back, and until when ----------------------------------------------------------------------------------------


def test_a_submission_holds_its_job_back_until_its_time(world):
    later, now, past = world.submit("a", not_before=NOW + 5), world.submit("b"), world.submit("c", not_before=-5)
    assert [world.held(job_id) for job_id in (later, now, past)] == [NOW + 5, 0, 0]
    assert world.jobs() == [now, past]
    assert world.jobs(now=NOW + 4) == []
    assert world.jobs(now=NOW + 5) == [later]


def test_what_was_looked_at_in_vain_is_held_back_until_its_next_item_is_due(world):
    job_id = world.submit("a", "b", "c")
    first, second, third = world.rows.ids(job_id)
    for item_id, due in ((first, NOW + 30), (second, NOW + 20), (third, NOW)):
        world.rows.change("update job_items set available_at=? where id=?", due, item_id)
    assert len(world.claim()) == 1
    assert world.held(job_id) == NOW + 20
    assert world.claim(now=NOW + 19) == []
    assert [item.item_id for item in world.claim(now=NOW + 20)] == [second]
    assert world.held(job_id) == NOW + 30
    assert [item.item_id for item in world.claim(now=NOW + 99)] == [first]


def test_a_job_whose_time_was_not_known_at_its_submission_is_held_back_by_the_first_look(world):
    job_id = world.rows.job(["queued"], not_before=NOW + 2 * LONGEST)
    assert world.claim() == []
    assert world.held(job_id) == NOW + 2 * LONGEST


@pytest.mark.parametrize("interruptions", [0, 1, 2])
def test_nothing_is_held_back_for_its_items_longer_than_an_hour(world, interruptions):
    job_id = world.submit("a")
    world.put_off(job_id, NOW + 5 * LONGEST)
    world.rows.change("update job_items set interruptions=?", interruptions)
    assert world.claim() == []
    assert world.held(job_id) == NOW + LONGEST


def test_an_interrupted_item_neither_lifts_nor_holds_back_its_job(world):
    job_id = world.submit("a", "b")
    first, second = world.rows.ids(job_id)
    world.rows.change("update job_items set interruptions=1 where id=?", first)
    world.rows.change("update job_items set available_at=? where id=?", NOW + 7, second)
    assert world.claim() == []
    assert world.held(job_id) == NOW + 7
    assert [item.item_id for item in world.claim(now=NOW + 7)] == [second]


def test_the_next_due_time_is_the_earliest_of_the_tasks_that_are_known(world):
    assert (world.claim(), world.turns.due) == ([], None)
    soon, late = world.submit("a"), world.submit("b")
    world.put_off(soon, NOW + 10)
    world.put_off(late, NOW + 20)
    world.rows.job(["queued"], task="other", not_before=NOW + 1, available_at=NOW + 1)
    world.rows.job(["queued"], paused_at=NOW, not_before=NOW + 2, available_at=NOW + 2)
    assert (world.claim(), world.turns.due) == ([], NOW + 10)
    assert (world.jobs(now=NOW + 10), world.turns.due) == ([soon], NOW + 20)
    assert (world.claim(tasks=["work", "other"]), world.turns.due) == ([], NOW + 1)
    assert (world.claim(tasks=[]), world.turns.due) == ([], None)


def test_when_the_next_thing_is_due_is_known_exactly_for_who_asks_once(world):
    """Beyond the hour for which a job is held back, and of what was interrupted too."""

    def at(now):
        return next_due(world.store, world.store.connection(), ["work"], now)

    assert at(NOW) is None
    later, careful = world.submit("a"), world.submit("b")
    world.submit("c", not_before=NOW + 9 * LONGEST)
    world.rows.job(["queued"], task="other", not_before=NOW + 1, available_at=NOW + 1)
    world.put_off(later, NOW + 7 * LONGEST)
    world.put_off(careful, NOW + 5 * LONGEST)
    world.rows.change("update job_items set interruptions=1 where job_id=?", careful)
    assert world.claim() == []
    assert at(NOW) == NOW + 5 * LONGEST
    assert at(NOW + 5 * LONGEST) == NOW + 7 * LONGEST
    assert at(NOW + 7 * LONGEST) == NOW + 9 * LONGEST
    assert at(NOW + 9 * LONGEST) is None


def test_a_task_has_something_to_claim_from_when_it_is_due(world):
    world.submit("a", not_before=NOW + 5)
    found = [tasks_due(world.store, world.store.connection(), ["work", "other"], now) for now in (NOW + 4, NOW + 5)]
    assert found == [set(), {"work"}]


# -- what lifts it before its time ------------------------------------------------------------------------------------


@pytest.fixture
def held(world):
    """A job of three items that are due later, held back."""
    job_id = world.submit("a", "b", "c", key="mine")
    world.put_off(job_id, NOW + 50)
    assert world.claim() == []
    assert world.held(job_id) == NOW + 50
    return job_id


def test_a_new_item_is_claimed_at_once(world, held):
    assert world.submit("d", key="mine") == held
    assert [item.key for item in world.claim()] == ["d"]


def test_the_same_input_again_changes_nothing(world, held):
    assert world.submit("a", key="mine") == held
    assert world.held(held) == NOW + 50


@pytest.mark.parametrize("kind", [RELEASED, STOPPED])
def test_an_item_that_goes_back_is_claimed_again_at_once(world, held, kind):
    world.rows.change("update job_items set available_at=0 where key='b'")
    world.rows.change("update jobs set available_at=0")
    (item,) = world.claim()
    assert world.claim() == []
    assert world.held(held) == NOW + 50
    outcome = Outcome(item.item_id, held, item.attempt, "work", item.key, kind, NOW, NOW)
    world.store.write(lambda connection: settle(world.store, connection, [outcome], now=NOW, actor="test"))
    assert [again.key for again in world.claim()] == ["b"]


def test_an_item_that_is_retried_is_claimed_at_once(world, held):
    world.rows.change("update job_items set status='failed', error='no', completed_at=5 where key='b'")
    world.rows.change("update jobs set items_failed=1 where id=?", held)
    retry(world.store, held, now=NOW, actor="test")
    assert [item.key for item in world.claim()] == ["b"]


def test_a_job_that_ended_while_it_was_held_back_is_looked_at_when_it_is_opened_again(world, held):
    world.rows.change("update job_items set status='failed', error='no', completed_at=5")
    world.rows.change("update jobs set status='failed', completed_at=5, items_failed=3, version=2 where id=?", held)
    world.rows.change(
        "insert into job_events (job_id, name, from_status, to_status, at, actor)"
        " values (?, 'fail', 'queued', 'failed', 5, 'test')",
        held,
    )
    retry(world.store, held, now=NOW, actor="test")
    assert len(world.claim()) == 3


# -- whose turn it is, among several tasks ----------------------------------------------------------------------------


def test_jobs_take_turns_in_the_order_in_which_they_came_whatever_their_tasks(world):
    tasks = ["b", "a", "c", "a", "b", "c", "a"]
    jobs = [world.rows.job(["queued"] * 2, task=task) for task in tasks]
    assert [job for _ in range(14) for job in world.jobs(1, tasks="abc")] == jobs * 2


def test_of_more_tasks_than_one_statement_takes_none_is_left_out(world, monkeypatch):
    monkeypatch.setattr(ready, "_TASKS_AT_ONCE", 3)
    names = [f"task-{number}" for number in range(11)]
    jobs = [world.rows.job(["queued"], task=name) for name in reversed(names)]
    assert world.jobs(4, tasks=names) == jobs[:4]
    assert world.jobs(tasks=names) == jobs[4:]


def test_where_many_tasks_are_known_those_that_have_jobs_are_found_among_them(world):
    known = [f"task-{number:02}" for number in range(40)]
    jobs = [world.rows.job(["queued"], task=task) for task in ("task-07", "unknown", "task-39", "an unknown one")]
    assert world.jobs(tasks=known) == [jobs[0], jobs[2]]


def test_where_many_tasks_have_jobs_none_is_left_out(world):
    known = [f"task-{number:02}" for number in range(20)]
    jobs = [world.rows.job(["queued"], task=task) for task in [*known, *(f"unknown-{n}" for n in range(20))]]
    assert world.jobs(tasks=known) == jobs[:20]


# -- the same as by looking at everything -----------------------------------------------------------------------------


def due(rows, known, now):
    """Return the items that may be claimed, by looking at every one: (priority, item)."""
    found = rows.all(
        "select j.priority, i.id, j.task from job_items i join jobs j on j.id = i.job_id"
        " where i.status='queued' and i.interruptions=0 and i.available_at <= ? and coalesce(j.not_before, 0) <= ?"
        " and j.paused_at is null",
        now,
        now,
    )
    return {item_id: priority for priority, item_id, task in found if task in known}


@pytest.mark.parametrize("seed", range(12))
def test_what_is_claimed_is_what_is_due_highest_priority_first(world, seed, monkeypatch):
    """With small limits, so that a claim is tired now and then; time goes on, and jobs come, pause and go on."""
    luck = random.Random(seed)
    monkeypatch.setattr("jobd.store.claim.MOST", luck.choice([1, 3, 500]))
    known = ["a", "b", "c"]
    now = NOW
    for _ in range(40):
        for _ in range(luck.randrange(4)):
            columns = {"task": luck.choice([*known, "unknown"]), "priority": luck.randrange(3)}
            if luck.random() < 0.3:
                columns |= {"not_before": now + luck.randrange(-5, 20)}
            job_id = world.rows.job(["queued"] * luck.randrange(1, 4), **columns)
            for item_id in world.rows.ids(job_id):
                if luck.random() < 0.5:
                    columns = (now + luck.randrange(-5, 20), luck.choice([0, 0, 0, 1]))
                    text = "update job_items set available_at=?, interruptions=? where id=?"
                    world.rows.change(text, *columns, item_id)
        job_id = luck.randrange(1, 40)
        world.rows.change("update jobs set paused_at=iif(paused_at is null, 1, null) where id=?", job_id)
        now += luck.randrange(4)
        wanted = due(world.rows, known, now)
        limit = luck.choice([1, 2, 50])
        claimed = world.claim(limit, tasks=known, now=now)
        tired = world.turns.tired
        while world.turns.tired and len(claimed) < limit:
            claimed += world.claim(limit - len(claimed), tasks=known, now=now)
        assert {item.item_id for item in claimed} <= set(wanted)
        assert len(claimed) == min(limit, len(wanted))
        if not tired:
            best = sorted(wanted.values(), reverse=True)[: len(claimed)]
            assert sorted((wanted[item.item_id] for item in claimed), reverse=True) == best


# -- a crowd that cannot run ------------------------------------------------------------------------------------------

# Of each shape: the task, not_before, available_at of the job, and available_at and interruptions of its item. What a
# submission or an earlier look has held back is known; the rest is met here for the first time.
SHAPES = {
    "of an unknown task": ("unknown", None, 0, 0, 0),
    "not before its time": ("work", NOW + 50, NOW + 50, 0, 0),
    "due later": ("work", None, NOW + 50, NOW + 50, 0),
    "due later, not looked at yet": ("work", None, 0, NOW + 50, 0),
    "in another lane, not looked at yet": ("work", None, 0, 0, 2),
}
KNOWN = [shape for shape in SHAPES if "not looked at" not in shape]


def add(connection, count, shapes, task="work"):
    """Add jobs of one item, of these shapes in turn."""
    number = "with recursive n (i) as (select 0 union all select i + 1 from n where i < ?)"
    (before,) = connection.execute("select coalesce(max(id), 0) from jobs").fetchone()
    kinds = ", ".join(
        f"({place}, '{s[0]}', {s[1] or 'null'}, {s[2]}, {s[3]}, {s[4]})" for place, s in enumerate(shapes)
    )
    kind = f"(select column1 as k, column2, column3, column4, column5, column6 from (values {kinds})) as s"
    connection.execute(
        f"{number} insert into jobs (task, not_before, available_at, status_updated_at, version, sealed_at, created_at,"
        f" items_total) select column2, column3, column4, 1, 1, 1, 1, 1 from n join {kind} on k = i % ? order by i",
        (count - 1, len(shapes)),
    )
    connection.execute(
        f"insert into job_items (job_id, key, payload, available_at, interruptions)"
        f" select id, '{task}', 'null', column5, column6 from jobs join {kind} on k = (id - ? - 1) % ? where id > ?"
        " order by id",
        (before, len(shapes), before),
    )
    connection.execute(
        "insert into job_events (job_id, name, to_status, at, actor) select id, 'submit', 'queued', 1, '' from jobs"
        " where id > ?",
        (before,),
    )


@pytest.fixture(scope="module", params=[*([shape] for shape in SHAPES), list(SHAPES)], ids=" and ".join)
def crowd(request, tmp_path_factory):
    """A store of many jobs that cannot run, with one before and one behind them that can; and how many are unknown."""
    unknown = [shape for shape in request.param if shape not in KNOWN]
    size = CROWD if not unknown else CROWD * 2 // 5
    store = SqliteStore(tmp_path_factory.mktemp("crowd") / "jobs.db")
    store.open()
    store.connection().execute("pragma synchronous=off")
    can = ("work", None, 0, 0, 0)

    def fill(connection):
        add(connection, 1, [can], FIRST)
        add(connection, size, [SHAPES[shape] for shape in request.param])
        add(connection, 1, [can], LAST)

    store.write(fill)
    yield World(store), request.param, size * len(unknown) // len(request.param)
    store.close()


def test_who_can_run_is_found_before_and_behind_a_crowd_by_small_looks(crowd):
    world, shapes, unknown = crowd
    found, looks = {}, 0
    while len(found) < 2:
        if world.turns.tired:
            world.scout(["work", "other"])
        claimed, steps = world.steps(lambda: world.claim(1, tasks=("work", "other")))
        looks += 1
        assert steps <= (LOOK if unknown else GLANCE)
        assert claimed or world.turns.tired
        found |= {item.key: looks for item in claimed}
    assert found[FIRST] == 1
    assert found[LAST] <= 3 + unknown / FAR
    # What was learnt stays: from here on nothing is passed over, by this daemon or by the next.
    for again in (world, World(world.store)):
        while again.claim(1) or again.turns.tired:
            pass
        claimed, steps = again.steps(again.claim)
        assert (claimed, again.turns.tired) == ([], False)
        assert steps <= GLANCE
    world.store.write(lambda connection: add(connection, 1, [("work", None, 0, 0, 0)], "late"))
    claimed, steps = world.steps(lambda: world.claim(1))
    assert [item.key for item in claimed] == ["late"]
    assert steps <= GLANCE
    # When their time has come all of them are, a few at each look.
    coming = sum(SHAPES[shape][:1] == ("work",) and not SHAPES[shape][4] for shape in shapes)
    claimed, steps = world.steps(lambda: world.claim(4, now=NOW + 50))
    assert len(claimed) == (4 if coming else 0)
    assert steps <= LOOK


def test_a_task_that_becomes_known_is_claimed_from_at_once(tmp_path):
    store = SqliteStore(tmp_path / "jobs.db")
    store.open()
    world = World(store)
    store.write(lambda connection: add(connection, 2_000, [SHAPES["of an unknown task"]]))
    assert world.claim(5) == []
    assert len(world.claim(5, tasks=["work", "unknown"])) == 5
    store.close()


def test_a_survey_costs_the_same_however_many_tasks_are_known_and_unknown(world):
    for number in range(300):
        world.rows.job(["queued"], task=f"unknown-{number:03}")
    world.rows.job(["queued"], task="work")
    known = ["work", *(f"known-{number}" for number in range(50))]
    found, steps = world.steps(lambda: survey(world.store, world.store.connection(), known))
    assert [(one.task, one.priority) for one in found if one.priority is not None] == [("work", 0)]
    assert steps <= GLANCE
