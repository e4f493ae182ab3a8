"""From what was measured to the committed result: medians, ratios of one round, what was reached, and the table."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sqlite3
import sys
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from lines import LINES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lines import Check, Line

Rounds = "Sequence[Mapping[str, float]]"

_PACKAGES: Final = ("jobd-embedded", "peewee", "huey", "click", "psutil")
_RIGHT: Final = "---:"


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(rounds: Rounds, line: str, over: str) -> list[float]:
    """Return the quotients of two lines, each of one round; a round that lacks either has none."""
    return [one[line] / one[over] for one in rounds if one.get(over) and line in one]


def judged(rounds: Rounds, line: Line) -> dict[str, Any]:
    """Return a line as the JSON has it; without a figure its ``median`` is null."""
    values = [one[line.id] for one in rounds if line.id in one]
    met = [reached(rounds, line, check) for check in line.checks]
    return {
        "id": line.id,
        "title": line.title.strip(),
        "unit": line.unit,
        "values": values,
        **(spread(values) if values else {"median": None, "min": None, "max": None}),
        "ratios": {over: spread(found) for over in line.needs if (found := ratios(rounds, line.id, over))},
        "target": " and ".join(worded(line, check) for check in line.checks) or None,
        "met": None if not met or None in met else all(met),
    }


def reached(rounds: Rounds, line: Line, check: Check) -> bool | None:
    """Say whether the median is within the bound; None where it was not measured."""
    values = [one[line.id] for one in rounds if line.id in one]
    if check.over is not None:
        values = ratios(rounds, line.id, check.over)
    if not values:
        return None
    return median(values) <= check.bound if check.most else median(values) >= check.bound


def worded(line: Line, check: Check) -> str:
    sign = "≤" if check.most else "≥"
    if check.over is not None:
        return f"{sign} {check.bound:g} × {check.over}"
    unit = line.unit if line.unit == "/s" else f" {line.unit}"
    return f"{sign} {check.bound:,g}{unit}" if check.bound < 1e5 else f"{sign} {check.bound:,.0f}{unit}"


def reached_words(line: Mapping[str, Any]) -> str:
    """Return what a line of the JSON came to, with the ratios that its target names."""
    unit = line["unit"] if line["unit"] == "/s" else f" {line['unit']}"
    over = [f"{number(found['median'])} × {name}" for name, found in line["ratios"].items() if name in line["target"]]
    return ", ".join([f"{number(line['median'])}{unit}", *over])


def number(value: float | None) -> str:
    """Return three significant digits, with thousands; counts as they are."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines as a Markdown table."""
    header = ["line", "what", "unit", "median", "min – max", "beside, same round", "target", "met"]
    rules = ["---", "---", "---", _RIGHT, _RIGHT, "---", "---", "---"]
    titles = {
        line.id: line.title.replace("  ", "… ", 1) if line.title.startswith(" ") else line.title for line in LINES
    }
    rows = [
        [
            line["id"],
            titles[line["id"]],
            line["unit"],
            number(line["median"]),
            f"{number(line['min'])} – {number(line['max'])}",
            "<br>".join(
                f"{number(found['median'])} × {over} ({number(found['min'])} – {number(found['max'])})"
                for over, found in line["ratios"].items()
            ),
            line["target"] or "",
            {True: "yes", False: "**no**", None: ""}[line["met"]] if line["values"] else "not measured",
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rules, *rows])


def machine(packages: Iterable[str] = _PACKAGES) -> dict[str, Any]:
    """Return what the figures were measured on, with the versions of those packages that are there."""
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: found for name in packages if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def now() -> str:
    return dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_PAGE: Final = """# Figures

Written by `scripts/bench --write`; as JSON in [figures.json](figures.json). Each figure is the median of {rounds}
rounds, in which the limits (`sqlite3` of the standard library, WAL, `synchronous=NORMAL`), huey and jobd take turns;
a ratio is that of one round. On a noisy machine less than a factor of 2 is a tie.

{began}, {name}: {cpu}, {cpus} processors, {system}, Python {python}, SQLite {sqlite},
{packages}. Load average {before} before, {after} after; {seconds:.0f} s in all.

{table}

{verdict}

* L3 is a queue as a careful person would write it by hand: the next queued unit by an index, claimed and completed
  under a guard of status and attempt in two transactions, its result in the second.
* huey forgets what ran when it is killed, and has no status of a call; it is here for its pace.
* `clients-pace` counts the jobs that the clients added meanwhile, too: they are drained like the others.
* The idle daemon is observed for {idle_seconds:g} s, heartbeats included; the scheduler counts its nanoseconds.
"""


def page(result: Mapping[str, Any]) -> str:
    """Return docs/figures.md."""
    on = result["machine"]
    return _PAGE.format_map(
        {
            **on,
            **result,
            "packages": ", ".join(f"{name} {version}" for name, version in on["packages"].items()),
            "before": load(result["load_before"]),
            "after": load(result["load_after"]),
            "table": table(result["lines"]),
            "verdict": _verdict([line["id"] for line in result["lines"] if line["met"] is False]),
        }
    )


def load(averages: Sequence[float]) -> str:
    return " ".join(f"{average:.2f}" for average in averages)


def _verdict(missed: Sequence[str]) -> str:
    return f"Targets missed: {', '.join(missed)}." if missed else "Every target was met."
