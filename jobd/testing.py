"""The pytest plugin: an app on a file of the test's own, a clock that the test moves, and crashes to come back from.

It is loaded in every suite of a machine that has jobd installed: until a fixture is asked for it imports nothing but
pytest. docs/testing.md shows how they are used.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from freezegun.api import FrozenDateTimeFactory

    from jobd.app import Jobd

# What measures real time beside a test: its own durations, the time-outs of the suite, the workers' heartbeats, and
# the timers of event loops, whose threads wait by the real clock.
_REAL_TIME = ["_pytest.timing", "pytest_timeout", "xdist", "execnet", "asyncio"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings of the plugin."""
    parser.addini("jobd_app", "The app that the fixture jobd_app is, as MODULE:ATTR or ./file.py; a bare one without.")


@pytest.fixture
def jobd_app(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Jobd]:
    """An app on a temporary file: that of the suite's ``jobd_app`` setting with its tasks, else one without any."""
    from jobd.app import Jobd

    named = str(pytestconfig.getini("jobd_app"))
    app = _named(named, pytestconfig) if named else Jobd()
    with app.using(tmp_path / "jobs.db"):
        yield app


def _named(name: str, config: pytest.Config) -> Jobd:
    from jobd.cli.target import load_app

    if name.startswith("."):
        name = os.path.normpath(config.rootpath / name)
    return load_app(name)


class Clock:
    """The time that jobd, and whatever else the test runs, reads. It stands still until it is moved."""

    def __init__(self, frozen: FrozenDateTimeFactory) -> None:
        self._frozen = frozen
        self._awake = 0.0

    @property
    def now(self) -> dt.datetime:
        """What time it is, in UTC."""
        return self._frozen().replace(tzinfo=dt.UTC)

    def awake(self) -> float:
        """Return the seconds that the machine was awake."""
        return self._awake

    def move(self, **by: float) -> None:
        """Let time pass: ``move(minutes=10)``, with the keywords of ``datetime.timedelta``."""
        delta = dt.timedelta(**by)
        self._awake += max(0.0, delta.total_seconds())
        self._pass(delta)

    def move_to(self, when: dt.datetime | str) -> None:
        """Let time pass until ``when``: a datetime with a zone, or ISO 8601 text, in UTC unless it carries a zone."""
        found = dt.datetime.fromisoformat(when) if isinstance(when, str) else when
        found = found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
        self.move(seconds=(found - self.now).total_seconds())

    def suspend(self, **by: float) -> None:
        """Let the machine sleep: time passes, and nothing was awake to see it."""
        self._pass(dt.timedelta(**by))

    def _pass(self, delta: dt.timedelta) -> None:
        self._frozen.tick(delta)
        # Where it is not loaded no daemon runs.
        if daemon := sys.modules.get("jobd.engine.daemon"):
            daemon.look_at_the_clock()


@pytest.fixture
def jobd_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock, stopped at the present second."""
    from jobd import clock

    try:
        from freezegun import freeze_time
    except ImportError:
        raise pytest.UsageError("jobd_clock needs freezegun: pip install 'jobd-embedded[test]'") from None
    present = dt.datetime.now(tz=dt.UTC).replace(microsecond=0, tzinfo=None)
    with freeze_time(present, ignore=_REAL_TIME) as frozen:
        made = Clock(cast("FrozenDateTimeFactory", frozen))
        # In threads freezegun stops the time of day alone.
        monkeypatch.setattr(clock, "awake", made.awake)
        yield made


class Crash(Protocol):
    """What the fixture ``jobd_crash`` is: ``with jobd_crash("settle.before_commit"): …``."""

    def __call__(self, point: str, *, at: int = 1, proof: bool = True) -> AbstractContextManager[None]:
        """End what runs within the block at the ``at``-th reach of ``point``, and go on behind the block.

        The registry is lost, the lock is free, the rows are as a killed daemon leaves them. With ``proof`` false
        nothing in the rows tells that their daemon is gone, as where a file system has no locks: only time will.
        """
        ...  # pragma: no cover


@pytest.fixture
def jobd_crash(request: pytest.FixtureRequest) -> Crash:
    """Crash at a named point, in this process."""

    @contextlib.contextmanager
    def crash(point: str, *, at: int = 1, proof: bool = True) -> Iterator[None]:
        from jobd.engine import points

        reachable = (*points.RUNNING, *points.FIRING)
        if point not in reachable:
            raise pytest.UsageError(f"there is no crash point {point!r}; there are {', '.join(reachable)}")
        reached: list[str] = []

        def end(name: str) -> None:
            reached.append(name)
            raise points.Crash(name)

        points.arm(point, at, end=end)
        try:
            with contextlib.suppress(points.Crash):
                yield
        finally:
            points.disarm(point)
        if not reached:
            pytest.fail(f"{point} was not reached {at} times: nothing crashed", pytrace=False)
        if not proof:
            _disown(request.getfixturevalue("jobd_app"))

    return crash


def _disown(app: Any) -> None:
    from jobd.store import daemons

    daemons.disown(app.store)
