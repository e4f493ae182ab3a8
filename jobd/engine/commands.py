"""Commands: what a spawner is ordered to run for an attempt, and what it means that it ended so."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from jobd import clock, codec
from jobd.commands import Command, NoCommand, argv, environment
from jobd.engine.answer import Answer
from jobd.engine.crew import Crew
from jobd.engine.runner import begin, conclude
from jobd.engine.talk import END
from jobd.engine.worker import Died, Worker
from jobd.spooling import Spools
from jobd.states import CANCELLED, COMPLETED, FAILED
from jobd.store.outcome import TIMED_OUT, Printed
from jobd.store.wording import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - text
_MAIN: Final = f"import sys; sys.path.append({_ROOT!r}); from jobd.engine.spawner import main; main()"
# Without what is installed, which takes half of its start, where nothing of that is needed.
_WORDS: Final = (*(("-S",) if sys.platform == "linux" else ()), "-c", _MAIN)
_COMPLETED: Final = json.dumps({"exit": 0})


class Commands:
    """Has spawners run the commands of the database at ``path``."""

    def __init__(self, path: str) -> None:
        self.crew = Crew(functools.partial(Worker, {}, _WORDS))
        self._spools = Spools(path)
        self._spools.sweep()

    def at_start(self) -> None:
        """Leave it: who has no commands to run needs no spawner."""

    def ask(self, worker: Worker, attempt: Attempt) -> Answer:
        """Have ``worker`` run the command of an attempt.

        Raises:
            Died: it has ended over that.
            OSError: it is gone.
        """
        try:
            order = self._order(attempt)
        except NoCommand as error:
            return Answer(FAILED, None, "NoCommand", str(error))
        worker.ask(order)
        word, ended, out, err, cut = worker.hear()
        assert word == END  # noqa: S101 - it says nothing else
        printed = worker.hear_data().decode("latin-1")
        answer = _meaning(ended, attempt)
        return answer._replace(printed=Printed(printed[:out], printed[out : out + err], cut)) if printed else answer

    def run(self, attempt: Attempt) -> Outcome:
        """Run the command of an attempt in the calling thread, which waits for it; it ends with whatever ends that."""
        begin(attempt)
        worker = self.crew.mine()
        try:
            answer = self.ask(worker, attempt)
        except Died:
            answer = Answer(FAILED, None, "WorkerDied", "its spawner was killed", wanted=True)
            self.crew.give_up()
        except BaseException:
            self.crew.give_up()
            raise
        attempt.seconds = clock.awake() - attempt.began
        return conclude(attempt, answer, None, saved=False)

    def _order(self, attempt: Attempt) -> dict[str, Any]:
        claimed = attempt.claimed
        params, payload = codec.loads(claimed.params), codec.loads(claimed.payload)
        own = {b"JOBD_JOB": b"%d" % claimed.job_id, b"JOBD_ATTEMPT": b"%d" % claimed.attempt}
        return {
            "argv": list(map(_text, argv(params, payload))),
            "environment": _texts(environment(params, payload) | own),
            "cwd": _text(Command.of(params).cwd),
            "timeout": attempt.policy.timeout,
            "spool": self._spools.beginning(claimed.job_id, claimed.item_id, claimed.attempt),
        }


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _texts(words: Mapping[bytes, bytes]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in words.items()}


def _meaning(ended: Mapping[str, Any], attempt: Attempt) -> Answer:
    """Return what it means that a command ended so."""
    code = ended["code"]
    wanted = attempt.policy.retries_on(Exception)
    if "why" in ended:
        return Answer(FAILED, None, "Exit", f"exit {code}: {ended['why']}", wanted=wanted)
    if code == 0:
        return Answer(COMPLETED, _COMPLETED)
    if ended["late"]:
        words = f"timed out after {seconds(attempt.policy.timeout or 0)}"
        return Answer(TIMED_OUT, None, "TimeOut", words, wanted=attempt.policy.retries_on(TimeoutError))
    if ended["asked"]:
        return Answer(CANCELLED, None, "Cancelled", _words(code))
    return Answer(FAILED, None, "Exit" if code > 0 else "Signal", _words(code), wanted=wanted)


def _words(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
