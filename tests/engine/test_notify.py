"""What a service manager hears: over a real socket, as systemd makes one for what it starts."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from jobd import clock
from jobd.engine.notify import Notify

SECONDS = 20

# What `jobd start` is at its heart, with a task that shows what its own processes inherit. Its pulse is one of each
# second that it is awake, and here a second is over sooner.
SERVICE = """
from jobd import clock

awake = clock.awake
clock.awake = lambda: 50 * awake()
app = Jobd(path, heartbeat="20ms")

@app.task
def look(name):
    import subprocess
    names = subprocess.run(["env"], capture_output=True, text=True).stdout
    return [line for line in names.splitlines() if line.startswith(("NOTIFY_", "WATCHDOG_"))]

@app.task
def wait(value):
    say("runs")
    told()

app.run(workers=1)
say("left")
"""
# Refused at the first try, and not after half a second.
REFUSED = f"""
from jobd.engine.lock import Lock

Lock.acquire.__kwdefaults__["patience"] = 0.0
{SERVICE}
"""


class Manager:
    """The socket of a service manager, and what it has heard."""

    def __init__(self, address):
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.settimeout(SECONDS)
        self.end.bind(address)

    def hears(self, state):
        """Wait for a message of this state, and return all that came up to it."""
        heard = []
        while not heard or state not in heard[-1]:
            heard.append(self.end.recv(4096).decode().splitlines())
        return heard

    def silent(self):
        self.end.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.end.recv(4096)
        return True


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    name = f"@jobd-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    manager = Manager(f"\0{name[1:]}" if name.startswith("@") else name)
    for variable, value in {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}.items():
        monkeypatch.setenv(variable, value)
    yield manager
    manager.end.close()


def test_a_daemon_is_ready_lives_and_leaves_and_its_manager_hears_each(manager, program, app):
    started = program(SERVICE)
    assert manager.hears("READY=1")[-1] == ["READY=1"]
    assert manager.hears("WATCHDOG=1")[-1] == ["WATCHDOG=1", "STATUS=ok"]
    manager.hears("WATCHDOG=1")
    started.signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    started.hears("left")


def test_what_its_handlers_start_cannot_speak_in_its_name(manager, program, app):
    started = program(SERVICE)
    manager.hears("READY=1")
    job = app.submit("look", [1]).wait(SECONDS)
    assert [result.value for result in job.results()] == [[]]
    started.signal(signal.SIGTERM)
    started.hears("left")


def test_it_lives_while_it_drains(manager, program, app):
    started = program(SERVICE)
    manager.hears("READY=1")
    app.submit("wait", [1])
    started.hears("runs")
    started.signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    manager.hears("WATCHDOG=1")
    started.tell()
    started.hears("left")
    assert app.job("@last").status == "completed"


def test_who_is_refused_is_never_ready(manager, program, app):
    with app.daemon():
        assert program(REFUSED).leaves() != 0
    assert manager.silent()


def test_a_manager_that_has_gone_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify = Notify()
    assert "NOTIFY_SOCKET" not in os.environ
    notify("READY=1")


def test_a_state_is_one_line_whatever_it_quotes(tmp_path, monkeypatch):
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    Notify()("WATCHDOG=1", "STATUS=degraded: disk\nSTOPPING=1")
    assert manager.hears("WATCHDOG=1") == [["WATCHDOG=1", "STATUS=degraded: disk STOPPING=1"]]
    manager.end.close()


def test_a_daemon_whose_dispatcher_hangs_has_no_pulse(app, rows, gate, jobd_clock, until):
    """Its other threads may live as long as they like: nothing would run any more, and nobody would start it anew."""
    felt = set()

    def pulse():
        """Let a beat pass and say whether the daemon had a pulse at it."""
        present = clock.now()
        until(lambda: rows.one("select max(heartbeat_at) from daemons") == present)
        return present in felt

    with app.daemon(workers=1) as daemon:
        daemon.pulse = lambda _: felt.add(clock.now())
        jobd_clock.move(seconds=5)
        assert pulse()
        daemon._dispatcher._rung = gate.pass_through
        app.store.wake()
        assert gate.entered.wait(SECONDS)
        jobd_clock.move(seconds=90)
        assert not pulse()
        gate.opened.set()
        until(lambda: daemon._dispatcher.turns)
        jobd_clock.move(seconds=5)
        assert pulse()
