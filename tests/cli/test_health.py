"""`jobd health` and `jobd stats`, in every shape."""

import io
import json

import pytest

from jobd import Jobd, process
from jobd.cli import health
from jobd.cli.screen import Screen
from jobd.cli.session import Session
from jobd.store import vitals

DEAD = 2**22 + 1


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """A disk with room and a terminal of the width that it has, whatever this machine says."""
    monkeypatch.delenv("COLUMNS", raising=False)
    real = vitals.files
    monkeypatch.setattr(vitals, "files", lambda store: real(store)._replace(free=10**10))


@pytest.fixture
def app(tmp_path):
    """The app of the file that the command line looks at; it knows a task."""
    app = Jobd(tmp_path / "jobs.db")

    @app.task(tolerance=1)
    def work(value):
        if value == "bad":
            raise ValueError("no")
        return value

    yield app
    app.close()


@pytest.fixture
def dead(app):
    """A daemon that was killed while it ran two items, a minute ago."""
    app.submit("work", ["a", "b", "c"])
    me = process.myself()

    def kill(connection):
        now = connection.execute("select created_at from jobs").fetchone()[0]
        connection.execute(
            "insert into daemons (id, host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
            " values (3, ?, ?, ?, 0, ?, ?, '0')",
            (me.host, me.boot, DEAD, now - 60_000, now - 60_000),
        )
        connection.execute("update jobs set status='running', started_at=?, items_running=2", (now - 60_000,))
        connection.execute(
            "update job_items set status='running', attempt=1, daemon_id=3, started_at=? where id < 3", (now - 60_000,)
        )

    app.store.write(kill)


def human(write, columns=100):
    """Return what ``write`` writes on a terminal of this width."""
    stream = io.StringIO()
    screen = Screen(stream)
    screen.tty = True
    screen._size = lambda: type("Size", (), {"columns": columns, "lines": 40})
    write(screen)
    return stream.getvalue().splitlines()


def test_a_healthy_file_leaves_0(jobd, app):
    app.store.open()
    answer = jobd("health")
    assert (answer.code, answer.err) == (0, "")
    header, *rows = answer.out.splitlines()
    assert header.split("\t") == health.CHECK_FIELDS
    assert {row.split("\t")[1] for row in rows} == {"ok"}


def test_one_line_says_it_where_that_is_enough(jobd, app, tmp_path):
    app.store.open()
    answer = jobd("health", "--quiet")
    assert (answer.code, answer.out) == (0, f"healthy: {tmp_path}/jobs.db\n")


def test_an_unhealthy_file_leaves_1_and_says_why(jobd, dead, tmp_path):
    answer = jobd("health", "-q")
    assert answer.code == 1
    assert answer.out.count("\n") == 1
    assert answer.out.startswith(f"unhealthy: {tmp_path}/jobs.db: daemon: last beat 1 m ago (limit 15 s), pid {DEAD}")
    assert "items: 2 running items that nobody runs" in answer.out


def test_the_document_says_the_same_to_a_program(jobd, dead):
    answer = jobd("health", "--json")
    found = json.loads(answer.out)
    assert answer.code == 1
    assert not found["healthy"]
    assert (found["daemon"]["alive"], found["daemon"]["pid"]) == (False, DEAD)
    assert found["open_jobs"] == 1
    assert {one["name"] for one in found["passes"]} >= {"recover"}
    broken = {check["name"]: check["hint"] for check in found["checks"] if check["level"] == "broken"}
    assert broken == {"daemon": "jobd start", "items": "jobd recover"}


def test_once_recovered_only_the_daemon_is_missing(jobd, dead):
    assert jobd("recover").code == 0
    found = json.loads(jobd("health", "--json").out)
    assert [check["name"] for check in found["checks"] if check["level"] == "broken"] == ["daemon"]


def test_without_a_file_there_is_nothing_to_look_at(jobd):
    answer = jobd("health")
    assert (answer.code, answer.out) == (3, "")
    assert "there is no jobd file" in answer.err


CHECKS = [
    {"name": "daemon", "level": "broken", "text": "pid 7 is gone", "hint": "jobd start"},
    {"name": "items", "level": "broken", "text": "3 running items that nobody runs", "hint": "jobd recover"},
    {"name": "jobs", "level": "warning", "text": "job 7 " + "x" * 50, "hint": "jobd items 7 --status running"},
    {"name": "database", "level": "ok", "text": "schema 1 \x1b[2J", "hint": None},
]


@pytest.mark.parametrize(("columns", "beside"), [(120, True), (60, False)])
def test_a_person_reads_what_to_type_beside_what_is_wrong_or_below(columns, beside):
    session = Session()
    session.db = "x.db"
    lines = human(lambda screen: health._page(screen, session, "UNHEALTHY  x.db", CHECKS), columns)
    assert lines[0] == "UNHEALTHY  x.db"
    items = "  ✗ items     3 running items that nobody runs"
    hint = "jobd --db x.db recover"
    if beside:
        assert lines[2].split("   jobd")[0].rstrip() == items
        assert lines[2].endswith(hint)
        assert lines[2].index("jobd") == lines[1].index("jobd")
    else:
        assert items in lines
        assert lines[lines.index(items) + 1].strip() == hint
    assert lines[-1] == "  ✔ database  schema 1 \\x1b[2J"


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_no_control_character_of_a_stored_text_reaches_a_terminal(columns):
    lines = human(lambda screen: health._page(screen, Session(), "HEALTHY", CHECKS), columns)
    assert all(line.isprintable() for line in lines)


# -- stats


def test_the_figures_are_a_table_of_tasks_in_a_pipe(jobd, app):
    with app.daemon(workers=1):
        app.submit("work", ["a", "bad"]).wait(20)
    answer = jobd("stats")
    header, row = (line.split("\t") for line in answer.out.splitlines())
    assert header == health.TASK_FIELDS
    found = dict(zip(header, row, strict=True))
    assert (found["task"], found["items_completed"], found["items_failed"]) == ("work", "1", "1")
    assert (found["success_rate"], found["samples"]) == ("0.5", "1")
    assert answer.code == 0


def test_the_document_has_settings_and_passes_too(jobd, app):
    with app.daemon(workers=1):
        app.submit("work", ["a", "b"]).wait(20)
    found = json.loads(jobd("stats", "--json", "--window", "1h").out)
    assert found["window_seconds"] == 3600
    assert found["active"] == {"jobs": {}, "items": {}} or not any(found["active"]["jobs"].values())
    assert found["recent"]["jobs"] == {"completed": 1}
    assert found["recent"]["success_rate"] == 1.0
    assert found["settings"]["heartbeat"] == 5.0
    assert {one["name"] for one in found["passes"]} >= {"recover"}
    assert found["complete"]


def test_one_task_can_be_asked_for(jobd, app):
    app.submit("work", ["a"])
    app.submit("other", ["a"])
    assert [one["task"] for one in json.loads(jobd("stats", "--json", "--task", "other").out)["tasks"]] == ["other"]
    answer = jobd("stats", "--task", "nobody")
    assert (answer.code, len(answer.out.splitlines())) == (0, 1)


def test_a_window_that_cannot_be_meant_is_a_usage_error(jobd, app):
    app.store.open()
    answer = jobd("stats", "--window", "soon")
    assert answer.code == 2
    assert "not a duration" in answer.err


def test_a_person_reads_figures_passes_and_settings(jobd, app):
    with app.daemon(workers=1):
        app.submit("work", ["a", "bad"]).wait(20)
    record = app.stats().json()
    rows = [health._flat(one) for one in record["tasks"]]
    lines = human(lambda screen: health._figures(screen, record, rows, whole=True))
    assert lines[0] == "active   jobs none   items none"
    assert lines[1].startswith("last 1d  jobs completed 1   items completed 1 · failed 1   success 50.0%")
    assert lines[3].split() == ["TASK", "ACTIVE", "COMPLETED", "FAILED", "SUCCESS", "P50", "P95"]
    assert lines[4].split()[:5] == ["work", "0", "1", "1", "50.0%"]
    assert any(line.startswith("recover") for line in lines)
    assert any("heartbeat 5s" in line for line in lines)
