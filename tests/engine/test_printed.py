"""What commands print, as it is shown while they run: whole, in constant memory, and nothing of it left behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jobd.printed import Watch
from jobd.spooling import Spools

SECONDS = 20
LIMIT = 65_536
# Its item as often as it says, a line each.
MANY = f"{sys.executable} -c 'import sys; sys.stdout.write(sys.argv[1] * int(sys.argv[2]))' \"$JOBD_ITEM\" "


@pytest.fixture
def submit(app, tmp_path):
    def send(script, items, **options):
        params = {"command": [f": {{}}; {script}"], "shell": True, "cwd": str(tmp_path)}
        return app.submit("shell", [{"item": item} for item in items], item_key="item", params=params, **options)

    return send


@pytest.fixture
def watch(app):
    with Watch(app.path) as watch:
        watch.begin(app.store)
        yield watch


def run(app, job):
    with app.daemon(workers=2):
        job.wait(SECONDS)


def shown(outputs):
    """Read outputs as who shows them does: each in its turn."""
    return [(one.key, b"".join(one.stdout()), b"".join(one.stderr())) for one in outputs]


def files(app):
    folder = Path(f"{app.path}.output")
    return sorted(path.name for path in folder.iterdir() if path.name != "watchers") if folder.is_dir() else []


def test_outputs_come_in_the_order_in_which_items_ended_and_each_once(app, submit, watch, tmp_path, until):
    job = submit('test "$JOBD_ITEM" = a && until test -e go; do sleep 0.01; done; echo "$JOBD_ITEM"; echo e >&2', "ab")
    watch.follow(job.id)
    assert shown(watch.ended(app.store)) == []
    with app.daemon(workers=2):
        until(lambda: job.refresh().counts.completed == 1)
        assert shown(watch.ended(app.store)) == [("b", b"b\n", b"e\n")]
        (tmp_path / "go").touch()
        job.wait(SECONDS)
    assert shown(watch.ended(app.store)) == [("a", b"a\n", b"e\n")]
    assert shown(watch.ended(app.store)) == []


def test_in_order_they_wait_for_the_first_that_is_open(app, submit, watch, tmp_path, until):
    job = submit('test "$JOBD_ITEM" = b && until test -e go; do sleep 0.01; done; echo "$JOBD_ITEM"', "abc")
    watch.follow(job.id)
    with app.daemon(workers=2):
        until(lambda: job.refresh().counts.completed == 2)
        assert [key for key, *_ in shown(watch.in_order(app.store))] == ["a"]
        (tmp_path / "go").touch()
        job.wait(SECONDS)
    assert [key for key, *_ in shown(watch.in_order(app.store))] == ["b", "c"]


def test_what_ended_before_and_what_others_print_is_left_out(app, submit):
    job = submit('test -e ok && echo "$JOBD_ITEM"', "ab", key="k")
    before = submit("echo before", "x")
    run(app, before)
    with Watch(app.path) as watch:
        watch.begin(app.store)
        watch.follow(before.id)
        other = submit("echo other", "y")
        run(app, other)
        assert shown(watch.ended(app.store)) == shown(watch.in_order(app.store)) == []
    assert job.refresh().counts.total == 2


def test_of_an_item_that_is_tried_again_only_the_last_try_is_shown(app, submit, watch):
    job = submit('echo "$JOBD_ATTEMPT"; test "$JOBD_ATTEMPT" = 2', "a", retries=1, backoff=0.001)
    watch.follow(job.id)
    with app.daemon(workers=1):
        job.wait(SECONDS)
    assert shown(watch.ended(app.store)) == [("a", b"2\n", b"")]


def test_more_than_is_kept_is_shown_whole_and_its_file_goes(app, submit, watch):
    job = submit(f"{MANY} 100_000; echo end >&2", ["a", "b"])
    watch.follow(job.id)
    run(app, job)
    names = files(app)
    assert len(names) == 4
    assert all(Path(f"{app.path}.output", name).stat().st_mode & 0o777 == 0o600 for name in names)
    left = []
    for one in watch.ended(app.store):
        pieces = list(one.stdout())
        assert (b"".join(pieces), b"".join(one.stderr()), one.cut) == (one.key.encode() * 100_000, b"end\n", False)
        assert max(map(len, pieces)) <= LIMIT
        left.append(len(files(app)))
    assert (left, files(app)) == ([4, 2], [])


def test_nothing_is_spooled_for_nobody(app, submit):
    job = submit(f"{MANY} 100_000", ["a"])
    run(app, job)
    assert (files(app), job.printed("a").truncated) == ([], True)


def test_only_the_job_that_is_shown_is_spooled_once_it_is_known(app, submit, watch):
    job, other = submit(f"{MANY} 100_000", ["a"]), submit(f"{MANY} 100_000", ["b"])
    job.pause()
    watch.follow(job.id)
    run(app, other)
    assert files(app) == []


def test_each_of_two_who_show_a_job_has_all_of_it(app, submit):
    with Watch(app.path) as watch:
        watch.begin(app.store)
        job = submit(f"{MANY} 100_000", ["a"])
        with Watch(app.path) as other:
            other.begin(app.store)
            watch.follow(job.id)
            other.follow(job.id)
            run(app, job)
            assert shown(watch.ended(app.store)) == shown(other.ended(app.store)) == [("a", b"a" * 100_000, b"")]
    assert files(app) == []


def test_output_that_was_not_spooled_is_said_to_be_cut(app, submit, watch):
    job = submit(f"{MANY} 100_000", ["a"])
    watch.follow(job.id)
    run(app, job)
    for name in files(app):
        Path(f"{app.path}.output", name).unlink()
    assert [(one.cut, sum(map(len, one.stdout()))) for one in watch.ended(app.store)] == [(True, LIMIT)]


def test_what_is_left_goes_when_nobody_shows_it_any_more(app, submit):
    with Watch(app.path) as watch:
        job = submit(f"{MANY} 100_000", ["a"])
        watch.follow(job.id)
        run(app, job)
        assert len(files(app)) == 2
    assert not Path(f"{app.path}.output").exists()


def test_what_a_killed_watcher_leaves_is_known_to_be_nobodys(app, submit, program):
    job = submit(f"{MANY} 100_000", ["a", "b"])
    watcher = program(
        """
        from jobd.printed import Watch

        with Watch(path) as watch:
            watch.follow(int(sys.argv[2]))
            say("watches")
            told()
        """,
        job.id,
    )
    watcher.hears("watches")
    run(app, job)
    assert len(files(app)) == 4
    watcher.kill()
    again = submit(f"{MANY} 100_000", ["c"])
    with app.daemon(workers=1):
        again.wait(SECONDS)
    assert files(app) == []


def test_a_next_try_removes_what_the_last_one_had_spooled(app, submit, watch):
    job = submit(f'if test "$JOBD_ATTEMPT" = 1; then {MANY} 100_000; exit 1; fi', "a", retries=1, backoff=0.001)
    watch.follow(job.id)
    with app.daemon(workers=1):
        job.wait(SECONDS)
    assert (job.status, files(app)) == ("completed", [])


def test_a_folder_that_is_gone_fails_no_command(app, submit, watch, tmp_path):
    job = submit(f"rm -rf jobs.db.output; {MANY} 100_000", ["a"])
    watch.follow(job.id)
    run(app, job)
    assert job.status == "completed"
    assert [one.cut for one in watch.ended(app.store)] == [True]


def test_a_watcher_that_gets_its_job_while_somebody_looks_is_not_overlooked(path, monkeypatch):
    spools = Spools(str(path))
    descriptor, name = spools.watch()
    opens = os.open

    def late(file, *rest):
        if file == name:
            spools.narrow(name, 7)
        return opens(file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", late)
        assert spools.beginning(7, 1, 1) is not None
    os.close(descriptor)


def test_a_folder_that_is_swept_while_a_watcher_comes_is_made_again(path, monkeypatch):
    makes, swept = os.mkdir, []

    def late(folder, mode):
        if folder.endswith("watchers") and not swept:
            swept.append(Path(f"{path}.output").rmdir())
        makes(folder, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", late)
        descriptor, name = Spools(str(path)).watch()
    assert Path(name).exists()
    os.close(descriptor)
    Path(f"{path}.output", "watchers").joinpath(name).unlink()
    Path(f"{path}.output", "watchers").rmdir()
    Path(f"{path}.output").rmdir()
    Path(f"{path}.output").symlink_to(path / "nowhere")
    with pytest.raises(FileNotFoundError):
        Spools(str(path)).watch()


def test_watchers_that_come_and_go_at_once_do_not_disturb_each_other(path):
    held = []
    for _ in range(20):
        descriptor, name = Spools(str(path)).watch()
        held.append(descriptor)
        assert Path(name).exists()
        Spools(str(path)).sweep()
    assert Spools(str(path)).beginning(1, 1, 1) is not None
    for descriptor in held:
        os.close(descriptor)
    assert Spools(str(path)).beginning(1, 1, 1) is None
