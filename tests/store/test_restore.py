"""A restore: at every instant the old file or the new one, whole; and nothing of the old one lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import stat
import sys
import textwrap

import pytest
from kit import forked

from jobd.engine import points
from jobd.errors import NotFound, StoreBusy, StoreUnusable, UsageError
from jobd.store import alone, copies
from jobd.store.backup import backup
from jobd.store.invariants import check
from jobd.store.restore import restore
from jobd.store.sqlite import SqliteStore

NOW = 1_795_305_600_000
STEPS = [name for name in points.NAMES if name.startswith("restore.")]
KEPT = "jobs.db.replaced-20261122T000000Z"


def mark(store, name):
    store.write(lambda connection: connection.execute("insert into passes (name) values (?)", (name,)))


def marks(path):
    """Return which marks a file holds, and that it is true; the look leaves no log."""
    store = SqliteStore(path)
    try:
        store.open(create=False)
        assert check(store) == []
        return [row[0] for row in store.read(lambda c: c.execute("select name from passes order by name").fetchall())]
    finally:
        store.close()


def files(folder, *without):
    return {path.name for path in folder.iterdir()} - {"backup.db", *without}


def content(folder):
    # Whoever only reads a file with a log must build its index; it says nothing that the log does not say.
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"}


@pytest.fixture
def folder(store, tmp_path):
    """A database marked old, and a backup of it that was marked new and then taken."""
    mark(store, "new")
    backup(store.path, str(tmp_path / "backup.db"))
    store.write(lambda connection: connection.execute("update passes set name='old'"))
    store.close()
    return tmp_path


def put_back(folder, **how):
    return restore(str(folder / "jobs.db"), str(folder / "backup.db"), now=NOW, at=how.pop("at", str), **how)


def test_the_backup_takes_the_place_and_the_old_file_is_kept(folder):
    made = put_back(folder)
    assert made.json() == {
        "database": str(folder / "jobs.db"), "backup": str(folder / "backup.db"), "kept": str(folder / KEPT),
        "bytes": (folder / "jobs.db").stat().st_size, "schema": 1, "broken": [],
    }  # fmt: skip
    assert files(folder) == {"jobs.db", KEPT}
    assert stat.S_IMODE((folder / "jobs.db").stat().st_mode) == 0o600
    assert marks(folder / "jobs.db") == ["new"]
    assert marks(folder / KEPT) == ["old"]


def test_the_backup_itself_is_not_touched(folder):
    before = (folder / "backup.db").read_bytes()
    put_back(folder)
    assert (folder / "backup.db").read_bytes() == before
    assert not (folder / "backup.db-wal").exists()


def test_a_missing_database_is_made_of_the_backup(folder):
    (folder / "jobs.db").unlink()
    made = put_back(folder)
    assert made.kept is None
    assert files(folder) == {"jobs.db"}
    assert marks(folder / "jobs.db") == ["new"]


def test_a_second_restore_keeps_both_old_files(folder):
    put_back(folder)
    put_back(folder)
    assert files(folder) == {"jobs.db", KEPT, f"{KEPT}-2"}
    assert marks(folder / KEPT) == ["old"]


def test_each_step_is_told_in_its_order(folder):
    told = []
    put_back(folder, at=told.append)
    assert told == STEPS


def test_what_is_only_in_the_log_of_the_old_file_is_kept_with_it(folder):
    """A daemon that was killed leaves its log; the old file without it would not be the old file."""
    killed_writer(folder, "in the log")
    assert (folder / "jobs.db-wal").stat().st_size > 0
    put_back(folder)
    assert files(folder) == {"jobs.db", KEPT}
    assert marks(folder / KEPT) == ["in the log", "old"]
    assert marks(folder / "jobs.db") == ["new"]


def killed_writer(folder, name):
    program = """
        import os, signal, sys
        from jobd.store.sqlite import SqliteStore
        store = SqliteStore(sys.argv[1])
        store.write(lambda c: c.execute("insert into passes (name) values (?)", (sys.argv[2],)))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(program), folder / "jobs.db", name], check=False, timeout=60
    )
    assert child.returncode == -signal.SIGKILL


# -- a damaged database -------------------------------------------------------------------------------------------


def garbage(path):
    path.write_bytes(os.urandom(8192))


def cut_short(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)


def tiny(path):
    path.write_bytes(b"x")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [garbage, cut_short, tiny, empty])
@pytest.mark.parametrize("logged", [False, True])
def test_a_damaged_database_is_replaced_and_kept_byte_for_byte(folder, spoil, logged):
    if logged:
        killed_writer(folder, "x")
    spoil(folder / "jobs.db")
    before = content(folder)
    made = put_back(folder)
    assert made.kept == str(folder / KEPT)
    assert marks(folder / "jobs.db") == ["new"]
    assert (folder / KEPT).read_bytes() == before["jobs.db"]
    assert files(folder) == {"jobs.db", KEPT} | ({f"{KEPT}-wal"} if logged else set())
    if logged:
        assert (folder / f"{KEPT}-wal").read_bytes() == before["jobs.db-wal"]


def test_the_log_of_a_damaged_file_never_meets_the_new_one(folder):
    """SQLite replays a log by its name alone: with the old one beside it the new file would be half the old."""
    killed_writer(folder, "x")
    garbage(folder / "jobs.db")
    seen = {}

    def at(step):
        seen[step] = (folder / "jobs.db-wal").exists()

    put_back(folder, at=at)
    assert seen == {"restore.copied": True, "restore.kept": True, "restore.cleared": False, "restore.replaced": False}


# -- refused, and nothing changed ---------------------------------------------------------------------------------


def another_applications(path):
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("create table mine (x)")
    other.close()


def newer(path):
    other = sqlite3.connect(path)
    other.execute("pragma user_version=99")
    other.close()


def without_tables(path):
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("pragma application_id=0x6A6F6264")
    other.execute("vacuum")
    other.close()


def holed(path):
    connection = sqlite3.connect(path)
    size = connection.execute("pragma page_size").fetchone()[0]
    root = connection.execute("select rootpage from sqlite_master where name='passes'").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (garbage, "not a database"),
        (cut_short, "truncated|damaged"),
        (tiny, "not a database"),
        (empty, "the file is empty"),
        (holed, "damaged"),
        (another_applications, "another application"),
        (newer, "schema 99, this jobd knows 1"),
        (without_tables, "there are no tables in it"),
    ],
)
def test_a_backup_that_cannot_be_one_is_refused_and_nothing_changes(folder, spoil, why):
    spoil(folder / "backup.db")
    for leftover in ("-wal", "-shm"):
        (folder / f"backup.db{leftover}").unlink(missing_ok=True)
    before = content(folder)
    with pytest.raises(StoreUnusable, match=why) as refusal:
        put_back(folder)
    assert refusal.value.exit_code == 6
    assert "backup.db" in str(refusal.value)
    assert "restore" not in (refusal.value.hint or "")
    assert content(folder) == before


def test_a_backup_left_in_the_middle_of_a_change_is_refused(folder):
    (folder / "backup.db-journal").write_bytes(b"x")
    before = content(folder)
    with pytest.raises(StoreUnusable, match="in the middle of a change"):
        put_back(folder)
    assert content(folder) == before


def test_a_missing_backup_is_not_found(folder):
    (folder / "backup.db").unlink()
    with pytest.raises(NotFound, match="there is no file at"):
        put_back(folder)


def test_the_database_itself_is_no_backup(folder):
    os.link(folder / "jobs.db", folder / "other.db")
    for name in ("jobs.db", "other.db"):
        with pytest.raises(UsageError, match="is the database itself"):
            restore(str(folder / "jobs.db"), str(folder / name), now=NOW, at=str)


def test_another_applications_database_is_not_replaced(folder):
    another_applications(folder / "jobs.db")
    before = content(folder)
    with pytest.raises(StoreUnusable, match=r"jobs\.db: it is the database of another application"):
        put_back(folder)
    assert content(folder) == before


def test_a_database_of_a_newer_schema_is_replaced_and_kept(folder):
    newer(folder / "jobs.db")
    put_back(folder)
    assert marks(folder / "jobs.db") == ["new"]


def test_a_backup_with_its_log_beside_it_is_read_with_it(folder):
    """What somebody copied by hand from a database whose daemon was killed."""
    killed_writer(folder, "in the log")
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"jobs.db{suffix}", folder / f"backup.db{suffix}")
    put_back(folder)
    assert marks(folder / "jobs.db") == ["in the log", "old"]


def test_a_broken_rule_is_told_and_not_refused(folder):
    other = sqlite3.connect(folder / "backup.db")
    other.execute("insert into jobs (task, status_updated_at, created_at, sealed_at, version) values ('t', 0, 0, 0, 3)")
    other.commit()
    other.close()
    made = put_back(folder)
    assert {violation.name for violation in made.broken} == {"job_version"}


# -- somebody has it open -----------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(alone, "_PATIENCE", 0.1)
    monkeypatch.setattr(alone.closed.__wrapped__, "__kwdefaults__", {"patience": 0.1})


@pytest.mark.usefixtures("impatient")
def test_a_database_that_another_program_has_open_is_left_alone_and_the_program_is_named(folder):
    program = """
        import sys
        from jobd.store.sqlite import SqliteStore
        store = SqliteStore(sys.argv[1])
        store.read(lambda c: c.execute("select 1 from passes").fetchall())
        print("open", flush=True)
        sys.stdin.readline()
        store.write(lambda c: c.execute("insert into passes (name) values ('later')"))
    """
    with forked.Popen(
        [sys.executable, "-c", textwrap.dedent(program), folder / "jobs.db"],
        stdin=forked.PIPE, stdout=forked.PIPE, text=True,
    ) as child:  # fmt: skip
        try:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(StoreBusy, match="is open in another program") as refusal:
                put_back(folder)
            if sys.platform == "linux":
                assert f"pid {child.pid}" in str(refusal.value)
            assert refusal.value.exit_code == 5
            child.stdin.write("\n")
            child.stdin.close()
            assert child.wait(30) == 0
        finally:
            child.kill()
    assert files(folder) == {"jobs.db"}
    assert marks(folder / "jobs.db") == ["later", "old"]
    put_back(folder)
    assert marks(folder / KEPT) == ["later", "old"]


@pytest.mark.usefixtures("impatient")
def test_a_damaged_database_that_another_program_has_open_is_left_alone(folder):
    garbage(folder / "jobs.db")
    with (folder / "jobs.db").open("rb"), pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
        put_back(folder)
    assert files(folder) == {"jobs.db"}


def test_who_opens_the_file_while_it_is_replaced_gets_the_new_one(folder, monkeypatch):
    """Between the opening and the first look a connection holds nothing: only the file's identity tells."""
    store = SqliteStore(folder / "jobs.db")
    connect = sqlite3.connect
    opened = []

    def and_replace(name, **how):
        connection = connect(name, **how)
        if "cached_statements" in how:
            opened.append(connection)
            if len(opened) == 1:
                put_back(folder)
        return connection

    monkeypatch.setattr(sqlite3, "connect", and_replace)
    store.open()
    mark(store, "later")
    store.close()
    assert len(opened) == 2
    assert marks(folder / "jobs.db") == ["later", "new"]
    assert marks(folder / KEPT) == ["old"]


def test_another_thread_waits_for_the_moment_in_which_the_file_is_replaced(folder):
    seen = []

    def at(step):
        if step == "restore.kept":
            look = sqlite3.connect(folder / "jobs.db", timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                look.execute("select * from passes")
            look.close()
            seen.append(step)

    put_back(folder, at=at)
    assert seen


# -- errors on the way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["restore.copied", "restore.kept", "restore.cleared"])
@pytest.mark.parametrize("damaged", [False, True])
def test_an_error_at_any_step_leaves_everything_as_it_was(folder, step, damaged):
    if damaged:
        killed_writer(folder, "x")
        garbage(folder / "jobs.db")
        (folder / "jobs.db-shm").unlink(missing_ok=True)
    before = content(folder)

    def at(name):
        if name == step:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StoreUnusable, match="Input/output error"):
        put_back(folder, at=at)
    if damaged:
        assert content(folder) == before
    else:
        assert files(folder) == {"jobs.db"}
        assert marks(folder / "jobs.db") == ["old"]
    put_back(folder)
    assert marks(folder / "jobs.db") == ["new"]


def test_where_files_have_no_second_names_the_old_one_is_renamed(folder, monkeypatch):
    def link(source, target):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(copies.os, "link", link)
    put_back(folder)
    assert files(folder) == {"jobs.db", KEPT}
    assert (marks(folder / "jobs.db"), marks(folder / KEPT)) == (["new"], ["old"])


# -- killed -------------------------------------------------------------------------------------------------------


def killed_at(folder, step, *, links=True):
    program = """
        import errno, os, sys
        from jobd.engine import points
        from jobd.store.restore import restore
        if sys.argv[5] == "no links":
            def link(source, target):
                raise OSError(errno.EOPNOTSUPP, "")
            os.link = link
        points.arm(sys.argv[3])
        restore(sys.argv[1], sys.argv[2], now=int(sys.argv[4]), at=points.reach)
    """
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(program), folder / "jobs.db", folder / "backup.db", step, str(NOW),
         "links" if links else "no links"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_old_or_the_new_file_is_there_and_the_same_again_goes_on(folder, step):
    killed_writer(folder, "in the log")
    killed_at(folder, step)
    new = step == "restore.replaced"
    assert marks(folder / "jobs.db") == (["new"] if new else ["in the log", "old"])
    put_back(folder)
    assert marks(folder / "jobs.db") == ["new"]
    kept = [path for path in folder.iterdir() if path.name.startswith(KEPT)]
    assert any(marks(path) == ["in the log", "old"] for path in kept)
    assert not (folder / "jobs.db.restoring").exists()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_a_damaged_file_is_kept_whole(folder, step):
    killed_writer(folder, "x")
    garbage(folder / "jobs.db")
    before = content(folder)
    killed_at(folder, step)
    after = content(folder)
    kept = KEPT if step != "restore.copied" else "jobs.db"
    assert (after[kept], after[f"{kept}-wal"]) == (before["jobs.db"], before["jobs.db-wal"])
    put_back(folder)
    assert marks(folder / "jobs.db") == ["new"]


@pytest.mark.parametrize("links", [False, True])
def test_killed_while_there_is_no_file_nobody_makes_a_new_one_in_its_place(folder, links):
    if links:
        (folder / "jobs.db").unlink()
    killed_at(folder, "restore.kept", links=links)
    assert not (folder / "jobs.db").exists()
    with pytest.raises(StoreUnusable, match="a restore has not ended") as refusal:
        SqliteStore(folder / "jobs.db").open()
    assert refusal.value.hint.startswith("jobd restore BACKUP, the same again")
    assert not (folder / "jobs.db").exists()
    put_back(folder)
    assert marks(folder / "jobs.db") == ["new"]
