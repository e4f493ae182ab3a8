"""The watchlist: how each key on it was last run, kept by whatever ends an item."""

from __future__ import annotations

import pytest
from kit.rows import NOW

from jobd.states import ITEM_EDGES, ITEM_ENDS
from jobd.store import watchlist
from jobd.store.claim import Turns, claim
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.steer import request_cancel, work_off
from jobd.store.submission import Submission
from jobd.store.submit import submit
from jobd.store.transitions import Move

LATER = NOW + 60_000


class World:
    def __init__(self, store, rows):
        self.store = store
        self.rows = rows
        self.turns = Turns()

    def started(self, *keys, task="work"):
        """Submit a job, start its items, and return them."""
        submit(self.store, Submission(task=task), [(key, "null") for key in keys], now=NOW, actor="test")

        def work(connection):
            return claim(
                self.store, connection, self.turns, limit=1_000, tasks=[task], daemon_id=1, now=NOW,
                actor="test",
            )  # fmt: skip

        return self.store.write(work)

    def settle(self, *outcomes):
        return self.store.write(lambda connection: settle(self.store, connection, outcomes, now=LATER, actor="test"))

    def watch(self, *keys, task="work"):
        return watchlist.add(self.store, task, keys)

    def shown(self, task=None):
        return [tuple(entry) for entry in watchlist.entries(self.store, task)]


def outcome(item, kind="completed", at=LATER, **changes):
    value, error = ("7", None) if kind == "completed" else (None, "no")
    row = Outcome(item.item_id, item.job_id, item.attempt, item.task, item.key, kind, NOW, at, value, error=error)
    return row._replace(**changes)


@pytest.fixture
def world(store, rows):
    world = World(store, rows)
    yield world
    assert check(store) == []


def test_keys_are_put_on_the_list_once_and_taken_off_it(world):
    assert world.watch("b", "a", "b") == 2
    assert world.watch("a", "c") == 1
    assert world.watch("a", task="other") == 1
    assert watchlist.remove(world.store, "work", ["b", "z"]) == 1
    assert world.shown() == [
        ("other", "a", None, None, None), ("work", "a", None, None, None), ("work", "c", None, None, None),
    ]  # fmt: skip
    assert [entry[:2] for entry in world.shown("work")] == [("work", "a"), ("work", "c")]


@pytest.mark.parametrize("kind", ["completed", "failed", "skipped"])
def test_an_end_is_kept_with_the_key_whatever_it_is_and_with_no_other(world, kind):
    world.watch("a", "never")
    world.watch("a", task="other")
    (a, _) = world.started("a", "b")
    world.settle(outcome(a, kind))
    assert world.shown("work") == [("work", "a", 1, kind, LATER), ("work", "never", None, None, None)]
    assert world.shown("other") == [("other", "a", None, None, None)]


@pytest.mark.parametrize("kind", ["released", "stopped"])
def test_what_only_goes_back_to_the_queue_is_no_end(world, kind):
    world.watch("a")
    (item,) = world.started("a")
    world.settle(outcome(item, kind))
    assert world.shown() == [("work", "a", None, None, None)]


def test_of_two_ends_of_a_key_in_one_batch_the_later_is_kept(world):
    world.watch("a")
    (first,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(first, at=LATER + 1), outcome(second, "failed", at=LATER + 2))
    assert world.shown() == [("work", "a", 2, "failed", LATER + 2)]


def test_an_end_that_is_heard_of_after_a_later_one_changes_nothing(world):
    world.watch("a")
    (first,), (second,) = world.started("a"), world.started("a")
    world.settle(outcome(second, at=LATER + 2))
    world.settle(outcome(first, at=LATER + 1))
    assert world.shown() == [("work", "a", 2, "completed", LATER + 2)]


def test_a_list_that_is_longer_than_the_batch_is_asked_for_what_has_ended(world):
    world.watch(*(f"k{number}" for number in range(50)))
    items = world.started("k7", "other", "k9")
    world.settle(*map(outcome, items))
    assert [entry[1] for entry in world.shown() if entry[2]] == ["k7", "k9"]


def test_an_outcome_that_is_refused_leaves_the_list_as_it_was(world):
    world.watch("a", "b")
    a, b = world.started("a", "b")
    world.settle(outcome(a, "stopped"))
    settled = world.settle(outcome(a), outcome(b))
    assert [late.key for late in settled.late] == ["a"]
    assert world.shown() == [("work", "a", None, None, None), ("work", "b", 1, "completed", LATER)]


def test_the_list_and_the_end_are_one_transaction(world, monkeypatch):
    world.watch("a")
    (item,) = world.started("a")

    class Torn(Exception):
        pass

    def work(connection):
        settle(world.store, connection, [outcome(item)], now=LATER, actor="test")
        assert connection.execute("select last_status from watchlist").fetchone() == ("completed",)
        raise Torn

    with pytest.raises(Torn):
        world.store.write(work)
    assert world.shown() == [("work", "a", None, None, None)]


def test_a_bulk_cancel_is_kept_too(world):
    world.watch("a", "c")
    pairs = [(key, "null") for key in "abc"]
    job_id = submit(world.store, Submission(task="work"), pairs, now=NOW, actor="test").job_id
    request_cancel(world.store, job_id, now=NOW, actor="test")
    work_off(world.store, job_id, now=LATER, actor="test")
    assert world.shown() == [("work", "a", 1, "cancelled", LATER), ("work", "c", 1, "cancelled", LATER)]


ENDINGS = [
    (edge.name, source, target)
    for edge in ITEM_EDGES.values()
    for source in edge.sources
    for target in edge.targets
    if target in ITEM_ENDS and source != target
]


@pytest.mark.parametrize(("edge", "source", "target"), ENDINGS)
def test_every_edge_that_ends_an_item_is_kept_by_the_door_itself(store, rows, edge, source, target):
    """Past the verbs and passes: none of them, present or to come, can forget it."""
    watchlist.add(store, "work", ["key-00000"])
    job_id = rows.job([source, source])
    move = Move("job_items", edge, target, source=source, sets=("completed_at=?",))
    ids = [(item_id,) for item_id in rows.ids(job_id)]
    assert store.write(lambda connection: move.run(store, connection, ids, (LATER,))) == 2
    assert [tuple(entry) for entry in watchlist.entries(store)] == [("work", "key-00000", job_id, target, LATER)]


def test_a_job_that_is_deleted_leaves_the_key_with_how_it_went(world, rows):
    world.watch("a")
    (item,) = world.started("a")
    world.settle(outcome(item))
    rows.change("delete from jobs")
    assert world.shown() == [("work", "a", None, "completed", LATER)]


def counted(world, *items):
    """Return how many opcodes of the database's machine a settlement takes."""
    steps = [0]

    def step():
        steps[0] += 1

    def work(connection):
        connection.set_progress_handler(step, 1)
        settle(world.store, connection, [outcome(item) for item in items], now=LATER, actor="test")
        connection.set_progress_handler(None, 0)

    world.store.write(work)
    return steps[0]


def test_items_that_are_not_on_it_cost_nothing_whatever_is(world):
    few, many = 20, 400
    plain = counted(world, *world.started(*map(str, range(many)))) - counted(
        world, *world.started(*map(str, range(few)))
    )
    world.watch(*(f"k{number}" for number in range(10)))
    world.watch(*(f"k{number}" for number in range(5_000)), task="other")
    watched = counted(world, *world.started(*map(str, range(many)))) - counted(
        world, *world.started(*map(str, range(few)))
    )
    assert watched - plain < few


def test_an_empty_list_is_one_look(world, monkeypatch):
    seen = []
    (item,) = world.started("a")

    def work(connection):
        connection.set_trace_callback(seen.append)
        settle(world.store, connection, [outcome(item)], now=LATER, actor="test")
        connection.set_trace_callback(None)

    world.store.write(work)
    assert [text for text in seen if "watchlist" in text] == ["select exists (select 1 from watchlist)"]


def test_the_looks_are_by_row_and_by_primary_key(world, rows):
    plan = rows.all(
        f"explain query plan select 1 {watchlist._WATCHED.format(rows=world.store.rows('id'))}", "[]", "failed"
    )
    steps = [row[3] for row in plan]
    assert [step for step in steps if step.startswith("SCAN")] == ["SCAN json_each VIRTUAL TABLE INDEX 1:"]
