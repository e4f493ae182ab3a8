"""doctor: what it says of a sound file, of a broken one and of none; and that it changes nothing."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from pathlib import Path

import pytest

from jobd.errors import NotFound, StoreUnusable
from jobd.maintenance import doctor
from jobd.maintenance.doctor import examine, file_system
from jobd.store.invariants import invariants
from jobd.store.sqlite import SqliteStore

NOW = 1_795_305_600_000


@pytest.fixture
def fixed_sqlite(monkeypatch):
    """A SQLite without the WAL-reset race, whatever this Python came with."""
    monkeypatch.setattr(doctor.sqlite3, "sqlite_version_info", (3, 51, 3))


def look(store, **how):
    found = examine(store, **{"lock_holder": None, "now": NOW, **how})
    return found, {check.name: check for check in found.checks}


def spoil(store, statement):
    connection = store.connection()
    connection.execute("pragma foreign_keys=off")
    connection.execute(statement)


JOB = "insert into jobs (task, status_updated_at, created_at, sealed_at, version) values ('t', 0, {at}, 0, {version})"


@pytest.mark.usefixtures("fixed_sqlite")
def test_a_new_file_is_well_in_every_line(store):
    found, checks = look(store)
    assert [check for check in found.checks if check.level != "ok"] == []
    assert found.exit_code == 0
    assert {invariant.name for invariant in invariants()} < set(checks)


def test_the_versions_the_driver_and_the_file_are_named(store):
    _, checks = look(store)
    assert sqlite3.sqlite_version in checks["sqlite"].text
    assert "driver sqlite3 of the standard library" in checks["sqlite"].text
    assert checks["schema"].text == "version 1, application id 0x6a6f6264"
    assert checks["file"].text == store.path
    assert re.fullmatch(r"[0-9]+\.[0-9] MB", checks["size"].text)
    assert checks["journal_mode"].text == "wal"
    assert checks["durability"].text.startswith("normal: ")


def test_full_durability_is_said_with_what_it_promises(tmp_path):
    store = SqliteStore(tmp_path / "full.db", durability="full")
    store.open()
    assert look(store)[1]["durability"].text == "full: a commit survives a power cut"
    store.close()


@pytest.mark.parametrize(("version", "level"), [((3, 51, 2), "warning"), ((3, 51, 3), None), ((3, 40, 1), "warning")])
def test_a_sqlite_with_the_wal_reset_race_is_a_warning_in_one_sentence(store, monkeypatch, version, level):
    monkeypatch.setattr(doctor.sqlite3, "sqlite_version_info", version)
    found, checks = look(store)
    if level is None:
        assert "wal_reset" not in checks
    else:
        assert checks["wal_reset"].level == level
        assert "two PASSIVE checkpointers can corrupt a file; jobd never runs them" in checks["wal_reset"].text
    assert found.exit_code == 0


@pytest.mark.parametrize(("holder", "text"), [
    (None, "free: no daemon is running"), ("pid 24052 on this machine", "held by pid 24052 on this machine"),
])  # fmt: skip
def test_the_lock_and_its_holder_are_said(store, holder, text):
    assert look(store, lock_holder=holder)[1]["lock"].text == text


def test_a_broken_rule_is_broken_with_the_row_and_leaves_1(store):
    spoil(store, JOB.format(at=NOW, version=1))
    found, checks = look(store)
    assert checks["job_version"].level == "broken"
    assert checks["job_version"].text.startswith("job 1 queued at version 1, its 0 events end in nothing")
    assert checks["job_version"].hint
    assert found.exit_code == 1
    assert checks["counters"].level == "ok"


def test_of_many_rows_three_are_shown_and_the_rest_is_counted(store):
    for _ in range(5):
        spoil(store, JOB.format(at=NOW, version=1))
    text = look(store)[1]["job_version"].text
    assert text.count("queued at version 1") == 3
    assert "; and 2 more" in text
    for _ in range(100):
        spoil(store, JOB.format(at=NOW, version=1))
    assert "; and at least 97 more" in look(store)[1]["job_version"].text


def test_an_item_is_named_as_the_command_line_takes_it(store):
    spoil(store, JOB.format(at=NOW, version=0))
    spoil(store, "insert into job_items (job_id, key, payload, status) values (1, 'a', 'null', 'failed')")
    assert "1:#1 failed without an error" in look(store)[1]["error"].text


def test_a_missing_parent_hints_at_a_backup(store):
    spoil(store, "insert into result_data (item_id, attempt, data) values (99, 1, x'00')")
    check = look(store)[1]["foreign_keys"]
    assert (check.level, check.hint) == ("broken", "jobd restore BACKUP")
    assert "row 99 of result_data refers to a missing row of job_items" in check.text


def test_a_job_from_the_future_is_a_warning_of_the_clock(store):
    spoil(store, JOB.format(at=NOW + 5_000, version=0))
    assert look(store)[1]["clock"].level == "warning"
    assert "clock" not in look(store, now=NOW + 5_000)[1]


def test_a_file_that_others_may_read_is_a_warning(store, tmp_path):
    (tmp_path / "jobs.db").chmod(0o644)
    check = look(store)[1]["mode"]
    assert (check.level, check.hint) == ("warning", f"chmod 600 {store.path}")
    assert "644" in check.text


def test_a_log_that_nobody_empties_is_a_warning(store, monkeypatch):
    monkeypatch.setattr(store, "wal_bytes", lambda: 17 * 1024 * 1024)
    check = look(store)[1]["wal"]
    assert (check.level, check.text) == ("warning", "17.8 MB")
    assert check.hint


def test_no_file_is_not_found_and_none_is_made(tmp_path):
    with pytest.raises(NotFound):
        look(SqliteStore(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 100, b"\0" * 4096])
def test_an_unusable_file_raises_and_keeps_every_byte(tmp_path, content):
    path = tmp_path / "garbage.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnusable) as error:
        look(SqliteStore(path))
    assert error.value.exit_code == 6
    assert path.read_bytes() == content


def test_a_damaged_page_is_unusable_or_broken_but_never_well(tmp_path):
    path = tmp_path / "damaged.db"
    store = SqliteStore(path)
    store.open()
    for _ in range(200):
        spoil(store, JOB.format(at=NOW, version=0))
    store.connection().execute("pragma wal_checkpoint(truncate)")
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 2 + 64] = b"\xff" * 64
    path.write_bytes(content)
    damaged = SqliteStore(path)
    assert what_it_leaves_with(damaged) in {1, 6}
    damaged.close()


def what_it_leaves_with(store):
    try:
        return look(store)[0].exit_code
    except StoreUnusable as error:
        return error.exit_code


def test_doctor_changes_nothing(store):
    connection = store.connection()
    before = connection.total_changes, store.version(), store.wal_bytes()
    look(store)
    assert (connection.total_changes, store.version(), store.wal_bytes()) == before
    assert not connection.in_transaction


def test_a_quick_look_is_quicker_by_the_indexes(store):
    seen = []
    store.connection().set_trace_callback(seen.append)
    look(store, quick=True)
    assert "pragma quick_check(100)" in seen
    assert "pragma integrity_check(100)" not in seen


def test_json_holds_every_check_and_the_sum(store):
    spoil(store, JOB.format(at=NOW, version=1))
    found, _ = look(store)
    report = json.loads(json.dumps(found.json()))
    assert (report["ok"], report["broken"]) == (False, 1)
    assert [check["name"] for check in report["checks"]] == [check.name for check in found.checks]
    assert set(report["checks"][0]) == {"name", "level", "text", "hint"}


def test_a_half_copy_beside_the_file_is_a_warning(store):
    half = Path(f"{store.path}.schema-0.abcdefgh.jobd-partial")
    half.touch()
    check = look(store)[1]["partial"]
    assert (check.level, str(half) in check.text) == ("warning", True)
    assert "the same backup again" in check.hint
    half.unlink()
    assert "partial" not in look(store)[1]


def test_a_half_copy_that_no_later_migration_removes_is_told_how_to(store):
    half = Path(f"{store.path}.schema-0-20260101T000000Z.abcdefgh.jobd-partial")
    half.touch()
    assert look(store)[1]["partial"].hint == f"rm {shlex.quote(str(half))}"


# -- mounts -----------------------------------------------------------------------------------------------------------

MOUNTS = r"""22 1 0:20 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /data rw,relatime shared:1 - xfs /dev/vdb rw
24 23 0:22 / /data/my\040share rw - nfs4 server:/x rw
25 22 0:23 / /tmp rw - tmpfs tmpfs rw
26 22 0:24 / /tmp rw - overlay overlay rw
"""


@pytest.mark.parametrize(("path", "kind"), [
    ("/home/jobs.db", "ext4"), ("/data/jobs.db", "xfs"), ("/database/jobs.db", "ext4"),
    ("/data/my share/jobs.db", "nfs4"), ("/tmp/jobs.db", "overlay"), ("/data", "xfs"),
])  # fmt: skip
def test_a_path_lies_on_the_longest_mount_and_the_last_of_two(tmp_path, path, kind):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert file_system(path, tmp_path / "mountinfo") == kind


def test_where_no_table_of_mounts_is_the_file_system_is_unknown(store, tmp_path, monkeypatch):
    assert file_system("/x", tmp_path / "none") is None
    monkeypatch.setattr(doctor, "file_system", lambda _: None)
    assert look(store)[1]["file_system"] == ("file_system", "ok", "unknown", None)


def test_a_network_file_system_is_a_warning(store, monkeypatch):
    monkeypatch.setattr(doctor, "file_system", lambda _: "nfs4")
    check = look(store)[1]["file_system"]
    assert (check.level, check.text) == ("warning", "nfs4: locks may not hold")
