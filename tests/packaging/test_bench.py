"""The bench measures every line; how much of what it says on a busy machine is another question."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts/bench.d"


def run(*words):
    return subprocess.run([sys.executable, str(BENCH / "run.py"), *words], capture_output=True, text=True, check=False)


def test_a_quick_run_measures_what_was_asked_for_and_what_its_ratios_need(bench):
    ran = run("--quick", "--json", "--only", "submit-many")
    result = json.loads(ran.stdout)
    assert (ran.returncode, result["failed"]) == (0, {}), ran.stderr
    measured = {line["id"] for line in result["lines"] if line["median"] is not None}
    assert {"submit-many", "L2", "L3"} <= measured
    assert measured <= {line.id for line in bench("lines").LINES}


def test_a_ratio_is_of_one_round_and_both_bounds_must_hold(bench):
    lines, figures = bench("lines"), bench("figures")
    line = lines.Line("a", "g", "title", "/s", (lines.at_least(10), lines.at_least(2, "b")))
    rounds = [{"a": 10, "b": 1}, {"a": 20, "b": 20}, {"a": 30, "b": 15}]
    found = figures.judged(rounds, line)
    assert (found["median"], found["min"], found["max"]) == (20, 10, 30)
    assert found["ratios"]["b"] == {"median": 2, "min": 1, "max": 10}
    assert found["target"] == "≥ 10/s and ≥ 2 × b"
    assert found["met"] is True
    assert figures.judged([{"a": 9, "b": 1}], line)["met"] is False
    assert figures.judged([{"a": 30, "b": 30}], line)["met"] is False
    assert figures.judged([{"a": 30}], line)["met"] is None


def test_the_readme_has_each_missed_target_with_what_was_reached(bench):
    words = bench("figures").reached_words
    lines = json.loads((ROOT / "docs/figures.json").read_text())["lines"]
    missed = [[f"`{line['id']}`", line["target"], words(line)] for line in lines if line["met"] is False]
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("| figure | target | reached | why |") :].split("\n\n")[0].splitlines()[2:]
    told = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    assert [row[:3] for row in told] == missed
    assert all(row[3] for row in told)


def test_a_line_brings_those_that_its_ratios_need(bench):
    assert {line.id for line in bench("lines").chosen(["clients-pace"])} == {
        "clients-pace", "drain-jobs", "huey-drain", "L3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--only", "nothing-like-it"], "no line begins with"), (["--quick", "--write"], "--write is for all lines")],
)
def test_an_unknown_line_and_a_partial_result_are_refused(bench, capsys, words, says):
    with pytest.raises(SystemExit) as left:
        bench("run").options(words)
    assert left.value.code == 2
    assert says in capsys.readouterr().err
