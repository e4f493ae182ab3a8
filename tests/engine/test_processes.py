"""Items in worker processes: what they come to, what they tell the store, and what becomes of those that die."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from kit import handlers

from jobd import UsageError
from jobd.engine import crew
from jobd.engine.points import NAMES
from jobd.store.invariants import check

SECONDS = 30


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []
    assert not [child for child in psutil.Process().children(recursive=True) if "guard.py" in " ".join(child.cmdline())]


@pytest.fixture
def process(app):
    """Make a handler a task of its own process."""

    def make(handler, **policy):
        return app.task(handler, isolation="process", **policy)

    return make


@pytest.fixture
def ended(app):
    """Run a task's items to their end."""

    def run(task, items, workers=1, **options):
        with app.daemon(workers=workers):
            return task.submit(items, **options).wait(SECONDS)

    return run


def item(job):
    (found,) = job.items()
    return found


def output(job):
    return job.output(item(job).key).text


def told(job):
    found = item(job)
    return found.status, found.error_type, found.error


def values(job):
    return [result.value for result in job.results()]


# -- what it comes to -------------------------------------------------------------------------------------------------


def test_a_handler_is_given_the_payload_in_another_process_and_its_return_is_the_result(process, ended):
    job = ended(process(handlers.parents), range(8))
    assert job.status == "completed"
    assert len({worker for worker, _ in values(job)}) == 1
    assert os.getpid() not in {pid for both in values(job) for pid in both}


def test_payload_params_and_identity_arrive_as_they_were_submitted(process, ended):
    payload = {"n": [1, 2.5, None, "ü\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")], "big": 2**62}
    job = ended(process(handlers.described, timeout=600), [payload], item_key=lambda _: "the key", params={"p": 1})
    (found,) = values(job)
    assert found["value"] == payload
    job_id, item_id, key, attempt, params, deadline, idempotency = found["ctx"]
    assert (job_id, item_id, key, attempt, params) == (job.id, item(job).id, "the key", 1, {"p": 1})
    assert deadline is not None
    assert idempotency.startswith("described:")


def test_a_payload_and_a_result_of_a_megabyte_go_through(process, ended):
    text = "x" * (1024 * 1024 - 2)
    job = ended(process(handlers.raises), [text], item_key=lambda _: "large")
    assert values(job) == [text]


def test_whatever_a_handler_raises_is_its_item_s_end_and_its_worker_goes_on(process, ended):
    came = {
        "skip": ("skipped", "Skip", "nothing to do"),
        "fail": ("failed", "Fail", "for good"),
        "retry": ("failed", "Retry", "later"),
        "own": ("failed", "OwnError", "of this module"),
        "exit": ("failed", "SystemExit", "out"),
        "not JSON": ("failed", None, "result is not JSON: Object of type set is not JSON serializable"),
        "nothing": ("completed", None, None),
    }
    job = ended(process(handlers.raises), list(came))
    assert {item.key: (item.status, item.error_type, item.error) for item in job.items()} == came


def test_the_traceback_is_kept_without_frames_of_ours(process, ended):
    job = ended(process(handlers.raises), ["own"])
    text = output(job)
    assert text.startswith("Traceback")
    assert text.endswith("OwnError: of this module")
    assert "handlers.py" in text
    assert "child.py" not in text


def test_retry_on_is_judged_by_the_classes_that_the_worker_saw(app, process):
    with app.daemon(workers=1):
        task = process(handlers.raises, retries=1, retry_on=handlers.OwnError, backoff=0.001)
        job = task.submit(["own", "narrow", "exit", "fail", "skip"]).wait(SECONDS)
    attempts = {found.key: found.attempt for found in job.items()}
    assert attempts == {"own": 2, "narrow": 2, "exit": 1, "fail": 1, "skip": 1}


def test_an_item_that_is_tried_again_is_due_when_the_handler_said(app, process, until, store):
    with app.daemon(workers=1):
        job = process(handlers.raises, retries=1).submit(["retry"])
        until(lambda: job.refresh().counts.running == 0 and item(job).failures == 1)
        (at, due), = store.read(
            lambda connection: connection.execute("select started_at, available_at from job_items").fetchall()
        )  # fmt: skip
    assert 1_000 <= due - at < 20_000


# -- what it tells the store ------------------------------------------------------------------------------------------


def test_all_that_a_handler_tells_its_context_is_stored(app, process, ended, caplog):
    caplog.set_level(logging.INFO, "jobd.task")
    job = ended(process(handlers.tells), ["v"])
    found = item(job)
    # What it saved declared the work done: what it raised afterwards does not undo it.
    assert found.status == "completed"
    assert found.progress == [1, 2, "half"]
    assert values(job) == [{"saved": "v"}]
    assert job.data("v") == b"\0raw" * 100_000
    first, *rest = output(job).splitlines()
    assert first.endswith("INFO line v")
    assert rest[-1].endswith("OwnError: after that")
    assert [record.getMessage() for record in caplog.records if record.name == "jobd.task.tells"] == ["line v"]


def test_a_log_line_with_its_traceback_is_kept_and_one_that_cannot_be_written_fails_no_item(process, ended):
    job = ended(process(handlers.logs_a_trace), [1])
    assert job.status == "completed"
    text = output(job)
    assert "ERROR what happened\nTraceback" in text
    assert "OwnError: of this module" in text
    assert "surrogate \\ud800" in text


def test_what_a_handler_logged_before_its_process_died_is_kept(process, ended):
    job = ended(process(handlers.logs_and_dies), [1])
    assert told(job) == ("failed", "WorkerDied", "left with exit code 1")
    assert output(job).endswith("last words")


def test_a_handler_adds_items_to_its_own_job(process, ended):
    job = ended(process(handlers.grows), ["3"])
    assert sorted(found.key for found in job.items()) == ["0", "1", "2", "3"]
    assert job.status == "completed"


def test_a_handler_s_own_threads_may_speak_at_once(process, ended):
    job = ended(process(handlers.many_threads), ["first"])
    assert job.counts.total == 1 + 8 * 20


def test_what_an_attempt_says_that_is_no_longer_the_item_s_is_lost(app, process, tmp_path, until, store):
    path = tmp_path / "lost"
    os.mkfifo(f"{path}.go")
    with app.daemon(workers=1):
        job = process(handlers.waits_and_tells).submit([str(path)])
        until(path.exists)
        # As a recovery by hand would, past the daemon's knowledge.
        store.write(lambda connection: connection.execute("update job_items set attempt = 2"))
        with Path(f"{path}.go").open("w"):
            pass
        until(tmp_path.joinpath("lost.said").exists)
    assert tmp_path.joinpath("lost.said").read_text() == "Lost"
    job.cancel()
    with app.daemon(workers=1):
        assert job.wait(SECONDS).status == "cancelled"


# -- its surroundings -------------------------------------------------------------------------------------------------


def test_a_worker_has_the_program_s_path_and_arguments_and_none_of_its_descriptors(process, ended):
    with Path(os.devnull).open() as unrelated:
        os.set_inheritable(unrelated.fileno(), True)
        (found,) = values(ended(process(handlers.surroundings), [1]))
    assert found["stdin"] == ""
    assert found["argv"] == sys.argv
    assert found["path"] == sys.path
    # Its three streams, its pipe, and the folder that it is looking at.
    assert found["descriptors"] == 5


def test_a_child_that_a_handler_forks_neither_speaks_for_it_nor_goes_on_as_a_worker(process, ended):
    job = ended(process(handlers.forks), range(3))
    assert job.status == "completed"
    assert len(set(values(job))) == 1


# -- those that die ---------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_fails_the_one_item_that_it_ran(process, ended):
    came = {
        "segfault": "killed by SIGSEGV",
        "a": None,
        "exit 3": "left with exit code 3",
        "kill": "killed by SIGKILL",
        "term": "killed by SIGTERM",
        "b": None,
    }
    job = ended(process(handlers.ends), list(came))
    assert {item.key: item.error for item in job.items()} == came
    assert {item.error_type for item in job.items(status="failed")} == {"WorkerDied"}
    assert job.counts.completed == 2


def test_a_handler_that_closes_the_pipe_fails_its_item(process, ended):
    job = ended(process(handlers.ends), ["closed", "b"])
    assert [(found.key, found.status) for found in job.items()] == [("closed", "failed"), ("b", "completed")]


def test_a_worker_that_dies_is_tried_again_as_any_exception(process, ended):
    job = ended(process(handlers.ends, retries=2, backoff=0.001), ["exit 3"])
    assert (item(job).status, item(job).attempt) == ("failed", 3)
    job = ended(process(handlers.raises, name="other", retries=2, retry_on=OSError, backoff=0.001), ["own"])
    assert (item(job).status, item(job).attempt) == ("failed", 1)


def test_a_worker_that_died_while_it_waited_costs_no_item_anything(app, process, until):
    with app.daemon(workers=1):
        task = process(handlers.pid)
        (first,) = values(task.submit([1]).wait(SECONDS))
        os.kill(first, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(first))
        (second,) = values(task.submit([2]).wait(SECONDS))
    assert first != second


# -- recycling --------------------------------------------------------------------------------------------------------


def test_a_worker_is_replaced_after_so_many_items(process, ended):
    job = ended(process(handlers.pid, recycle_after=3), range(7))
    pids = values(job)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_worker_is_replaced_that_has_grown_too_large(process, ended):
    job = ended(process(handlers.grows_fat, recycle_mb=150), [1, 2, 200, 3], item_key=str)
    first, second, third, fourth = values(job)
    assert first == second == third != fourth


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_function_that_no_process_can_import_is_refused_at_the_start(app):
    @app.task(isolation="process")
    def local(_):
        pass

    with pytest.raises(UsageError, match="task local is made inside a function") as caught, app.daemon():
        pass
    assert caught.value.hint == "move it to the top level of its module"


def test_a_function_whose_name_leads_elsewhere_is_refused_at_the_start(app):
    app.task(handlers.double, isolation="process")
    app.task(lambda _: None, name="nameless", isolation="process")
    with pytest.raises(UsageError, match="task nameless has no name by which a process could import it"), app.daemon():
        pass


def test_a_module_that_cannot_be_imported_there_is_refused_at_the_start_in_one_line(app, tmp_path, monkeypatch):
    file = tmp_path / "only_here.py"
    file.write_text("import sys\nif sys.argv != ['changed']:\n    def work(n): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    monkeypatch.setattr(sys, "argv", ["changed"])
    app.task(only_here.work, isolation="process")
    with pytest.raises(UsageError, match="task work cannot be imported by a process: AttributeError"), app.daemon():
        pass
    file.write_text("raise OSError('no\\nway')\n")
    with pytest.raises(UsageError) as caught, app.daemon():
        pass
    assert str(caught.value) == "task work cannot be imported by a process: OSError: no"
    assert caught.value.hint == f"look at {file} line 1"
    file.write_text("import os\nos._exit(4)\n")
    with pytest.raises(UsageError, match="ended while it imported the program: left with exit code 4"), app.daemon():
        pass


def test_a_task_that_is_registered_later_runs_too_and_what_cannot_be_imported_fails_its_items(app, process):
    with app.daemon(workers=1):
        assert values(process(handlers.double).submit([2]).wait(SECONDS)) == [4]
        assert len(values(process(handlers.pid).submit([2]).wait(SECONDS))) == 1
        later = app.task(lambda _: None, name="later", isolation="process").submit([1]).wait(SECONDS)
    assert told(later)[:2] == ("failed", "UsageError")


def test_where_no_worker_starts_any_more_items_wait_until_one_does(app, tmp_path, monkeypatch, until):
    monkeypatch.setattr(crew, "_AGAIN", 0.01)
    file = tmp_path / "comes_and_goes.py"
    sound = "import os\ndef work(n): return os.getpid()\n"
    file.write_text(sound)
    monkeypatch.syspath_prepend(tmp_path)
    import comes_and_goes

    with app.daemon(workers=1) as daemon:
        task = app.task(comes_and_goes.work, isolation="process")
        (worker,) = values(task.submit([1]).wait(SECONDS))
        file.write_text("raise OSError\n")
        os.kill(worker, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(worker))
        job = task.submit([1])
        until(lambda: "no worker process can start: task work cannot be imported" in (daemon.degraded or ""))
        assert job.refresh().counts.failed == 0
        # Longer than what it was: compiled code goes by size and time.
        file.write_text(sound + "# mended\n")
        assert job.wait(SECONDS).counts.completed == 1
        assert daemon.degraded is None


@pytest.mark.parametrize("point", [name for name in NAMES if name.startswith("handler.")])
def test_a_crash_of_the_daemon_leaves_the_item_to_the_next_one(app, process, jobd_crash, point):
    job = process(handlers.double).submit([21])
    with jobd_crash(point), app.daemon(workers=1) as daemon:
        daemon.join(SECONDS)
    with app.daemon(workers=1):
        job.wait(SECONDS)
    assert values(job) == [42]
    assert item(job).attempt == 2
