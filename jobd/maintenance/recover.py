"""recover: what is ``running`` in the store and that nobody runs goes back to ``queued``, by its evidence.

Whoever calls holds the file's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.maintenance.evidence import Answers, Evidence, Holder, Rules, Unanswered
from jobd.maintenance.report import Change, Report, Tally
from jobd.states import QUEUED, RUNNING
from jobd.store import orphans
from jobd.store.batches import BATCH, Pace, always, breathe
from jobd.store.ending import Ended, end_jobs, finished_but_open
from jobd.store.removal import DeadSubmission, dead_submissions, request_removal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.orphans import Running, Verdict


def recover(
    store: Store,
    *,
    holder: Holder,
    rules: Rules,
    now: int,
    actor: str,
    check_only: bool = False,
    go_on: Callable[[], bool] = always,
) -> Report:
    """Settle every orphan, request the removal of dead submissions, end jobs with nothing open; return what changed.

    With ``check_only`` nothing is written and the report says what would be. Where ``go_on`` says no between two
    batches, the rest is left to the next call.
    """
    tally = Tally()
    settled = _settle(store, holder, rules, now=now, actor=actor, check_only=check_only, go_on=go_on, stay=tally.stay)
    for v in settled:
        item = v.item
        tally.add(Change(item.job_id, item.id, item.key, RUNNING, v.target, v.evidence, item.since, item.attempt))
    submissions = dead_submissions(store) if go_on() else []
    if not check_only:
        _request_removals(store, submissions, now)
    for job_id, _ in submissions:
        tally.add(Change(job_id, None, None, QUEUED, "removed", "its submitter is gone"))
    for job in _end_finished(store, now=now, actor=actor, check_only=check_only, go_on=go_on):
        tally.add(Change(job.job_id, None, None, job.before, job.status, "nothing of it is open"))
    return tally.report("recover", check_only=check_only)


def _settle(
    store: Store,
    holder: Holder,
    rules: Rules,
    *,
    now: int,
    actor: str,
    check_only: bool,
    go_on: Callable[[], bool],
    stay: Callable[[str], None],
) -> Iterator[Verdict]:
    # Before anything is changed: in the last of several batches a daemon's one row left is not its only one.
    evidence = Evidence(holder, rules, store.read(orphans.rows_of_daemons), now)
    last, pace = (0, 0), Pace(BATCH)
    while evidence.rows_of and go_on():
        size = pace.size

        def look(connection: Connection, size: int = size, last: tuple[int, int] = last) -> list[Running]:
            return orphans.running(connection, last, size)

        # Outside the write lock: mostly there is nothing to do, and what a task's own code says may take its time.
        found = store.read(look)
        doubtful = evidence.doubtful(found)
        answers = _ask(store, evidence, doubtful, go_on, stay)
        for item in evidence.foreign(found):
            stay(_unknown(item.task, None if check_only else holder.daemon_id))
        verdicts = evidence.judge(found, answers)
        if doubtful and not go_on():
            # That may have taken long: who was told to leave meanwhile may not hold the lock any more.
            return
        if verdicts and not check_only:

            def act(connection: Connection, size: int, answers: Answers = answers) -> list[Verdict]:
                # Looked at again: each of them may have moved in between.
                again = evidence.judge(look(connection, size), answers)
                return orphans.carry_out(
                    store, connection, again, since=evidence.since, holder=holder.daemon_id, now=now, actor=actor
                )

            verdicts = pace.write(store, act)
            breathe()
        yield from verdicts
        if len(found) < size:
            return
        last = (found[-1].job_id, found[-1].id)


def _unknown(task: str, daemon_id: int | None) -> str:
    if daemon_id is None:
        return f"task {task} is not registered here; --app names its program"
    # It was asked, or came by: what whoever asked has registered does not matter.
    return f"task {task} is not registered by daemon {daemon_id}; start that with --app naming its program"


def _ask(
    store: Store,
    evidence: Evidence,
    doubtful: Sequence[Running],
    go_on: Callable[[], bool],
    stay: Callable[[str], None],
) -> Answers:
    """Ask the tasks' own code about the orphans that it knows more of; ``stay`` is told why one has no answer."""
    answers: Answers = {}
    for item in doubtful:
        subject = orphans.subject(store, item.id, item.attempt) if go_on() else None
        if subject is not None:
            try:
                answers[item.id, item.attempt] = evidence.rules.verify[item.task](subject)
            except Unanswered as error:
                stay(f"its verify could not say ({error})")
    return answers


def _request_removals(store: Store, submissions: Sequence[DeadSubmission], now: int) -> None:
    """Free the keys of dead submissions at once: their rows go in batches, and their submitter may be back by then."""

    def work(connection: Connection) -> None:
        for job_id, _ in submissions:
            request_removal(store, connection, job_id, now)

    if submissions:
        store.write(work)


def _end_finished(
    store: Store, *, now: int, actor: str, check_only: bool, go_on: Callable[[], bool]
) -> Iterator[Ended]:
    """End the jobs that were left open though nothing of them is."""
    # Looked for outside the write lock: mostly there is none. end_jobs asks again which of them have nothing open.
    job_ids = finished_but_open(store) if go_on() else []
    pace, start = Pace(BATCH), 0
    while start < len(job_ids):
        batch = job_ids[start : start + pace.size]
        start += len(batch)

        def end(connection: Connection, _: int = 0, batch: Sequence[int] = batch) -> list[Ended]:
            return end_jobs(store, connection, batch, now=now, actor=actor, check_only=check_only)

        yield from store.read(end) if check_only else pace.write(store, end)
        breathe()
        if not go_on():
            return
