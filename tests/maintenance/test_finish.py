"""finish: requests that were left half carried out, by batches that stop when asked."""

from __future__ import annotations

import pytest

from jobd.maintenance.finish import finish
from jobd.store import removal, steer
from jobd.store.invariants import check
from jobd.store.sqlite import SqliteStore
from jobd.store.submission import Submission
from jobd.store.submit import submit

NOW = 1_795_305_600_000


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(steer, "BATCH", 2)
    monkeypatch.setattr(removal, "BATCH", 2)
    store = SqliteStore(tmp_path / "jobs.db")
    store.open()
    yield store
    assert check(store) == []
    store.close()


def ask(store, *, cancel=0, delete=0):
    """Submit so many jobs of five items and ask that they be cancelled or deleted."""
    for number in range(cancel + delete):
        pairs = [(str(item), "null") for item in range(5)]
        job_id = submit(store, Submission("work"), pairs, now=NOW, actor="test").job_id
        if number < cancel:
            steer.request_cancel(store, job_id, now=NOW, actor="test")
        else:
            store.write(lambda connection, job_id=job_id: removal.request_removal(store, connection, job_id, NOW))


def counts(store):
    """Return how many items are queued, and how many jobs there are."""
    sql = "select (select count(*) from job_items where status='queued'), (select count(*) from jobs)"
    return store.read(lambda connection: connection.execute(sql).fetchone())


def only(times):
    """Return a ``go_on`` that says yes so often, and no from then on."""
    left = iter([True] * times)
    return lambda: next(left, False)


def test_everything_that_was_requested_is_carried_out(store):
    ask(store, cancel=2, delete=2)
    assert finish(store, now=NOW, actor="test")
    assert counts(store) == (0, 2)
    assert steer.open_requests(store) == removal.open_removals(store) == []
    assert finish(store, now=NOW, actor="test")


@pytest.mark.parametrize(("cancel", "delete"), [(1, 0), (0, 1)], ids=["cancel", "delete"])
def test_it_stops_after_the_batch_that_it_is_in_and_the_next_call_goes_on(store, cancel, delete):
    ask(store, cancel=cancel, delete=delete)
    assert not finish(store, now=NOW, actor="test", go_on=only(0))
    assert counts(store) == (3, 1)
    assert not finish(store, now=NOW, actor="test", go_on=only(0))
    assert counts(store) == (1, 1)
    assert finish(store, now=NOW, actor="test")
    assert counts(store) == (0, cancel)


@pytest.mark.parametrize("times", range(8))
def test_wherever_it_stops_it_says_so_and_begins_no_further_job(store, times):
    ask(store, cancel=1, delete=1)
    through = finish(store, now=NOW, actor="test", go_on=only(times))
    left = bool(steer.open_requests(store) or removal.open_removals(store))
    # Where it stopped with the last batch it cannot know that nothing is left.
    assert not (through and left)
    assert finish(store, now=NOW, actor="test")
    assert counts(store) == (0, 1)


def test_a_job_that_somebody_else_deletes_meanwhile_is_no_trouble(store, monkeypatch):
    ask(store, cancel=2)
    first, _ = steer.open_requests(store)

    def deleted(connection):
        removal.request_removal(store, connection, first, NOW)
        connection.execute("delete from jobs where id=?", (first,))

    found = steer.open_requests
    monkeypatch.setattr(steer, "open_requests", lambda store: (found(store), store.write(deleted))[0])
    assert finish(store, now=NOW, actor="test")
    assert counts(store) == (0, 1)
