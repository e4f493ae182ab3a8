"""What the database would not take is kept beside it, and settled once it does; only what is its own."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest
from kit import forked

import jobd
from jobd import Jobd, StoreUnusable
from jobd.config import Settings
from jobd.engine import rescue
from jobd.store.outcome import Outcome

SECONDS = 20
NOW = 1_795_305_600_000
DAEMON = (1, NOW)


@pytest.fixture
def kept(path):
    return Path(f"{path}.rescue")


def renamed(kept):
    return sorted(kept.parent.glob(f"{kept.name}.*"))


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines() if line]


@pytest.fixture
def running(app, rows):
    """A job of four items that run, of a daemon that has started at NOW; return its outcomes-to-be."""
    job = app.submit("work", ["a", "b", "c", "d"])
    rows.change(
        "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
        " values ('here', 'boot', 1, 1, ?, ?, '0')",
        NOW,
        NOW,
    )
    rows.change("update job_items set status = 'running', attempt = 2, daemon_id = 1, started_at = ?", NOW)
    rows.change("update jobs set status = 'running', items_running = 4")

    def outcome(number, kind, **rest):
        return Outcome(number, job.id, 2, "work", "abcd"[number - 1], kind, NOW, NOW + 5, **rest)

    return job, outcome


def test_what_was_kept_is_settled_by_its_attempt_and_the_file_renamed(store, rows, running, path, kept, caplog):
    _, outcome = running
    rescue.keep(str(path), DAEMON, [outcome(1, "completed", value='"one"', output=("said\n", True))])
    rescue.keep(
        str(path),
        DAEMON,
        [
            outcome(2, "failed", error_type="ValueError", error="no \ud800"),
            outcome(3, "released"),
            outcome(4, "completed", value="4")._replace(attempt=1),
        ],
    )
    assert kept.stat().st_mode & 0o777 == 0o600
    assert rescue.settle_kept(store, now=NOW + 9, actor="test") == 3
    assert rows.all("select status, attempt from job_items") == [
        ("completed", 2),
        ("failed", 2),
        ("queued", 1),
        ("running", 2),
    ]
    assert rows.all("select item_id, value from results") == [(1, '"one"')]
    assert rows.all("select text, truncated from item_output") == [("said\n", 1)]
    assert rows.item_events() == ["fail", "late"]
    assert not kept.exists()
    assert [len(lines(file)) for file in renamed(kept)] == [4]
    assert "3 of 4" in caplog.text


def test_settling_it_twice_changes_nothing(store, rows, running, path, kept):
    _, outcome = running
    for _ in range(2):
        rescue.keep(str(path), DAEMON, [outcome(1, "completed", value="1")])
    assert rescue.settle_kept(store, now=NOW, actor="test") == 1
    before = rows.all("select * from job_items")
    rescue.keep(str(path), DAEMON, [outcome(1, "completed", value="1")])
    assert rescue.settle_kept(store, now=NOW + 1, actor="test") == 0
    assert rows.all("select * from job_items") == before
    assert rows.item_events() == []
    assert len(renamed(kept)) == 2


@pytest.mark.parametrize("writer", [(1, NOW + 1), (2, NOW)])
def test_what_another_databases_daemon_kept_settles_nothing_here(store, rows, running, path, kept, writer):
    _, outcome = running
    rescue.keep(str(path), writer, [outcome(1, "completed", value="1")])
    assert rescue.settle_kept(store, now=NOW, actor="test") == 0
    assert rows.one("select count(*) from job_items where status = 'running'") == 4
    assert [len(lines(file)) for file in renamed(kept)] == [1]


@pytest.mark.parametrize(
    "torn", ['{"daemon": [1, 2', "[]", "7", "null", "{}", '{"daemon": 7, "output": null}', "\x00\xff"]
)
def test_a_line_that_cannot_be_read_costs_that_line(store, rows, running, path, kept, caplog, torn):
    """The machine went down in the middle of a line; what was kept before and after it counts."""
    _, outcome = running
    rescue.keep(str(path), DAEMON, [outcome(1, "completed", value="1")])
    with kept.open("a", encoding="latin-1") as file:
        file.write(torn)
    rescue.keep(str(path), DAEMON, [outcome(2, "completed", value="2")])
    assert rescue.settle_kept(store, now=NOW, actor="test") == 2
    assert "cannot be read" in caplog.text
    assert len(renamed(kept)) == 1


def test_what_is_kept_is_on_the_disk_before_anything_else_goes_on(running, path, kept, monkeypatch):
    _, outcome = running
    flushed, fsync = [], os.fsync

    def noted(descriptor):
        flushed.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    rescue.keep(str(path), DAEMON, [outcome(1, "completed", value="1")])
    assert flushed == [kept.stat().st_size]


def test_nothing_kept_makes_no_file(store, path, kept):
    rescue.keep(str(path), DAEMON, [])
    assert not kept.exists()
    assert rescue.settle_kept(store, now=NOW, actor="test") == 0
    assert renamed(kept) == []


def test_what_is_kept_while_the_file_is_being_settled_is_not_renamed_away_with_it(
    store, running, path, kept, monkeypatch
):
    _, outcome = running
    rescue.keep(str(path), DAEMON, [outcome(1, "completed", value="1")])
    real, came = rescue.settle, threading.Event()

    class Door:
        """The lock of the file, which tells of whoever has to wait."""

        def __init__(self):
            self._lock = threading.Lock()

        def __enter__(self):
            if not self._lock.acquire(blocking=False):
                came.set()
                self._lock.acquire()

        def __exit__(self, *error):
            self._lock.release()

    def keep_another():
        rescue.keep(str(path), DAEMON, [outcome(2, "completed", value="2")])
        came.set()

    another = threading.Thread(target=keep_another)

    def settle(*arguments, **how):
        another.start()
        # It waits, or it had not to.
        assert came.wait(SECONDS)
        return real(*arguments, **how)

    monkeypatch.setattr(rescue, "_file", Door())
    monkeypatch.setattr(rescue, "settle", settle)
    assert rescue.settle_kept(store, now=NOW, actor="test") == 1
    another.join(SECONDS)
    monkeypatch.undo()
    assert rescue.settle_kept(store, now=NOW + 1, actor="test") == 1


# -- the file goes while the daemon runs ------------------------------------------------------------------------------


def test_the_files_are_looked_at_often_enough():
    assert Settings().heartbeat <= 10


@pytest.fixture
def quick(make_app):
    """An app whose daemon looks at its files many times a second."""
    return make_app(heartbeat=0.02, drain=2)


@pytest.fixture
def witnessed(quick, gate):
    """A task that tells which items it ran, and waits at the gate with those of one letter."""
    ran = []

    @quick.task
    def work(value):
        ran.append(value)
        if str(value).startswith("held"):
            gate.pass_through()
        return value

    return work, ran


@pytest.fixture
def lose(quick, witnessed, gate, until):
    """Run ``held`` and others, ``change`` the file, let ``held`` end; return the job and why the daemon left."""
    work, _ = witnessed

    def run(change):
        with quick.daemon(workers=1) as daemon:
            # The pace becomes known, so that some are claimed ahead.
            work.submit(range(20)).wait(SECONDS)
            job = work.submit(["held", *range(20)])
            assert gate.entered.wait(SECONDS)
            quick.close()
            change()
            until(lambda: daemon._dispatcher._turn.fatal)
            gate.opened.set()
            assert daemon.join(SECONDS)
        pytest.fail(f"job {job.id}: it did not say why it left")

    def lost(change):
        with pytest.raises(StoreUnusable, match="removed or replaced") as left:
            run(change)
        return left.value

    return lost


def test_a_file_that_is_moved_away_and_restored_loses_nothing(quick, witnessed, lose, path, kept, rows, tmp_path):
    _, ran = witnessed
    away = tmp_path / "away.db"
    names = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]

    def move(source, target):
        for suffix in ("", "-wal", "-shm"):
            file = Path(f"{source}{suffix}")
            if file.exists():
                file.rename(f"{target}{suffix}")

    assert lose(lambda: move(path, away)).exit_code == 6
    assert not any(name.exists() for name in names)
    ended = {line["key"]: line["value"] for line in lines(kept) if line["kind"] == "completed"}
    assert ended["held"] == '"held"'
    # What had been claimed ahead, and what still began before the line was taken from the workers.
    assert {line["kind"] for line in lines(kept)} <= {"completed", "stopped"}
    ran.clear()

    move(away, path)
    with quick.daemon():
        job = quick.job("@last").wait(SECONDS)
    assert job.status == "completed"
    assert sorted(ran) == [number for number in range(20) if str(number) not in ended]
    assert job.counts.completed == 21
    assert rows.all("select distinct interruptions from job_items") == [(0,)]
    assert rows.all("select distinct name from job_events where item_id is not null") in ([("release",)], [])
    assert not kept.exists()
    assert len(renamed(kept)) == 1


def test_the_rescue_file_of_a_replaced_database_settles_nothing_in_its_successor(lose, path, kept, tmp_path):
    other = Jobd(tmp_path / "other.db")
    stranger = other.submit("nobody", ["x", *range(30)])
    other.database.execute_sql("update job_items set status = 'running', attempt = 1, daemon_id = 1, started_at = 1")
    other.database.execute_sql("update jobs set status = 'running', items_running = 31")
    other.close()

    def replace():
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink()
        (tmp_path / "other.db").replace(path)

    lose(replace)
    assert lines(kept)
    successor = Jobd(path)
    with successor.daemon():
        job = successor.job(stranger.id)
        assert job.counts.completed == 0
        assert job.counts.queued == 31
        assert successor.results("work") == []
    assert not kept.exists()
    assert len(renamed(kept)) == 1
    successor.close()


def test_what_arrives_with_the_news_is_not_written_into_the_lost_file_any_more(quick, gate, kept, rows):
    gate.opened.set()
    echo = quick.task(lambda value: gate.entered.wait(SECONDS) and value, name="echo")

    def leave():
        with quick.daemon(workers=1) as daemon:
            dispatcher = daemon._dispatcher
            real = dispatcher._turn.collect

            def collect(pending):
                real(pending)
                if pending:
                    dispatcher.fail(StoreUnusable("it is gone"))

            dispatcher._turn.collect = collect
            echo.submit(["one"])
            gate.entered.set()
            assert daemon.join(SECONDS)

    with pytest.raises(StoreUnusable, match="it is gone"):
        leave()
    assert [line["key"] for line in lines(kept)] == ["one"]
    assert rows.one("select status from job_items") == "running"


@pytest.mark.parametrize("suffix", ["-wal", ".lock"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_or_a_lock_that_goes_is_noticed_too(lose, path, kept, suffix, replaced):
    target = Path(f"{path}{suffix}")

    def change():
        target.unlink()
        if replaced:
            target.touch()

    assert str(target) in str(lose(change))
    assert ("held", "completed") in [(line["key"], line["kind"]) for line in lines(kept)]


def test_checkpoints_and_clients_that_come_and_go_are_no_change_of_the_file(quick, path, until):
    """SQLite truncates the log, and would remove it with the last connection: the daemon holds one open."""
    echo = quick.task(lambda value: value, name="echo")
    with quick.daemon() as daemon:
        echo.submit([1]).wait(SECONDS)
        quick.close()
        for _ in range(5):
            client = Jobd(path)
            client.submit("echo", [1]).wait(SECONDS)
            client.close()
            daemon._store.checkpoint(200)
            daemon._store.close()
        beats = client.database.execute_sql("select heartbeats from daemons").fetchone()[0]
        until(lambda: client.database.execute_sql("select heartbeats from daemons").fetchone()[0] > beats + 2)
        assert daemon.failure is None
    client.close()


PROGRAM = """
from jobd import Jobd
app = Jobd(heartbeat=0.02)

@app.task
def echo(value):
    return value
"""


def test_the_command_leaves_with_6_and_one_line(path, tmp_path, app, until):
    (tmp_path / "program.py").write_text(PROGRAM)
    started = forked.Popen(
        [sys.executable, "-m", "jobd", "--db", str(path), "--app", "./program.py:app", "start"],
        stdout=forked.PIPE,
        stderr=forked.PIPE,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(jobd.__file__).parents[1]), "HOME": str(tmp_path)},
    )
    app.submit("echo", [1]).wait(SECONDS, wait_for_daemon=True)
    path.unlink()
    _, errors = started.communicate(timeout=SECONDS)
    assert started.returncode == 6
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if "removed or replaced" in line]


# -- what no statement can store --------------------------------------------------------------------------------------


def test_what_cannot_be_stored_even_as_a_failure_waits_beside_the_file_and_the_others_commit(app, rows, kept, until):
    rows.change(
        "create trigger poison before update on job_items when new.key = 'poison' and new.status <> 'running'"
        " begin select raise(abort, 'never'); end"
    )
    echo = app.task(lambda value: value, name="echo")
    with app.daemon() as daemon:
        job = echo.submit(["good", "poison", "better"])
        until(lambda: kept.exists() and rows.one("select items_completed from jobs") == 2)
        assert rows.all("select key, status from job_items where status <> 'completed'") == [("poison", "running")]
        assert [line["key"] for line in lines(kept)] == ["poison"]
        rows.change("drop trigger poison")
        app.recover()
        assert job.wait(SECONDS).status == "completed"
        assert daemon.failure is None
    assert [result.value for result in job.results()] == ["good", "poison", "better"]
    assert rows.one("select max(attempt) from job_items") == 1


def test_where_the_rescue_file_cannot_be_written_either_the_log_has_the_outcomes(lose, path, kept, caplog):
    kept.mkdir()
    lose(path.unlink)
    assert "rescue file cannot be written" in caplog.text
    assert "'\"held\"'" in caplog.text


def test_an_end_that_followed_a_stop_in_the_file_is_what_counts(app, path, rows):
    from jobd.engine.rescue import keep, settle_kept
    from jobd.store.outcome import Outcome

    echo = app.task(lambda value: value, name="echo")
    with app.daemon():
        echo.submit(["a"]).wait(SECONDS)
    rows.change("update job_items set status='running', completed_at=null")
    rows.change("delete from results")
    rows.change("update jobs set status='running', completed_at=null, items_running=1, items_completed=0")
    daemon = rows.all("select id, started_at from daemons")[0]
    stopped = Outcome(1, 1, 1, "echo", "a", "stopped", 5, 6, error="stopped")
    completed = stopped._replace(kind="completed", value='"a"', error=None)
    keep(str(path), tuple(daemon), [stopped])
    keep(str(path), tuple(daemon), [completed, stopped])
    assert settle_kept(app.store, now=10**12, actor="daemon 1") == 1
    assert tuple(rows.all("select status, attempt from job_items")[0]) == ("completed", 1)
