"""From what was measured to docs/peers.json and docs/peers.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures import load, number, spread

from beside.kills import SIGNALS
from beside.measured import SCALES
from beside.roster import BY_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# id, heading, unit
FIGURES: Final = (
    ("submit-many", "submit in one call", "/s"),
    ("submit-one", "submit one at a time", "/s"),
    ("drain", "drain no-op units, 4 workers", "/s"),
    ("start-p50", "start after submit, median", "ms"),
    ("start-p99", "99th percentile", "ms"),
    ("short", "5 ms units on 16 threads", "× ideal"),
)
_SUMS: Final = ("lost", "again", "twice", "running", "queued", "unrecorded")


def judged(figures: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return median, least and most of each figure of each peer, over the rounds that have it."""
    return {
        peer: {
            name: spread(values)
            for name, _, _ in FIGURES
            if (values := [one[name] for one in rounds if name in one])
        }
        for peer, rounds in figures.items()
    }  # fmt: skip


def summed(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by signal, how many units met with what, over all rounds; None where the peer keeps no such thing."""
    found: dict[str, dict[str, Any]] = {}
    for name in SIGNALS:
        own = [one | {"unrecorded": _unrecorded(one)} for one in rounds if one["signal"] == name]
        if own:
            sums = {word: None if own[0][word] is None else sum(one[word] for one in own) for word in _SUMS}
            found[name] = {"rounds": len(own), **sums, "stopped": max(one["stopped"] for one in own)}
    return found


def _unrecorded(one: Mapping[str, Any]) -> int | None:
    """Return how many units ended of which the peer does not say so; None where it says so of none."""
    return None if one["completed"] is None else max(0, one["ended"] - one["completed"])


def table(result: Mapping[str, Any]) -> str:
    """Return the figures, and beside them what each peer stores for it."""
    rows = [["", *(f"{title}, {unit}" for _, title, unit in FIGURES), "status", "result", "attempts", "error"]]
    rows.append(["---", *["---:"] * len(FIGURES), *["---"] * 4])
    for name, found in result["figures"].items():
        peer = BY_ID[name]
        cells = [_cell(found.get(figure)) for figure, _, _ in FIGURES]
        rows.append([peer.title, *cells, peer.status, peer.result, peer.attempts, peer.error])
    return _lines(rows)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    if found["min"] == found["max"]:
        return number(found["median"])
    return f"{number(found['median'])} ({number(found['min'])} – {number(found['max'])})"


def fates(result: Mapping[str, Any]) -> str:
    """Return what became of the units whose process was killed."""
    headings = ["lost", "begun again", "ended twice", "left running", "left queued", "ended, not recorded"]
    rows = [["", "signal", "units", *headings, "left after"], ["---", "---", *["---:"] * (len(headings) + 2)]]
    for name, by_signal in result["kills"].items():
        for sign, one in by_signal.items():
            sums = ["–" if one[word] is None else f"{one[word]:,}" for word in _SUMS]
            units = f"{one['rounds'] * result['killed']:,}"
            rows.append([BY_ID[name].title, sign, units, *sums, f"{one['stopped']:.1f} s"])
    return _lines(rows)


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


_PAGE: Final = """# Beside the peers

Written by `scripts/bench --peers --write`; as JSON in [peers.json](peers.json). The same units go through each, as its
own documentation advises, all at `synchronous=NORMAL`, each work in a process and a file of its own. Rounds in which
they take turns: {rounds}; median (least – most). Less than a factor of 2 is a tie.

{began}, {name}: {cpu}, {cpus} processors, {system}, Python {python}, SQLite {sqlite},
{versions}.
Load average {before} before, {after} after; {seconds:.0f} s in all.

![The figures and the kills](peers.png)

{table}

{missing}A unit is a Python function of one number that returns nothing. {many:,} of them are drained and {short:,}
of 5 ms run; who is slow is given fewer (below), the rate is the figure. Draining counts from the start of the first
unit to the end of the last, for jobd until that is in its store. A latency is from before the call to the unit's first
line, in one process, its store idle. GNU parallel runs the commands `true` and `sleep`, and has nothing to submit to.
localqueue and litequeue look through what is queued for each unit: with a tenth of the backlog they drain several
times as many.

## Killed

{killed} units of 5 ms on 4 workers; the process gets a signal at a random moment, is started again, and runs
until nothing moves: {kills} rounds, SIGKILL and SIGTERM in turn, each peer with its own handling of signals. A file
that no peer knows says when each unit began and ended.

{fates}

* *lost*: never ended, though it was submitted. *Begun again* is what "at least once" means; *ended twice* is the part
  of it that had ended already (jobd writes the ends of many units at once). *Left running*: the peer says that it runs,
  and nobody runs it.
* *left after*: how long the process took to leave at the signal, at most. At SIGTERM jobd, tinyjobs and GNU parallel
  finish what runs; huey leaves at once (it waits at SIGINT); the others do not handle it.

## How each was run

{told}
"""


def page(result: Mapping[str, Any]) -> str:
    """Return docs/peers.md."""
    on, scale = result["machine"], SCALES[result["scale"]]
    return _PAGE.format_map(
        {
            **on,
            **scale._asdict(),
            **result,
            "kills": result["kill_rounds"],
            "versions": ", ".join(f"{name} {version}" for name, version in on["packages"].items()),
            "before": load(result["load_before"]),
            "after": load(result["load_after"]),
            "table": table(result),
            "fates": fates(result),
            "missing": _missing(result),
            "told": "\n".join(_told(name) for name in result["figures"]),
        }
    )


def _told(name: str) -> str:
    peer = BY_ID[name]
    return f"* {peer.title}: {peer.told}{f'; {peer.share:.0%} of the units' if peer.share < 1 else ''}."


def _missing(result: Mapping[str, Any]) -> str:
    """Return who could not be measured and why, a line each; nobody is left out in silence."""
    reasons = {BY_ID[name].title: reason for name, reason in result["absent"].items()} | result["failed"]
    return "".join(f"* Not measured: {what}: {reason}.\n" for what, reason in reasons.items()) + "\n" * bool(reasons)
