"""Copies of a database in use: of one snapshot, for their owner alone, and examined by the rules that doctor knows."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import functools
import os
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.errors import Conflict, StoreBusy, StoreUnusable
from jobd.store import file, partial
from jobd.store.driver import BUSY_TIMEOUT_MS
from jobd.store.driver_errors import meaning, primary
from jobd.store.invariants import Invariant, Violation, found, invariants
from jobd.store.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

# Told what is under way, how far it is, and of how much; what it raises ends the work.
Watch = Callable[[str, int, int], None]
# Told each step once it is taken, by its name; a test ends the process there.
At = Callable[[str], None]

# 4 MB in a step: a look at the clock and at Ctrl-C is then a thousandth of the work.
_PAGES: Final = 1_000
_OPCODES: Final = 100_000
_OF_THE_TARGET: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Examined(NamedTuple):
    """What a copy is: its schema's version, and the rules that are broken in it as they were in its original."""

    schema: int
    broken: tuple[Violation, ...]


def unwatched(stage: str, reached: int, whole: int) -> None:
    """Watch nothing."""


def copy(source: sqlite3.Connection, target: str, *, name: str, watch: Watch) -> None:
    """Copy the database that ``source`` is connected to into the empty file ``target``, and sync it.

    Writers go on meanwhile: one snapshot is held for the whole copy. Without it SQLite would begin anew at every
    commit, and beside a busy daemon never end. ``name`` names the original for people.

    Raises:
        StoreBusy: the disk is full, or the original is locked.
        StoreUnusable: the original is damaged, or the copy cannot be written.
    """
    try:
        with contextlib.closing(sqlite3.connect(file.uri(target, "mode=rw"), uri=True, isolation_level=None)) as here:
            # What is half is thrown away: nothing to roll back, and one sync at the end.
            here.execute("pragma journal_mode=off")
            here.execute("pragma synchronous=off")
            source.execute("begin")
            try:
                source.execute("select count(*) from sqlite_master").fetchone()
                source.backup(here, pages=_PAGES, progress=lambda _, left, whole: watch("copying", whole - left, whole))
            finally:
                if source.in_transaction:
                    source.execute("rollback")
    except sqlite3.Error as error:
        place = target if primary(error) in _OF_THE_TARGET else name
        raise meaning(error, place, waited=BUSY_TIMEOUT_MS / 1000) from error
    with told(target):
        sync(target)


def examine(path: str, *, name: str, watch: Watch) -> Examined:
    """Return what the file at ``path`` is, by a look that changes nothing; ``name`` names it for people.

    A broken rule is told and not refused: who mends a file wants its copy most. Of an older schema only the file
    itself is judged, for the rules are those of the present one.

    Raises:
        StoreUnusable: no jobd file, a newer one, truncated or damaged.
    """
    broken: list[Violation] = []
    try:
        schema = file.schema_version(path, timeout_ms=BUSY_TIMEOUT_MS)
        if not schema:
            raise file.unusable(path, "there are no tables in it")
        *rules, references, integrity = invariants()
        asked = [integrity, references, *(rules if schema == SCHEMA_VERSION else ())]
        with contextlib.closing(file.connect_to_read(path, timeout_ms=BUSY_TIMEOUT_MS)) as connection:
            for place, rule in enumerate(asked):
                look = functools.partial(watch, "checking", place, len(asked))
                look()
                broken += _broken(connection, rule, look)
                if rule is integrity and broken:
                    raise file.unusable(
                        path, f"the file is damaged ({broken[0].text})", hint="jobd doctor; jobd restore BACKUP"
                    )
    except sqlite3.Error as error:
        raise _named(meaning(error, path, waited=0.0), path, name) from error
    except StoreUnusable as error:
        raise _named(error, path, name) from error
    return Examined(schema, tuple(broken))


def _broken(connection: sqlite3.Connection, rule: Invariant, look: Callable[[], None]) -> list[Violation]:
    """Look for what breaks a rule; ``look`` is called now and then, and what it raises ends the search."""
    raised: list[BaseException] = []

    def now_and_then() -> int:
        try:
            look()
        except BaseException as error:  # noqa: BLE001 - the driver would swallow it: it is raised again below
            raised.append(error)
        return len(raised)

    connection.set_progress_handler(now_and_then, _OPCODES)
    try:
        return found(connection, rule)
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _named(error: BaseException, path: str, name: str) -> BaseException:
    """Return a refusal of the file that a person knows instead of its copy's."""
    return StoreUnusable(str(error).replace(path, name), hint=error.hint) if isinstance(error, StoreUnusable) else error


# -- files beside each other --------------------------------------------------------------------------------------


@contextlib.contextmanager
def arriving(target: str, *, replace: bool = False) -> Iterator[str]:
    """Give an empty file for its owner alone, that takes the name ``target`` when the block ends as it should.

    It stands beside ``target`` until then, and is gone if the block raises; what a killed process left of one goes
    before it. Without ``replace`` no file is lost.

    Raises:
        Conflict: there is a file of that name.
        StoreBusy: the disk is full.
        StoreUnusable: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with told(target):
            temporary = stack.enter_context(partial.begun(target))
        try:
            yield temporary
            with told(target):
                (os.replace if replace else _take_name)(temporary, target)
                sync(os.path.dirname(target))  # noqa: PTH120 - names are text here
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108 - as above
            raise


def _take_name(temporary: str, target: str) -> None:
    """Rename a file to a name that is free: ``rename`` would replace what came there in between."""
    if os.path.lexists(target):
        raise taken(target)
    second_name(temporary, target)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # noqa: PTH108 - as above


def taken(target: str) -> Conflict:
    """Return the error that says that a file is there already."""
    return Conflict(f"there is a file at {target}", hint="another name, or --force to replace it")


def second_name(path: str, name: str) -> None:
    """Give the file at ``path`` the name ``name``, beside its own where the file system can, in its place elsewhere.

    Raises:
        FileExistsError: a file has the name, and the file system can give second names.
    """
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(path, name)  # noqa: PTH104 - as above


def free_name(path: str, what: str, *, now: int) -> str:
    """Return the first name beside ``path`` that tells what the file is and when it was made, and that is free."""
    stamp = dt.datetime.fromtimestamp(now / 1000, tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    name, count = f"{path}.{what}-{stamp}", 1
    while any(os.path.lexists(name + suffix) for suffix in ("", "-wal", "-journal")):
        count += 1
        name = f"{path}.{what}-{stamp}-{count}"
    return name


def sync(path: str) -> None:
    """Have the disk hold what a file is; of a folder, which names are in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
    """Turn an error of the system into one that names ``path``.

    Raises:
        StoreBusy: the disk is full.
        StoreUnusable: anything else that the system refuses.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or path
        if error.errno in FULL:
            raise StoreBusy(f"{place}: disk full", hint="free some space") from error
        raise file.unusable(place, error.strerror or str(error)) from error
