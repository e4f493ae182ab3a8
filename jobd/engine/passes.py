"""The passes by name, as data: what each runs, and the setting of its beat.

The same functions serve a daemon's start and its beats, whoever asks a live daemon, and whoever holds the lock because
there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from jobd import process
from jobd.engine import points, rescue
from jobd.engine.polls import askers, polled
from jobd.engine.verifying import verifiers
from jobd.maintenance.evidence import Holder, Rules, Verify
from jobd.maintenance.fire import fire
from jobd.maintenance.poll import Asker, poll
from jobd.maintenance.prune import Retention, prune
from jobd.maintenance.reconcile import reconcile
from jobd.maintenance.recover import recover
from jobd.maintenance.report import Report
from jobd.maintenance.time_out import Hung, Limits, nobody, time_out
from jobd.states import JOB_ENDS
from jobd.store import daemons, polling, schedules
from jobd.store.batches import always
from jobd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobd.config import Settings
    from jobd.store.schedules import Declared
    from jobd.tasks import Task


@dataclass(frozen=True)
class Situation:
    """What a pass is told beside its store: the tasks and settings of whoever runs it, who holds the lock, the time.

    With ``check_only`` it writes nothing. Where ``go_on`` says no between two batches, it leaves the rest. ``verify``
    and ``askers`` are hooks in place of the tasks' own; ``options`` what a person asked for beside the pass's name,
    JSON; ``progress`` is told how many items it was so far, of how many. A daemon says since when (Unix ms) it had a
    free slot at any moment, None where not, and how it gives up attempts.
    """

    tasks: Mapping[str, Task[..., object]]
    settings: Settings
    holder: Holder
    now: int
    actor: str
    check_only: bool = False
    go_on: Callable[[], bool] = always
    verify: Mapping[str, Verify] | None = None
    askers: Mapping[str, Asker] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int], None] | None = None
    free_since: int | None = None
    interrupt: Callable[[Sequence[Hung]], None] = nobody


Run: TypeAlias = Callable[[SqliteStore, Situation], Report]
# When (Unix ms) a pass is due next, as the store and the tasks of whoever runs it say now; None: not until they change.
Next: TypeAlias = Callable[[SqliteStore, "Mapping[str, Task[..., object]]", int], int | None]


class Pass(NamedTuple):
    """A pass: its function, and the setting that says every how many seconds a daemon runs it.

    What ``next`` says when it is due runs then, too. A ``long`` one may take minutes and judges
    nothing that runs: it goes beside the others, in a thread of its own; so does one that ``asks`` the outside, which
    never has to answer.
    """

    run: Run
    every: str | None
    long: bool = False
    next: Next | None = None
    asks: bool = False


def _recover(store: SqliteStore, at: Situation) -> Report:
    if not at.check_only:
        # Before anything is judged: an outcome that is kept is the best evidence there is.
        rescue.settle_kept(store, now=at.now, actor=at.actor)
    rules = Rules(
        boot=process.boot(),
        grace_ms=int(at.settings.grace * 1000),
        max_interruptions={name: task.policy.max_interruptions for name, task in at.tasks.items()},
        tasks=at.tasks.keys(),
        verify=verifiers(at.tasks) if at.verify is None else at.verify,
    )
    return recover(
        store,
        holder=at.holder,
        rules=rules,
        now=at.now,
        actor=at.actor,
        check_only=at.check_only,
        go_on=at.go_on,
    )


def _time_out(store: SqliteStore, at: Situation) -> Report:
    return time_out(
        store,
        holder=at.holder,
        limits=Limits(
            timeout_ms=int(at.settings.job_timeout * 1000),
            retries=at.settings.job_timeout_retries,
            # What is bounded waits for its own kind, though slots are free.
            tasks=[name for name, task in at.tasks.items() if not task.policy.bounded],
            free_since=at.free_since,
            interrupt=at.interrupt,
        ),
        now=at.now,
        actor=at.actor,
        check_only=at.check_only,
        go_on=at.go_on,
    )


def _prune(store: SqliteStore, at: Situation) -> Report:
    asked = at.options.get("older_than_ms")
    kept = {outcome: getattr(at.settings, f"keep_{outcome}") for outcome in JOB_ENDS}
    return prune(
        store,
        retention=Retention(
            ages={outcome: _ms(age) if asked is None else asked for outcome, age in kept.items()},
            values=_ms(at.settings.keep_values),
            keep_last=at.settings.keep_last,
        ),
        now=at.now,
        actor=at.actor,
        check_only=at.check_only,
        go_on=at.go_on,
        progress=at.progress,
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _reconcile(store: SqliteStore, at: Situation) -> Report:
    return reconcile(
        store,
        holder=at.holder,
        now=at.now,
        actor=at.actor,
        every=bool(at.options.get("every")),
        check_only=at.check_only,
        go_on=at.go_on,
    )


def _fire(store: SqliteStore, at: Situation) -> Report:
    return fire(
        store,
        declared=declared(at.tasks),
        now=at.now,
        by_hand=at.options.get("run"),
        check_only=at.check_only,
        go_on=at.go_on,
        reached=points.reach,
    )


def _next_firing(store: SqliteStore, tasks: Mapping[str, Task[..., object]], now: int) -> int | None:
    return schedules.next_due(store, declared(tasks), now=now)


def declared(tasks: Mapping[str, Task[..., object]]) -> dict[str, Declared]:
    """Return the schedules of these tasks by name."""
    return {schedule.name: schedule for task in tuple(tasks.values()) for schedule in task.schedules}


def _poll(store: SqliteStore, at: Situation) -> Report:
    return poll(
        store,
        askers=askers(at.tasks) if at.askers is None else at.askers,
        now=at.now,
        actor=at.actor,
        check_only=at.check_only,
        go_on=at.go_on,
    )


def _next_poll(store: SqliteStore, tasks: Mapping[str, Task[..., object]], now: int) -> int | None:  # noqa: ARG001 - as all
    return polling.next_poll(store, polled(tasks))


PASSES: Final[Mapping[str, Pass]] = {
    "recover": Pass(_recover, "recover_every"),
    "reconcile": Pass(_reconcile, "reconcile_every"),
    # Before the deadlines: what has answered by the time that they are looked at was not too late.
    "poll": Pass(_poll, "poll_every", next=_next_poll, asks=True),
    "time_out": Pass(_time_out, "time_out_every"),
    "prune": Pass(_prune, "prune_every", long=True),
    "fire": Pass(_fire, None, next=_next_firing),
}


def due(store: SqliteStore, settings: Settings, tasks: Mapping[str, Task[..., object]], *, now: int) -> list[str]:
    """Return the passes whose time has come, by their beat or as they say, and those that somebody has asked for."""
    began = daemons.last_runs(store)
    asked = {request.name for request in daemons.requests(store)}

    def has_come(name: str, found: Pass) -> bool:
        # A last run that is yet to come is that of a clock which was put back.
        passed = found.every is not None and (
            name not in began or not 0 <= now - began[name] < getattr(settings, found.every) * 1000
        )
        return passed or name in asked or is_due(store, name, tasks, now=now)

    return [name for name, found in PASSES.items() if has_come(name, found)]


def next_time(store: SqliteStore, name: str, tasks: Mapping[str, Task[..., object]], *, now: int) -> int | None:
    """Return when (Unix ms) a pass is due beside its beat; None: not until something changes."""
    following = PASSES[name].next
    return None if following is None else following(store, tasks, now)


def is_due(store: SqliteStore, name: str, tasks: Mapping[str, Task[..., object]], *, now: int) -> bool:
    """Say whether a pass is due now, beside its beat."""
    following = next_time(store, name, tasks, now=now)
    return following is not None and following <= now
