"""How the dispatcher is woken: at once, from anywhere, and never too late because it was about to sleep."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from jobd import Jobd
from jobd.engine import dispatcher
from jobd.engine.wake import Bell, Wake

SECONDS = 20
# Of Python 3.12: the test's process has threads of its own; the child only does what is tested.
MAY_FORK = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

RINGS = """
from jobd.engine.wake import Bell
bell = Bell(path)
bell()
say("ready")
while told() == "ring":
    say("rang", time.monotonic())
    bell()
"""

DIES = """
from jobd.engine.wake import Wake
wake = Wake(path)
say("listens", wake.reachable)
told()
"""


@pytest.fixture
def socket_path(path):
    return Path(f"{path}.wake")


@pytest.fixture
def wake(path):
    made = Wake(str(path))
    yield made
    made.close()


def seconds_to_wake(wake):
    began = time.monotonic()
    rung = wake.sleep(SECONDS)
    return rung, time.monotonic() - began


def test_a_ring_of_another_process_wakes_within_milliseconds(wake, program):
    ringer = program(RINGS)
    ringer.hears("ready")
    wake.sleep(0)
    latencies = []
    for _ in range(30):
        wake.prepare()
        ringer.tell("ring")
        assert wake.sleep(SECONDS) is True
        latencies.append(time.monotonic() - float(ringer.hears("rang")))
    assert sorted(latencies)[len(latencies) // 2] < 0.02, latencies
    assert min(latencies) < 0.005, latencies


def test_a_ring_or_a_nudge_of_another_thread_wakes_the_sleeper(wake):
    for wakes, rung in ((wake.ring, True), (wake.nudge, False)):
        wake.prepare()
        threading.Timer(0.01, wakes).start()
        answer, seconds = seconds_to_wake(wake)
        assert answer is rung
        assert seconds < SECONDS / 2


def test_what_comes_before_the_sleep_keeps_it_from_sleeping(wake):
    def before(*calls):
        for call in calls:
            call()
        answer, seconds = seconds_to_wake(wake)
        assert seconds < SECONDS / 2
        return answer

    assert before(wake.ring, wake.prepare) is True
    assert before(wake.prepare, wake.ring) is True
    assert before(wake.prepare, wake.nudge) is False


def test_a_ring_is_said_once(wake):
    wake.prepare()
    wake.ring()
    assert wake.sleep(0) is True
    wake.prepare()
    wake.sleep(0)
    assert wake.sleep(0) is False


def test_nobody_rings_and_it_sleeps_its_time(wake):
    began = time.monotonic()
    wake.prepare()
    assert wake.sleep(0.05) is False
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("call", ["ring", "nudge"])
def test_no_call_is_lost_whenever_it_comes(wake, call):
    """Four threads leave something and call, at any instant of the sleeper's round; it answers each of them.

    A lost call would let the sleeper sleep until the time runs out.
    """
    rounds, threads = 500, 4
    left = [0] * threads
    seen = [threading.Semaphore(0) for _ in range(threads)]
    failed = []

    def leave(number):
        for _ in range(rounds):
            left[number] += 1
            getattr(wake, call)()
            if not seen[number].acquire(timeout=SECONDS):
                failed.append(number)
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        callers = [threading.Thread(target=leave, args=(number,)) for number in range(threads)]
        for caller in callers:
            caller.start()
        answered = [0] * threads
        until = time.monotonic() + SECONDS / 2
        while sum(answered) < rounds * threads and time.monotonic() < until:
            wake.prepare()
            if left == answered:
                wake.sleep(SECONDS)
            for number in range(threads):
                while answered[number] < left[number]:
                    answered[number] += 1
                    seen[number].release()
        assert answered == [rounds] * threads
        for caller in callers:
            caller.join(SECONDS)
        assert failed == []
    finally:
        sys.setswitchinterval(interval)


def test_rings_of_many_processes_are_none_too_many_and_none_too_few(wake, path):
    """More rings than the socket holds: the callers go on at once, the sleeper wakes, and then sleeps again."""
    bell = Bell(str(path))
    for _ in range(5_000):
        bell()
    wake.prepare()
    assert wake.sleep(SECONDS) is True
    wake.prepare()
    assert wake.sleep(0) is False


# -- the socket -------------------------------------------------------------------------------------------------------


def test_the_socket_is_the_owners_alone_and_goes_with_it(path, socket_path):
    wake = Wake(str(path))
    assert wake.reachable
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    wake.close()
    assert not socket_path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(path, socket_path, program):
    dies = program(DIES)
    assert dies.hears("listens") == "True"
    dies.kill()
    assert stat.S_ISSOCK(socket_path.stat().st_mode)
    Bell(str(path))()
    wake = Wake(str(path))
    wake.prepare()
    Bell(str(path))()
    assert wake.sleep(SECONDS) is True
    wake.close()


@pytest.mark.parametrize("kind", ["file", "folder", "symlink", "dangling"])
def test_a_foreign_file_of_that_name_stays_untouched(path, socket_path, kind, tmp_path):
    target = tmp_path / "target"
    if kind == "folder":
        socket_path.mkdir()
    elif kind == "file":
        socket_path.write_text("mine")
    else:
        if kind == "symlink":
            foreign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            foreign.bind(str(target))
            foreign.close()
        socket_path.symlink_to(target)
    before = os.lstat(socket_path)
    wake = Wake(str(path))
    assert not wake.reachable
    Bell(str(path))()
    wake.close()
    assert os.lstat(socket_path) == before
    assert target.is_socket() == (kind == "symlink")


def test_another_daemons_socket_of_that_name_outlives_our_close(path, socket_path):
    """The database was replaced, and the new file's daemon came before the old one left."""
    old = Wake(str(path))
    socket_path.rename(socket_path.with_suffix(".moved"))
    new = Wake(str(path))
    old.close()
    new.prepare()
    Bell(str(path))()
    assert new.sleep(SECONDS) is True
    new.close()


# -- the bell ---------------------------------------------------------------------------------------------------------


def test_a_bell_without_a_daemon_is_silent_and_rings_the_one_that_comes_later(path, tmp_path):
    bell, lost = Bell(str(path)), Bell(str(tmp_path / "no folder" / "jobs.db"))
    for silent in (bell, lost, Bell("x" * 4096)):
        silent()
    assert list(tmp_path.iterdir()) == []
    wake = Wake(str(path))
    wake.prepare()
    assert wake.sleep(0) is False
    wake.prepare()
    bell()
    assert wake.sleep(SECONDS) is True
    wake.close()


@MAY_FORK
def test_a_bell_goes_on_in_a_forked_child(wake, path):
    bell = Bell(str(path))
    bell()
    wake.sleep(0)
    wake.prepare()
    child = os.fork()
    if child == 0:
        bell()
        os._exit(0)
    assert wake.sleep(SECONDS) is True
    assert os.waitpid(child, 0)[1] == 0


def test_a_bell_is_rung_by_many_threads_with_one_socket(wake, path):
    bell, barrier = Bell(str(path)), threading.Barrier(8)

    def ring():
        barrier.wait()
        bell()

    threads = [threading.Thread(target=ring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bell._sockets) == 1
    assert wake.sleep(SECONDS) is True


# -- without a socket -------------------------------------------------------------------------------------------------


@pytest.fixture
def long_app(tmp_path, monkeypatch):
    """An app whose path is too long for a socket, and whose daemon looks at the database often."""
    monkeypatch.setattr(dispatcher, "GLANCE", 0.05)
    folder = tmp_path / ("long-" * 20)
    folder.mkdir()
    app = Jobd(folder / "jobs.db")
    yield app
    app.close()


def test_without_a_socket_a_submission_is_seen_in_the_database(long_app):
    other = Jobd(long_app.path)
    echo = long_app.task(lambda value: value, name="echo")
    with long_app.daemon(workers=1) as daemon:
        assert not daemon._wake.reachable
        echo.submit([1]).wait(SECONDS)
        assert other.submit("echo", [2]).wait(SECONDS).status == "completed"
    other.close()


def test_without_a_socket_a_cancel_reaches_the_handlers_and_a_request_its_daemon(long_app):
    other, entered = Jobd(long_app.path), threading.Event()

    @long_app.task
    def patient(value, ctx):
        entered.set()
        pause = threading.Event()
        while not pause.wait(0.005):
            ctx.raise_if_cancelled()

    with long_app.daemon(workers=1):
        job = patient.submit([1, 2])
        assert entered.wait(SECONDS)
        other.job(job.id).cancel()
        assert job.wait(SECONDS).status == "cancelled"
        assert other.recover().name == "recover"
    other.close()
