"""Free pages go back to the file system a few at a time, but for those that the next days' rows will take."""

from __future__ import annotations

import pytest

from jobd.store import vacuum
from jobd.store.failures import Transient
from jobd.store.sqlite import SqliteStore


@pytest.fixture
def emptied(store, rows, monkeypatch):
    """A store of which most pages are free; of those two may stay."""
    monkeypatch.setattr(vacuum, "_SPARE_PAGES", 2)
    rows.change(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 400)"
        " insert into passes (name, report) select i, zeroblob(4000) from n"
    )
    rows.change("delete from passes")
    return store


def pages(rows, name="page_count"):
    return rows.one(f"pragma {name}")


def test_what_was_freed_beyond_the_spare_is_given_back(emptied, rows):
    before, free = pages(rows), vacuum.free_pages(emptied)
    assert free > 300
    assert vacuum.give_back(emptied) == free
    assert pages(rows) <= before - free
    assert vacuum.free_pages(emptied) == 0
    assert rows.one("pragma integrity_check") == "ok"


def test_a_tenth_of_what_is_in_use_stays_free(emptied, rows, monkeypatch):
    monkeypatch.setattr(vacuum, "_SPARE", 1.0)
    vacuum.give_back(emptied)
    assert pages(rows, "freelist_count") == pytest.approx(pages(rows) / 2, abs=2)


def test_it_goes_by_small_transactions_and_stops_when_asked(emptied, rows, monkeypatch):
    monkeypatch.setattr(vacuum, "_AT_ONCE", 50)
    free, asked, give_back = vacuum.free_pages(emptied), [], emptied.give_back
    monkeypatch.setattr(emptied, "give_back", lambda count: asked.append(count) or give_back(count))
    left = iter([True, False])
    assert vacuum.give_back(emptied, go_on=lambda: next(left)) == 100
    assert max(asked) <= 50
    assert vacuum.free_pages(emptied) in range(free - 102, free - 98)


def test_where_nothing_is_free_nothing_is_written(store, monkeypatch):
    monkeypatch.setattr(store, "give_back", None)
    assert vacuum.give_back(store) == 0


def test_a_file_that_was_not_made_for_it_is_left_alone(emptied, monkeypatch):
    monkeypatch.setattr(vacuum, "_INCREMENTAL", 1)
    assert vacuum.give_back(emptied) == 0


def test_a_database_that_is_locked_elsewhere_is_busy(emptied, path):
    other = SqliteStore(path)
    other.open()
    other.connection().execute("begin immediate")
    emptied.connection().execute("pragma busy_timeout=1")
    with pytest.raises(Transient):
        emptied.give_back(10)
    other.connection().execute("rollback")
    other.close()
