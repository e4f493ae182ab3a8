"""One attempt: whatever a handler does, an outcome comes of it, and the thread that ran it goes on."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from jobd import Cancelled, Fail, Lost, Skip, clock
from jobd.engine import runner
from jobd.engine.runner import Attempt, run
from jobd.engine.threads import Threads
from jobd.store.claim import Claimed, Lane, Turns, claim

MIB = 1024 * 1024


@pytest.fixture
def attempt(app, store):
    """Return a function that makes an attempt at one item of a handler."""

    def make(handler, payload=None, params=None):
        task = app.task(name=f"task-{len(app.tasks)}")(handler)
        task.submit([payload], item_key=lambda _: "the key", params=params)

        def start(connection):
            return claim(
                store, connection, Turns(), limit=1, tasks=[task.name], daemon_id=1, now=clock.now(),
                actor="test",
            )  # fmt: skip

        (claimed,) = store.write(start)
        return Attempt(claimed, task, clock.awake())

    return make


@pytest.fixture
def outcome(attempt, store):
    """Return a function that runs a handler once and returns what came of it."""
    return lambda handler, payload=None: run(store, attempt(handler, payload))


def told(outcome):
    return outcome.kind, outcome.value, outcome.error_type, outcome.error


def raising(error):
    def handler(_):
        raise error

    return handler


# -- what comes of it -------------------------------------------------------------------------------------------------


def test_a_handler_is_given_the_payload_and_its_return_is_the_result(outcome):
    found = outcome(lambda payload: {"twice": payload["n"] * 2}, {"n": 21})
    assert told(found) == ("completed", '{"twice":42}', None, None)
    assert found.key == "the key"
    assert found.output is None


def test_an_outcome_carries_the_real_start_and_end_not_those_of_the_claim(attempt, store, monkeypatch):
    one = attempt(lambda _: None)
    times, seconds = iter([5_000, 7_500]), iter([1.0, 3.5])
    monkeypatch.setattr(runner.clock, "now", lambda: next(times))
    monkeypatch.setattr(runner.clock, "awake", lambda: next(seconds))
    found = run(store, one)
    assert (found.started_at, found.completed_at, one.seconds) == (5_000, 7_500, 2.5)


def test_a_clock_that_goes_back_makes_no_attempt_end_before_it_began(attempt, store, monkeypatch):
    one = attempt(lambda _: None)
    times = iter([5_000, 4_000])
    monkeypatch.setattr(runner.clock, "now", lambda: next(times))
    found = run(store, one)
    assert (found.started_at, found.completed_at) == (5_000, 5_000)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Fail("no such account"), ("failed", None, "Fail", "no such account")),
        (Skip("nothing to do"), ("skipped", None, "Skip", "nothing to do")),
        (Cancelled("as told"), ("cancelled", None, "Cancelled", "as told")),
        (Lost("another attempt"), ("failed", None, "Lost", "another attempt")),
        (ValueError("no"), ("failed", None, "ValueError", "no")),
        (ValueError(), ("failed", None, "ValueError", "ValueError")),
        (KeyError("a"), ("failed", None, "KeyError", "'a'")),
        (SystemExit(3), ("failed", None, "SystemExit", "3")),
        (SystemExit(), ("failed", None, "SystemExit", "SystemExit")),
        (KeyboardInterrupt(), ("failed", None, "KeyboardInterrupt", "KeyboardInterrupt")),
        (GeneratorExit("odd"), ("failed", None, "GeneratorExit", "odd")),
        (ExceptionGroup("two", [ValueError("a")]), ("failed", None, "ExceptionGroup", "two (1 sub-exception)")),
        (MemoryError(), ("failed", None, "MemoryError", "MemoryError")),
        (OSError(28, "No space left on device"), ("failed", None, "OSError", "[Errno 28] No space left on device")),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_a_handler_raises_becomes_an_outcome(outcome, error, expected):
    assert told(outcome(raising(error))) == expected


def test_sys_exit_in_a_handler_fails_the_item(outcome):
    assert told(outcome(lambda _: sys.exit("bye"))) == ("failed", None, "SystemExit", "bye")


def test_a_recursion_without_end_fails_the_item(outcome):
    def down(payload):
        return down(payload)

    found = outcome(down)
    assert (found.kind, found.error_type) == ("failed", "RecursionError")
    assert "maximum recursion depth" in found.error
    assert len(found.output[0]) <= 64 * 1024


class Mute(Exception):
    def __str__(self):
        raise SystemExit("from __str__")


class Sly(str):
    """A text that defends itself."""

    __slots__ = ()

    def __len__(self):
        raise SystemExit

    def __bool__(self):
        raise SystemExit

    def isascii(self):
        raise SystemExit

    def encode(self, *_):
        raise SystemExit


class SlyError(Exception):
    def __str__(self):
        return Sly("caught")


class Trap(Exception):
    """Cannot be looked at."""

    @property
    def __notes__(self):
        raise SystemExit("from __notes__")


def test_an_error_whose_message_cannot_be_read_is_an_error_all_the_same(outcome):
    found = outcome(raising(Mute()))
    assert told(found) == ("failed", None, "Mute", "(its message cannot be read: SystemExit)")


def test_an_error_whose_message_is_not_a_plain_text_is_read_as_one(outcome):
    assert told(outcome(raising(SlyError()))) == ("failed", None, "SlyError", "caught")


def test_an_error_whose_traceback_cannot_be_made_is_an_error_all_the_same(outcome):
    assert told(outcome(raising(Trap("caught")))) == ("failed", None, "Trap", "caught")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("lone \udc80 surrogate", "lone \\udc80 surrogate"),
        ("a NUL \0 within", "a NUL \\x00 within"),
        ("ESC \x1b[31m", "ESC \x1b[31m"),
        ("ä€😀", "ä€😀"),
        ("x" * 10_000, "x" * 4_096),
    ],
)
def test_a_message_is_kept_as_the_database_can_hold_it(outcome, text, kept):
    assert outcome(raising(ValueError(text))).error == kept


def test_of_a_long_message_the_end_is_kept(outcome):
    found = outcome(raising(ValueError("x" * 10_000 + " the cause")))
    assert found.error.endswith("x the cause")
    assert len(found.error) == 4_096


def test_the_traceback_is_kept_from_the_handler_on(outcome):
    def handler(payload):
        raise ValueError("no")

    text, cut = outcome(handler).output
    assert cut is False
    assert "in handler" in text
    assert text.endswith("ValueError: no")
    assert runner.__file__ not in text


@pytest.mark.parametrize("error", [Fail("no"), Skip("no"), Cancelled("no"), Lost("no")], ids=repr)
def test_what_a_handler_says_on_purpose_has_no_traceback(outcome, error):
    assert outcome(raising(error)).output is None


# -- what is not JSON -------------------------------------------------------------------------------------------------


def circular():
    value = {}
    value["self"] = value
    return value


def deep():
    value = []
    for _ in range(200_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: float("nan"), "result is not JSON: Out of range float values are not JSON compliant"),
        (lambda: {1}, "result is not JSON: Object of type set is not JSON serializable"),
        (lambda: b"x", "result is not JSON: Object of type bytes is not JSON serializable"),
        (lambda: "\udc80", "result is not JSON: a lone surrogate"),
        (lambda: 2**80, "result is not JSON: an integer beyond 64 bits"),
        (circular, "result is not JSON: nested too deeply, or circular"),
        (deep, "result is not JSON: nested too deeply, or circular"),
        (lambda: "x" * (2 * MIB), "result is 2 MiB, the limit is 1 MiB: save_data()"),
    ],
    ids=["nan", "set", "bytes", "surrogate", "2**80", "circular", "deep", "2 MiB"],
)
@pytest.mark.parametrize("how", ["returned", "saved"])
def test_a_result_that_cannot_be_stored_fails_the_item_with_one_sentence(outcome, make, sentence, how):
    def returns(_):
        return make()

    def saves(_, ctx):
        ctx.save_result(make())

    found = outcome(returns if how == "returned" else saves)
    assert (found.kind, found.error_type, found.saved) == ("failed", None, False)
    assert found.error.removesuffix(": nan") == sentence


# -- the context ------------------------------------------------------------------------------------------------------


def test_a_handler_that_asks_for_it_is_told_what_it_runs_as(attempt, store):
    seen = {}

    def handler(payload, ctx):
        seen.update(vars(ctx))
        seen["payload"] = payload

    one = attempt(handler, [1], params={"p": True})
    run(store, one)
    claimed = one.claimed
    assert {name: seen[name] for name in ("job_id", "item_id", "key", "attempt", "params", "payload")} == {
        "job_id": claimed.job_id, "item_id": claimed.item_id, "key": "the key", "attempt": 1, "params": {"p": True},
        "payload": [1],
    }  # fmt: skip
    assert seen["deadline"] is None


def test_the_idempotency_key_is_that_of_the_item_whatever_the_attempt(attempt, store):
    keys = []

    def handler(_, ctx):
        keys.append(ctx.idempotency_key)

    first, second = attempt(handler), attempt(handler)
    again = Attempt(first.claimed._replace(attempt=2), first.task, clock.awake())
    for one in (first, again, second):
        run(store, one)
    assert keys[0] == keys[1] != keys[2]


def test_what_it_logs_is_kept_before_the_traceback(outcome):
    def handler(_, ctx):
        ctx.log.info("half way")
        raise ValueError("no")

    text, cut = outcome(handler).output
    assert text.splitlines()[0].endswith("INFO half way")
    assert text.endswith("ValueError: no")
    assert cut is False


def test_of_much_that_it_logs_the_tail_is_kept_and_said_to_be_one(outcome):
    def handler(_, ctx):
        for number in range(3_000):
            ctx.log.info("line %05d of a hundred thousand", number)

    text, cut = outcome(handler).output
    assert cut is True
    assert len(text) <= 64 * 1024
    assert text.endswith("line 02999 of a hundred thousand")


def test_what_it_saved_is_in_the_store_at_once_and_said_with_the_outcome(attempt, store, rows):
    def handler(_, ctx):
        ctx.save_result("early")
        assert rows.all("select value from results") == [('"early"',)]
        raise OSError("gone")

    found = run(store, attempt(handler))
    assert (found.kind, found.error_type, found.saved) == ("failed", "OSError", True)


def test_an_attempt_that_is_no_longer_the_items_is_told_so_and_ends_as_lost(attempt, store, rows):
    def handler(_, ctx):
        rows.change("update job_items set attempt=2")
        ctx.save_result("too late")

    found = run(store, attempt(handler))
    assert (found.kind, found.error_type, found.saved) == ("failed", "Lost", False)
    assert rows.all("select * from results") == []


def test_a_handler_learns_that_its_job_is_being_cancelled(attempt, store):
    def handler(_, ctx):
        ctx.raise_if_cancelled()
        one.cancelled = True
        ctx.raise_if_cancelled()

    one = attempt(handler)
    assert told(run(store, one)) == ("cancelled", None, "Cancelled", "the job is being cancelled")


def test_an_attempt_of_a_job_that_is_being_cancelled_does_not_begin(attempt, store):
    ran = []
    one = attempt(ran.append)
    one.cancelled = True
    assert told(run(store, one)) == ("cancelled", None, "Cancelled", "before it began")
    assert ran == []


# -- threads ----------------------------------------------------------------------------------------------------------


class Pool:
    """A pool of threads whose outcomes are facts to wait for."""

    def __init__(self, size, handler):
        self.delivered = []
        self.ended = []
        self.changed = threading.Condition()
        self.pool = Threads(size, run=handler, deliver=self.deliver, at_end=lambda: self.note(self.ended, None))

    def note(self, where, what):
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def deliver(self, attempt, outcome):
        self.note(self.delivered, (attempt.claimed.item_id, outcome))

    def wait(self, fact):
        with self.changed:
            assert self.changed.wait_for(fact, 20)


@pytest.fixture
def pools():
    made = []

    def make(size, handler):
        made.append(Pool(size, handler))
        return made[-1]

    yield make
    for pool in made:
        pool.pool.close()
        pool.wait(lambda pool=pool: len(pool.ended) == pool.pool.size)


def waiting(number, claimed_at=0.0):
    claimed = Claimed(number, 1, str(number), "null", 1, "work", "null", 0, Lane.FRESH, 0)
    return Attempt(claimed, None, claimed_at)


def test_attempts_run_in_the_order_in_which_they_were_handed_over(pools):
    pool = pools(1, lambda attempt: attempt.claimed.item_id)
    pool.pool.hand([waiting(number) for number in range(50)])
    pool.wait(lambda: len(pool.delivered) == 50)
    assert [number for number, _ in pool.delivered] == list(range(50))


def test_what_waits_can_be_taken_back_and_never_begins(pools, gate):
    ran = []

    def handler(attempt):
        ran.append(attempt.claimed.item_id)
        gate.pass_through()

    pool = pools(1, handler)
    attempts = [waiting(number, claimed_at=float(number)) for number in range(6)]
    pool.pool.hand(attempts)
    assert gate.entered.wait(20)
    assert pool.pool.waiting() == 5
    assert pool.pool.oldest() == 1.0
    assert pool.pool.take_back(claimed_before=3.0) == attempts[1:3]
    assert pool.pool.take_back(claimed_before=3.0) == []
    assert pool.pool.oldest() == 3.0
    gate.opened.set()
    pool.wait(lambda: len(pool.delivered) == 4)
    assert ran == [0, 3, 4, 5]
    assert (pool.pool.waiting(), pool.pool.oldest()) == (0, None)


def test_looking_for_what_waited_too_long_does_not_change_the_order(pools, gate):
    pool = pools(1, lambda attempt: gate.pass_through() or attempt.claimed.item_id)
    pool.pool.hand([waiting(number, claimed_at=10.0 + number) for number in range(6)])
    assert gate.entered.wait(20)
    for _ in range(7):
        assert pool.pool.take_back(claimed_before=10.0) == []
    gate.opened.set()
    pool.wait(lambda: len(pool.delivered) == 6)
    assert [number for number, _ in pool.delivered] == list(range(6))


def test_everything_that_waits_can_be_taken_back_while_the_workers_take_from_the_other_end(pools):
    """Each attempt is run or taken back, once, however the two meet."""
    pool = pools(3, lambda attempt: attempt.claimed.item_id)
    taken = []
    for start in range(0, 3_000, 100):
        pool.pool.hand([waiting(number, claimed_at=float(number)) for number in range(start, start + 100)])
        taken += pool.pool.take_back(claimed_before=float(start + 50))
        taken += pool.pool.take_back() if start % 200 else []
    pool.wait(lambda: len(pool.delivered) + len(taken) == 3_000)
    everything = [number for number, _ in pool.delivered] + [attempt.claimed.item_id for attempt in taken]
    assert sorted(everything) == list(range(3_000))


def test_threads_never_keep_the_interpreter_and_close_what_they_opened(pools):
    pool = pools(2, lambda attempt: None)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("jobd-worker-")]
    assert len(workers) >= 2
    assert all(thread.daemon for thread in workers)
    pool.pool.close()
    pool.wait(lambda: len(pool.ended) == 2)


FORK = """
app = Jobd(path)

@app.task
def forks(how):
    child = os.fork()
    if child == 0:
        if how == "returns":
            return "from the child"
        if how == "raises":
            raise ValueError("from the child")
        sys.exit(5)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)

with app.daemon(workers=2):
    job = forks.submit(["returns", "raises", "exits"] * 3, item_key=lambda how, number=iter(range(9)): next(number))
    job.wait(30)
    say(job.status, sorted(result.value for result in job.results()))
    again = forks.submit(["returns"])
    say(again.wait(30).status)
"""


def test_a_handler_that_forks_and_returns_in_its_child_is_one_daemon_still(program):
    one = program(FORK)
    assert one.line() == "completed [0, 0, 0, 0, 0, 0, 0, 0, 0]"
    assert one.line() == "completed"
    assert one.leaves() == 0


# -- the logger of the program ----------------------------------------------------------------------------------------


def test_what_a_handler_logs_goes_on_to_the_programs_own_log(outcome, caplog):
    def handler(_, ctx):
        ctx.log.warning("hear me")
        ctx.log.debug("only here")

    with caplog.at_level(logging.INFO, logger="jobd.task"):
        found = outcome(handler)
    assert "hear me" in caplog.text
    assert "only here" not in caplog.text
    assert "only here" in found.output[0]
