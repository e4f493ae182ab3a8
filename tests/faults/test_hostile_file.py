"""A file that somebody else has filled: what it names is looked up, and nothing of it is imported, run or unpickled."""

from __future__ import annotations

import json
import sys

import pytest

from jobd import NoDaemon, cli

SECONDS = 20
# Whoever imports it is seen.
EVIL = "from pathlib import Path\nPath({seen!r}).touch()\ndef run(*_):\n    Path({seen!r}).touch()\n"
PICKLE = "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Where code leaves its trace that is named by the file alone, importable from where the user stands."""
    seen = tmp_path / "seen"
    (tmp_path / "evil.py").write_text(EVIL.format(seen=str(seen)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield seen
    sys.modules.pop("evil", None)


NAMES = ["evil:run", "./evil.py:run", "evil.run", "os:system", "builtins.eval", "__import__('evil')", "../evil"]


@pytest.fixture
def filled(app, rows, seen):
    """Jobs whose every text names code, queued, run by a dead daemon, deferred, and waiting for a schedule."""
    rows.change(
        "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, tasks, version)"
        " values ('evil', 'boot', 1, 0, 0, 0, ?, '0')",
        json.dumps(NAMES),
    )
    for name in NAMES:
        text = json.dumps({"py/object": name, "__reduce__": [name, ["true"]], "pickle": PICKLE})
        policy = json.dumps({"isolation": name, "unique": name, "verify": name, "retry_on": name})
        for status in ("queued", "running", "waiting"):
            job = rows.job([status], task=name, target=name, params=text, status="running", started_at=1)
            rows.change("update job_items set payload=?, progress=?, intent=?, external_id=?", text, text, name, name)
            rows.change("update jobs set policy=? where id=?", policy, job)
        rows.change(
            "insert into schedules (name, task, spec, zone, catch_up, items, next_at)"
            " values (?, ?, ?, ?, 'once', ?, 1)",
            name, name, name, name, text,
        )  # fmt: skip
    return len(NAMES)


def test_a_daemon_leaves_what_only_the_file_names_alone(app, rows, seen, filled):
    echo = app.task(lambda value: value, name="echo")
    with app.daemon():
        assert echo.submit(["mine"]).wait(SECONDS).status == "completed"
        app.recover()
        with pytest.raises(NoDaemon):
            app.job(1).wait(1)
    assert rows.one("select count(*) from job_items where attempt > 1 or status = 'completed'") == 1
    assert not seen.exists()
    assert "evil" not in sys.modules


def test_no_verb_imports_what_a_row_names(app, path, seen, filled, monkeypatch, capsys):
    monkeypatch.setenv("JOBD_DB", str(path))
    app.close()
    for typed in (
        ["list"], ["show", "1"], ["items", "1"], ["item", "1:#1"], ["history", "1", "--items"], ["schedule", "list"],
        ["recover"], ["reconcile", "--all"], ["time-out"], ["prune"], ["tasks"], ["health"], ["stats"], ["doctor"],
        ["retry", "1"], ["resume", "1"], ["schedule", "run", NAMES[0]], ["wait", "1"], ["cancel", "1"], ["delete", "1"],
        ["deliver", "3:#3", '"value"'],
    ):  # fmt: skip
        code = cli.call(typed)
        said = capsys.readouterr()
        assert "unexpected" not in said.err, (typed, said.err)
        assert code in {0, 1, 3, 4, 7}, (typed, said.err)
        assert not seen.exists(), typed
    # The witness would have seen it: code is named by who types it.
    assert cli.call(["submit", "evil:run", "a"]) == 0
    assert seen.exists()
