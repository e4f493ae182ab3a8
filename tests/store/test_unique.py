"""A unique task: one result of a key for each day, whoever comes first, and whoever takes it over."""

from __future__ import annotations

import itertools
import json

import pytest

from jobd.errors import Lost, Skip
from jobd.store import orphans
from jobd.store.attempt import save_result
from jobd.store.claim import Lane, Turns, claim, claim_interrupted
from jobd.store.interrupted import interrupted
from jobd.store.invariants import check
from jobd.store.orphans import Verdict
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.steer import request_cancel, work_off
from jobd.store.submission import Submission
from jobd.store.submit import submit
from jobd.store.taken import MOST, Taken
from jobd.store.unique import Unique, judge_items, of_policy, store_results

NOW = 1_795_305_600_000  # 2026-11-22, midnight in UTC
BEGAN, ENDED, LATER = NOW + 250, NOW + 1_250, NOW + 60_000
DAY = "2026-11-22"
UTC = Unique("day", "UTC")


class World:
    """Jobs of a unique task, submitted, claimed and settled through the store alone."""

    def __init__(self, store, rows):
        self.store = store
        self.rows = rows
        self.turns = Turns()

    def job(self, *keys, refresh=False, policy=None, **submission):
        own = {"unique": "day", "zone": "UTC"} | ({"refresh": True} if refresh else {}) if policy is None else policy
        wanted = Submission(task="work", policy=json.dumps(own), **submission)
        return submit(self.store, wanted, [(key, "null") for key in keys], now=NOW, actor="test").job_id

    def claim(self, limit=10_000, *, unique=None, now=NOW, lane=Lane.FRESH):
        """Claim as a daemon does to which the task is unique; return the items and how many were skipped."""

        def work(connection):
            taken = Taken(self.store, connection, {"work": unique or UTC}, now=now, actor="test")
            options = {"limit": limit, "daemon_id": 1, "now": now, "actor": "test", "taken": taken}
            if lane is Lane.FRESH:
                items = claim(self.store, connection, self.turns, tasks=["work"], **options)
            else:
                found = interrupted(self.store, connection, ["work"], after=0, now=now)
                items = claim_interrupted(self.store, connection, self.turns, found.alone, lane=lane, **options)
            taken.end()
            return items, taken.skipped

        return self.store.write(work)

    def started(self, *keys, **submission):
        """Submit a job and start all of its items."""
        job_id = self.job(*keys, **submission)
        return [item for item in self.claim()[0] if item.job_id == job_id]

    def settle(self, *outcomes, now=LATER):
        return self.store.write(lambda connection: settle(self.store, connection, outcomes, now=now, actor="test"))

    def save(self, item, value="1", *, period=DAY):
        save_result(
            self.store, item.item_id, item.attempt, value, now=LATER, patience=0, period=period, refresh=item.refresh
        )

    def status(self, item):
        return self.rows.one("select status, error_type, error from job_items where id=?", item.item_id)

    def results(self):
        """Return (item id, value, period) of every result."""
        return [tuple(row) for row in self.rows.all("select item_id, value, period from results order by item_id")]

    def shown(self):
        rows = self.rows.all("select job_id, key, status from job_items order by id")
        return [f"{job_id}:{key} {status}" for job_id, key, status in rows]


def outcome(item, kind="completed", period=DAY, **changes):
    value = "7" if kind == "completed" else None
    row = Outcome(item.item_id, item.job_id, item.attempt, item.task, item.key, kind, BEGAN, ENDED, value)
    return row._replace(period=period, refresh=item.refresh, **changes)


def by(item, day=DAY):
    return f"its day {day} is taken by {item.job_id}:#{item.item_id}"


@pytest.fixture
def world(store, rows):
    world = World(store, rows)
    yield world
    assert check(store) == []
    for job_id in [row[0] for row in rows.all("select id from jobs")]:
        rows.assert_sound(job_id)


# -- settling ---------------------------------------------------------------------------------------------------------


def test_the_first_result_of_a_day_has_it_and_the_second_is_skipped_with_the_reason(world):
    (first,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(first))
    settled = world.settle(outcome(second))
    assert world.results() == [(first.item_id, "7", DAY)]
    assert world.status(first) == ("completed", None, None)
    assert world.status(second) == ("skipped", "Skip", by(first))
    assert [(o.kind, o.error) for o in settled.applied] == [("skipped", by(first))]
    assert [(end.job_id, end.status) for end in settled.ended] == [(second.job_id, "completed")]
    event = world.rows.one("select name, from_status, to_status, message from job_events where item_id is not null")
    assert event == ("skip", "running", "skipped", f"Skip: {by(first)}")


def test_two_of_a_key_that_end_in_one_batch_are_decided_in_their_order_and_the_others_are_not_touched(world):
    (first, other), (second, third) = world.started("a", "b"), world.started("a", "c")
    settled = world.settle(*map(outcome, (second, other, first, third)))
    assert world.shown() == ["1:a skipped", "1:b completed", "2:a completed", "2:c completed"]
    assert world.status(first) == ("skipped", "Skip", by(second))
    assert len(settled.applied) == 4
    assert (settled.unstorable, settled.late) == ([], [])


def test_a_late_answer_takes_no_day_from_who_ends_beside_it(world):
    (late,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(late, "stopped", None))
    world.settle(outcome(late, error="late"), outcome(second))
    assert world.status(second) == ("completed", None, None)
    assert world.results() == [(second.item_id, "7", DAY)]
    assert world.status(late)[0] == "queued"


def test_a_poison_row_beside_it_changes_nothing_for_who_loses(world):
    (first,), (second, poison) = world.started("a"), world.started("a", "b")
    world.settle(outcome(first))
    settled = world.settle(outcome(poison, value="\ud800"), outcome(second))
    assert world.status(second) == ("skipped", "Skip", by(first))
    assert world.status(poison)[0] == "failed"
    assert settled.unstorable == []


def test_a_loser_that_is_told_again_is_replayed(world):
    (first,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(first))
    assert len(world.settle(outcome(second)).applied) == 1
    assert len(world.settle(outcome(second)).replayed) == 1
    assert world.rows.item_events() == ["skip"]


def test_another_day_another_key_and_a_failure_take_nothing(world):
    (first, other), (second, failed), (again,) = world.started("a", "b"), world.started("a", "c"), world.started("c")
    world.settle(outcome(first), outcome(other), outcome(failed, "failed", error="no"))
    world.settle(outcome(second, period="2026-11-23"), outcome(again))
    assert [row[2] for row in world.results()] == [DAY, DAY, "2026-11-23", DAY]
    assert "skipped" not in str(world.shown())


def test_a_task_that_is_not_unique_has_no_periods(world):
    (first,), (second,) = world.started("a", policy={}), world.started("a", policy={})
    world.settle(outcome(first, period=None), outcome(second, period=None))
    assert world.results() == [(first.item_id, "7", None), (second.item_id, "7", None)]


# -- refresh ----------------------------------------------------------------------------------------------------------


def test_a_refresh_takes_the_day_over_and_the_older_keeps_its_row_without(world):
    (first,), (second,) = world.started("a"), world.started("a", refresh=True)
    world.settle(outcome(first))
    world.settle(outcome(second))
    assert world.results() == [(first.item_id, "7", None), (second.item_id, "7", DAY)]
    assert [world.status(item)[0] for item in (first, second)] == ["completed", "completed"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_in_one_batch_the_last_refresh_has_the_day_whatever_came_before(world, order):
    (before,) = world.started("a")
    world.settle(outcome(before))
    items = [world.started("a", refresh=True)[0] for _ in range(3)]
    world.settle(*(outcome(items[place]) for place in order))
    held = {item_id: period for item_id, _, period in world.results()}
    assert held == {item.item_id: DAY if item is items[order[-1]] else None for item in (before, *items)}


def test_who_ends_after_a_refresh_in_its_batch_and_is_none_itself_is_skipped(world):
    (refresh,), (second,) = world.started("a", refresh=True), world.started("a")
    world.settle(outcome(refresh), outcome(second))
    assert world.status(second) == ("skipped", "Skip", by(refresh))


def test_a_refresh_that_ends_after_the_other_in_its_batch_leaves_it_completed(world):
    (first,), (refresh,) = world.started("a"), world.started("a", refresh=True)
    world.settle(outcome(first), outcome(refresh))
    assert world.results() == [(first.item_id, "7", None), (refresh.item_id, "7", DAY)]


# -- save_result ------------------------------------------------------------------------------------------------------


def test_whoever_saves_a_result_second_learns_it_there_and_nothing_of_it_is_stored(world):
    (first,), (second,) = world.started("a"), world.started("a")
    world.save(first)
    with pytest.raises(Skip) as caught:
        world.save(second)
    assert str(caught.value) == by(first)
    assert world.results() == [(first.item_id, "1", DAY)]


def test_a_saved_result_has_its_day_before_the_end_against_a_return(world):
    (first,), (second,) = world.started("a"), world.started("a")
    world.save(first)
    world.settle(outcome(second), outcome(first, saved=True))
    assert world.shown() == ["1:a completed", "2:a skipped"]
    assert world.results() == [(first.item_id, "7", DAY)]


def test_a_return_has_its_day_against_a_result_that_is_saved_later(world):
    (first,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(first))
    with pytest.raises(Skip):
        world.save(second)


def test_a_saved_result_may_be_replaced_by_its_own_attempt(world):
    (item,) = world.started("a")
    world.save(item, "1")
    world.save(item, "2")
    assert world.results() == [(item.item_id, "2", DAY)]


def test_saved_work_stays_complete_though_its_day_was_taken_over_since(world):
    (first,), (refresh,) = world.started("a"), world.started("a", refresh=True)
    world.save(first, "1")
    world.save(refresh, "2")
    world.save(first, "3")
    world.settle(outcome(first, saved=True), outcome(refresh, saved=True, value="null"))
    assert world.shown() == ["1:a completed", "2:a completed"]
    assert world.results() == [(first.item_id, "7", None), (refresh.item_id, "2", DAY)]


def test_an_attempt_that_is_not_the_items_any_more_is_lost_and_takes_nothing(world):
    (first,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(first, "stopped", None))
    with pytest.raises(Lost):
        world.save(first)
    world.save(second)
    assert world.results() == [(second.item_id, "1", DAY)]


# -- claiming ---------------------------------------------------------------------------------------------------------


def test_an_item_whose_day_is_taken_is_skipped_at_the_claim_and_never_starts(world):
    (first,) = world.started("a")
    world.settle(outcome(first))
    job_id = world.job("a", "b")
    items, skipped = world.claim()
    assert ([(item.job_id, item.key) for item in items], skipped) == ([(job_id, "b")], 1)
    row = (
        "select status, attempt, started_at, completed_at, error_type, error from job_items where job_id=? and key='a'"
    )
    assert world.rows.one(row, job_id) == ("skipped", 0, None, NOW, "Skip", by(first))
    assert world.rows.item_events() == ["skip"]


def test_a_job_of_which_nothing_is_left_ends_with_the_claim_that_left_it_out(world):
    (first,) = world.started("a")
    world.settle(outcome(first))
    job_id = world.job("a")
    assert world.claim() == ([], 1)
    assert world.rows.events(job_id) == [("complete", "queued", "completed", None)]


def test_the_next_day_it_runs_again(world):
    (first,) = world.started("a")
    world.settle(outcome(first))
    world.job("a")
    items, skipped = world.claim(now=NOW + 86_400_000)
    assert (len(items), skipped) == (1, 0)


def test_the_day_is_that_of_the_tasks_zone(world):
    berlin = Unique("day", "Europe/Berlin")
    assert berlin.period(NOW - 3_600_000) == DAY
    assert UTC.period(NOW - 3_600_000) == "2026-11-21"
    (first,) = world.started("a")
    world.settle(outcome(first))
    world.job("a")
    assert world.claim(unique=UTC, now=NOW - 3_600_000 + 1)[1] == 0
    world.job("a")
    assert world.claim(unique=berlin, now=NOW - 3_600_000 + 1)[1] == 1


def test_a_refresh_is_claimed_though_its_day_is_taken_and_says_so(world):
    (first,) = world.started("a")
    world.settle(outcome(first))
    world.job("a", refresh=True)
    items, skipped = world.claim()
    assert ([item.refresh for item in items], skipped) == ([True], 0)


def test_of_two_that_wait_with_one_key_both_may_start_and_settling_decides(world):
    assert [len(world.started("a")), len(world.started("a"))] == [1, 1]


def test_a_thousand_taken_items_are_skipped_in_bounded_transactions_whatever_the_slots(world):
    keys = [f"k{number:04}" for number in range(1_200)]
    first = world.started(*keys)
    world.settle(*map(outcome, first))
    world.job(*keys, "fresh")
    turns = [world.claim(4) for _ in range(3)]
    assert [skipped for _, skipped in turns] == [MOST, MOST, 200]
    assert [item.key for items, _ in turns for item in items] == ["fresh"]


def test_what_is_due_later_keeps_its_place_whoever_has_the_day(world):
    (first,) = world.started("a")
    world.settle(outcome(first))
    world.job("a", "b")
    world.rows.change("update job_items set available_at=? where job_id=2", NOW + 5)
    assert world.claim(now=NOW) == ([], 0)


def test_an_interrupted_item_whose_day_is_taken_is_skipped_in_its_lane(world):
    (first, _) = world.started("a", "b")
    world.settle(outcome(first))
    world.job("a")
    world.rows.change("update job_items set interruptions=2 where job_id=2")
    assert world.claim(1, lane=Lane.ALONE) == ([], 1)


def test_a_claim_notes_at_the_job_how_its_task_is_unique_where_its_submitter_did_not_know(world):
    job_id = world.job("a", policy={"stall_after": 5, "zone": "Asia/Tokyo", "refresh": True})
    world.claim(unique=Unique("day", "Europe/Berlin"))
    policy = world.rows.one("select policy from jobs where id=?", job_id)
    assert json.loads(policy) == {"stall_after": 5, "unique": "day", "zone": "Europe/Berlin", "refresh": True}
    assert of_policy(policy) == (Unique("day", "Europe/Berlin"), True)


@pytest.mark.parametrize("policy", ["not JSON", "[1", "", '"day"', "7"])
def test_a_policy_that_a_foreign_hand_has_damaged_keeps_nobody_from_claiming(loose, policy):
    job_id = loose.job("a", key="k")
    loose.rows.change("update jobs set policy=? where id=?", policy, job_id)
    again = Submission(task="work", key="k", policy='{"refresh": true}')
    submit(loose.store, again, [("b", "null")], now=NOW, actor="test")
    items, skipped = loose.claim()
    assert (len(items), skipped) == (2, 0)


@pytest.mark.parametrize(
    "policy", ["{}", "[]", "not JSON", '{"unique": 1}', '{"unique": "day", "zone": "No/Where"}', '{"zone": "UTC"}']
)
def test_a_policy_that_says_nothing_of_it_is_none(policy):
    assert of_policy(policy) == (None, False)


# -- results without an attempt that reports them ---------------------------------------------------------------------


def deliver(world, *item_ids, now=LATER):
    """Store results as a delivery does; return what became of their periods."""

    def work(connection):
        judged = judge_items(world.store, connection, item_ids, now=now)
        values = {item_id: "9" for item_id in item_ids if item_id not in judged.lost}
        store_results(world.store, connection, values, now=now, source="outside", judged=judged)
        return judged

    return world.store.write(work)


@pytest.fixture
def loose(store, rows):
    """As ``world``, but for what a delivery would do beside storing the result."""
    return World(store, rows)


def test_a_delivered_result_has_the_day_on_which_its_attempt_began(loose):
    (item,) = loose.started("a")
    deliver(loose, item.item_id, now=NOW + 86_400_000 * 3)
    assert loose.results() == [(item.item_id, "9", DAY)]


def test_a_delivery_to_what_is_queued_has_the_day_on_which_it_comes(loose):
    loose.job("a")
    deliver(loose, 1, now=NOW + 86_400_000)
    assert loose.results() == [(1, "9", "2026-11-23")]


def test_a_delivery_loses_to_a_result_and_nothing_of_it_is_stored(loose):
    (first,), (second, other) = loose.started("a"), loose.started("a", "b")
    loose.settle(outcome(first))
    assert deliver(loose, second.item_id, other.item_id).lost == {second.item_id: by(first)}
    assert [row[0] for row in loose.results()] == [first.item_id, other.item_id]


def test_a_delivery_of_a_refreshing_job_takes_the_day_over(loose):
    (first,), (second,) = loose.started("a"), loose.started("a", refresh=True)
    loose.settle(outcome(first))
    deliver(loose, second.item_id)
    assert loose.results() == [(first.item_id, "7", None), (second.item_id, "9", DAY)]


def test_an_heir_that_did_not_move_after_all_leaves_the_day_where_it_is(loose):
    (first,), (second,) = loose.started("a"), loose.started("a", refresh=True)
    loose.settle(outcome(first))

    def work(connection):
        judged = judge_items(loose.store, connection, [second.item_id], now=NOW)
        assert judged.held == {second.item_id: DAY}
        store_results(loose.store, connection, {}, now=NOW, judged=judged)

    loose.store.write(work)
    assert loose.results() == [(first.item_id, "7", DAY)]


def test_an_item_that_has_stored_its_result_is_not_judged_again(loose):
    (first,), (second,) = loose.started("a"), loose.started("a", refresh=True)
    loose.save(first)
    loose.save(second)
    assert deliver(loose, first.item_id).lost == {}
    assert loose.results() == [(first.item_id, "9", None), (second.item_id, "1", DAY)]


@pytest.mark.parametrize("refresh", [False, True])
def test_an_orphan_whose_task_says_that_it_is_done_has_its_day_or_loses_it_like_any_other(world, refresh):
    (first,), (orphan, other) = world.started("a"), world.started("a", "b", refresh=refresh)
    world.settle(outcome(first))

    def work(connection):
        verdicts = [
            Verdict(item, "reconcile", "completed", "verify: it is done", value='"verified"')
            for item in orphans.running(connection)
        ]
        return orphans.carry_out(world.store, connection, verdicts, since=0, holder=1, now=LATER, actor="test")

    assert [verdict.target for verdict in world.store.write(work)] == [
        "completed" if refresh else "skipped",
        "completed",
    ]
    periods = {item_id: period for item_id, _, period in world.results()}
    if refresh:
        assert periods == {first.item_id: None, orphan.item_id: DAY, other.item_id: DAY}
    else:
        assert periods == {first.item_id: DAY, other.item_id: DAY}
        assert world.status(orphan) == ("skipped", "Skip", by(first))
    assert world.rows.one("select status, last_error from jobs where id=?", orphan.job_id) == ("completed", None)


# -- what frees a day -------------------------------------------------------------------------------------------------


def test_a_completed_item_that_is_queued_again_for_a_changed_payload_frees_its_day_and_runs(world):
    (first,) = world.started("a", key="nightly")
    world.settle(outcome(first))
    again = Submission(task="work", key="nightly", policy='{"unique":"day","zone":"UTC"}', changed="requeue")
    submit(world.store, again, [("a", "2")], now=LATER, actor="test")
    assert world.results() == []
    (item,), _ = world.claim()
    world.settle(outcome(item))
    assert world.results() == [(first.item_id, "7", DAY)]


def test_a_changed_payload_that_comes_when_another_has_the_day_is_skipped(world):
    (first,) = world.started("a", key="nightly")
    world.settle(outcome(first))
    again = Submission(task="work", key="nightly", policy='{"unique":"day","zone":"UTC"}', changed="requeue")
    submit(world.store, again, [("a", "2")], now=LATER, actor="test")
    (requeued,), _ = world.claim()
    (other,) = world.started("a")
    world.settle(outcome(other))
    world.settle(outcome(requeued))
    assert world.shown() == ["1:a skipped", "2:a completed"]


def test_items_that_are_added_with_refresh_take_over_and_the_last_word_counts(world):
    def add(key, **own):
        policy = json.dumps({"unique": "day", "zone": "UTC", **own})
        submit(world.store, Submission(task="work", key="k", policy=policy), [(key, "null")], now=NOW, actor="test")
        return of_policy(world.rows.one("select policy from jobs where key='k'"))[1]

    assert [add("a"), add("b", refresh=True), add("b"), add("c")] == [False, True, True, False]
    world.claim()


def test_a_cancelled_job_leaves_its_days_to_others(world):
    (first,) = world.started("a")
    job_id = world.job("b")
    request_cancel(world.store, job_id, now=NOW, actor="test")
    work_off(world.store, job_id, now=NOW, actor="test")
    (other,) = world.started("b")
    world.settle(outcome(first), outcome(other))
    assert world.shown() == ["1:a completed", "2:b cancelled", "3:b completed"]


# -- by which steps ---------------------------------------------------------------------------------------------------


def test_the_looks_at_periods_and_the_next_items_use_their_indexes(world, rows):
    from jobd.store import taken, unique

    looks = {
        unique._TAKEN.format(rows=world.store.rows("task", "key", "period")): ("[]",),
        taken._NEXT: (1, 1, 1, "work", DAY),
        unique._OF_UNIQUE.format(rows=world.store.rows("id")): ("[]",),
    }
    for source, params in looks.items():
        plan = [row[3] for row in rows.all(f"explain query plan select 1 {source}", *params)]
        assert not [step for step in plan if step.startswith("SCAN") and "json_each" not in step and step != "SCAN i"]
        assert "results" not in source or any("results_one_for_period" in s or "PRIMARY KEY" in s for s in plan)
