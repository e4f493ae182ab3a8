"""What a cold start is made of."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave out the garbage collector while the block imports.

    Next to nothing of what an import makes is garbage, and the collector would look through all of it again and again:
    a twentieth of what `jobd show` costs.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
