"""A command over items as a job that goes on: which job the same command line means, and what it does with it.

Identity is the key, of the job as of its items, and never a position: the same line again runs what is left and what is
new. Without a name a job is its command words and its folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from jobd import clock, codec
from jobd.commands import TASK, Command, NoCommand, pack, text_of, unpack
from jobd.errors import ChangedInput, Conflict, NotFound, StoreBusy
from jobd.items import hashed, normalise
from jobd.naming import key_of
from jobd.states import COMPLETED, FAILED, ITEM_ENDS, JOB_ENDS, SKIPPED
from jobd.store import copies, identity, retry
from jobd.store.duplicates import ROOM, Names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobd.app import Jobd
    from jobd.job import Job
    from jobd.tasks import SubmitOptions

_CHUNK: Final = 500  # items that are held at once
_ANEW: Final = "begun anew under its key"

# As it was named: the bytes of a word, or a document of JSON lines.
Named = bytes | Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command line asks for. ``options`` are further keywords of the submission."""

    command: Command
    name: str | None = None
    known: Literal["refuse", "accept", "new"] = "refuse"  # what a job of that name with another command means
    retry_failed: bool = True
    if_changed: bool = False
    key_field: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of its job."""
        if self.name is not None:
            return self.name
        words = codec.canonical(codec.dumps(self.command.params(), what="the command"))
        return f"map:{hashlib.sha256(words.encode()).hexdigest()[:16]}"


class Planned(NamedTuple):
    """An item of the input: its status in the job, None where it is new there, and whether it is to run as its
    file has changed.
    """

    key: str
    payload: dict[str, Any]
    status: str | None = None
    changed: bool = False


def find(app: Jobd, wanted: Wanted) -> Job | None:
    """Return the job that the command line goes on with; None where it begins one.

    Raises:
        Conflict: the job of that name has another command, or it is paused.
    """
    job = _of_key(app, wanted.key)
    if job is None or wanted.known == "new":
        return None
    if wanted.known == "refuse" and not _same(job, wanted.command):
        raise Conflict(
            f"job {job.id} of that name runs another command: {_described(job)}",
            hint="--accept-changed runs what is left of it with this one, --new begins a new job",
        )
    if job.paused_at is not None:
        raise Conflict(f"job {job.id} is paused", hint=f"jobd unpause {job.id}, then again")
    return job


def _of_key(app: Jobd, key: str) -> Job | None:
    with suppress(NotFound):  # no file yet
        return next(iter(app.jobs(task=TASK, key=key, limit=1)), None)
    return None


def _same(job: Job, command: Command) -> bool:
    with suppress(NoCommand):
        return Command.of(job.params) == command
    return False


def _described(job: Job) -> str:
    try:
        command = Command.of(job.params)
    except NoCommand:
        return codec.dumps(job.params, what="params")
    return f"{command} (in {key_of(command.cwd)})"


def plan(app: Jobd, wanted: Wanted, job: Job | None, items: Iterable[Named]) -> Iterator[Planned]:
    """Yield the items with their keys and payloads; a known one has the payload that it had, but for a changed file."""
    number = job.counts.total if job is not None else 0
    source, numbered = iter(items), wanted.command.numbered
    with Names() as names:
        while chunk := list(islice(source, _CHUNK)):
            named = [(names.give(key), payload) for key, payload in (_entry(wanted, item) for item in chunk)]
            known = identity.held(app.reading(), job.id, [key for key, _ in named]) if job is not None else {}
            for key, payload in named:
                if key in known:
                    yield _known(wanted, key, payload, known[key])
                    continue
                number += 1
                yield Planned(key, payload | {"n": number} if numbered else payload)


def _entry(wanted: Wanted, item: Named) -> tuple[str, dict[str, Any]]:
    """Return the key and the payload of an item."""
    if isinstance(item, dict):
        payload = {"fields": item}
        if wanted.key_field is not None:
            return key_of(text_of(item[wanted.key_field])), payload
        return hashed(codec.dumps(item, what="the item")), payload
    word = item if isinstance(item, bytes) else text_of(item)
    payload = {"item": pack(word)}
    stamp = _stamp(wanted.command.cwd, word)
    return key_of(word), payload | {"stamp": stamp} if stamp else payload


def _stamp(folder: bytes, word: bytes) -> list[int] | None:
    """Return size and modification time of the file that an item names; None where it names none."""
    try:
        found = os.stat(os.path.join(folder, word))  # noqa: PTH116, PTH118 - bytes, as they were named
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _known(wanted: Wanted, key: str, payload: dict[str, Any], held: identity.Held) -> Planned:
    stored = codec.loads(held.payload)
    stamp = payload.get("stamp") if wanted.if_changed else None
    # What has not ended will read the file as it is by then; to hand it in anew could meet its start.
    if stamp is None or stored.get("stamp") == stamp or held.status not in ITEM_ENDS:
        return Planned(key, stored, held.status)
    return Planned(key, {**stored, "stamp": stamp}, held.status, changed=True)


def runs(wanted: Wanted, item: Planned) -> bool:
    """Say whether an item of the input will run."""
    if item.changed:
        return True
    return wanted.retry_failed if item.status == FAILED else item.status not in {COMPLETED, SKIPPED}


def submit(app: Jobd, wanted: Wanted, job: Job | None, items: Iterable[Named]) -> Job:
    """Begin the job, or add what is new to ``job``, which ``find`` gave; once this returns, no item is lost.

    Raises:
        Conflict: another line began the job after ``find``, with another command or another view of its items.

    Else raises what :meth:`jobd.Jobd.submit` does.
    """
    if wanted.known == "new":
        items = _read_whole(wanted, items)
        _set_free(app, wanted.key)
    return _submit(app, wanted, plan(app, wanted, job, items))


def _read_whole(wanted: Wanted, items: Iterable[Named]) -> Iterator[Named]:
    """Return the items once all of them were read: an input that is refused must not have cost a job what it was."""
    kept = _kept(wanted, items)
    next(kept)
    return kept


def _kept(wanted: Wanted, items: Iterable[Named]) -> Iterator[Named]:
    with _unnamed() as file:
        entries = (_Entry(Planned(*_entry(wanted, item))) for item in items)
        file.writelines(payload.encode() + b"\n" for _, payload in normalise(entries, TASK, _key_of_entry))
        file.seek(0)
        yield b""  # to whoever waits until all is here
        for payload in map(json.loads, file):
            yield payload["fields"] if "fields" in payload else unpack(payload["item"])


@contextmanager
def _unnamed() -> Iterator[IO[bytes]]:
    """Give a file that is gone when the block ends.

    Raises:
        StoreBusy: the disk that it is on is full.
    """
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in copies.FULL:
            raise
        raise StoreBusy(f"{tempfile.gettempdir()}: disk full", hint=ROOM) from None


def _submit(app: Jobd, wanted: Wanted, planned: Iterable[Planned]) -> Job:
    entries = (_Entry(item) for item in planned)
    options: dict[str, Any] = {
        **wanted.options,
        "params": wanted.command.params(),
        "key": wanted.key,
        "item_key": _key_of_entry,
        "changed": "requeue" if wanted.if_changed else "error",
        "target": str(wanted.command),
    }
    try:
        return app.submit(TASK, entries, **cast("SubmitOptions", options))
    except ChangedInput as error:
        find(app, wanted)
        raise Conflict(
            f"job {error.job_id} was given items by another line meanwhile", hint="the same line again"
        ) from None


class _Entry(dict[str, Any]):
    """A payload with its key, as a submission takes it."""

    __slots__ = ("key",)

    def __init__(self, item: Planned) -> None:
        super().__init__(item.payload)
        self.key = item.key


def _key_of_entry(entry: _Entry) -> str:
    return entry.key


def bring_back(app: Jobd, wanted: Wanted, job: Job, items: Iterable[Named]) -> Iterable[Named]:
    """Let run what of the job has failed or was cancelled, with the command as it is now; return the items.

    Where that is another command they are read to their end before it.

    Raises:
        Conflict: it is being submitted, deleted, cancelled or failed.
        InvalidItem: an item of a changed command cannot be one; the job is what it was.
    """
    store = app.writing()
    if not _same(job, wanted.command):
        items = _read_whole(wanted, items)
        params = codec.dumps(wanted.command.params(), what="the command")
        identity.change_params(store, job.id, params, now=clock.now(), actor=app.actor)
    if wanted.retry_failed and (job.counts.failed or job.counts.cancelled):
        job.resume()
    elif job.counts.cancelled:
        retry.bring_back(
            store, job.id, lambda _: True, now=clock.now(), actor=app.actor, message="the same command again"
        )
    return items


def _set_free(app: Jobd, key: str) -> None:
    """Cancel what is left of the job that has the key, and take the key from it."""
    former = _of_key(app, key)
    if former is None:
        return
    if former.status not in JOB_ENDS:
        former.cancel(_ANEW)
    identity.release_key(app.writing(), former.id, now=clock.now(), actor=app.actor)
