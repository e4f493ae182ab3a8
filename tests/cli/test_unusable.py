"""A file that cannot be used: every verb says so on one line, leaves with 6, and changes not one byte of it."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import sys

import pytest
from kit import forked

from jobd import Jobd
from jobd.store import base, sqlite
from jobd.store.schema import SCHEMA_VERSION

PROGRAM = "def work(n):\n    return n\n"
TARGET = "./program.py:work"
VERBS = (
    ["list"], ["show", "1"], ["items", "1"], ["item", "1:1"], ["errors", "1"], ["results", "1"], ["history", "1"],
    ["logs", "1:1"], ["watch", "1"], ["wait", "1"], ["health"], ["stats"], ["doctor"], ["submit", TARGET, "a"],
    ["run", TARGET, "a"], ["start"], ["cancel", "1"], ["pause", "1"], ["unpause", "1"], ["retry", "1"],
    ["resume", "1"], ["fail", "1", "--reason", "no"], ["delete", "1"], ["deliver", "1:1", "1"], ["recover"],
    ["time-out"], ["reconcile"], ["prune"], ["backup", "copy.db"], ["schedule", "list"], ["watchlist", "list"],
    ["migrate"],
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A file with jobs, and what it and its log were when its programs were killed: (whole, crashed)."""
    folder = tmp_path_factory.mktemp("original")
    app = Jobd(folder / "jobs.db")
    app.task(lambda n: n, name="work")
    app.submit("work", range(400))
    app.drain()
    app.submit("work", range(400))
    crashed = folder / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"jobs.db{suffix}", crashed / f"jobs.db{suffix}")
    app.close()
    return folder / "jobs.db", crashed / "jobs.db"


def cut(path, _):
    os.truncate(path, path.stat().st_size // 2)


def garbage(path, _):
    path.write_bytes(b"garbage" * 5_000)


def scrap(path, _):
    path.write_bytes(b"S")


def flipped_header(path, _):
    overwrite(path, 0, b"X")


def flipped_schema(path, _):
    overwrite(path, 100, b"\xff" * 8)


def emptied_beside_its_log(path, crashed):
    path.write_bytes(b"")
    shutil.copy(f"{crashed}-wal", f"{path}-wal")


def of_another_application(path, _):
    path.unlink()
    execute(path, "create table theirs (x)")


def of_a_newer_schema(path, _):
    execute(path, f"pragma user_version = {SCHEMA_VERSION + 1}")


# What was done to the file, what is said of it, and what mends it.
DAMAGES = [
    (cut, "the file is (truncated|damaged)", "restore BACKUP"),
    (garbage, "the file is not a database", "restore BACKUP"),
    (scrap, "the file is not a database", "restore BACKUP"),
    (flipped_header, "the file is not a database", "restore BACKUP"),
    (flipped_schema, "the file is damaged", "restore BACKUP"),
    (emptied_beside_its_log, "the file is empty but its -wal is not", "restore BACKUP"),
    (of_another_application, "it is the database of another application", "ANOTHER_FILE"),
    (of_a_newer_schema, f"it has schema {SCHEMA_VERSION + 1}", "upgrade"),
]


def overwrite(path, at, content):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def execute(path, statement):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(statement)
    connection.close()


def bytes_of(folder):
    # Whoever only reads a file with a log must build its index, and who runs a pass makes an empty file for the lock.
    content = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.suffix != ".db-shm"}
    return {name: found for name, found in content.items() if found}


@pytest.mark.parametrize(("damage", "what", "mended"), DAMAGES, ids=[damage.__name__ for damage, *_ in DAMAGES])
def test_every_verb_refuses_it_on_one_line_and_changes_no_byte(jobd, place, original, damage, what, mended):
    whole, crashed = original
    shutil.copy(whole, place / "jobs.db")
    (place / "program.py").write_text(PROGRAM)
    damage(place / "jobs.db", crashed)
    before = bytes_of(place)
    for verb in VERBS:
        code, out, err = jobd(*verb)
        assert (verb, code, out) == (verb, 6, ""), err
        # Before it opens the file, a daemon says what it is about to do.
        *_, said, mends = err.splitlines()
        assert re.match(f"error: {re.escape(str(place / 'jobs.db'))}: {what}", said), (verb, err)
        assert re.match(f"  hint: .*{mended}", mends), (verb, err)
        assert verb == ["start"] or len(err.splitlines()) == 2, (verb, err)
        assert bytes_of(place) == before, verb


# What a flipped bit can make of a row, as SQL that no statement of jobd's would be.
FLIPS = [
    "update jobs set created_at = 'soon'",
    "update jobs set policy = '{'",
    "update jobs set submitter = '{'",
    "update job_items set payload = '{'",
    "update job_items set progress = '{', started_at = x'00'",
    "update results set value = '{'",
    "update job_events set at = 'soon'",
    "update daemons set state = '{', tasks = '7'",
    "insert into passes (name, report, finished_at) values ('prune', '{', 'soon')",
    "pragma writable_schema = on; update sqlite_master set sql = replace(sql, 'created_at', 'creatid_at')",
]
LOOKS = [verb for verb in VERBS if verb[0] in {
    "list", "show", "items", "item", "errors", "results", "history", "logs", "health", "stats", "schedule", "watchlist",
}] + [[*verb, "--check-only"] for verb in (["recover"], ["reconcile"], ["prune"], ["time-out"])]  # fmt: skip


def looks_at(jobd, place, *verbs):
    """Return the exit codes of verbs, none of which met anything that it had not foreseen, or changed a byte."""
    before, codes = bytes_of(place), set()
    for verb in verbs:
        code, _, err = jobd(*verb)
        assert "unexpected" not in err, (verb, err)
        assert ("error: " in err) == (code in {3, 6}), (verb, code, err)
        assert len(err.splitlines()) < 4, (verb, err)
        assert bytes_of(place) == before, verb
        codes.add(code)
    return codes


@pytest.mark.parametrize("flip", FLIPS)
def test_a_row_that_is_none_is_a_damaged_file_to_who_stumbles_over_it_and_to_doctor(jobd, place, original, flip):
    shutil.copy(original[0], place / "jobs.db")
    execute(place / "jobs.db", f"pragma ignore_check_constraints = on; {flip}")
    assert looks_at(jobd, place, *LOOKS) <= {0, 1, 3, 6}
    assert looks_at(jobd, place, ["doctor"]) <= {1, 6}


def test_text_that_is_none_is_a_damaged_file(jobd, place, original):
    shutil.copy(original[0], place / "jobs.db")
    execute(place / "jobs.db", "update jobs set key = cast(x'c328' as text) where id = 1")
    assert looks_at(jobd, place, ["list"], ["show", "1"]) == {6}


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_surprise_no_verb(jobd, place, original, seed):
    content, chance = bytearray(original[0].read_bytes()), random.Random(seed)
    for _ in range(20):
        content[chance.randrange(100, len(content))] ^= 1 << chance.randrange(8)
    (place / "jobs.db").write_bytes(content)
    assert looks_at(jobd, place, *LOOKS, ["doctor"]) <= {0, 1, 3, 6}


# -- locked elsewhere, and not ours to write ---------------------------------------------------------------------------


def test_while_the_lock_is_held_elsewhere_who_looks_looks_and_others_leave_with_5_and_one_line(
    jobd, place, original, monkeypatch
):
    shutil.copy(original[0], place / "jobs.db")
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 10)
    monkeypatch.setattr(base.time, "sleep", lambda _: None)
    holder = sqlite3.connect(place / "jobs.db", isolation_level=None)
    holder.execute("begin exclusive")
    assert looks_at(jobd, place, *LOOKS) <= {0, 1, 3, 10}
    for verb in (["cancel", "2"], ["submit", "./program.py:work", "a"], ["fail", "2", "--reason", "no"], ["start"]):
        (place / "program.py").write_text(PROGRAM)
        code, _, err = jobd(*verb)
        assert (verb, code) == (verb, 5), err
        *_, said, mends = err.splitlines()
        assert said == f"error: {place / 'jobs.db'}: locked"
        assert mends.startswith("  hint: try again")
    holder.execute("rollback")
    holder.close()
    assert jobd("cancel", "2").code == 0


ANOTHER_USER = """
import io, os, sys
from jobd import cli

def call(database):
    os.environ["JOBD_DB"] = database
    for verb in verbs:
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        code = cli.call(verb.split())
        errors = [line for line in sys.stderr.getvalue().splitlines() if line.startswith("error: ")]
        print(code, *[line.replace(database, "DATABASE").partition(" (")[0] for line in errors], file=out)

out, (theirs, damaged, *verbs) = sys.stdout, sys.argv[1:]
# All that they need is imported before: root's own Python may be closed to others.
call(damaged)
from jobd.store import fall, pausing, removal, steer
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
call(theirs)
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o666, 0o555)])
def test_who_may_not_write_the_file_or_its_folder_is_told_so(anybodys, original, file_mode, folder_mode):
    folder = anybodys / "theirs"
    folder.mkdir()
    shutil.copy(original[0], folder / "jobs.db")
    (folder / "jobs.db").chmod(file_mode)
    folder.chmod(folder_mode)
    (anybodys / "damaged.db").write_bytes(b"garbage" * 1_000)
    before = bytes_of(folder)
    argv = [folder / "jobs.db", anybodys / "damaged.db", "cancel 2", "pause 2", "fail 2 --reason no", "delete 1"]
    answer = forked.run([sys.executable, "-c", ANOTHER_USER, *argv], capture_output=True, text=True)
    assert answer.stdout.splitlines()[4:] == ["6 error: DATABASE: the file or its folder is read-only"] * 4
    assert bytes_of(folder) == before
