"""The operations that processes are killed in: what they find, and what they do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kit import acts
from kit.acts import drained, several, steered, submitted
from kit.worlds import World

if TYPE_CHECKING:
    from collections.abc import Callable

FIVE = "complete-1 complete-2 complete-3 complete-4 complete-5"


class Operation(NamedTuple):
    """``prepare`` runs in processes of its own, a step in each, that may be killed in it; ``act`` is what is killed.

    ``restart`` is what the next process does first. ``removes`` says that items go, ``opens`` that the file can be
    opened at once whatever was left of it. ``look`` returns what else is wrong.
    """

    name: str
    prepare: tuple[Callable, ...]
    act: Callable
    restart: Callable = World.recover
    declare: Callable | None = None
    removes: bool = False
    opens: bool = True
    look: Callable = acts.nothing


def settled(does, **options):
    """Return an operation whose handlers do this, and leave it to be settled."""
    return Operation(f"settle {does}", (submitted(f"{does}-1 complete-2 {does}-3", **options),), drained)


def reported(kind):
    """Return an operation that reports an attempt so; a daemon that finds it unreported reports it again."""
    act = acts.reported(kind)
    return Operation(f"settle {kind}", (acts.running,), act, restart=several(act, World.recover))


SUBMITTING = [
    Operation("create and submit", (), submitted("complete-1 complete-2")),
    Operation("submit", (submitted("complete-0", key="first"),), submitted("complete-1 fail-2")),
    Operation("submit in chunks", (submitted("complete-0", key="first"),), submitted(FIVE)),
    Operation(
        "submit again",
        (several(submitted("complete-1 complete-2"), drained),),
        submitted("complete-1 complete-2 complete-3 tell-4 complete-5"),
    ),
    Operation(
        "submit changed payloads",
        (several(submitted("key-0 key-1 key-2 key-3", task="work"), drained),),
        acts.changed_payloads,
    ),
    Operation("submit in one's own transaction", (acts.own_table,), acts.submit_in_own_transaction,
              look=acts.order_and_job),
    Operation("submit after another", (submitted("complete-1"),), lambda world: world.submit(
        "complete-2", key="second", after=world.job())),
]  # fmt: skip
RUNNING = [
    Operation(
        "claim",
        (several(submitted("complete-1", key="low"), submitted("complete-2 complete-3", key="high", priority=1)),),
        drained,
    ),
    *map(settled, ("complete", "fail", "raise", "skip", "leave", "save", "tell", "add", "cancel", "halt")),
    *map(reported, ("released", "stopped", "interrupted", "timed_out", "overdue", "cancelled")),
    Operation("settle from the keyboard", (submitted("stop-1 complete-2"),), acts.interrupted),
    settled("later", task="again"),
    settled("defer", task="outside"),
    settled("intend", task="sure"),
    settled("once", task="daily"),
    Operation("settle beyond the tolerance", (submitted("fail-1 complete-2", task="strict"),), drained),
    Operation("settle the last that is allowed", (submitted(f"fail-0 {FIVE}", halt=1),), drained),
]
STEERING = [
    Operation("cancel", (submitted(FIVE),), steered("cancel")),
    Operation("fail", (submitted(FIVE),), steered("fail", "why")),
    Operation("pause", (submitted("complete-1 complete-2"),), steered("pause")),
    Operation("unpause", (several(submitted("complete-1 complete-2"), steered("pause")),), steered("unpause")),
    Operation("retry", (several(submitted("flaky-1 flaky-2 flaky-3 flaky-4 complete-5"), drained),), steered("retry")),
    Operation("resume", (several(submitted(FIVE), steered("cancel")),), steered("resume")),
    Operation("resume what was killed", (acts.killed_with_four,), steered("resume")),
    Operation(
        "delete",
        (several(submitted("complete-1 complete-2 complete-3 save-4 tell-5"), drained),),
        steered("delete"),
        removes=True,
    ),
    Operation("delete a family", (acts.family("complete-1"),), steered("delete", cascade=True), removes=True),
    Operation("deliver", (submitted("complete-1 complete-2"),), steered("deliver", "complete-1", "given")),
    Operation(
        "deliver a failure",
        (several(submitted("defer-1 complete-2", task="outside"), drained),),
        steered("deliver_failure", "defer-1", "no"),
    ),
    Operation("fall with a parent", (acts.family("fail-1"),), drained),
    Operation("come back with a parent", (several(acts.family("flaky-1"), drained),), steered("retry")),
    Operation("watch", (submitted("complete-1"),), lambda world: world.app.watchlist.add("work", "complete-1", "b")),
]
PASSES = [
    Operation("recover", (acts.killed_with_four,), World.recover),
    Operation("recover a dead submission", (acts.killed_in_a_submission,), World.recover, removes=True),
    Operation("time out", (submitted("defer-1 complete-2 defer-3"),), acts.wait_too_long),
    Operation("time out what runs", (acts.running,), acts.time_out_running),
    Operation("reconcile", (acts.contradicted,), lambda world: world.app.reconcile()),
    Operation("poll", (several(submitted("defer-1 complete-2 defer-3", task="outside"), drained),), acts.come_due),
    Operation("fire", (several(drained, acts.an_hour_later),), drained, declare=acts.every_hour),
    Operation(
        "prune",
        (several(submitted("complete-1 save-2 tell-3 complete-4 complete-5"), drained, acts.age),),
        acts.prune_old,
        removes=True,
    ),
    Operation("checkpoint", (acts.killed_with_four,), acts.empty_log),
]
FILES = [
    Operation("migrate", (acts.version_0,), acts.migrate, restart=acts.migrate, opens=False),
    Operation("backup", (several(submitted(FIVE), drained),), acts.back_up, look=acts.whole_or_not_at_all),
    Operation(
        "restore",
        (several(submitted(FIVE), drained, acts.back_up, submitted("complete-6", key="young"), drained),),
        acts.restore,
        restart=acts.restore,
        removes=True,
        opens=False,
    ),
]
OPERATIONS = [*SUBMITTING, *RUNNING, *STEERING, *PASSES, *FILES]
