"""A program's own rows and what it submits, together or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import peewee
import pytest

from jobd import NotFound, StoreBusy, UsageError, clock
from jobd.safekeeping import backup, restore
from jobd.store import base
from jobd.store.invariants import check
from jobd.store.migrations import Migration, migrate
from jobd.store.sqlite import SqliteStore

SECONDS = 20


class Undo(Exception):
    pass


@contextlib.contextmanager
def undone(block, error=Undo):
    """Run the block within another that raises at its end, which is passed on."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(error))
        stack.enter_context(block)
        yield
        _raise(error)


def _raise(error):
    raise error


@pytest.fixture
def order(app):
    class Order(peewee.Model):
        name = peewee.TextField(unique=True)

        class Meta:
            database = app.database

    app.database.create_tables([Order])
    return Order


@pytest.fixture
def ship(app):
    @app.task
    def ship(order_id):
        return order_id

    return ship


@pytest.fixture
def rung(app, monkeypatch):
    found = []
    monkeypatch.setattr(app.store, "wake", lambda: found.append(app.store.holds_transaction()))
    return found


def names(order):
    return [row.name for row in order.select().order_by(order.id)]


def test_both_are_there_after_the_commit_and_the_daemon_is_woken_then(app, order, ship, rung):
    with app.atomic():
        one = order.create(name="one")
        job = ship.submit([one.id])
        assert rung == []
    assert rung == [False]
    assert (names(order), job.refresh().status) == (["one"], "queued")
    assert app.drain().counts == {"completed": 1}
    assert next(job.results()).value == one.id


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_raises_leaves_neither_and_wakes_nobody(app, order, ship, rung, error):
    with undone(app.atomic(), error):
        order.create(name="one")
        ship.submit(range(5_000), key="many")
    assert (names(order), app.jobs(), rung) == ([], [], [])
    assert ship.submit([1], key="many").created


def test_an_error_of_the_callers_own_rows_stays_what_it_is(app, order, ship):
    order.create(name="one")

    def twice():
        with app.atomic():
            ship.submit([1])
            order.create(name="one")

    with pytest.raises(peewee.IntegrityError):
        twice()
    assert app.jobs() == []


@pytest.mark.parametrize("inner", ["app", "database"])
def test_inside_another_it_is_a_savepoint(app, order, ship, rung, inner):
    begin = app.atomic if inner == "app" else app.database.atomic
    with app.atomic():
        order.create(name="one")
        ship.submit([1])
        with undone(begin()):
            order.create(name="two")
            ship.submit([2])
        with begin():
            order.create(name="three")
        assert rung == []
    assert (names(order), len(app.jobs()), rung) == (["one", "three"], 1, [False])


def test_what_was_rolled_back_is_neither_told_nor_counted(app, ship, caplog):
    caplog.set_level("INFO", logger="jobd.history")
    with app.atomic():
        with undone(app.atomic()):
            ship.submit([])
        ship.submit([1])
        assert caplog.messages == []
    assert caplog.messages == ["job 1 submit: queued by python"]
    assert app.store.news.totals == {}


def test_what_the_database_was_to_call_after_the_commit_is_called(app, order):
    called = []
    with app.atomic():
        app.database.after_commit(lambda: called.append(names(order)))
        order.create(name="one")
        assert called == []
    assert called == [["one"]]
    with undone(app.atomic()):
        app.database.after_commit(lambda: called.append("never"))
    with app.atomic():
        pass
    assert called == [["one"]]


def test_a_live_daemon_runs_it_only_after_the_commit(app, order, ship):
    with app.daemon():
        with app.atomic():
            one = order.create(name="one")
            job = ship.submit([one.id])
        assert job.wait(SECONDS).status == "completed"


def test_only_the_begin_is_tried_again(app, order, ship, path, monkeypatch):
    monkeypatch.setattr(base, "FIRST_DELAY", 0.001)
    begun, begin = [], app.store.begin

    def busy(connection):
        begun.append(1)
        if len(begun) < 3:
            raise sqlite3.OperationalError("database is locked")
        begin(connection)

    monkeypatch.setattr(app.store, "begin", busy)
    monkeypatch.setattr(app.store, "judge", _transient(app.store.judge))
    ran = []
    with app.atomic():
        ran.append(1)
        ship.submit([1])
    assert (len(begun), ran, len(app.jobs())) == (3, [1], 1)


def _transient(judge):
    def meant(error):
        if isinstance(error, sqlite3.OperationalError):
            return base.Transient("busy", reason="busy", waited=0.0)
        return judge(error)

    return meant


def test_a_lock_that_is_held_for_long_is_one_line(app, ship, path, monkeypatch):
    monkeypatch.setattr("jobd.store.sqlite.BUSY_TIMEOUT_MS", 1)
    monkeypatch.setattr(base, "CLIENT_PATIENCE", 0.0)
    app.jobs()
    other = sqlite3.connect(path)
    other.execute("begin immediate")
    with pytest.raises(StoreBusy), app.atomic():
        pytest.fail("the block runs without the lock")
    other.close()
    with app.atomic():
        ship.submit([1])
    assert len(app.jobs()) == 1


def test_a_block_that_ends_the_transaction_by_itself_is_told(app, order):

    def ends():
        with app.atomic():
            order.create(name="one")
            app.database.commit()

    with pytest.raises(UsageError, match="ended its transaction"):
        ends()
    order.create(name="two")
    with app.atomic():
        order.create(name="three")
    assert names(order) == ["one", "two", "three"]


def test_nothing_in_it_waits_for_what_it_holds(app, ship):
    job = ship.submit([1])
    with app.atomic():
        for waits in (job.wait, app.drain, app.tick, app.run, app.recover, lambda: app.daemon().__enter__()):
            with pytest.raises(UsageError, match="a transaction is open"):
                waits()
    assert app.drain().counts == {"completed": 1}


def test_held_for_over_a_second_it_warns(app, jobd_clock, caplog):
    with app.atomic():
        jobd_clock.move(seconds=1)
    assert caplog.messages == []
    with app.atomic():
        jobd_clock.move(seconds=2)
    (line,) = caplog.messages
    assert "held the database for 2.0 s" in line


def test_other_threads_wait_their_turn_and_lose_nothing(app, order, ship):
    inside, submitted = threading.Event(), []

    def other():
        assert inside.wait(SECONDS)
        try:
            submitted.append(ship.submit([2]).id)
        finally:
            app.close()

    thread = threading.Thread(target=other)
    thread.start()
    with app.atomic():
        first = ship.submit([1])
        inside.set()
        assert app.store.mutex._is_owned()
    thread.join(SECONDS)
    assert submitted == [first.id + 1]


def test_who_waits_for_a_thread_that_waits_for_it_is_told_and_nothing_of_it_is_stored(app, ship, monkeypatch):
    monkeypatch.setattr(base, "BUSY_TIMEOUT_MS", 1)
    monkeypatch.setattr(base, "CLIENT_PATIENCE", 0.0)
    told, add = [], lambda connection: connection.execute("insert into passes (name) values ('one')")

    def other():
        for write in (app.store.share, app.store.write):
            with pytest.raises(StoreBusy) as found:
                write(add, patience=0)
            told.append(found.value.reason)
        with pytest.raises(StoreBusy), app.atomic():
            pytest.fail("the block runs without the lock")
        told.append("atomic")
        app.close()

    thread = threading.Thread(target=other)
    with app.atomic():
        thread.start()
        thread.join(SECONDS)
    assert told == ["locked", "locked", "atomic"]
    assert app.store.read(lambda connection: connection.execute("select * from passes").fetchall()) == []


# -- the user's tables ------------------------------------------------------------------------------------------------


def test_doctor_has_nothing_against_tables_of_the_users_own(app, order, ship):
    with app.atomic():
        order.create(name="one")
        ship.submit([1])
    assert app.doctor().exit_code == 0
    assert check(app.store) == []


def test_a_backup_and_its_restore_carry_them(app, order, ship, tmp_path, make_app):
    with app.atomic():
        order.create(name="one")
        ship.submit([1])
    made = backup(app.path, str(tmp_path / "copy.db"))
    order.create(name="two")
    app.close()
    copy = sqlite3.connect(made.path)
    assert copy.execute('select name from "order"').fetchall() == [("one",)]
    copy.close()
    restore(app.path, made.path, now=clock.now())
    assert names(order) == ["one"]
    assert len(app.jobs()) == 1


def test_a_migration_carries_them(app, order, ship, path, monkeypatch):
    with app.atomic():
        order.create(name="one")
        ship.submit([1])
    app.close()
    for module in ("migrations", "file", "sqlite"):
        monkeypatch.setattr(f"jobd.store.{module}.SCHEMA_VERSION", 2)
    step = Migration(1, 2, "a column", lambda c, *_: c.execute("alter table passes add column note text") and {})
    migrate(str(path), now=clock.now(), at=str, migrations=(step,))
    store = SqliteStore(path)
    store.open(create=False)
    assert store.read(lambda c: c.execute('select name from "order"').fetchall()) == [("one",)]
    store.close()


def test_a_file_that_is_not_there_is_made_for_it(tmp_path):
    from jobd import Jobd

    app = Jobd(tmp_path / "new.db")
    with pytest.raises(NotFound):
        app.reading()
    with app.atomic():
        app.submit("work", [1])
    assert len(app.jobs()) == 1
    app.close()
