"""A backup: whole, of one moment, while others write; or not there at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import sqlite3
import stat
import sys
import textwrap
import threading

import pytest
from kit import forked

from jobd.errors import Conflict, NotFound, StoreBusy, StoreUnusable, UsageError
from jobd.store import copies, partial
from jobd.store.backup import backup
from jobd.store.invariants import check
from jobd.store.sqlite import SqliteStore


@pytest.fixture(scope="module")
def filled(shared, tmp_path_factory):
    """A folder with a file of some megabytes, most of them in the log."""
    store, rows = shared
    rows.job(["completed"] * 2_000)
    rows.change("update job_items set error=?", "x" * 2_000)
    rows.change("insert into results (item_id, attempt, task, key, value, created_at)"
                " select id, 1, 'work', key, '1', 0 from job_items")  # fmt: skip
    folder = tmp_path_factory.mktemp("filled")
    for suffix in ("", "-wal"):
        shutil.copy(f"{store.path}{suffix}", folder / f"jobs.db{suffix}")
    assert (folder / "jobs.db-wal").stat().st_size > 4_000_000
    return folder


@pytest.fixture
def store(filled, path):
    store = SqliteStore(path)
    for file in filled.iterdir():
        shutil.copy(file, path.parent)
    store.open()
    yield store
    store.close()


@pytest.fixture
def full(store):
    return store


def names(folder):
    return {path.name for path in folder.iterdir()} - {"jobs.db", "jobs.db-wal", "jobs.db-shm"}


def rows_of(path, sql="select id, key, status from job_items order by id"):
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_copy_holds_what_was_committed_and_is_for_its_owner_alone(full, tmp_path):
    old = os.umask(0)
    try:
        made = backup(full.path, str(tmp_path / "copy.db"))
    finally:
        os.umask(old)
    assert names(tmp_path) == {"copy.db"}
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert made.json() == {
        "database": full.path, "path": str(tmp_path / "copy.db"), "bytes": (tmp_path / "copy.db").stat().st_size,
        "schema": 1, "broken": [],
    }  # fmt: skip
    assert rows_of(tmp_path / "copy.db") == full.read(
        lambda connection: connection.execute("select id, key, status from job_items order by id").fetchall()
    )
    copied = SqliteStore(tmp_path / "copy.db")
    copied.open()
    assert check(copied) == []
    copied.close()


def test_a_copy_beside_busy_writers_is_of_one_moment_and_holds_none_of_them_up(full, tmp_path):
    """Each commit adds to two tables; a copy that mixed two moments would hold another number of each."""
    stop, begun, errors, written = threading.Event(), threading.Event(), [], []

    def pair(connection):
        for table in ("passes (name)", "watchlist (task, key)"):
            marks = "?, ?" if "," in table else "?"
            values = ("t", str(len(written))) if "," in table else (str(len(written)),)
            connection.execute(f"insert into {table} values ({marks})", values)

    def write():
        try:
            # An end of its own: were the copy to go on for ever, so would their log.
            while not stop.is_set() and len(written) < 20_000:
                full.write(pair)
                written.append(1)
                begun.set()
        except Exception as error:  # noqa: BLE001 - collected for the test
            errors.append(error)
        full.close()

    steps = []

    def watch(stage, reached, whole):
        steps.append((stage, len(written)))
        # Without a snapshot it would begin anew at each commit, for ever.
        assert len(steps) < 60

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(30)
    try:
        made = backup(full.path, str(tmp_path / "copy.db"), watch=watch)
    finally:
        stop.set()
        thread.join(30)
    assert errors == []
    assert made.broken == ()
    copying = [count for stage, count in steps if stage == "copying"]
    assert len(copying) > 1
    ((passes, watched),) = rows_of(
        tmp_path / "copy.db", "select (select count(*) from passes), (select count(*) from watchlist)"
    )
    assert passes == watched
    assert written[passes:], "somebody wrote after the moment of the copy"


def test_the_steps_go_on_in_one_snapshot_when_somebody_commits_between_them(full, tmp_path):
    """Without it SQLite begins anew at each commit: then what is left would never shrink."""
    left = []

    def watch(stage, reached, whole):
        if stage == "copying":
            full.write(lambda connection: connection.execute("insert into passes (name) values (?)", (str(len(left)),)))
            left.append(whole - reached)
            assert len(left) < 50

    backup(full.path, str(tmp_path / "copy.db"), watch=watch)
    assert left == sorted(left, reverse=True)
    assert len(left) > 1
    assert rows_of(tmp_path / "copy.db", "select count(*) from passes") == [(0,)]


# -- what is there already ----------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_refused_and_replaced_when_asked(full, tmp_path):
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(Conflict, match="there is a file at") as refusal:
        backup(full.path, str(tmp_path / "copy.db"))
    assert refusal.value.exit_code == 4
    assert (tmp_path / "copy.db").read_text() == "precious"
    backup(full.path, str(tmp_path / "copy.db"), force=True)
    assert len(rows_of(tmp_path / "copy.db")) == 2_000
    assert names(tmp_path) == {"copy.db"}


def test_a_file_that_comes_while_the_copy_is_made_is_not_overwritten(full, tmp_path):
    def watch(stage, reached, whole):
        (tmp_path / "copy.db").write_text("precious")

    with pytest.raises(Conflict):
        backup(full.path, str(tmp_path / "copy.db"), watch=watch)
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert names(tmp_path) == {"copy.db"}


def test_where_files_have_no_second_names_the_copy_is_renamed(full, tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(copies.os, "link", link)
    backup(full.path, str(tmp_path / "copy.db"))
    assert names(tmp_path) == {"copy.db"}
    assert len(rows_of(tmp_path / "copy.db")) == 2_000


@pytest.mark.parametrize("log", ["-wal", "-journal"])
@pytest.mark.parametrize("force", [False, True])
def test_the_name_of_a_database_in_use_is_refused(full, tmp_path, log, force):
    """SQLite would replay what is in that log into the copy."""
    if force:
        (tmp_path / "copy.db").write_text("precious")
    (tmp_path / f"copy.db{log}").touch()
    with pytest.raises(Conflict, match="a database is in use under that name"):
        backup(full.path, str(tmp_path / "copy.db"), force=force)
    assert names(tmp_path) == {f"copy.db{log}"} | ({"copy.db"} if force else set())


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".lock", ".rescue"])
def test_the_database_itself_and_what_belongs_to_it_are_refused(full, suffix):
    with pytest.raises(UsageError, match="belongs to the database itself"):
        backup(full.path, full.path + suffix, force=True)


def test_a_second_name_of_the_database_is_the_database(full, tmp_path):
    os.link(full.path, tmp_path / "other.db")
    (tmp_path / "link.db").symlink_to("jobs.db")
    for name in ("other.db", "link.db"):
        with pytest.raises(UsageError, match="belongs to the database itself"):
            backup(full.path, str(tmp_path / name), force=True)


def test_a_folder_and_a_missing_folder_are_refused(full, tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        backup(full.path, str(tmp_path), force=True)
    with pytest.raises(UsageError, match="there is no folder"):
        backup(full.path, str(tmp_path / "nowhere" / "copy.db"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Conflict):
        backup(full.path, str(tmp_path / "pipe"), force=True)


# -- what cannot be copied ----------------------------------------------------------------------------------------


def test_a_missing_database_is_not_found_and_nothing_is_made(tmp_path):
    with pytest.raises(NotFound):
        backup(str(tmp_path / "none.db"), str(tmp_path / "copy.db"))
    assert names(tmp_path) == set()


def test_another_applications_database_is_refused_and_nothing_is_made(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table mine (x)")
    other.close()
    with pytest.raises(StoreUnusable, match="another application"):
        backup(str(tmp_path / "other.db"), str(tmp_path / "copy.db"))
    assert names(tmp_path) == {"other.db"}


def damage(path, tables=("job_items",)):
    """Overwrite a page in the middle of a table."""
    connection = sqlite3.connect(path)
    size = connection.execute("pragma page_size").fetchone()[0]
    root = connection.execute("select rootpage from sqlite_master where name=?", tables).fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


def test_a_damaged_database_makes_no_backup(full, tmp_path):
    full.close()
    damage(tmp_path / "jobs.db")
    with pytest.raises(StoreUnusable, match=r"jobs\.db: the file is damaged") as refusal:
        backup(full.path, str(tmp_path / "copy.db"))
    assert refusal.value.exit_code == 6
    assert names(tmp_path) == set()


def test_a_broken_rule_is_told_and_the_copy_is_kept(full, rows, tmp_path):
    rows.change("update jobs set items_completed = items_completed - 1")
    made = backup(full.path, str(tmp_path / "copy.db"))
    assert [violation.name for violation in made.broken] == ["counters"]
    assert made.json()["broken"][0]["job_id"] == 1
    assert names(tmp_path) == {"copy.db"}


def test_what_ends_the_copy_or_the_check_leaves_nothing(full, tmp_path):
    for at in ("copying", "checking"):

        def watch(stage, reached, whole, at=at):
            if stage == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            backup(full.path, str(tmp_path / "copy.db"), watch=watch)
        assert names(tmp_path) == set()


def test_a_long_check_can_be_ended_in_the_middle_of_a_statement(full, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "_OPCODES", 100)
    seen = []

    def watch(stage, reached, whole):
        seen.append((stage, reached))
        if seen.count((stage, reached)) == 5 and stage == "checking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(full.path, str(tmp_path / "copy.db"), watch=watch)
    assert names(tmp_path) == set()


def test_a_full_disk_leaves_no_half_copy(full, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StoreBusy, match=r"copy\.db.*: (disk full|I/O error)") as refusal:
            backup(full.path, str(tmp_path / "copy.db"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert refusal.value.exit_code == 5
    assert names(tmp_path) == set()
    assert check(full) == []


@pytest.mark.parametrize(
    ("code", "error", "exit_code"),
    [(errno.ENOSPC, StoreBusy, 5), (errno.EDQUOT, StoreBusy, 5), (errno.EACCES, StoreUnusable, 6)],
)
def test_what_the_system_refuses_names_the_place(code, error, exit_code):
    with pytest.raises(error, match="/mnt/x") as refusal, copies.told("/mnt/x"):
        raise OSError(code, os.strerror(code))
    assert refusal.value.exit_code == exit_code


def test_a_copy_is_never_there_half_whenever_its_process_is_killed(full, tmp_path):
    program = """
        import os, signal, sys
        from jobd.store.backup import backup
        stage = sys.argv[3]
        def watch(now, reached, whole):
            if now == stage and reached:
                os.kill(os.getpid(), signal.SIGKILL)
        backup(sys.argv[1], sys.argv[2], watch=watch)
    """
    for stage in ("copying", "checking"):
        child = forked.run(
            [sys.executable, "-c", textwrap.dedent(program), full.path, str(tmp_path / "copy.db"), stage],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (child.returncode, child.stderr) == (-signal.SIGKILL, b"")
        assert not (tmp_path / "copy.db").exists()
        assert [name.endswith(".jobd-partial") for name in names(tmp_path)] == [True]
        assert partial.left(str(tmp_path)) == [str(tmp_path / name) for name in names(tmp_path)]
    backup(full.path, str(tmp_path / "copy.db"))
    assert names(tmp_path) == {"copy.db"}
    assert len(rows_of(tmp_path / "copy.db")) == 2_000


def test_what_was_left_of_another_target_and_what_is_no_half_copy_stay(full, tmp_path):
    others = {
        "copy.db2.abcdefgh.jobd-partial",
        "copy.db.jobd-partial",
        "copy.db.abcdefgh.jobd-partial.gz",
        "copy.db.abcdefghi.jobd-partial",
        "copy.db.download.partial",
    }
    for name in {*others, "copy.db.abcdefgh.jobd-partial"}:
        (tmp_path / name).touch()
    backup(full.path, str(tmp_path / "copy.db"))
    assert names(tmp_path) == {*others, "copy.db"}


@pytest.mark.parametrize("name", ["c" * 255, "ü" * 127, "c" * 226, "c" * 225])
def test_the_name_of_a_backup_may_be_as_long_as_any(full, tmp_path, name):
    target, seen = str(tmp_path / name), set()

    def killed(*_):
        (made,) = names(tmp_path)
        seen.add(re.sub(r"[a-z0-9_]{8}(\.jobd-partial)$", r"abcdefgh\1", made))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(full.path, target, watch=killed)
    (left,) = seen
    for stranger in (left, "stranger.partial"):
        (tmp_path / stranger).touch()
    backup(full.path, target)
    assert names(tmp_path) == {name, "stranger.partial"}


def test_a_name_that_is_too_long_for_any_file_is_refused_before_the_copy(full, tmp_path):
    with pytest.raises(UsageError, match="File name too long"):
        backup(full.path, str(tmp_path / ("c" * 256)))
    assert names(tmp_path) == set()


def test_a_copy_that_is_being_made_is_nobodys_left_one(full, tmp_path):
    target, seen = str(tmp_path / "copy.db"), []

    def watch(stage, reached, whole):
        if not seen:
            seen.append(partial.left(str(tmp_path)))
            backup(full.path, target)
            seen.append(names(tmp_path))

    backup(full.path, target, force=True, watch=watch)
    assert seen[0] == []
    assert len(seen[1]) == 2
    assert names(tmp_path) == {"copy.db"}


def test_a_folder_that_another_program_has_locked_keeps_no_backup_waiting(full, tmp_path, monkeypatch):
    """As `flock FOLDER jobd backup` does, so that two of them never meet."""
    tried = []
    monkeypatch.setattr(partial, "sleep", tried.append)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    (tmp_path / "copy.db.abcdefgh.jobd-partial").touch()
    backup(full.path, str(tmp_path / "copy.db"))
    assert (round(sum(tried), 3), names(tmp_path)) == (1.0, {"copy.db", "copy.db.abcdefgh.jobd-partial"})
    os.close(folder)


def test_names_beside_a_file_are_free_and_tell_when(tmp_path):
    now = 1_795_305_600_000
    first = copies.free_name(str(tmp_path / "jobs.db"), "replaced", now=now)
    assert first == str(tmp_path / "jobs.db.replaced-20261122T000000Z")
    (tmp_path / "jobs.db.replaced-20261122T000000Z-wal").touch()
    second = copies.free_name(str(tmp_path / "jobs.db"), "replaced", now=now)
    assert second == f"{first}-2"
    (tmp_path / "jobs.db.replaced-20261122T000000Z-2").touch()
    assert copies.free_name(str(tmp_path / "jobs.db"), "replaced", now=now) == f"{first}-3"
