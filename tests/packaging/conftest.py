import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts/bench.d"


@pytest.fixture
def bench(monkeypatch):
    """The bench's own modules, which are on no path: bench("figures"), bench("beside.kills")."""
    monkeypatch.syspath_prepend(str(BENCH))
    names = {path.stem for path in BENCH.glob("*.py")} | {"beside"}
    yield importlib.import_module
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            del sys.modules[name]
