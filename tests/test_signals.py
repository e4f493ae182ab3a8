"""Signals that are taken over belong to this process, and to none that it forks."""

import os
import signal

import pytest

from jobd import signals
from jobd.signals import Taken

STAYED, WRONG = 3, 4


def nothing(number, frame):
    """Stand for a handler."""


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def written(reader):
    try:
        return os.read(reader, 64)
    except BlockingIOError:
        return b""


@pytest.fixture
def forked():
    """Return a function that runs another in a forked child and returns the child's status, as ``waitpid`` tells it."""

    def fork(in_child):
        pid = os.fork()
        if pid:
            return os.waitpid(pid, 0)[1]
        code = WRONG
        try:
            code = in_child()
        finally:
            os._exit(code)

    return fork


def told_to_end():
    os.kill(os.getpid(), signal.SIGTERM)
    return STAYED


def test_a_taken_signal_writes_its_number_and_ends_nothing(pipe):
    reader, writer = pipe
    with Taken([signal.SIGTERM], nothing, writer):
        os.kill(os.getpid(), signal.SIGTERM)
    assert written(reader) == bytes([signal.SIGTERM])


def test_a_forked_child_that_is_told_to_end_ends_and_its_parent_hears_nothing(pipe, forked):
    reader, writer = pipe
    with Taken([signal.SIGTERM], nothing, writer):
        status = forked(told_to_end)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert written(reader) == b""
        # Here they are as they were.
        os.kill(os.getpid(), signal.SIGTERM)
        assert written(reader) == bytes([signal.SIGTERM])


def test_what_is_sent_to_a_child_before_it_gave_the_signals_back_waits_until_it_has(pipe, forked, monkeypatch):
    reader, writer = pipe
    real = Taken.restore_handlers

    def sent_first(self):
        os.kill(os.getpid(), signal.SIGTERM)
        real(self)

    with Taken([signal.SIGTERM], nothing, writer):
        monkeypatch.setattr(Taken, "restore_handlers", sent_first)
        status = forked(lambda: STAYED)
        monkeypatch.undo()
    assert os.WIFSIGNALED(status)
    assert written(reader) == b""


def test_a_fork_leaves_no_signal_blocked_on_either_side(pipe, forked):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def same_mask():
        return STAYED if signal.pthread_sigmask(signal.SIG_BLOCK, []) == before else WRONG

    with Taken([signal.SIGTERM], nothing, pipe[1]):
        assert os.waitstatus_to_exitcode(forked(same_mask)) == STAYED
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_child_gives_back_what_was_taken_one_inside_the_other(pipe, forked):
    outer = signal.getsignal(signal.SIGINT)

    def as_before():
        return STAYED if signal.getsignal(signal.SIGINT) == outer and signal.set_wakeup_fd(-1) == -1 else WRONG

    with Taken([signal.SIGINT], nothing, pipe[1]), Taken([signal.SIGINT], lambda *_: None, pipe[1]):
        assert os.waitstatus_to_exitcode(forked(as_before)) == STAYED
        assert len(signals._taken) == 2
    assert signals._taken == []


def test_a_signal_that_is_ignored_stays_so(pipe):
    reader, writer = pipe
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Taken([signal.SIGINT, signal.SIGTERM], nothing, writer):
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert written(reader) == b""
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


def test_everything_is_given_back(pipe):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    wakeup = signal.set_wakeup_fd(-1)
    with Taken([signal.SIGINT, signal.SIGTERM], nothing, pipe[1]):
        assert signal.getsignal(signal.SIGINT) is nothing
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(wakeup) == -1


def test_an_interrupt_while_they_are_taken_gives_back_those_that_were(pipe, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    real = signal.signal

    def interrupted(number, handler):
        if handler is nothing and number == signal.SIGINT:
            raise KeyboardInterrupt
        return real(number, handler)

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt), Taken([signal.SIGTERM, signal.SIGINT], nothing, pipe[1]):
        pass
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1
    assert signals._taken == []
