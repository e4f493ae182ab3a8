"""`service`: the unit that it writes, and what it asks of systemd, of which a script here takes the part."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobd.cli.unit import Service, checked_name, name_of, unit
from jobd.errors import UsageError

PROGRAM = """
from jobd import Jobd
app = Jobd("of-the-program.db", drain="2m")

@app.task
def quick(n):
    return n
"""

# Writes down what it was asked, and answers what the files beside it say.
SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
shift
echo "$@" >> "$here/asked"
case "$1" in
    is-active|is-enabled) cat "$here/$1" 2>/dev/null || exit 4 ;;
    *) if [ -f "$here/refuses-$1" ]; then cat "$here/refuses-$1" >&2; exit 1; fi ;;
esac
"""


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch, place):
    """A user with a program and no systemd at all."""
    (place / "program.py").write_text(PROGRAM)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr("jobd.cli.service._LINGER", tmp_path / "linger")
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def systemd(tmp_path):
    """The script in systemctl's place: ``asked()`` is what was typed since the last time."""
    shutil.copy("/bin/sh", tmp_path / "bin" / "sh")
    for tool in ("dirname", "cat"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool, path="/usr/bin:/bin"))
    script = tmp_path / "bin" / "systemctl"
    script.write_text(SYSTEMCTL)
    script.chmod(0o755)

    class Systemd:
        def asked(self):
            log = tmp_path / "bin" / "asked"
            found = log.read_text().splitlines() if log.exists() else []
            log.unlink(missing_ok=True)
            return [line for line in found if not line.startswith("is-")]

        def says(self, name, text):
            (tmp_path / "bin" / name).write_text(f"{text}\n")

    return Systemd()


@pytest.fixture
def units(tmp_path):
    """Return the units of the user by name."""

    def read():
        folder = tmp_path / "config" / "systemd" / "user"
        return {path.stem: path.read_text() for path in sorted(folder.glob("*.service"))}

    return read


def only(found):
    ((name, text),) = found.items()
    return name, text


def setting(text, name):
    (value,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return value


def words(line):
    """The words of a command line as systemd.syntax(7) and systemd.service(5) read them."""
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"(?: |$)', line)
    assert line == " ".join(f'"{word}"' for word in quoted)
    assert not re.search(r"(?<!%)(?:%%)*%(?!%)", line), "a specifier"
    plain = [re.sub(r"\\(.)", r"\1", word).replace("%%", "%") for word in quoted]
    assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", " ".join(plain[1:])), "a variable"
    return plain[:1] + [word.replace("$$", "$") for word in plain[1:]]


# -- the unit ---------------------------------------------------------------------------------------------------------


def test_the_unit_starts_this_python_with_what_was_typed_made_absolute(jobd, systemd, units, place):
    typed = ("--db", "jobs.db", "--app", "./program.py:app", "service", "install")
    assert jobd(*typed, "--workers", "3", "--drain", "45s").code == 0
    name, text = only(units())
    assert re.fullmatch(r"jobd-jobs-[0-9a-f]{8}", name)
    assert words(setting(text, "ExecStart")) == [
        sys.executable, "-m", "jobd", "--db", f"{place}/jobs.db", "--app", f"{place}/program.py:app",
        "start", "--workers=3", "--drain=45s",
    ]  # fmt: skip
    assert setting(text, "WorkingDirectory") == str(place)
    assert setting(text, "Type") == "notify"
    assert setting(text, "Restart") == "on-failure"
    assert setting(text, "RestartPreventExitStatus") == "2 6 7"
    assert setting(text, "TimeoutStopSec") == "75"
    assert int(setting(text, "WatchdogSec")) >= 60
    assert setting(text, "WantedBy") == "default.target"


def test_the_program_goes_on_saying_which_database_it_is_and_how_long_it_drains(
    jobd, systemd, units, place, monkeypatch
):
    monkeypatch.delenv("JOBD_DB")
    assert jobd("--app", "./program.py", "service", "install").code == 0
    name, text = only(units())
    assert name.startswith("jobd-of-the-program-")
    assert "--db" not in words(setting(text, "ExecStart"))
    assert setting(text, "TimeoutStopSec") == "150"


def test_a_module_is_named_as_it_was_typed_and_found_from_the_same_folder(jobd, systemd, units, place):
    assert jobd("--app", "program:app", "service", "install").code == 0
    _, text = only(units())
    assert words(setting(text, "ExecStart"))[5:7] == ["--app", "program:app"]
    assert setting(text, "WorkingDirectory") == str(place)


def test_what_the_environment_says_now_is_said_to_the_service(jobd, systemd, units, monkeypatch):
    monkeypatch.setenv("JOBD_HEARTBEAT", "1m")
    monkeypatch.setenv("PYTHONPATH", "/a b:/c%d")
    assert jobd("--app", "./program.py", "service", "install", "--grace", "5m").code == 0
    _, text = only(units())
    assert words(setting(text, "ExecStart"))[-3:] == ["start", "--grace=5m", "--heartbeat=1m"]
    assert setting(text, "Environment") == '"PYTHONPATH=/a b:/c%%d"'
    assert setting(text, "WatchdogSec") == "600"


HOSTILE = [
    "/a b/c.db",
    "/a%n/%%.db",
    '/a"b/c.db',
    "/a\\b/c.db",
    "/a$HOME/${x}/$$.db",
    "/a'b;c#d.db",
    "/größe/ü.db",
    "/a\\",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_every_printable_path_reaches_the_command_as_it_is(path):
    text = unit(Service("/x.db", [f"{path}/python", "--db", path, path], "/", {"PYTHONPATH": path}, 30.0, 5.0))
    found = words(setting(text, "ExecStart"))
    if found[0] == "/bin/sh":  # systemd's own rule for the first word
        found = subprocess.run(
            [*found[:3], "sh", "/usr/bin/printf", "%s\n", *found[4:]], capture_output=True, text=True, check=True
        )
        found = found.stdout.splitlines()
    assert found == [f"{path}/python", "--db", path, path]
    assert text.count("\n[") == 3


def test_systemd_itself_finds_nothing_wrong_with_such_a_unit(tmp_path):
    folder = tmp_path / "a b%n\"c$d'"
    folder.mkdir()
    python = folder / "python"
    python.symlink_to(sys.executable)
    command = [str(python), "--db", *HOSTILE]
    text = unit(Service(f"{folder}/x.db", command, str(folder), {"A": str(folder)}, 30.0, 5.0))
    (tmp_path / "jobd-x.service").write_text(text)
    analyze = shutil.which("systemd-analyze", path="/usr/bin:/bin")
    if analyze is None:
        return  # the reader above is what other machines have
    found = subprocess.run(
        [analyze, "--user", "verify", tmp_path / "jobd-x.service"],
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "jobd-x.service" not in found.stderr
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("path", ["/a\nb", "/a\x1b[2Jb", "/a\udcffb", "/a\x00b"])
def test_what_no_unit_can_hold_is_refused_and_shown_escaped(path):
    with pytest.raises(UsageError, match="no unit can hold") as refused:
        unit(Service("/x.db", ["/python", path], "/", {}, 30.0, 5.0))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("folder", ["/a\\", "/a "])
def test_a_folder_that_would_run_into_the_next_line_is_refused(folder):
    with pytest.raises(UsageError, match="no unit can hold"):
        unit(Service("/x.db", ["/python"], folder, {}, 30.0, 5.0))


def test_each_database_has_a_name_of_its_own_that_a_unit_can_have():
    names = {name_of(path) for path in [*HOSTILE, "/b/c.db", "/..db", "/" + "x" * 200 + ".db"]}
    assert len(names) == len(HOSTILE) + 3
    assert {checked_name(name) for name in names} == names
    assert max(map(len, names)) < 60


@pytest.mark.parametrize("name", ["", "../x", "a b", ".x", "x\n", "%n", "x" * 300])
def test_a_name_that_no_unit_can_have_is_a_mistake(jobd, units, name):
    assert jobd("service", "install", "--name", name or ".service").code == 2
    assert units() == {}


# -- what it asks of systemd ------------------------------------------------------------------------------------------


def test_an_install_is_told_to_systemd_and_says_how_it_outlives_the_session(jobd, systemd, units):
    answer = jobd("--app", "./program.py", "service", "install")
    name, _ = only(units())
    assert answer.code == 0
    assert systemd.asked() == ["daemon-reload", f"enable {name}", f"start {name}"]
    assert "loginctl enable-linger" in answer.err


def test_who_lingers_already_is_told_nothing_of_it(jobd, systemd, tmp_path):
    import getpass

    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / getpass.getuser()).touch()
    assert "loginctl" not in jobd("--app", "./program.py", "service", "install").err


def test_a_second_install_changes_what_runs_only_where_the_unit_has_changed(jobd, systemd, units):
    typed = ("--app", "./program.py", "service", "install")
    jobd(*typed)
    name, _ = only(units())
    systemd.asked()
    jobd(*typed)
    assert systemd.asked()[-1] == f"start {name}"
    jobd(*typed, "--workers", "2")
    assert systemd.asked()[-1] == f"restart {name}"


def test_it_can_wait_for_the_next_login(jobd, systemd, units):
    jobd("--app", "./program.py", "service", "install", "--no-start")
    name, _ = only(units())
    assert systemd.asked() == ["daemon-reload", f"enable {name}"]


def test_beside_another_daemon_it_is_enabled_and_not_started(jobd, systemd, units, place):
    from jobd import Jobd

    other = Jobd(place / "jobs.db")
    with other.daemon(workers=1):
        answer = jobd("--app", "./program.py", "service", "install")
    other.close()
    name, _ = only(units())
    assert answer.code == 0
    assert systemd.asked() == ["daemon-reload", f"enable {name}"]
    assert "another daemon runs on this database" in answer.err
    assert f"systemctl --user start {name}" in answer.err


def test_without_systemctl_it_writes_the_unit_and_says_what_to_type(jobd, units):
    answer = jobd("--app", "./program.py", "service", "install")
    name, _ = only(units())
    assert answer.code == 0
    line = f"systemctl --user daemon-reload && systemctl --user enable {name} && systemctl --user start {name}"
    assert line in answer.err


def test_where_systemd_refuses_its_reason_and_what_is_left_to_type_are_said(jobd, systemd, units):
    systemd.says("refuses-enable", "Failed to connect to bus: No medium found")
    answer = jobd("--app", "./program.py", "service", "install")
    name, _ = only(units())
    assert answer.code == 1
    assert f"systemctl --user enable {name}: Failed to connect to bus: No medium found" in answer.err
    assert f"systemctl --user enable {name} && systemctl --user start {name}" in answer.err


def test_a_program_that_cannot_be_loaded_is_no_service(jobd, systemd, units):
    assert jobd("--app", "./nowhere.py", "service", "install").code == 2
    assert units() == {}
    assert systemd.asked() == []


def test_a_service_without_a_program_is_warned_of(jobd, systemd, units):
    answer = jobd("service", "install")
    assert answer.code == 0
    assert "this daemon runs commands alone" in answer.err


def test_a_setting_that_cannot_be_meant_is_refused_before_anything_is_written(jobd, systemd, units):
    answer = jobd("--app", "./program.py", "service", "install", "--drain", "soon")
    assert answer.code == 2
    assert "--drain: not a duration" in answer.err
    assert units() == {}


def test_somebody_elses_unit_is_left_alone(jobd, systemd, units, tmp_path):
    folder = tmp_path / "config" / "systemd" / "user"
    folder.mkdir(parents=True)
    (folder / "mine.service").write_text("[Service]\nExecStart=/bin/true\n")
    for action in ("install", "uninstall", "status"):
        answer = jobd("--app", "./program.py", "service", action, "--name", "mine")
        assert answer.code == 4
        assert "was not written by jobd" in answer.err
    assert units() == {"mine": "[Service]\nExecStart=/bin/true\n"}
    assert systemd.asked() == []


def test_an_uninstall_stops_it_and_leaves_the_jobs(jobd, systemd, units, place):
    jobd("--app", "./program.py", "submit", "quick", "1")
    jobd("--app", "./program.py", "service", "install")
    name, _ = only(units())
    systemd.asked()
    assert jobd("--app", "./program.py", "service", "uninstall").code == 0
    assert systemd.asked() == [f"disable --now {name}", "daemon-reload"]
    assert units() == {}
    assert jobd("show", "1").code == 0
    again = jobd("--app", "./program.py", "service", "uninstall")
    assert again.code == 3
    assert "service install" in again.err


def test_an_uninstall_goes_through_where_nobody_can_be_asked(jobd, systemd, units):
    jobd("--app", "./program.py", "service", "install")
    systemd.says("refuses-disable", "Failed to connect to bus: No medium found")
    answer = jobd("--app", "./program.py", "service", "uninstall")
    assert answer.code == 0
    assert "No medium found" in answer.err
    assert units() == {}


@pytest.mark.parametrize(
    ("state", "code", "active"), [("active", 0, True), ("inactive", 1, False), ("failed", 1, False), (None, 1, None)]
)
def test_its_status_is_what_systemd_says_of_it(jobd, systemd, units, place, state, code, active):
    jobd("--app", "./program.py", "service", "install")
    name, _ = only(units())
    if state is not None:
        systemd.says("is-active", state)
    systemd.says("is-enabled", "enabled")
    answer = jobd("--app", "./program.py", "service", "status", "--json")
    assert answer.code == code
    assert json.loads(answer.out) == {
        "name": name,
        "unit": str(Path(os.environ["XDG_CONFIG_HOME"], "systemd", "user", f"{name}.service")),
        "database": str(place / "jobs.db"),
        "installed": True,
        "enabled": True,
        "active": active,
        "linger": False,
    }


def test_the_status_of_none_is_not_found_and_says_how_to_have_one(jobd, systemd):
    answer = jobd("--app", "./program.py", "service", "status")
    assert answer.code == 3
    assert "jobd --app ./program.py service install" in answer.err


def test_settings_are_for_the_install_alone(jobd):
    answer = jobd("service", "status", "--workers", "3")
    assert answer.code == 2
    assert "takes no settings" in answer.err


def test_on_macos_it_says_in_one_line_that_it_is_not_supported_yet(jobd, units, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = jobd("--app", "./program.py", "service", "install")
    assert answer.code == 2
    assert answer.err.splitlines()[0] == "error: launchd is not supported yet"
    assert units() == {}


@pytest.mark.parametrize("name", ["-x", ".x", "-.service", ""])
def test_a_name_that_would_be_an_option_or_hidden_is_refused(name):
    with pytest.raises(UsageError):
        checked_name(name)


def test_a_daemon_without_a_program_is_hinted_at_with_one(jobd, systemd):
    hint = "  hint: jobd --app ./program.py service install"
    assert hint in jobd("service", "install", "--no-start").err.splitlines()
    jobd("service", "uninstall")
    assert hint in jobd("service", "status").err.splitlines()


@pytest.mark.parametrize("action", ["install", "status"])
def test_a_folder_of_units_that_cannot_be_is_one_line_and_a_2(jobd, monkeypatch, place, action):
    (place / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "file"))
    answer = jobd("--app", "./program.py", "service", action)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {place}/file/systemd/user/jobd-")
    assert len(answer.err.splitlines()) == 2


def test_a_relative_folder_of_units_is_ignored(jobd, monkeypatch, place):
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    assert jobd("--app", "./program.py", "service", "install").code == 0
    assert list((place / ".config" / "systemd" / "user").glob("*.service"))
    assert not (place / "config").exists()
