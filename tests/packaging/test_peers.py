"""The bench beside the peers: what it makes of what it saw, and that jobd itself goes through all of it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts/bench.d"

UNITS = 40


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCH), str(ROOT)])}


@pytest.mark.parametrize("peer", ["jobd-job", "jobd-jobs"])
def test_jobd_goes_through_each_work(bench, tmp_path, peer):
    measured, entry = bench("beside.measured"), bench("beside.roster").BY_ID[peer]
    scale = measured.Scale(many=20, singles=5, latencies=2, short=8)
    found = {}
    for name, work in measured.WORKS.items():
        (tmp_path / name).mkdir()
        found |= work(entry, tmp_path / name, scale)
    own = "submit-many" if peer == "jobd-job" else "submit-one"
    assert set(found) == {own, "drain", "short", "start-p50", "start-p99"}
    assert min(found.values()) > 0


def test_jobd_that_is_killed_loses_no_unit_and_leaves_none_running(bench, tmp_path):
    kills, entry = bench("beside.kills"), bench("beside.roster").BY_ID["jobd-job"]
    (one,) = kills.rounds(entry, tmp_path, UNITS, 1, environment())
    assert one["signal"] == "SIGKILL"
    assert (one["lost"], one["queued"], one["running"], one["completed"]) == (0, 0, 0, UNITS)


def test_the_witness_tells_what_was_lost_from_what_ran_again(bench):
    ran, cut, again, twice = "s 0\ne 0\n", "s 1\n", "s 2\ns 2\ne 2\n", "s 3\ne 3\ns 3\ne 3\n"
    told = bench("beside.kills").told(ran + cut + again + twice, 5)
    assert told == {"lost": 2, "again": 2, "twice": 1, "ended": 3}


def test_a_process_that_ends_by_itself_is_no_round(bench, tmp_path):
    kills, entry = bench("beside.kills"), bench("beside.roster").BY_ID["jobd-job"]
    with pytest.raises(RuntimeError, match=r"its process left with 1: .*No module named 'beside'"):
        kills.rounds(entry, tmp_path, UNITS, 1, environment() | {"PYTHONPATH": str(ROOT)})


def rounds_of(**fate):
    full = {"stopped": 0.5, "lost": 0, "again": 0, "twice": 0, "ended": 9, "queued": 0, "running": 0, "completed": 9}
    return [{"signal": name, **full, **fate} for name in ("SIGKILL", "SIGTERM", "SIGKILL")]


def test_rounds_are_summed_by_signal_and_what_a_peer_does_not_keep_is_not_held_against_it(bench):
    summed = bench("beside.page").summed
    kept = summed(rounds_of(lost=1, completed=7))
    assert (kept["SIGKILL"]["lost"], kept["SIGTERM"]["lost"]) == (2, 1)
    assert (kept["SIGKILL"]["unrecorded"], kept["SIGKILL"]["rounds"]) == (4, 2)
    assert summed(rounds_of(completed=None))["SIGKILL"]["unrecorded"] is None


def test_who_could_not_be_measured_stands_on_the_page_with_the_reason(bench):
    page, roster = bench("beside.page"), bench("beside.roster")
    absent = roster.BY_ID["huey"]._replace(package="jobd-no-such-package").absent
    text = page.page(
        {
            "machine": bench("figures").machine(["peewee"]),
            "scale": "quick",
            "rounds": 1,
            "kill_rounds": 3,
            "killed": 10,
            "began": "2026-01-01T00:00:00Z",
            "seconds": 1.0,
            "load_before": (0.0, 0.0, 0.0),
            "load_after": (0.0, 0.0, 0.0),
            "figures": page.judged({"litequeue": [{"drain": 10.0}, {"drain": 30.0}, {"drain": 20.0}]}),
            "kills": {"litequeue": page.summed(rounds_of(lost=4, running=4))},
            "absent": {"huey": absent},
            "failed": {"dbos drain": "it left with 3"},
        }
    )
    assert "* Not measured: huey: the package jobd-no-such-package is not installed." in text
    assert "* Not measured: dbos drain: it left with 3." in text
    assert "20 (10 – 30)" in text
    assert "| litequeue | SIGKILL | 20 | 8 | 0 | 0 | 8 | 0 | 0 | 0.5 s |" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--quick", "--write"], "--write is for all peers"),
        (["--only", "celery"], "invalid choice"),
        (["--kills", "-1"], "count from 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(bench, capsys, words, says):
    with pytest.raises(SystemExit) as left:
        bench("compare").options(words)
    assert left.value.code == 2
    assert says in capsys.readouterr().err
