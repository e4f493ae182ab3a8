"""The soak's own parts, in their smallest form: that they kill, look, and say what has not held."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts/soak.d"
PATHS = os.pathsep.join(map(str, (SOAK, SOAK.parents[1], SOAK.parents[1] / "tests")))
KILLS = r"""
import json, sys
from pathlib import Path
import kills
folder = Path(sys.argv[1])
told = kills.run(folder, 1, out=folder, forked=4, started=1)
with (folder / "witness").open("a") as witness, (folder / "acknowledged").open("a") as acknowledged:
    witness.write((folder / "witness").read_text().split("\n")[0] + "\n")
    acknowledged.write("nobody stored this\n")
print(json.dumps([*told, kills._account(folder)[1]]))
"""


def python(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)], env={**os.environ, "PYTHONPATH": PATHS}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_kills_lose_nothing_and_the_account_would_say_so(tmp_path):
    ran = python("-c", KILLS, tmp_path)
    assert ran.returncode == 0, ran.stderr
    figures, wrong, spoilt = json.loads(ran.stdout)
    assert figures["kills"] == 5
    # One that is killed between its commit and its word leaves a job that nobody was told of.
    assert figures["items"] >= 20 * figures["jobs acknowledged"] > 0
    assert figures["items"] % 20 == 0
    assert wrong == []
    assert any("began 2 times" in one for one in spoilt)
    assert "nobody stored this was acknowledged, and has 0 items" in spoilt


def test_a_part_that_is_not_there_is_refused_with_the_names_of_those_that_are():
    ran = python(SOAK / "run.py", "hours")
    assert ran.returncode == 2
    parts = "boundaries, prefixes, power, model, kills, writers, wal-reset, held, million, hour"
    assert f"no part hours: one of {parts}" in ran.stderr


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(str(SOAK))
    loaded = ["report"]

    def load(name):
        loaded.append(name)
        return importlib.import_module(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("grows", "wrong"),
    [
        ({}, []),
        ({"memory_mb": 2.0}, ["memory grew by 2.00 MB an hour"]),
        ({"threads": 3.0}, ["threads grew by 3.0 an hour"]),
        ({"wal_mb": 20.0}, ["the log grew to 20 MB though nobody pinned it"]),
        ({"running": -1}, ["of 100 jobs only 99 ran at once"]),
    ],
)
def test_an_hour_says_what_grows_and_how_many_jobs_ran_at_once(part, grows, wrong):
    hour = part("hour")
    still = {"memory_mb": 30.0, "threads": 9, "descriptors": 18, "wal_mb": 0.0, "p99": 1.0, "pinned": False}
    still["running"] = 100
    samples = [
        hour.Sample(at=at, **{name: value + grows.get(name, 0.0) * at / 3_600 for name, value in still.items()})
        for at in range(0, 3_601, 5)
    ]
    assert hour._judge(samples, [{"errors": []}], 3_600, 0).wrong == wrong


@pytest.mark.parametrize(
    ("used", "memory", "wrong"),
    [
        (1.0, 1.0, []),
        (1.3, 1.0, ["the pace fell from 100 to 77 items a second of processor time"]),
        (1.0, 1.3, ["memory grew from 30.0 to 39.0 MB"]),
    ],
)
def test_a_million_items_say_whether_the_last_of_them_cost_more(part, used, memory, wrong):
    million = part("million")
    slow = [1.0] * 7 + [used] * 3
    tenths = [million.Tenth(at, sum(slow[:at]), 30.0 if at < 10 else 30.0 * memory) for at in range(1, 11)]
    assert million.judge(tenths, 1_000).wrong == wrong
