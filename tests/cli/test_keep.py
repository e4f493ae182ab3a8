"""`backup`, `restore` and `migrate` as they are typed: what they say, what they print, and how they leave."""

import json
import os
import pty
import signal
import sqlite3
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from kit import forked
from kit.tables import rows

import jobd as package
from jobd import Jobd
from jobd.engine import lock, points
from jobd.store.sqlite import SqliteStore

SOURCE = str(Path(package.__file__).parents[1])


@pytest.fixture
def filled(tmp_path):
    """A database with one job of three items."""
    app = Jobd(tmp_path / "jobs.db")
    app.submit("work", ["a", "b", "c"])
    app.close()
    return tmp_path


@pytest.fixture
def version0(tmp_path):
    """A file of before jobd, with one result that a newer one of its key and day supersedes."""
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.executescript("""
        create table analysis_jobs (job_id text, status text);
        create table analysis_results (ticker text, score real, created_at text);
        insert into analysis_jobs values ('abc', 'completed');
        insert into analysis_results values ('TCS.NS', 1.0, '2025-11-23T09:00:00');
        insert into analysis_results values ('TCS.NS', 2.0, '2025-11-23T10:00:00');
    """)
    connection.close()
    return tmp_path


def in_terminal(arguments, folder, **environment):
    """Run a command on a terminal and return its exit code and all that it wrote there."""
    parent, child = pty.openpty()
    process = forked.Popen(
        [sys.executable, "-c", "import jobd.cli as c; c.main()", *arguments],
        stdin=child, stdout=child, stderr=child, cwd=folder,
        env={**os.environ, "PYTHONPATH": SOURCE, "TERM": "xterm", "COLUMNS": "120", "LINES": "30", **environment},
    )  # fmt: skip
    os.close(child)
    said = b""
    try:
        while part := os.read(parent, 65536):
            said += part
    except OSError:
        pass
    os.close(parent)
    return process.wait(60), said.decode()


# -- backup and restore -----------------------------------------------------------------------------------------------


def test_a_backup_and_its_restore_give_the_same_jobs_again(jobd, filled):
    answer = jobd("backup", "copy.db")
    assert answer.code == 0
    assert rows(answer) == [{
        "database": str(filled / "jobs.db"), "path": str(filled / "copy.db"),
        "bytes": str((filled / "copy.db").stat().st_size), "schema": "1", "broken": "0",
    }]  # fmt: skip
    assert f"copied {filled / 'jobs.db'} to {filled / 'copy.db'}: " in answer.err
    assert jobd("cancel", "1").code == 0
    answer = jobd("restore", "copy.db", "--json")
    assert answer.code == 0
    record = json.loads(answer.out)
    assert record["kept"].startswith(f"{filled / 'jobs.db'}.replaced-")
    assert f"the old file is kept as {record['kept']}" in answer.err
    assert "next: jobd recover settles what was running in it" in answer.err
    assert rows(jobd("list"))[0]["status"] == "queued"
    assert json.loads(jobd("--db", record["kept"], "show", "1", "--json").out)["status"] == "cancelled"


def test_a_database_that_is_gone_is_made_of_its_backup(jobd, filled):
    jobd("backup", "copy.db")
    (filled / "jobs.db").unlink()
    answer = jobd("restore", "copy.db", "--json")
    assert (answer.code, json.loads(answer.out)["kept"]) == (0, None)
    assert "kept as" not in answer.err
    assert rows(jobd("list"))[0]["items_total"] == "3"


def test_the_folder_of_the_users_own_database_is_made_and_no_other(jobd, filled, monkeypatch):
    jobd("backup", "copy.db")
    monkeypatch.delenv("JOBD_DB")
    assert jobd("restore", "copy.db").code == 0
    assert rows(jobd("list"))[0]["items_total"] == "3"
    answer = jobd("--db", "mistyped/jobs.db", "restore", "copy.db")
    assert (answer.code, answer.out) == (6, "")
    assert not (filled / "mistyped").exists()


@pytest.mark.parametrize(
    ("typed", "code", "what"),
    [
        (["backup", "copy.db"], 4, "there is a file at"),
        (["backup", "nowhere/copy.db"], 2, "there is no folder"),
        (["backup", "jobs.db", "--force"], 2, "belongs to the database itself"),
        (["backup"], 2, "missing argument 'DEST'"),
        (["--db", "none.db", "backup", "other.db"], 3, "there is no jobd file at"),
        (["restore", "none.db"], 3, "there is no file at"),
        (["restore", ""], 2, "no backup is named"),
        (["restore", "."], 2, "is a folder"),
        (["--db", "nowhere/jobs.db", "restore", "copy.db"], 6, "there is no folder"),
        (["restore", "jobs.db"], 2, "is the database itself"),
        (["restore", "garbage.db"], 6, "not a database"),
        (["--db", "garbage.db", "backup", "other.db"], 6, "not a database"),
        (["--db", "garbage.db", "migrate"], 6, "not a database"),
        (["--db", "none.db", "migrate"], 3, "there is no file at"),
    ],
)
def test_a_refusal_is_a_line_and_a_code_and_changes_nothing(jobd, filled, typed, code, what):
    jobd("backup", "copy.db")
    (filled / "garbage.db").write_bytes(b"garbage" * 1_000)
    before = {path.name: path.read_bytes() for path in filled.iterdir() if path.suffix == ".db"}
    answer = jobd(*typed)
    assert (answer.code, answer.out) == (code, "")
    assert what in answer.err.splitlines()[0]
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    assert {path.name: path.read_bytes() for path in filled.iterdir() if path.suffix == ".db"} == before


@pytest.mark.parametrize("made", [b"", b"garbage" * 1_000, "another's"], ids=["empty", "garbage", "another's"])
def test_a_backup_that_is_none_is_told_apart_from_the_database(jobd, filled, made):
    if isinstance(made, bytes):
        (filled / "wrong.db").write_bytes(made)
    else:
        with sqlite3.connect(filled / "wrong.db") as connection:
            connection.execute("create table theirs (x)")
        connection.close()
    answer = jobd("restore", "wrong.db")
    assert answer.code == 6
    assert answer.err.splitlines()[1:] == ["  hint: the same again with another backup"]


def test_a_hint_names_the_database_that_was_typed(jobd, filled):
    (filled / "garbage.db").write_bytes(b"garbage" * 1_000)
    answer = jobd("--db", "garbage.db", "list")
    assert "hint: jobd --db garbage.db doctor; jobd --db garbage.db restore BACKUP" in answer.err


def test_a_database_with_a_daemon_is_copied_but_not_replaced(jobd, filled):
    claim = lock.Lock(str(filled / "jobs.db"))
    claim.acquire(lock.Owner(os.getpid(), "here", 0))
    try:
        assert jobd("backup", "copy.db").code == 0
        answer = jobd("restore", "copy.db")
        assert answer.code == 7
        assert answer.err.startswith("error: another daemon owns")
        assert answer.err.splitlines()[1:] == ["  hint: end it (SIGTERM lets it finish what runs), then the same again"]
        # Nothing to migrate is nothing to lock for.
        assert jobd("migrate").code == 0
    finally:
        claim.release()
    assert {path.name for path in filled.iterdir()} == {"jobs.db", "jobs.db.lock", "copy.db"}
    assert jobd("restore", "copy.db").code == 0


def test_a_backup_beside_a_busy_daemon_passes_doctor_and_goes_on_where_it_was_taken(jobd, tmp_path):
    app = Jobd(tmp_path / "jobs.db")
    entered, opened = threading.Event(), threading.Event()

    @app.task
    def work(number):
        if number == 300:
            entered.set()
            assert opened.wait(30)
        return number

    with app.daemon(workers=2):
        job = work.submit(range(600))
        assert entered.wait(30)
        assert jobd("backup", "copy.db").code == 0
        opened.set()
        job.wait(timeout=30)
    app.close()
    assert jobd("--db", "copy.db", "doctor").code == 0
    taken = rows(jobd("--db", "copy.db", "items", "1", "--status", "running"))
    assert "300" in {row["key"] for row in taken}

    assert jobd("restore", "copy.db").code == 0
    again = Jobd(tmp_path / "jobs.db")
    again.task(work.function)
    with again.daemon(workers=2):
        job = again.job(1).wait(timeout=30)
    assert (job.status, job.counts.completed) == ("completed", 600)
    again.close()
    assert jobd("doctor").code == 0


def test_a_broken_rule_is_a_warning_and_a_code_and_the_copy_is_there(jobd, filled):
    store = SqliteStore(filled / "jobs.db")
    store.write(lambda connection: connection.execute("update jobs set version = 7"))
    store.close()
    for typed in (["backup", "copy.db"], ["restore", "copy.db"]):
        answer = jobd(*typed)
        assert answer.code == 1
        assert rows(answer)[0]["broken"] == "1"
        assert "warning: job_version: queued at version 7" in answer.err
        assert "warning: 1 breaks a rule of truth, in the copy as in the original" in answer.err
        assert "hint: jobd doctor says more" in answer.err


def test_on_a_terminal_sentences_say_it_and_a_long_copy_has_a_bar(filled):
    code, said = in_terminal(["backup", "copy.db"], filled, JOBD_DB=str(filled / "jobs.db"))
    assert code == 0
    assert f"copied {filled / 'jobs.db'} to " in said
    program = textwrap.dedent("""
        import jobd.cli as c, jobd.cli.progress as p
        p._FROM = p._EVERY = 0
        c.main()
    """)
    parent, child = pty.openpty()
    with forked.Popen(
        [sys.executable, "-c", program, "backup", "--force", "copy.db"], stdin=child, stdout=child, stderr=child,
        cwd=filled, env={**os.environ, "PYTHONPATH": SOURCE, "JOBD_DB": str(filled / "jobs.db"), "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(child)
        said = b""
        try:
            while part := os.read(parent, 65536):
                said += part
        except OSError:
            pass
        os.close(parent)
    assert process.returncode == 0
    assert "copying" in said.decode()
    assert "checking" in said.decode()
    assert "100%" in said.decode()


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_ctrl_c_leaves_no_half_file_and_says_so(jobd, filled, verb):
    jobd("backup", "copy.db")
    program = """
        import os, signal, sys
        import jobd.cli as c, jobd.store.copies as copies
        examine = copies.examine
        def interrupted(*given, **named):
            os.kill(os.getpid(), signal.SIGINT)
            return examine(*given, **named)
        copies.examine = interrupted
        c.main()
    """
    target = "other.db" if verb == "backup" else "copy.db"
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(program), verb, target], cwd=filled, capture_output=True, text=True,
        timeout=60, check=False, env={**os.environ, "PYTHONPATH": SOURCE, "JOBD_DB": str(filled / "jobs.db")},
    )  # fmt: skip
    assert (child.returncode, child.stderr.strip()) == (130, "error: interrupted")
    assert {path.name for path in filled.iterdir()} - {"jobs.db.lock"} == {"jobs.db", "copy.db"}


@pytest.mark.parametrize("step", [name for name in points.NAMES if name.startswith("restore.")])
def test_a_restore_that_is_killed_leaves_a_file_that_reads_and_the_same_again_goes_on(jobd, filled, step):
    jobd("backup", "copy.db")
    jobd("cancel", "1")
    program = """
        import sys
        import jobd.cli as c
        from jobd.engine import points
        points.arm(sys.argv.pop(1))
        c.main()
    """
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(program), step, "restore", "copy.db"], cwd=filled, capture_output=True,
        timeout=60, check=False, env={**os.environ, "PYTHONPATH": SOURCE, "JOBD_DB": str(filled / "jobs.db")},
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    checks = {check["name"]: check for check in json.loads(jobd("doctor", "--json").out)["checks"]}
    if step == "restore.replaced":
        assert rows(jobd("list"))[0]["status"] == "queued"
        assert "restore" not in checks
    else:
        assert rows(jobd("list"))[0]["status"] == "cancelled"
        assert checks["restore"]["level"] == "warning"
        assert "jobd restore BACKUP, the same again" in checks["restore"]["hint"]
    assert jobd("restore", "copy.db").code == 0
    assert rows(jobd("list"))[0]["status"] == "queued"
    assert not (filled / "jobs.db.restoring").exists()


# -- migrate ----------------------------------------------------------------------------------------------------------


def test_a_version_0_file_is_changed_only_by_migrate(jobd, version0):
    before = (version0 / "jobs.db").read_bytes()
    for typed in (["list"], ["submit", "work", "a"], ["doctor"], ["recover"]):
        answer = jobd(*typed)
        assert answer.code == 6
        assert "it is a version 0 file, from before jobd" in answer.err
        assert f"hint: jobd --db {version0 / 'jobs.db'} migrate --check-only" in answer.err
    answer = jobd("migrate", "--check-only")
    assert answer.code == 10
    assert rows(answer) == [{
        "from_version": "0", "to_version": "1", "what": "jobs and results of a version 0 file become jobd's",
        "jobs": "1", "results": "2", "superseded": "1", "undated": "0", "watched": "",
    }]  # fmt: skip
    assert "Nothing was changed. Do it: jobd migrate" in answer.err
    assert (version0 / "jobs.db").read_bytes() == before
    assert {path.name for path in version0.iterdir()} == {"jobs.db"}

    answer = jobd("migrate", "--json")
    assert answer.code == 0
    record = json.loads(answer.out)
    assert (record["check_only"], record["from_version"], record["to_version"]) == (False, 0, 1)
    assert record["steps"][0]["counts"] == {"jobs": 1, "results": 2, "superseded": 1, "undated": 0}
    assert f"the file from before is kept as {record['backup']}" in answer.err
    assert jobd("doctor").code == 0
    found = rows(jobd("results", "analysis", "--key", "TCS.NS"))
    assert [json.loads(row["value"])["score"] for row in found] == [2.0, 1.0]
    assert json.loads(jobd("show", "=abc", "--json").out)["status"] == "completed"

    answer = jobd("migrate")
    assert (answer.code, answer.out.count("\n")) == (0, 1)
    assert "nothing to migrate" in answer.err


def test_on_a_terminal_a_migration_says_what_it_would_keep_no_period_for(version0):
    code, said = in_terminal(["migrate", "--check-only"], version0, JOBD_DB=str(version0 / "jobs.db"))
    assert code == 10
    assert "jobs and results of a version 0 file become jobd's" in said
    assert "  2 results" in said
    assert "  1 of them older than another of their key and day: they keep no period" in said


def test_a_file_of_an_older_jobd_is_brought_up_when_it_is_opened_and_never_by_doctor(jobd, filled, monkeypatch):
    from jobd.store import file, migrations, sqlite

    def add(connection, now, watch):
        connection.execute("alter table passes add column note text")
        return {}

    for module in (file, migrations, sqlite):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(migrations.migrate, "__kwdefaults__", {
        **migrations.migrate.__kwdefaults__, "migrations": (migrations.Migration(1, 2, "a note", add),)
    })  # fmt: skip
    monkeypatch.setattr(migrations.preview, "__kwdefaults__", {
        **migrations.preview.__kwdefaults__, "migrations": (migrations.Migration(1, 2, "a note", add),)
    })  # fmt: skip
    answer = jobd("doctor")
    assert (answer.code, answer.out) == (6, "")
    assert answer.err.splitlines()[0].endswith("it has schema 1, this jobd 2")
    assert "hint: jobd migrate" in answer.err
    assert jobd("backup", "copy.db").code == 0
    assert not list(filled.glob("*.schema-1*"))
    claim = lock.Lock(str(filled / "jobs.db"))
    claim.acquire(lock.Owner(os.getpid(), "here", 0))
    assert jobd("list").code == 7
    claim.release()
    assert len(rows(jobd("list"))) == 1
    (kept,) = filled.glob("*.schema-1*")
    connection = sqlite3.connect(kept)
    assert connection.execute("select count(*) from jobs").fetchone() == (1,)
    connection.close()
