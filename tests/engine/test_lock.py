"""One daemon to a file, by the kernel's word."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobd import DaemonRunning, Jobd, StoreUnusable
from jobd.engine import lock
from jobd.engine.lock import Lock, Owner, owner, probe

# Of Python 3.12: the test's process has threads of its own; the child only does what is tested.
MAY_FORK = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
ME = Owner(os.getpid(), "here", 1_795_305_600_000)

HOLDER = """
from jobd.engine.lock import Lock, Owner
claim = Lock(os.path.realpath(path))
claim.acquire(Owner(os.getpid(), "there", 1))
say("held")
told()
claim.release()
say("released")
told()
"""

DAEMON = """
app = Jobd(path)

@app.task
def work(value):
    pass

with app.daemon():
    say("runs")
    told()
"""


@pytest.fixture
def claim(path):
    made = Lock(str(path))
    yield made
    made.drop()


def test_who_holds_it_is_named_and_a_release_frees_it(claim, path):
    claim.acquire(ME)
    assert claim.held
    assert claim.intact()
    assert probe(str(path))
    assert owner(str(path)) == ME
    claim.release()
    assert not claim.held
    assert not probe(str(path))
    assert owner(str(path)) is None
    assert Path(claim.path).exists()


def test_a_second_claim_is_refused_within_a_second_and_names_the_first(claim, path, program):
    holder = program(HOLDER)
    holder.hears("held")
    began = time.monotonic()
    with pytest.raises(DaemonRunning, match=f"pid {holder.pid} on there") as refused:
        claim.acquire(ME)
    assert time.monotonic() - began < 1
    assert refused.value.exit_code == 7
    assert not claim.held
    holder.tell()
    holder.hears("released")
    claim.acquire(ME)


@pytest.mark.usefixtures("refused_at_once")
@pytest.mark.parametrize("how", ["symlink", "relative", "folder"])
def test_a_second_daemon_is_refused_under_every_name_of_the_file(app, path, program, tmp_path, monkeypatch, how):
    if how == "symlink":
        other = tmp_path / "other.db"
        other.symlink_to(path)
    elif how == "relative":
        monkeypatch.chdir(tmp_path)
        other = Path("..", tmp_path.name, path.name)
    else:
        (tmp_path / "link").symlink_to(tmp_path)
        other = tmp_path / "link" / path.name
    first = program(DAEMON)
    first.hears("runs")
    with pytest.raises(DaemonRunning, match=f"pid {first.pid} "), Jobd(other).daemon():
        pytest.fail("two daemons on one file")


STALE = ["", "garbage", "[]", '{"pid": 1}', "{" * 9000, f'{{"pid": {os.getpid()}, "host": "here"}}']


@pytest.mark.parametrize("stale", STALE, ids=range(len(STALE)))
def test_what_is_written_in_the_file_is_never_believed(claim, path, stale):
    """Not even the pid of a process that lives: only the kernel knows who holds it."""
    Path(claim.path).write_text(stale)
    assert owner(str(path)) is None
    assert not probe(str(path))
    claim.acquire(ME)
    assert owner(str(path)) == ME


def test_a_reused_pid_fools_nobody(claim, path, program):
    """The dead daemon's pid is that of a process which lives and has nothing to do with it."""
    bystander = program("say('lives'); told()")
    bystander.hears("lives")
    Path(claim.path).write_text(json.dumps(Owner(bystander.pid, "here", 1)._asdict()))
    assert not probe(str(path))
    with Jobd(path).daemon() as daemon:
        assert daemon.id
        assert owner(str(path)).pid == os.getpid()


@pytest.mark.parametrize(
    ("listed", "who"), [(True, f"pid {os.getpid()}"), (False, "an unknown process")], ids=["listed", "unlisted"]
)
def test_a_refusal_without_a_readable_name_still_refuses(claim, monkeypatch, listed, who):
    if not listed:
        monkeypatch.setattr(lock, "_holders", lambda _: [])
    descriptor = os.open(claim.path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(DaemonRunning, match=rf"another daemon owns .* \({who}\)"):
        claim.acquire(ME, patience=0)
    os.close(descriptor)
    claim.acquire(ME, patience=0)


def test_a_sigkill_frees_it_at_once(claim, path, program):
    holder = program(HOLDER)
    holder.hears("held")
    with pytest.raises(DaemonRunning):
        claim.acquire(ME, patience=0)
    holder.kill()
    claim.acquire(ME, patience=0)
    assert claim.held
    assert owner(str(path)) == ME


# A handler forks; the child stays when the daemon is killed, and keeps whatever was not closed for it.
FORKS = """
import ctypes
app = Jobd(path)
libc = ctypes.PyDLL(None)
fork = {"os.fork": os.fork, "libc": libc.fork}[sys.argv[2]]
# A child that no hook has seen must neither leave the interpreter's lock nor be asked to: the threads that would hand
# it back are not there.
sys.setswitchinterval(1_000)

@app.task
def work(value):
    if fork() == 0:
        # By itself: the hooks of a fork run in the child, some time after its parent has gone on.
        name = b"child %d\\n" % os.getpid()
        libc.write(1, name, len(name))
        libc.pause()
    threading.Event().wait()

with app.daemon():
    work.submit([1])
    threading.Event().wait()
"""


@pytest.fixture
def left_behind(program, until):
    """Return the pid of a child that outlives its killed daemon."""
    children = []

    def leave(how):
        daemon = program(FORKS, how)
        children.append(int(daemon.hears("child")))
        daemon.kill()
        os.kill(children[0], 0)
        return daemon.pid, children[0]

    yield leave
    for child in children:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_outlives_its_daemon_leaves_the_lock_free(path, left_behind):
    left_behind("os.fork")
    assert not probe(str(path))
    with Jobd(path).daemon() as daemon:
        assert daemon.id == 2


@pytest.mark.usefixtures("refused_at_once")
def test_where_a_child_escaped_the_hook_the_refusal_names_the_child_not_the_dead(app, left_behind):
    daemon, child = left_behind("libc")
    with (
        pytest.raises(DaemonRunning, match=f"held by pid {child}, left behind .*pid {daemon} ") as refused,
        app.daemon(),
    ):
        pytest.fail("the lock is held")
    assert str(child) in refused.value.hint


@MAY_FORK
def test_a_forked_child_neither_holds_nor_frees_its_parents_lock(claim, path):
    claim.acquire(ME)
    child = os.fork()
    if child == 0:
        answer = 0 if not claim.held and not claim.intact() and probe(str(path)) else 1
        claim.release()
        os._exit(answer)
    assert os.waitpid(child, 0)[1] == 0
    assert claim.intact()
    assert probe(str(path))
    assert owner(str(path)) == ME


PROBES = """
from jobd.engine.lock import probe
target = os.path.realpath(path)
threading.Thread(target=lambda: (told(), os._exit(0)), daemon=True).start()
probe(target)
say("probes")
while True:
    probe(target)
"""


def test_readers_probing_all_the_time_never_keep_a_daemon_from_starting(claim, program, until, monkeypatch):
    claim.acquire(ME)
    claim.release()
    for prober in [program(PROBES) for _ in range(3)]:
        prober.hears("probes")
    descriptor, met = os.open(claim.path, os.O_RDWR), []

    def free():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return True

    # A probe lasts an instant: what the claim waits for is that it has passed, not a time.
    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=lambda seconds: (met.append(seconds), until(free))))

    def starts():
        claim.acquire(ME)
        assert claim.held
        claim.release()
        return len(met) >= 5

    # Until it has met them often enough; each time it has started all the same.
    until(starts)
    os.close(descriptor)


def test_two_readers_that_probe_at_once_take_each_other_for_no_daemon(claim, path):
    other = os.open(claim.path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_SH)
    assert not probe(str(path))
    os.close(other)


def test_a_claim_waits_for_a_probe_to_pass(claim, monkeypatch):
    """Where it finds the lock shared, which only readers do, it tries again."""
    descriptor = os.open(claim.path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.close(descriptor))
    claim.acquire(ME)
    assert claim.held


def test_a_claim_on_a_file_that_was_removed_meanwhile_is_none(claim, path, monkeypatch):
    """Between our open and our lock somebody removes the file: whoever comes next would lock another one."""
    real, calls = fcntl.flock, []

    def flock(descriptor, how):
        if not calls:
            Path(claim.path).unlink()
        calls.append(how)
        real(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    claim.acquire(ME)
    assert len(calls) == 2
    assert claim.intact()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_removed_or_replaced_lock_file_is_noticed(claim, replaced):
    claim.acquire(ME)
    Path(claim.path).unlink()
    if replaced:
        Path(claim.path).touch()
    assert not claim.intact()


def test_one_of_many_that_start_at_once_wins(path):
    barrier, won, refused = threading.Barrier(8), [], []
    locks = [Lock(str(path)) for _ in range(8)]

    def start(one):
        barrier.wait()
        try:
            one.acquire(ME, patience=0.1)
            won.append(one)
        except DaemonRunning as error:
            refused.append(error)

    threads = [threading.Thread(target=start, args=(one,)) for one in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    won[0].release()


def test_a_file_system_without_locks_is_said(claim, monkeypatch):
    def flock(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(StoreUnusable, match="has no locks"):
        claim.acquire(ME)
    assert not probe(claim.path.removesuffix(".lock"))


def test_a_lock_that_cannot_be_created_names_its_path(tmp_path):
    with pytest.raises(StoreUnusable, match=r"gone/jobs\.db\.lock"):
        Lock(str(tmp_path / "gone" / "jobs.db")).acquire(ME)


def test_a_full_disk_costs_the_name_in_the_file_not_the_lock(claim, path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    claim.acquire(ME)
    assert probe(str(path))
    monkeypatch.setattr(lock.os, "ftruncate", full)
    claim.release()
    assert not probe(str(path))
