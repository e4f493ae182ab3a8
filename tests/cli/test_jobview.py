"""A job as people read it."""

import datetime as dt
import io
import itertools

import pytest

from jobd.cli import jobview, panel, signs, times
from jobd.cli.screen import Screen

NOW = dt.datetime(2026, 11, 21, 12, 0, 6, tzinfo=dt.UTC)
GONE = {"id": 11, "pid": 23001, "heartbeat_at": "2026-11-21T11:58:07.000Z", "alive": False}


def command(words):
    return f"jobd {words}"


def watched(job, screen, *, running, errors):
    return panel.panel(
        job, running=running, errors=errors, workers=4, foot="foot", command=command, screen=screen, now=NOW
    )


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Screen(io.StringIO(), "never")


@pytest.mark.parametrize("status", ["queued", "running"])
@pytest.mark.parametrize("health", ["ok", "idle", "stalled", "orphaned", "unknown_task", "paused"])
@pytest.mark.parametrize("daemon", [None, GONE])
def test_an_open_job_without_a_daemon_says_in_its_row_that_nobody_runs_it(record, status, health, daemon):
    assert jobview.state(record(status=status, health=health, daemon=daemon))[0] == "! nobody runs it"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_an_ended_job_needs_no_daemon(record, status):
    assert jobview.state(record(status=status, daemon=None))[0].endswith(status)
    assert not jobview.nobody_runs(record(status=status, daemon=None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "▶ running"),
        ({"status": "queued", "health": "idle"}, "· queued"),
        ({"health": "unknown_task"}, "! unknown task"),
        ({"health": "paused"}, "‖ paused"),
        ({"health": "stalled"}, "! stalled"),
        ({"health": "submitting", "daemon": None}, "… submitting"),
        ({"status": "completed", "warnings": ["1 of 3 items failed"]}, "✔ with warnings"),
    ],
)
def test_a_row_says_what_keeps_a_job_from_running(record, changes, words):
    assert jobview.state(record(**changes))[0] == words


def test_the_page_of_a_running_job(record, screen):
    errors = [
        {
            "error_type": "FileNotFoundError",
            "error": "No such file",
            "count": 3,
            "first_at": "2026-11-21T12:00:04.000Z",
            "last_at": "2026-11-21T12:00:06.000Z",
            "keys": ["a"],
        }
    ]
    page = "\n".join(jobview.show(record(), [], errors, screen, now=NOW, command=command))
    for words in ("job 7  checksum", "▶ running  60%  ETA 0:02", "beat 0.4 s ago", "✔ completed 1,235", "· queued 795"):
        assert words in page
    assert "✗ ×3  FileNotFoundError: No such file" in page
    assert "ERRORS (jobd errors 7)" in page


def test_the_page_of_a_job_whose_daemon_died_says_so_and_what_to_type(record, screen):
    left = record(
        daemon=GONE,
        eta_seconds=None,
        health="orphaned",
        status_description="running, but nobody runs it: daemon 11 (pid 23001) is gone",
        warnings=["daemon 11 (pid 23001) is gone since 2 m; 4 items in flight"],
    )
    page = "\n".join(jobview.show(left, [], [], screen, now=NOW, command=command))
    assert "! running, but nobody runs it" in page
    assert "warning: daemon 11 (pid 23001) is gone since 2 m; 4 items in flight" in page
    assert "hint: jobd recover --check-only" in page
    assert "ETA" not in page


def test_a_queued_job_without_a_daemon_names_the_line_that_runs_it(record, screen):
    waiting = record(
        status="queued",
        daemon=None,
        counts={"running": 0},
        status_description="queued, but no daemon is running",
        warnings=["no daemon is running"],
    )
    page = "\n".join(jobview.show(waiting, [], [], screen, now=NOW, command=command))
    assert "! queued, but no daemon is running" in page
    assert "hint: jobd run ./checksum.py:checksum --job 7" in page


def test_a_target_from_the_database_is_quoted_before_it_is_offered_for_copying(record):
    line = jobview.go_on(record(target="x:y; rm -rf ~\x1b\n"), command)
    assert line == "jobd run 'x:y; rm -rf ~\\x1b\\n' --job 7"


def test_a_job_of_no_items_has_no_progress(record, screen):
    empty = record(
        status="completed",
        progress_percent=None,
        counts=dict.fromkeys(("total", "queued", "running", "completed", "failed"), 0),
        warnings=["no items"],
    )
    page = "\n".join(jobview.show(empty, [], [], screen, now=NOW, command=command))
    assert "no items" in page
    assert jobview.percent(empty) == "-"


def test_the_strip_has_a_cell_for_every_status_that_exists_and_the_width_asked_for(record, screen):
    names = ("queued", "running", "waiting", "completed", "failed", "skipped", "cancelled")
    for amounts in itertools.product((0, 1, 1000), repeat=len(names)):
        counts = dict(zip(names, amounts, strict=True)) | {"total": sum(amounts)}
        strip = signs.strip(signs.shares(counts, 40), screen)
        assert len(strip) == (40 if sum(amounts) else 0)
        assert len(set(strip)) == sum(map(bool, amounts))


def test_the_page_shows_where_in_the_job_something_happened(record, screen):
    statuses = ["completed"] * 3 + ["failed", "completed", "running", "queued", "queued"]
    page = jobview.show(record(), [], [], screen, now=NOW, command=command, statuses=statuses)
    assert "  ███✗█▶░░" in page


def test_the_strip_is_painted_by_status(monkeypatch):
    assert signs.strip(["completed"] * 2 + ["failed"], Screen(io.StringIO(), "always")) == (
        "\x1b[32m██\x1b[0m\x1b[31m✗\x1b[0m"
    )


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ({2: 7, 3: 2}, "attempts 2nd 7, 3rd 2"),
        ({4: 1, 11: 1_200, 22: 1}, "attempts 4th 1, 11th 1,200, 22nd 1"),
        ({2: 5, 3: 4, 4: 3, 5: 2, 6: 1}, "attempts 2nd 5, 3rd 4, 4th 3, more 3"),
    ],
)
def test_attempts_are_said_in_their_order(attempts, words):
    assert jobview.tried(attempts) == words


def test_attempts_stand_beside_the_counts_where_they_fit(record, monkeypatch):
    for columns, lines in (("120", 1), ("70", 2)):
        monkeypatch.setenv("COLUMNS", columns)
        screen = Screen(io.StringIO(), "never")
        page = jobview.show(record(), [], [], screen, now=NOW, command=command, attempts={2: 7})
        found = [line for line in page if "queued 795" in line or "attempts 2nd 7" in line]
        assert len(found) == lines
        assert all(line.startswith("  ") and not line.startswith("   ") for line in found)
    assert not any("attempts" in line for line in jobview.show(record(), [], [], screen, now=NOW, command=command))


def test_hostile_names_are_escaped_everywhere(record, screen):
    hostile = record(
        task="a\x1b[2J\nb", key="\u202ex", last_error="\x1b]0;t\x07", status_message="\x9b", warnings=["\r"]
    )
    errors = [
        {"error_type": "E\x1b", "error": "\x07\n", "count": 1, "first_at": None, "last_at": None, "keys": ["\x1b"]}
    ]
    items = [{"key": "k\x1b\n", "started_at": None}]
    pages = [
        *jobview.show(hostile, [], errors, screen, now=NOW, command=command),
        *panel.panel(
            hostile, running=items, errors=errors, workers=1, foot="", command=command, screen=screen, now=NOW
        ),
        panel.line(hostile, NOW),
        panel.interrupted(hostile),
        panel.ended(hostile | {"status": "failed"}, None),
    ]
    assert all(words.isprintable() for words in pages)


@pytest.mark.parametrize("columns", ["1", "20", "40", "79", "80", "120", "400"])
def test_the_panel_fits_every_width(record, monkeypatch, columns):
    from jobd.cli.text import width

    monkeypatch.setenv("COLUMNS", columns)
    screen = Screen(io.StringIO(), "never")
    items = [{"key": "日本語/" * 20, "started_at": "2026-11-21T12:00:05.000Z"}] * 3
    lines = panel.panel(
        record(), running=items, errors=[], workers=4, foot="foot", command=command, screen=screen, now=NOW
    )
    assert all(width(screen.fit(line)) <= max(20, int(columns)) for line in lines)
    assert "60%" in lines[1]


def test_the_last_line_says_what_failed_and_how_fast_it_went(record):
    ended = record(status="failed", completed_at="2026-11-21T12:00:07.900Z", counts={"running": 0, "queued": 0})
    assert panel.ended(ended, (2, 9)) == "job 7 checksum   failed: 5 of 2,039 items   4.9 s   p50 2 ms  p95 9 ms"


def test_the_last_line_of_an_interrupted_job_says_what_is_left(record):
    assert panel.interrupted(record()) == "job 7 checksum   interrupted: 799 of 2,039 items are left; nothing is lost"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (("submit", None, "queued"), "queued by cli"),
        (("pause", "queued", "queued"), "paused by cli"),
        (("unpause", "queued", "queued"), "unpaused by cli"),
        (("cancel", "running", "running"), "cancel asked for by cli"),
        (("start", "queued", "running"), "running by cli"),
    ],
)
def test_an_event_that_moves_nothing_is_told_by_its_name(event, said):
    name, source, target = event
    record = {"at": "2026-11-21T12:00:02.000Z", "name": name, "from_status": source, "to_status": target}
    at = times.parse("2026-11-21T12:00:05.000Z")
    assert jobview._event({**record, "actor": "cli"}, at).endswith(said)


def test_errors_of_commands_are_told_apart_by_how_they_ended(record, screen):
    errors = [
        {"error_type": "Exit", "error": "exit 3", "count": 2},
        {"error_type": "Exit", "error": "exit 127: cannot be started: No such file or directory: 'x'", "count": 1},
        {"error_type": "Signal", "error": "killed by SIGSEGV", "count": 1},
        {"error_type": "OSError", "error": "disk: full", "count": 1},
    ]
    lines = watched(record(), screen, running=[], errors=errors)
    assert "  ✗ exit 3 ×2  ✗ exit 127 ×1  ✗ killed by SIGSEGV ×1  ✗ OSError ×1" in lines
