"""A process is known by its start, which neither a reused pid nor a step of the clock can fake."""

import os
import subprocess
import sys

from jobd import process


def test_this_process_is_alive_and_another_start_of_its_pid_is_not():
    me = process.myself()
    assert me.pid == os.getpid()
    assert process.alive(me) is True
    assert process.alive(me._replace(started_at=me.started_at - 60_000)) is False


def test_a_step_of_the_clock_makes_nobody_dead(monkeypatch):
    import psutil

    me = process.myself()
    monkeypatch.setattr(psutil, "boot_time", lambda: psutil.boot_time() - 7_200)
    assert process.alive(me) is True


def test_a_process_that_ended_is_dead_also_while_its_parent_has_not_looked():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    named = process.myself()._replace(pid=child.pid, started_at=process._started_at(child.pid))
    assert process.alive(named) is True
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.alive(named) is False
    child.wait()
    assert process.alive(named) is False


def test_another_host_cannot_be_judged_and_another_boot_is_over():
    me = process.myself()
    assert process.alive(me._replace(host="elsewhere")) is None
    assert process.alive(me._replace(boot="earlier")) is False


def test_what_is_not_a_process_is_read_as_none():
    assert process.Process.loads(process.myself().dumps()) == process.myself()
    assert [process.Process.loads(text) for text in ("", "[]", "{}", '{"pid": "x"}')] == [None] * 4
