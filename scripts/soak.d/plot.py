"""The samples of an hour as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

_ROWS = (
    ("memory_mb", "memory, MB"),
    ("threads", "threads"),
    ("descriptors", "descriptors"),
    ("wal_mb", "log, MB"),
    ("p99", "p99 of a write, ms"),
)


def hour(samples: list[dict[str, Any]], target: Path) -> None:
    """Draw each figure over the minutes; where a reader pinned the log is shaded."""
    figure, axes = plt.subplots(len(_ROWS), sharex=True, figsize=(9, 11))
    minutes = [sample["at"] / 60 for sample in samples]
    pinned = [sample["pinned"] for sample in samples]
    for axis, (name, title) in zip(axes, _ROWS, strict=True):
        values = [sample[name] for sample in samples]
        axis.plot(minutes, values, linewidth=1)
        axis.fill_between(minutes, 0, max([*values, 1]) * 1.05, where=pinned, alpha=0.2, color="tab:orange")
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes; shaded: a reader pins the log")
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    plt.close(figure)
