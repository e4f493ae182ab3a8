"""Commands: how each of their ends is recorded, what is kept of what they print, and that nothing of one is left."""

from __future__ import annotations

import signal
import sys

import psutil
import pytest

from jobd.store.invariants import check
from jobd.store.outcome import Printed

SECONDS = 20
LIMIT = 65_536


@pytest.fixture
def app(app):
    yield app
    assert check(app.store) == []


@pytest.fixture
def submit(app, tmp_path):
    """Submit a script over items."""

    def send(script, items=("a",), **options):
        # A script without its item would be given it as its last word.
        params = {"command": [f": {{}}; {script}"], "shell": True, "cwd": str(tmp_path)}
        return app.submit("shell", [{"item": item} for item in items], item_key="item", params=params, **options)

    return send


@pytest.fixture
def ends(app, submit):
    """Run a script as one item, and return the job."""

    def run(script, **options):
        job = submit(script, **options)
        with app.daemon(workers=2):
            return job.wait(SECONDS)

    return run


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def only(job):
    (item,) = job.items()
    return item


# -- how it ended


def test_a_command_that_ends_with_0_is_completed(ends):
    job = ends("exit 0")
    assert (job.status, [result.value for result in job.results()]) == ("completed", [{"exit": 0}])


@pytest.mark.parametrize(
    ("script", "kind", "error"),
    [
        ("exit 3", "Exit", "exit 3"),
        ("kill -SEGV $$", "Signal", "killed by SIGSEGV"),
        ("kill -40 $$", "Signal", "killed by signal 40"),
    ],
)
def test_any_other_end_is_a_failure_with_its_exit_code_or_signal(ends, script, kind, error):
    item = only(ends(script))
    assert (item.status, item.error_type, item.error) == ("failed", kind, error)
    assert item.started_at <= item.completed_at


def test_a_command_that_cannot_be_started_fails_as_in_a_shell(app, tmp_path):
    for command, cwd in (["./nothing"], tmp_path), (["true"], tmp_path / "gone"):
        job = app.submit("shell", [{"item": "a"}], params={"command": command, "shell": False, "cwd": str(cwd)})
        with app.daemon(workers=1):
            job.wait(SECONDS)
        item = only(job)
        assert (item.status, item.error_type) == ("failed", "Exit")
        assert item.error.startswith("exit 127: cannot be started: No such file or directory: ")


def test_params_that_are_those_of_no_command_fail_the_item(app):
    job = app.submit("shell", ["a"], params={"cmd": "x"})
    with app.daemon(workers=1):
        job.wait(SECONDS)
    assert (only(job).status, only(job).error_type) == ("failed", "NoCommand")


def test_a_command_knows_its_item_job_attempt_and_folder_and_has_no_input(ends, submit, app, tmp_path):
    submit("exit 0")
    job = ends('cat; echo "$JOBD_ITEM $JOBD_JOB $JOBD_ATTEMPT"; pwd; test -t 0 || ls -l /proc/self/fd | grep -c pipe')
    said = job.printed("a").stdout.decode().splitlines()
    assert said[:2] == [f"a {job.id} 1", str(tmp_path)]
    # Its output and its errors (which grep's pipe stands for in part), and nothing of the daemon.
    assert int(said[2]) <= 2


def test_a_command_finds_no_signal_ignored_that_the_daemon_ignores(ends):
    job = ends("trap 2>/dev/null; grep SigIgn /proc/self/status")
    ignored = int(job.printed("a").stdout.split()[-1], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP):
        assert not ignored & 1 << number - 1


def test_a_call_of_the_task_says_who_runs_commands(app):
    with pytest.raises(Exception, match="run by a daemon"):
        app.tasks["shell"]("a")


def test_drain_runs_commands_too(app, submit):
    job = submit('echo "$JOBD_ITEM"; test "$JOBD_ITEM" != b', items="abc")
    assert app.drain().counts == {"completed": 2, "failed": 1}
    assert [job.printed(key).stdout for key in "abc"] == [b"a\n", b"b\n", b"c\n"]


def test_a_daemon_without_commands_has_no_spawners(app):
    before = {one.pid for one in psutil.Process().children()}
    with app.daemon(workers=2):
        assert {one.pid for one in psutil.Process().children()} == before


# -- what it printed


def test_both_streams_are_kept_apart_and_byte_for_byte(ends):
    every = bytes(range(256))
    octal = "".join(f"\\{byte:03o}" for byte in every)
    job = ends(f"printf '{octal}'; printf 'an error' >&2")
    assert job.printed("a")[1:] == (every, b"an error", False)


def test_of_much_output_the_last_64_kib_are_kept(ends):
    script = f"{sys.executable} -c 'for n in range(100_000): print(n)'; echo end >&2"
    streams = ends(script).printed("a")
    whole = b"".join(b"%d\n" % n for n in range(100_000))
    assert len(streams.stdout) + len(streams.stderr) == LIMIT
    assert streams.truncated
    assert whole.endswith(streams.stdout)
    assert streams.stderr == b"end\n"


def test_a_failed_or_timed_out_command_has_its_output_kept(ends):
    assert ends("echo why; exit 1").printed("a").stdout == b"why\n"
    job = ends("echo so far; sleep 100", timeout=0.2)
    assert (only(job).error_type, only(job).error) == ("TimeOut", "timed out after 0.2 s")
    assert job.printed("a").stdout == b"so far\n"


def test_a_command_that_printed_nothing_leaves_nothing(ends):
    assert ends("true").printed("a") is None


def test_a_try_after_another_leaves_its_own_output_alone(ends):
    job = ends('echo "try $JOBD_ATTEMPT"; test "$JOBD_ATTEMPT" = 3', retries=2, backoff=0.001)
    assert (job.status, only(job).attempt, job.printed("a").stdout) == ("completed", 3, b"try 3\n")


def test_what_a_command_printed_goes_with_its_result_when_its_item_runs_again(ends, app):
    job = ends("echo why; exit 1")
    job.retry()
    assert job.printed("a") is None


def test_what_is_printed_survives_the_rescue_file(app, submit):
    from jobd.engine import rescue
    from jobd.store import daemons

    job = submit("true")
    with app.daemon(workers=1):
        job.wait(SECONDS)
    outcome = _outcome(job)._replace(printed=Printed("\xff\x00", "e", True))
    rescue.keep(app.path, (1, 1), [outcome])
    (_, read), *_ = rescue._read(rescue.Path(f"{app.path}.rescue"))
    assert read == outcome
    assert daemons.last_sign(app.store) is not None


def _outcome(job):
    from jobd.store.outcome import Outcome

    item = only(job)
    return Outcome(item.id, job.id, item.attempt, "shell", item.key, "completed", item.started_at, item.completed_at)


# -- that nothing of it is left


LEAVES = "sleep 150 & echo $!; setsid sleep 150 & echo $!; (setsid sh -c 'sleep 150 & echo $!' &) ; sleep 0.05;"


def test_what_a_command_leaves_running_ends_with_it(ends):
    pids = list(map(int, ends(f"{LEAVES} ").printed("a").stdout.split()))
    assert len(pids) == 3
    assert not any(map(alive, pids))


def test_a_time_out_kills_the_whole_tree(ends):
    job = ends(f"{LEAVES} trap '' TERM; while :; do sleep 150; done", timeout=0.3)
    assert only(job).error_type == "TimeOut"
    assert not any(map(alive, map(int, job.printed("a").stdout.split())))


def test_a_time_out_is_tried_again_where_there_are_tries_left(ends):
    job = ends('test "$JOBD_ATTEMPT" = 2 || sleep 150', timeout=0.2, retries=1, backoff=0.001)
    assert (job.status, only(job).attempt, only(job).failures) == ("completed", 2, 1)
    assert [event.name for event in job.events(items=True)].count("time_out") == 1


def test_a_time_out_may_be_months_away(ends):
    assert ends("sleep 0.05", timeout=100 * 86_400).status == "completed"


def test_a_command_may_end_in_its_own_way_when_its_time_is_over(ends):
    job = ends("trap 'echo caught; exit 0' TERM; sleep 150 & wait", timeout=0.2)
    assert job.printed("a").stdout == b"caught\n"


def test_a_cancel_kills_the_whole_tree(app, submit, tmp_path, until):
    job = submit(f"({LEAVES}) > pids.new; mv pids.new pids; sleep 150")
    with app.daemon(workers=1):
        until((tmp_path / "pids").exists)
        job.cancel()
        job.wait(SECONDS)
        assert (job.status, only(job).status) == ("cancelled", "cancelled")
        assert not any(map(alive, map(int, (tmp_path / "pids").read_text().split())))
        # The place is another's.
        assert submit("echo next").wait(SECONDS).status == "completed"


def test_a_halt_ends_what_runs(app, submit, tmp_path, until):
    first = 'if test "$JOBD_ITEM" = a; then echo $$ > pid.new; mv pid.new pid; sleep 150; fi'
    script = f"{first}; until test -e pid; do :; done; exit 1"
    job = submit(script, items="abcd", halt=1)
    with app.daemon(workers=2):
        job.wait(SECONDS)
    assert job.status == "failed"
    assert not alive(int((tmp_path / "pid").read_text()))


def test_leaving_at_once_ends_what_runs_and_gives_it_back(app, submit, tmp_path, until):
    job = submit("echo $$ > pid.new; mv pid.new pid; sleep 150")
    with app.daemon(workers=1) as daemon:
        until((tmp_path / "pid").exists)
        daemon.stop(drain=False)
    assert not alive(int((tmp_path / "pid").read_text()))
    assert job.refresh().counts.queued == 1


def test_a_spawner_that_is_killed_fails_its_item_alone(app, submit, tmp_path, until):
    before = {one.pid for one in psutil.Process().children()}
    job = submit("echo $$ > pid.new; mv pid.new pid; sleep 150")
    with app.daemon(workers=1):
        until((tmp_path / "pid").exists)
        (spawner,) = [one for one in psutil.Process().children() if one.pid not in before]
        spawner.kill()
        job.wait(SECONDS)
        assert (only(job).status, only(job).error_type) == ("failed", "WorkerDied")
        until(lambda: not alive(int((tmp_path / "pid").read_text())))
        assert submit("echo next").wait(SECONDS).status == "completed"


def test_a_killed_daemon_leaves_nothing_of_a_command_and_the_next_one_runs_it_again(
    app, submit, program, tmp_path, until
):
    script = f"echo $$ > own; ({LEAVES}) > pids.new; mv pids.new pids; test $JOBD_ATTEMPT = 2 || sleep 150"
    job = submit(script)
    daemon = program(
        """
        with Jobd(path).daemon(workers=1):
            threading.Event().wait()
        """
    )
    until((tmp_path / "pids").exists)
    daemon.signal(signal.SIGKILL)
    pids = [*map(int, (tmp_path / "pids").read_text().split()), int((tmp_path / "own").read_text())]
    assert len(pids) == 4
    until(lambda: not any(map(alive, pids)))
    daemon.leaves()
    with app.daemon(workers=1):
        assert job.wait(SECONDS).status == "completed"
    assert (only(job).attempt, only(job).interruptions) == (2, 1)
