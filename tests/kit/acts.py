"""What processes do before they are killed: the steps of the operations in operations.py."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

from jobd import safekeeping
from jobd.maintenance.checkpoint import checkpoint
from jobd.maintenance.evidence import Holder
from jobd.maintenance.time_out import Limits, time_out
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.sqlite import SqliteStore
from kit.worlds import DAY, MINUTE

VERSION_0 = """
    create table analysis_jobs (job_id text primary key, status text, total integer, completed integer,
        created_at text default current_timestamp, started_at text, error text);
    create table analysis_results (id integer primary key autoincrement, ticker text, symbol text, verdict text,
        score real, raw_data text, created_at text default current_timestamp);
    create table watchlist (ticker text, notes text);
    insert into analysis_jobs values ('one', 'completed', 2, 2, '2026-11-01 00:00:00', '2026-11-01 00:00:01', null);
    insert into analysis_results values (1, 'a', 'a', 'up', 0.5, '{"a": 1}', '2026-11-01 00:00:02');
    insert into analysis_results values (2, 'b', 'b', 'down', 0.7, null, '2026-11-01 00:00:03');
    insert into watchlist values ('a', 'first');
"""


def nothing(world):
    return []


def submitted(does, **options):
    return lambda world: world.submit(does, **options)


def drained(world):
    world.drain()


def steered(verb, *arguments, key="job", **options):
    return lambda world: getattr(world.job(key), verb)(*arguments, **options)


def several(*acts):
    def act(world):
        for one in acts:
            one(world)

    return act


def changed_payloads(world):
    items = [{"key": f"key-{number}", "does": f"tell-{number}"} for number in range(4)]
    world.app.submit("work", items, key="job", item_key="key", changed="requeue")


# -- what a killed daemon leaves --------------------------------------------------------------------------------------


def killed_with_four(world):
    """Four items run in four threads when one of them kills the process: one has saved its result, and one has noted
    what it is about to do.
    """
    meet = threading.Barrier(4, timeout=20)

    def before(what):
        plain = getattr(world, what)

        def handler(ctx):
            if what == "_save":
                ctx.save_result(ctx.key)
            if what == "_intend":
                ctx.intend("about to")
            meet.wait()
            return plain(ctx) if what == "_die" else threading.Event().wait(20)

        setattr(world, what, handler)

    for what in ("_save", "_intend", "_tell", "_die"):
        before(what)
    with world.app.daemon(workers=4):
        world.submit("save-1 intend-2 tell-3 die-4 complete-5", task="sure").wait(timeout=20)


def killed_in_a_submission(world):
    """Two chunks of a submission are stored, and nobody will send the rest."""

    def items():
        yield from ("complete-1", "complete-2", "complete-3", "complete-4", "complete-5", "complete-6")
        world.kill()

    world.app.submit("work", items(), key="half")


def running(world):
    """One of three items runs, and its daemon lives."""
    world.submit("complete-1 complete-2 complete-3", job_timeout="1m")
    world.claim_one()


def reported(kind):
    """Report an attempt at the first item in a way that its handler cannot."""

    def act(world):
        item, job = world.all("select id, job_id from job_items order by id limit 1")[0]
        if kind == "released" and world.begun()[item]:
            # Nobody gives back what has begun.
            return
        outcome = Outcome(item, job, 1, "work", "complete-1", kind, world.now, world.now, None, "E", "no")
        store = world.app.store
        store.write(lambda connection: settle(store, connection, [outcome], now=world.now, actor="test"))

    return act


def interrupted(world):
    """Drain, though somebody presses Ctrl-C in a handler."""
    with contextlib.suppress(KeyboardInterrupt):
        world.drain()


# -- families ---------------------------------------------------------------------------------------------------------


def family(parent):
    """A parent, two that come after it, and one that comes after one of these."""

    def act(world):
        first = world.submit(parent, task="strict", key="job")
        second = world.submit("complete-1 complete-2 complete-3", key="second", after=first)
        world.submit("complete-1", key="third", after=first, on="ended")
        world.submit("complete-1", key="fourth", after=second)

    return act


# -- a transaction of one's own ---------------------------------------------------------------------------------------


def own_table(world):
    world.change("create table orders (name text)")


def submit_in_own_transaction(world):
    with world.app.atomic():
        world.app.database.execute_sql("insert into orders (name) values ('job')")
        world.submit("complete-1 complete-2")


def order_and_job(world):
    orders, jobs = world.all("select (select count(*) from orders), (select count(*) from jobs)")[0]
    # The same again finds the job, and writes another order.
    return [] if bool(orders) == bool(jobs) else [f"{orders} orders, {jobs} jobs"]


# -- passes -----------------------------------------------------------------------------------------------------------


def wait_too_long(world):
    world.drain()
    world.pass_time(61 * MINUTE)
    world.app.tick()


def come_due(world):
    world.pass_time(2 * MINUTE)
    world.drain()


def every_hour(world):
    world.app.schedule(world.app.tasks["work"], every="1h", items=["complete-1", "tell-2"])


def an_hour_later(world):
    world.pass_time(90 * MINUTE)


def contradicted(world):
    """Stored results of which the rows of their items know nothing: they have failed."""
    world.submit("fail-1 raise-2")
    world.submit("complete-3", key="other")
    world.drain()
    world.change(
        "insert into results (item_id, attempt, task, key, value, created_at)"
        " select i.id, i.attempt, j.task, i.key, '\"kept\"', ? from job_items as i join jobs as j on j.id = i.job_id"
        " where i.status = 'failed'",
        world.now,
    )


def time_out_running(world):
    world.pass_time(5 * MINUTE)
    limits = Limits(MINUTE, retries=50, tasks=["work"], free_since=0)
    time_out(world.app.store, holder=Holder(1), limits=limits, now=world.now, actor="pass")


def age(world):
    world.pass_time(100 * DAY)
    world.submit("complete-1", key="young")
    world.drain()


def prune_old(world):
    world.app.prune("50d")


def empty_log(world):
    checkpoint(world.app.store)


# -- the file as a whole ----------------------------------------------------------------------------------------------


def version_0(world):
    connection = sqlite3.connect(world.folder / "jobs.db")
    connection.executescript(VERSION_0)
    connection.close()


def migrate(world):
    world.app.close()
    safekeeping.migrate(str(world.folder / "jobs.db"), now=world.now)


def back_up(world):
    safekeeping.backup(str(world.folder / "jobs.db"), str(world.folder / "copy.db"))


def whole_or_not_at_all(world):
    """Judge the copy, where there is one: it is what the file is."""
    if not (world.folder / "copy.db").exists():
        return []
    copy = SqliteStore(world.folder / "copy.db")
    try:
        items = copy.read(lambda connection: connection.execute("select key, status from job_items").fetchall())
        wrong = [violation.text for violation in check(copy)]
    finally:
        copy.close()
    return wrong if items == world.all("select key, status from job_items") else [*wrong, f"the copy has {items}"]


def restore(world):
    world.app.close()
    safekeeping.restore(str(world.folder / "jobs.db"), str(world.folder / "copy.db"), now=world.now)
