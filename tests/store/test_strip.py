"""The strip: the worst status of each stretch of a job's items, in their order, at a price that has a limit."""

from __future__ import annotations

import itertools
import random

import pytest

from jobd.errors import NotFound
from jobd.states import ITEM_STATUSES
from jobd.store import reads, strip

WORST_FIRST = ("failed", "running", "waiting", "cancelled", "skipped", "queued", "completed")


def naive(statuses, cells):
    """The same from the statuses themselves."""
    bounds = [number * len(statuses) // cells for number in range(cells + 1)]
    pieces = [statuses[low : max(high, low + 1)] for low, high in itertools.pairwise(bounds)]
    return [min(piece, key=WORST_FIRST.index) for piece in pieces]


@pytest.mark.parametrize("worse", range(len(WORST_FIRST) - 1))
def test_the_worst_status_of_a_stretch_is_what_it_shows(store, rows, worse):
    pair = [WORST_FIRST[worse + 1], WORST_FIRST[worse]]
    assert reads.strip(store, rows.job(pair), 1) == [WORST_FIRST[worse]]


@pytest.mark.parametrize("seed", range(20))
def test_stretches_follow_the_order_of_the_items(store, rows, seed):
    luck = random.Random(seed)
    rows.job(["failed"] * 5)
    statuses = luck.choices(ITEM_STATUSES, weights=(5, 1, 1, 20, 1, 1, 1), k=luck.randrange(1, 150))
    job_id = rows.job(statuses)
    rows.job(["failed"] * 5)
    cells = luck.choice([1, 7, 72])
    assert reads.strip(store, job_id, cells) == naive(statuses, cells)


def test_an_item_that_is_due_later_shows_as_queued(store, rows):
    job_id = rows.job(["completed", "queued", "completed"])
    rows.change("update job_items set available_at=9 where status='queued'")
    assert reads.strip(store, job_id, 3) == ["completed", "queued", "completed"]


def interleaved(rows, statuses):
    """A job whose every second id belongs to another job, which has failed throughout."""
    mine, other = rows.job(statuses), rows.job(["failed"] * len(statuses))
    ids = rows.ids(mine) + rows.ids(other)
    rows.change("update job_items set id = -id")
    for place, old in enumerate(ids):
        here = place < len(statuses)
        rows.change("update job_items set id=? where id=?", 2 * (place % len(statuses)) + 1 + (not here), -old)
    return mine


def test_items_of_other_jobs_in_between_do_not_show(store, rows):
    statuses = ["completed"] * 8 + ["running"] * 4 + ["queued"] * 4
    assert reads.strip(store, interleaved(rows, statuses), 4) == ["completed", "completed", "running", "queued"]


def test_one_foreign_item_between_two_looks_hides_no_end(store, rows):
    """Of 200 items every third is looked at; the one that moved beyond the count must be seen all the same."""
    job_id, other = rows.job(["completed"] * 199 + ["failed"]), rows.job(["failed"])
    (between,) = rows.ids(other)
    first = rows.ids(job_id)[0]
    rows.change("update job_items set id = -(id + 1) where job_id=? and id > ?", job_id, first + 100)
    rows.change("update job_items set id = ? where id = ?", first + 101, between)
    rows.change("update job_items set id = -id where id < 0")
    assert reads.strip(store, job_id, 4) == ["completed"] * 3 + ["failed"]


def test_a_stretch_without_an_item_of_the_job_is_left_out(store, rows):
    job_id = rows.job(["completed", "failed"])
    rows.change("update job_items set id = id + 10 where status='failed'")
    assert reads.strip(store, job_id, 6) == ["completed", "failed"]


def test_a_job_of_side_by_side_items_is_shown_whatever_its_size(store, rows, monkeypatch):
    monkeypatch.setattr(strip, "STRIP_ROWS", 0)
    assert reads.strip(store, rows.job(["completed", "failed", "queued"]), 3) == ["completed", "failed", "queued"]


@pytest.mark.parametrize("status", ["waiting", "cancelled", "skipped"])
def test_where_too_many_rows_would_be_passed_over_there_is_no_strip(store, rows, monkeypatch, status):
    job_id = rows.job(["completed", status])
    monkeypatch.setattr(strip, "STRIP_ROWS", 1)
    assert reads.strip(store, job_id, 2) == []
    monkeypatch.setattr(strip, "STRIP_ROWS", 2)
    assert reads.strip(store, job_id, 2) == ["completed", status]


def test_interleaved_items_have_the_same_limit(store, rows, monkeypatch):
    job_id = interleaved(rows, ["completed"] * 8)
    monkeypatch.setattr(strip, "STRIP_ROWS", 15)
    assert reads.strip(store, job_id, 2) == []
    monkeypatch.setattr(strip, "STRIP_ROWS", 16)
    assert reads.strip(store, job_id, 2) == ["completed", "completed"]


def test_a_strip_of_indexed_statuses_passes_over_nothing(store, rows):
    """Each cell is answered by a seek: else 100,000 items would cost as many steps."""
    job_id = rows.job(["completed"] * 4_000 + ["failed"] + ["completed"] * 4_000 + ["running"] + ["queued"] * 4_000)
    reads.strip(store, job_id, 72)  # a first statement is compiled, which takes steps, too
    steps = []
    store.connection().set_progress_handler(lambda: steps.append(1) and 0, 10)
    reads.strip(store, job_id, 72)
    store.connection().set_progress_handler(None, 0)
    assert 0 < len(steps) * 10 < 10_000


def test_no_items_have_no_strip(store, rows):
    assert reads.strip(store, rows.job(), 72) == []
    assert reads.strip(store, rows.job(items_total=3), 72) == []


def test_a_job_that_is_not_there_is_not_found(store):
    with pytest.raises(NotFound, match="there is no job 9"):
        reads.strip(store, 9, 72)
