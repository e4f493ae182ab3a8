"""Migrations: what a file of an older schema becomes, wherever the process is killed; and what is left alone."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import stat
import sys
import textwrap
import zlib

import pytest
from kit import forked

from jobd.engine import points
from jobd.errors import NotFound, StoreBusy, StoreUnusable
from jobd.store import alone, file, migrations, sqlite, version0_import
from jobd.store.attempt import load_data
from jobd.store.invariants import check
from jobd.store.migrations import MIGRATIONS, Migration, migrate, pending, preview
from jobd.store.schema import APPLICATION_ID, SCHEMA_VERSION
from jobd.store.sqlite import SqliteStore

NOW = 1_795_305_600_000  # 2026-11-22
DAY = 86_400_000
STEPS = [name for name in points.NAMES if name.startswith("migrate.")]
BACKUP = "jobs.db.schema-0-20261122T000000Z"

# What the program of the brief has: jobs, results that name none, a list of what is watched.
SHAPE = """
    create table analysis_jobs (job_id text primary key, status text, total integer, completed integer,
        created_at text default current_timestamp, started_at text, error text);
    create table analysis_results (id integer primary key autoincrement, ticker text, symbol text, verdict text,
        score real, raw_data text, created_at text default current_timestamp);
    create index idx_results_symbol on analysis_results (symbol);
    create index idx_results_created on analysis_results (created_at desc);
    create table watchlist (ticker text, notes text);
"""


class Old:
    """A version 0 file that is being filled."""

    def __init__(self, path, shape=SHAPE):
        self.path = path
        self.connection = sqlite3.connect(path)
        self.connection.executescript(shape)

    def add(self, table, **columns):
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        self.connection.execute(f"insert into {table} ({names}) values ({marks})", tuple(columns.values()))

    def result(self, ticker, created_at, **columns):
        self.add("analysis_results", ticker=ticker, created_at=created_at, **columns)

    def job(self, job_id, status, **columns):
        self.add("analysis_jobs", job_id=job_id, status=status, **columns)

    def close(self):
        self.connection.commit()
        self.connection.close()


@pytest.fixture
def old(tmp_path):
    return Old(tmp_path / "jobs.db")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "jobs.db")


@pytest.fixture
def opened(path):
    """The migrated file, for looking."""
    stores = []

    def look(sql, *params):
        if not stores:
            stores.append(SqliteStore(path))
            stores[0].open(create=False)
        return stores[0].read(lambda connection: connection.execute(sql, params).fetchall())

    look.store = lambda: stores[0]
    yield look
    for store in stores:
        store.close()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"}


def schema_of(path):
    connection = sqlite3.connect(path)
    try:
        made = connection.execute("select type, name, tbl_name, sql from sqlite_master").fetchall()
        marks = [
            connection.execute(f"pragma {name}").fetchone()[0]
            for name in ("application_id", "user_version", "auto_vacuum", "journal_mode", "encoding")
        ]
    finally:
        connection.close()
    return sorted(made, key=str), marks


def on_the_way(old):
    """Fill a file with one of each that can come over."""
    old.result("TCS.NS", "2025-11-23T09:00:00", verdict="Buy", score=75.0)
    old.result("TCS.NS", "2025-11-23T15:30:45", verdict="Sell", score=20.5)
    old.result("TCS.NS", "2025-11-22 15:30:45", verdict="Hold")
    old.result("INFY.NS", "2025-11-23T15:31:00", raw_data="r" * 100_000)
    old.job("one", "completed", total=2, completed=2, created_at="2025-11-23T08:00:00")
    old.job("two", "processing", total=2, completed=1)
    old.add("watchlist", ticker="TCS.NS", notes="mine")
    old.add("watchlist", ticker="NEW.NS")
    old.close()


# -- a version 0 file -------------------------------------------------------------------------------------------------


def test_a_migrated_file_equals_a_new_one(old, path, tmp_path):
    on_the_way(old)
    migrate(path, now=NOW, at=str)
    new = SqliteStore(tmp_path / "new.db")
    new.open()
    new.close()
    assert schema_of(path) == schema_of(tmp_path / "new.db")


def test_no_row_is_lost_and_every_rule_holds(old, path, opened, tmp_path):
    on_the_way(old)
    made = migrate(path, now=NOW, at=str)
    assert made.json() == {
        "database": path, "check_only": False, "from_version": 0, "to_version": SCHEMA_VERSION,
        "backup": str(tmp_path / BACKUP),
        "steps": [{
            "from_version": 0, "to_version": SCHEMA_VERSION, "what": MIGRATIONS[0].what,
            "counts": {"jobs": 2, "results": 4, "superseded": 1, "undated": 0, "watched": 2},
        }],
    }  # fmt: skip
    assert opened("select count(*) from results") == [(4,)]
    assert check(opened.store()) == []


def test_the_newest_of_a_key_and_day_keeps_the_period_and_older_ones_have_none(old, path, opened):
    on_the_way(old)
    migrate(path, now=NOW, at=str)
    found = opened("select key, period, json_extract(value, '$.verdict') from results order by item_id")
    assert [row for row in found if row[0] == "TCS.NS"] == [
        ("TCS.NS", "2025-11-22", "Hold"), ("TCS.NS", None, "Buy"), ("TCS.NS", "2025-11-23", "Sell"),
    ]  # fmt: skip


def test_of_results_of_one_instant_the_one_stored_last_is_the_newest(old, path, opened):
    for verdict in ("first", "second", "third"):
        old.result("A", "2025-11-23T10:00:00", verdict=verdict)
    old.close()
    migrate(path, now=NOW, at=str)
    assert opened("select period, json_extract(value, '$.verdict') from results order by item_id") == [
        (None, "first"), (None, "second"), ("2025-11-23", "third"),
    ]  # fmt: skip


def test_every_column_comes_over_the_long_ones_apart(old, path, opened):
    on_the_way(old)
    migrate(path, now=NOW, at=str)
    ((item_id, value),) = opened("select item_id, value from results where key='INFY.NS'")
    assert json.loads(value) == {
        "id": 4, "ticker": "INFY.NS", "symbol": None, "verdict": None, "score": None,
        "created_at": "2025-11-23T15:31:00",
    }  # fmt: skip
    assert json.loads(load_data(opened.store(), item_id)) == {"raw_data": "r" * 100_000}
    ((count,),) = opened("select count(*) from result_data")
    assert count == 1


def test_an_item_is_as_if_its_work_had_been_delivered(old, path, opened):
    on_the_way(old)
    migrate(path, now=NOW, at=str)
    assert opened(
        "select i.key, i.payload, i.status, i.attempt, i.completed_at, r.source, r.task, r.created_at"
        " from job_items i join results r on r.item_id = i.id where i.key = 'INFY.NS'"
    ) == [("INFY.NS", '"INFY.NS"', "completed", 1, 1_763_911_860_000, "outside", "analysis", 1_763_911_860_000)]


def test_results_come_into_jobs_of_their_day_the_superseded_into_others(old, path, opened):
    on_the_way(old)
    migrate(path, now=NOW, at=str)
    assert opened("select status_message, items_total from jobs where items_total > 0 order by id") == [
        ("results of 2025-11-22, imported from version 0", 1),
        ("results of 2025-11-23, imported from version 0, superseded", 1),
        ("results of 2025-11-23, imported from version 0", 2),
    ]


ENDS = [
    ({"status": "completed"}, "completed", None),
    ({"status": "Completed "}, "completed", None),
    ({"status": "cancelled"}, "cancelled", None),
    ({"status": "failed", "error": "boom"}, "failed", "boom"),
    ({"status": "failed"}, "failed", "failed in version 0, which kept no reason"),
    ({"status": "processing", "total": 100, "completed": 100}, "completed", None),
    ({"status": "processing", "total": 100, "completed": 99}, "failed", "interrupted: version 0 had it processing"),
    ({"status": "processing", "total": 0, "completed": 0}, "failed", "interrupted: version 0 had it processing"),
    ({"status": "queued"}, "failed", "interrupted: version 0 had it queued"),
    ({"status": None}, "failed", "interrupted: version 0 had it none"),
]


def test_a_job_comes_with_its_row_and_is_what_can_be_said_of_it(old, path, opened):
    for number, (row, _, _) in enumerate(ENDS):
        old.job(f"job {number}", created_at="2025-11-23T08:00:00", **row)
    old.close()
    migrate(path, now=NOW, at=str)
    found = opened("select key, params, status, last_error, created_at, completed_at from jobs order by id")
    assert len(found) == len(ENDS)
    for number, (row, status, error) in enumerate(ENDS):
        key, params, ended, last_error, created_at, completed_at = found[number]
        assert (key, ended, created_at, completed_at) == (f"job {number}", status, 1_763_884_800_000, NOW)
        assert json.loads(params) == {
            "job_id": f"job {number}", "total": None, "completed": None, "created_at": "2025-11-23T08:00:00",
            "started_at": None, "error": None, **row,
        }  # fmt: skip
        assert last_error is error if error is None else last_error.startswith(error)
    assert check(opened.store()) == []


def test_the_history_says_who_brought_a_job_and_when(old, path, opened):
    old.job("abc", "completed")
    old.close()
    migrate(path, now=NOW, at=str)
    assert opened("select name, from_status, to_status, at, actor, message from job_events order by id") == [
        ("submit", None, "queued", NOW, "migrate", "imported from version 0"),
        ("complete", "queued", "completed", NOW, "migrate", "imported from version 0"),
    ]


def test_what_is_watched_comes_with_its_newest_result(old, path, opened):
    on_the_way(old)
    migrate(path, now=NOW, at=str)
    assert opened("select task, key, last_status, last_run_at from watchlist order by key") == [
        ("analysis", "NEW.NS", None, None),
        ("analysis", "TCS.NS", "completed", 1_763_911_845_000),
    ]
    ((job,),) = opened("select j.status_message from watchlist w join jobs j on j.id = w.last_job_id")
    assert job == "results of 2025-11-23, imported from version 0"


def test_a_file_without_a_watchlist_is_one_too(path, opened, tmp_path):
    old = Old(tmp_path / "jobs.db", SHAPE.partition("create table watchlist")[0])
    old.result("A", "2025-11-23")
    old.close()
    made = migrate(path, now=NOW, at=str)
    assert "watched" not in made.steps[0].counts
    assert opened("select count(*) from results") == [(1,)]


HOSTILE = [
    None, "", "\x00", "a\x00b", "k" * 5_000, "\u202eevil", "\x1b[2J", "a\nb", 7, 7.5, b"bytes", b"\xff\xfe", "row 1",
]  # fmt: skip


def test_rows_that_no_key_or_value_could_be_made_of_come_over_too(old, path, opened):
    for ticker in HOSTILE:
        old.result(ticker, "2025-11-23T10:00:00", score=float("inf"), raw_data=b"\xff\x00", verdict="\ud7ff")
    old.connection.execute(
        "insert into analysis_results (ticker, created_at, verdict) values"
        " (cast(x'ff41' as text), '2025-11-23', cast(x'c328' as text))"
    )
    old.job(None, "completed")
    old.job(None, "completed")
    old.close()
    made = migrate(path, now=NOW, at=str)
    assert made.steps[0].counts["results"] == len(HOSTILE) + 1
    found = [row[0] for row in opened("select key from results order by item_id")]
    assert sorted(found) == sorted(
        ["row 1", "row 2", "row 3", "row 4", "row 5", "\u202eevil", "\x1b[2J", "a\nb", "7", "7.5", "bytes",
         "\\xff\\xfe", "row 1", "\\xffA"]
    )  # fmt: skip
    assert check(opened.store()) == []
    ((value,),) = opened("select value from results where key='7'")
    assert json.loads(value)["score"] == "inf"
    assert json.loads(value)["raw_data"] == "ff00"
    ((value,),) = opened("select value from results where key='\\xffA'")
    assert json.loads(value)["verdict"] == "\\xc3("


DAYS = [
    ("2025-11-23T15:30:45", "2025-11-23"),
    ("2025-11-23 15:30:45.123456", "2025-11-23"),
    ("2025-11-23", "2025-11-23"),
    ("2025-11-23T23:30:00-02:00", "2025-11-24"),
    ("2025-11-23T23:30:00Z", "2025-11-23"),
    (1_763_911_845, "2025-11-23"),
    (1_763_911_845_000, "2025-11-23"),
    (1_763_911_845.5, "2025-11-23"),
    ("yesterday", None),
    ("", None),
    (None, None),
    (-1, None),
    (float("inf"), None),
    (10**18, None),
    (b"\xff", None),
    ("0001-01-01T00:00:00+14:00", None),
    ("9999-12-31T23:59:59-14:00", None),
]


def test_the_day_of_a_result_is_that_of_its_time_in_utc(old, path, opened):
    for number, (written, _) in enumerate(DAYS):
        old.result(f"{number}", written)
    old.close()
    made = migrate(path, now=NOW, at=str)
    found = {
        int(key): (period, created_at)
        for key, period, created_at in opened("select key, period, created_at from results")
    }
    assert {number: period for number, (period, _) in found.items()} == {n: day for n, (_, day) in enumerate(DAYS)}
    assert all((created_at == NOW) == (period is None) for period, created_at in found.values())
    assert made.steps[0].counts["undated"] == sum(day is None for _, day in DAYS)


def test_many_rows_come_over_in_batches_and_say_how_far_they_are(old, path, opened):
    for number in range(4_500):
        old.result(f"T{number}", "2025-11-23")
    old.close()
    seen = []
    migrate(path, now=NOW, at=str, watch=lambda *told: seen.append(told))
    assert [told for told in seen if told[0] == "migrating"] == [
        ("migrating", 2_000, 4_500), ("migrating", 4_000, 4_500), ("migrating", 4_500, 4_500),
    ]  # fmt: skip
    assert opened("select count(*), count(distinct key) from results") == [(4_500, 4_500)]


def test_a_row_of_more_columns_than_a_value_holds_comes_over_apart(path, opened, tmp_path):
    wide = ", ".join(f"c{number} text" for number in range(150))
    old = Old(tmp_path / "jobs.db", SHAPE.replace("score real", f"score real, {wide}"))
    old.result("A", "2025-11-23", **{f"c{number}": "x" * 9_000 for number in range(150)})
    old.close()
    migrate(path, now=NOW, at=str)
    assert opened("select value from results") == [("{}",)]
    ((data,),) = opened("select data from result_data")
    assert json.loads(zlib.decompress(data))["c149"] == "x" * 9_000


def test_statistics_and_an_index_with_an_odd_name_are_no_obstacle(old, path, tmp_path):
    old.connection.execute('create index "odd "" name" on analysis_results (score)')
    old.connection.execute("analyze")
    old.close()
    migrate(path, now=NOW, at=str)
    new = SqliteStore(tmp_path / "new.db")
    new.open()
    new.close()
    assert schema_of(path) == schema_of(tmp_path / "new.db")


# -- the copy from before ---------------------------------------------------------------------------------------------


def test_the_file_from_before_is_kept_for_its_owner_alone_and_never_overwritten(old, path, tmp_path):
    on_the_way(old)
    (tmp_path / BACKUP).write_text("precious")
    made = migrate(path, now=NOW, at=str)
    assert made.backup == str(tmp_path / f"{BACKUP}-2")
    assert (tmp_path / BACKUP).read_text() == "precious"
    kept = tmp_path / f"{BACKUP}-2"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    connection = sqlite3.connect(f"file:{kept}?mode=ro&immutable=1", uri=True)
    assert connection.execute("select count(*) from analysis_results").fetchone() == (4,)
    assert connection.execute("select notes from watchlist").fetchall() == [("mine",), (None,)]
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was_and_no_copy(old, path, tmp_path, monkeypatch):
    on_the_way(old)
    before = schema_of(path)[0]
    monkeypatch.setattr(version0_import, "_bring_watchlist", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrate(path, now=NOW, at=str)
    assert schema_of(path)[0] == before
    assert preview(path, now=NOW).steps[0].counts["results"] == 4
    assert not list(tmp_path.glob("*.schema-0*"))


def test_rows_that_would_be_lost_or_break_a_rule_are_never_committed(old, path, opened, monkeypatch):
    on_the_way(old)
    bring = version0_import._bring_batch
    monkeypatch.setattr(version0_import, "_bring_batch", lambda *given: bring(*given[:-1], given[-1][1:]))
    with pytest.raises(StoreUnusable, match="would be lost"):
        migrate(path, now=NOW, at=str)
    monkeypatch.undo()
    monkeypatch.setitem(version0_import._EDGES, "completed", "start")
    with pytest.raises(StoreUnusable, match="would break a rule"):
        migrate(path, now=NOW, at=str)
    monkeypatch.undo()
    migrate(path, now=NOW, at=str)
    assert opened("select count(*) from results") == [(4,)]


# -- looked at ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_preview_says_what_would_be_and_changes_no_byte(old, path, tmp_path, mode):
    old.connection.execute(f"pragma journal_mode={mode}")
    on_the_way(old)
    before = content(tmp_path)
    found = preview(path, now=NOW)
    assert (found.check_only, found.from_version, found.to_version, found.backup) == (True, 0, SCHEMA_VERSION, None)
    assert [step.counts for step in found.steps] == [{"jobs": 2, "results": 4, "superseded": 1, "undated": 0}]
    assert content(tmp_path) == before


def test_a_present_file_an_empty_one_and_one_without_tables_have_nothing_to_migrate(store, tmp_path):
    store.close()
    (tmp_path / "empty.db").touch()
    half = sqlite3.connect(tmp_path / "half.db")
    half.execute("pragma journal_mode=wal")
    half.close()
    before = content(tmp_path)
    for name in ("jobs.db", "empty.db", "half.db"):
        assert preview(str(tmp_path / name), now=NOW).steps == ()
        assert migrate(str(tmp_path / name), now=NOW, at=str).steps == ()
    assert content(tmp_path) == before


def test_a_missing_file_is_not_found(path):
    for look in (preview, migrate):
        with pytest.raises(NotFound):
            look(path, now=NOW, **({"at": str} if look is migrate else {}))


# -- left alone --------------------------------------------------------------------------------------------------------


def spoiled(statement):
    return lambda connection: connection.executescript(statement)


@pytest.mark.parametrize(
    "spoil",
    [
        spoiled("pragma application_id=7"),
        spoiled("pragma user_version=3"),
        spoiled("create table mine (x)"),
        spoiled("create view mine as select 1"),
        spoiled("create trigger mine after insert on analysis_jobs begin select 1; end"),
        spoiled("drop table analysis_jobs"),
        spoiled("alter table analysis_results rename to results"),
        spoiled("alter table analysis_results add column job_id text"),
        spoiled("alter table analysis_results rename column ticker to symbols"),
        spoiled("alter table analysis_jobs rename column status to state"),
        spoiled("alter table watchlist rename column ticker to stock"),
        spoiled("drop table watchlist; create table watchlist (ticker text primary key) without rowid"),
    ],
)
def test_what_is_not_exactly_a_version_0_file_is_another_applications(old, path, tmp_path, spoil):
    spoil(old.connection)
    old.close()
    before = content(tmp_path)
    for look in (preview, migrate):
        with pytest.raises(StoreUnusable, match="another application") as refusal:
            look(path, now=NOW, **({"at": str} if look is migrate else {}))
        assert refusal.value.exit_code == 6
    assert content(tmp_path) == before


def test_a_version_0_file_in_another_encoding_is_another_applications(path):
    other = sqlite3.connect(path)
    other.execute("pragma encoding='UTF-16'")
    other.executescript(SHAPE)
    other.close()
    with pytest.raises(StoreUnusable, match="another application"):
        preview(path, now=NOW)


def test_opening_a_version_0_file_changes_nothing_and_says_what_to_type(old, path, tmp_path):
    on_the_way(old)
    before = content(tmp_path)
    store = SqliteStore(path)
    store.upgrade = lambda: migrate(path, now=NOW, at=str)
    for create in (False, True):
        with pytest.raises(StoreUnusable, match="a version 0 file, from before jobd") as refusal:
            store.open(create=create)
        assert refusal.value.hint == f"jobd --db {path} migrate --check-only"
    assert content(tmp_path) == before


def test_a_newer_file_is_refused(store, path):
    store.write(lambda connection: connection.execute("pragma user_version=99"))
    store.close()
    for look in (preview, migrate):
        with pytest.raises(StoreUnusable, match="schema 99, this jobd knows"):
            look(path, now=NOW, **({"at": str} if look is migrate else {}))


def test_a_file_that_is_marked_and_names_no_schema_is_refused(store, path):
    store.write(lambda connection: connection.execute("pragma user_version=0"))
    store.close()
    with pytest.raises(StoreUnusable, match="names no schema"):
        migrate(path, now=NOW, at=str)


def test_a_damaged_file_is_refused(old, path, tmp_path):
    on_the_way(old)
    connection = sqlite3.connect(path)
    size = connection.execute("pragma page_size").fetchone()[0]
    (root,) = connection.execute("select rootpage from sqlite_master where name='idx_results_created'").fetchone()
    connection.close()
    with (tmp_path / "jobs.db").open("r+b") as there:
        there.seek((root - 1) * size)
        there.write(b"\xff" * size)
    with pytest.raises(StoreUnusable, match="damaged"):
        migrate(path, now=NOW, at=str)
    assert not list(tmp_path.glob("*.schema-0*"))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_file_that_another_program_has_open_is_left_alone(old, path, tmp_path, mode, monkeypatch):
    monkeypatch.setattr(alone.exclusively.__wrapped__, "__kwdefaults__", {"patience": 0.1})
    old.connection.execute(f"pragma journal_mode={mode}")
    on_the_way(old)
    program = f"""
        import sqlite3, sys
        connection = sqlite3.connect({path!r})
        connection.execute("select count(*) from analysis_jobs").fetchone()
        print("open", flush=True)
        sys.stdin.readline()
    """
    with forked.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=forked.PIPE, stdout=forked.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(StoreBusy, match="is open in another program"):
                migrate(path, now=NOW, at=str)
        finally:
            child.kill()
    assert preview(path, now=NOW).from_version == 0
    assert not list(tmp_path.glob("*.schema-0*"))


# -- killed ------------------------------------------------------------------------------------------------------------

PROGRAM = """
    import sys
    from jobd.engine import points
    from jobd.store.migrations import migrate
    points.arm(sys.argv[2])
    migrate(sys.argv[1], now=int(sys.argv[3]), at=points.reach)
"""


def killed_at(path, step):
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), path, step, str(NOW)],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_it_migrates_from_where_it_was(old, path, opened, tmp_path, step):
    for number in range(3_000):
        old.result(f"T{number % 1_500}", "2025-11-23", verdict="v" * 1_000)
    old.close()
    killed_at(path, step)
    if step == "migrate.before_commit":
        # So much was written that it left the memory: the kill hit a transaction that had begun to show.
        assert (tmp_path / "jobs.db-wal").stat().st_size > 1_000_000
    committed = step == "migrate.after_commit"
    found = preview(path, now=NOW)
    assert found.from_version == (SCHEMA_VERSION if committed else 0)
    made = migrate(path, now=NOW, at=str)
    assert [made_step.counts["results"] for made_step in made.steps] == ([] if committed else [3_000])
    assert opened("select count(*), count(period) from results") == [(3_000, 1_500)]
    assert check(opened.store()) == []
    copies = sorted(path.name for path in tmp_path.glob("*.schema-0*"))
    assert copies == ([BACKUP] if committed else [BACKUP, f"{BACKUP}-2"])


def test_a_change_that_its_own_program_left_half_is_undone_before_it_is_judged(old, path, opened):
    """A rollback journal beside the file: to read past it would be to read what was never committed."""
    old.result("A", "2025-11-23")
    old.close()
    program = f"""
        import os, signal, sqlite3
        connection = sqlite3.connect({path!r}, isolation_level=None)
        connection.execute("pragma cache_size=1")
        connection.execute("pragma cache_spill=on")
        connection.execute("begin")
        connection.execute("delete from analysis_results")
        connection.executemany(
            "insert into analysis_jobs (job_id, status, error) values (?, 'completed', ?)",
            [(str(number), "x" * 1000) for number in range(500)],
        )
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = forked.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(StoreUnusable, match="in the middle of a change"):
        preview(path, now=NOW)
    made = migrate(path, now=NOW, at=str)
    assert (made.steps[0].counts["jobs"], made.steps[0].counts["results"]) == (0, 1)
    assert opened("select key from results") == [("A",)]


# -- from 1 on ---------------------------------------------------------------------------------------------------------


def _add_a_column(connection, now, watch):
    connection.execute("alter table passes add column note text")
    return {"columns": 1}


def _add_a_table(connection, now, watch):
    connection.execute("create table notes (id integer primary key)")
    connection.execute("insert into notes values (?)", (now,))
    return {}


LATER = (Migration(1, 2, "a column", _add_a_column), Migration(2, 3, "a table", _add_a_table))


@pytest.fixture
def later(monkeypatch):
    """A jobd of two schemas from now."""
    for module in (migrations, file, sqlite):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    return LATER


def marked(path):
    connection = sqlite3.connect(path)
    found = [connection.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version")]
    connection.close()
    return found


def test_an_older_file_goes_every_step_in_its_order(store, rows, path, tmp_path, later):
    rows.job(["completed", "running"])
    store.close()
    made = migrate(path, now=NOW, at=str, migrations=later[::-1])
    assert [(step.from_version, step.to_version, step.counts) for step in made.steps] == [
        (1, 2, {"columns": 1}),
        (2, 3, {}),
    ]
    assert made.backup == str(tmp_path / "jobs.db.schema-1-20261122T000000Z")
    assert marked(path) == [APPLICATION_ID, 3]
    assert marked(made.backup) == [APPLICATION_ID, 1]
    connection = sqlite3.connect(path)
    assert connection.execute("select id from notes").fetchall() == [(NOW,)]
    assert connection.execute("select status from job_items order by id").fetchall() == [("completed",), ("running",)]
    connection.close()
    assert migrate(path, now=NOW, at=str, migrations=later).steps == ()


def test_a_step_that_fails_leaves_the_version_before_it_and_the_copy(store, path, tmp_path, later):
    store.close()
    failing = (later[0], Migration(2, 3, "no", lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        migrate(path, now=NOW, at=str, migrations=failing)
    assert marked(path)[1] == 2
    assert list(tmp_path.glob("*.schema-1*"))
    made = migrate(path, now=NOW, at=str, migrations=later)
    assert [step.from_version for step in made.steps] == [2]


def test_who_opens_an_older_file_brings_it_up_and_who_only_examines_it_is_told(store, path, later):
    store.close()
    with pytest.raises(StoreUnusable, match="it has schema 1, this jobd 3") as refusal:
        SqliteStore(path).open()
    assert refusal.value.hint == "jobd migrate"
    willing = SqliteStore(path)
    willing.upgrade = lambda: migrate(path, now=NOW, at=str, migrations=later)
    with pytest.raises(StoreUnusable, match="it has schema 1"):
        willing.open(create=False, upgrade=False)
    assert marked(path)[1] == 1
    willing.open(create=False)
    assert willing.read(lambda connection: connection.execute("select count(*) from notes").fetchone()) == (1,)
    willing.close()
    assert marked(path)[1] == 3


def test_a_way_leads_from_every_version_to_the_present_one():
    assert all(pending(version)[-1].target == SCHEMA_VERSION for version in range(SCHEMA_VERSION))
    assert pending(SCHEMA_VERSION) == []
    with pytest.raises(LookupError, match=re.escape("schema 77")):
        pending(77)
    with pytest.raises(LookupError):
        pending(0, (Migration(0, 0, "nowhere", dict),))
