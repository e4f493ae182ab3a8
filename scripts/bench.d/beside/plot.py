"""docs/peers.png: the figures as bars, and what the kills left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures import number

from beside.page import SIGNALS
from beside.roster import BY_ID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PANELS: Final = (
    ("drain", "drain no-op units, 4 workers, /s: more is better (log)"),
    ("submit-one", "submit one at a time, /s: more is better (log)"),
    ("start-p50", "start after submit, median, ms: less is better (log)"),
    ("short", "5 ms units on 16 threads, × ideal: less is better (log)"),
)
_FATES: Final = (
    ("lost", "lost", "#b2182b"),
    ("running", "left running", "#ef8a62"),
    ("again", "begun again", "#92c5de"),
)
_OURS, _THEIRS = "#2166ac", "#999999"


def draw(result: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    figure = Figure(figsize=(12, 11), layout="constrained")
    axes = figure.subplots(3, 2)
    for axis, (name, title) in zip(axes.flat, _PANELS, strict=False):
        _bars(axis, result["figures"], name)
        axis.set_title(title, fontsize=10)
    for axis, name in zip(axes.flat[len(_PANELS) :], SIGNALS, strict=False):
        _fates(axis, result["kills"], name)
        axis.set_title(f"{name}: units lost, left running, begun again", fontsize=10)
    figure.savefig(path, dpi=90)


def _bars(axis: Any, figures: Mapping[str, Any], name: str) -> None:
    found = {peer: own[name] for peer, own in figures.items() if name in own}
    middles = [own["median"] for own in found.values()]
    spans = [
        [own["median"] - own["min"] for own in found.values()],
        [own["max"] - own["median"] for own in found.values()],
    ]
    colours = [_OURS if peer.startswith("jobd") else _THEIRS for peer in found]
    bars = axis.barh([BY_ID[peer].title for peer in found], middles, xerr=spans, color=colours)
    axis.bar_label(bars, [number(middle) for middle in middles], padding=4, fontsize=8)
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.minorticks_off()
    axis.invert_yaxis()


def _fates(axis: Any, kills: Mapping[str, Any], name: str) -> None:
    found = {peer: own[name] for peer, own in kills.items() if name in own}
    titles, left = [BY_ID[peer].title for peer in found], [0] * len(found)
    for word, label, colour in _FATES:
        # Who loses a unit that it says is running has lost it once.
        values = [_apart(own)[word] for own in found.values()]
        axis.barh(titles, values, left=left, label=label, color=colour)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axis.invert_yaxis()
    axis.legend(fontsize=8)


def _apart(own: Mapping[str, int]) -> dict[str, int]:
    return {"lost": max(0, own["lost"] - own["running"]), "running": own["running"], "again": own["again"]}
