"""Results with 100 KB of raw data each: the raw data within the value, and apart from it by ctx.save_data."""

from __future__ import annotations

import json
import random
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from measure import timed
from speed import WORKERS, texts

from jobd import Jobd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from measure import Scale

    from jobd.context import Context

_RAW: Final = 100_000  # bytes
_SEVERAL: Final = 16
_PAGE: Final = 100
_VERDICT: Final = {"verdict": "buy", "score": 75, "entry": 3450.0, "target": 3600.0}
_TABLE: Final = "select sum(pgsize) from dbstat where name = 'results'"


def data(folder: Path, scale: Scale) -> dict[str, float]:
    raws = [_raw(random.Random(seed)) for seed in range(_SEVERAL)]  # noqa: S311 - no secret

    def within(number: str) -> dict[str, Any]:
        return {**_VERDICT, "raw": raws[int(number) % _SEVERAL]}

    def apart(number: str, ctx: Context) -> dict[str, Any]:
        ctx.save_data(json.dumps(raws[int(number) % _SEVERAL]).encode())
        return _VERDICT

    figures = _measured(folder, within, scale) | _measured(folder, apart, scale)
    app = Jobd(folder / "apart.db")
    (newest,) = app.results("apart", limit=1)
    return figures | {"data-one": median(timed(newest.data) for _ in range(20)) * 1000}


def _measured(folder: Path, handler: Callable[..., object], scale: Scale) -> dict[str, float]:
    """Return the size of the file and of its table of results in MB, and how long a page of results takes in ms."""
    name = handler.__name__
    app = Jobd(folder / f"{name}.db")
    app.task(handler)
    with app.daemon(workers=WORKERS):
        job = app.submit(name, texts(scale.raws)).wait()
    if job.counts.completed != scale.raws:
        raise RuntimeError(f"{job.counts.completed} of {scale.raws} items completed")
    table = app.store.read(lambda connection: connection.execute(_TABLE).fetchone()[0])
    took = median(timed(lambda: app.results(name, limit=_PAGE)) for _ in range(10))
    app.close()
    return {
        f"{name}-file": (folder / f"{name}.db").stat().st_size / 1e6,
        f"{name}-table": table / 1e6,
        f"{name}-list": took * 1000,
    }


def _raw(chance: random.Random) -> dict[str, list[float]]:
    """Return prices and volumes of so many minutes that they are 100 KB as JSON."""
    price, raw = 3_000.0, {"open": [], "high": [], "low": [], "close": [], "volume": []}
    size = 0
    while size < _RAW:
        close = price + chance.gauss(0, 3)
        row = {
            "open": round(price, 2),
            "high": round(max(price, close) + abs(chance.gauss(0, 1)), 2),
            "low": round(min(price, close) - abs(chance.gauss(0, 1)), 2),
            "close": round(close, 2),
            "volume": chance.randint(1_000, 90_000),
        }
        for column, value in row.items():
            raw[column].append(value)
        size += sum(len(str(value)) + 2 for value in row.values())
        price = close
    return raw
