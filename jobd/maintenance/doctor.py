"""doctor: what this installation and this file are, and whether every rule of truth holds in it. It changes nothing."""

from __future__ import annotations

import os
import platform
import shlex
import sqlite3
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import NotFound, StoreUnusable
from jobd.filesystem import NETWORK, file_system
from jobd.store import partial
from jobd.store.file import INCOMING, bytes_of, unusable
from jobd.store.invariants import LIMIT, invariants, violations
from jobd.store.schema import APPLICATION_ID, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store.invariants import Violation
    from jobd.store.sqlite import SqliteStore

OK: Final = "ok"
WARNING: Final = "warning"
BROKEN: Final = "broken"

WAL_RESET_FIXED: Final = (3, 51, 3)
_WAL_LIMIT: Final = 16 * 1024 * 1024
_SHOWN: Final = 3
_OF_THE_BYTES: Final = frozenset({"keys", "values", "types", "integrity"})
_SYNCHRONOUS: Final = {0: "off", 1: "normal", 2: "full", 3: "extra"}


class Check(NamedTuple):
    """One line of doctor: ``level`` is ok, warning or broken; ``hint`` is what to type or to change."""

    name: str
    level: str
    text: str
    hint: str | None = None


class Doctor(NamedTuple):
    """What doctor found."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 with or without warnings, 1 where a rule is broken."""
        return int(any(check.level == BROKEN for check in self.checks))

    def json(self) -> dict[str, Any]:
        return {
            "ok": self.exit_code == 0,
            "warnings": sum(check.level == WARNING for check in self.checks),
            "broken": sum(check.level == BROKEN for check in self.checks),
            "checks": [check._asdict() for check in self.checks],
        }


def examine(store: SqliteStore, *, lock_holder: str | None, now: int, quick: bool = False) -> Doctor:
    """Look at everything and change nothing. ``lock_holder`` names who holds the file's lock; ``now`` is in Unix ms.

    Raises:
        NotFound: there is no such file.
        StoreUnusable: it cannot be used as it is.
    """
    store.open(create=False, upgrade=False)
    return Doctor(
        (*_software(), *_file(store), *_settings(store), *_holder(store, lock_holder, now), *_rules(store, quick))
    )


def damage(store: SqliteStore) -> StoreUnusable | None:
    """Return what says that the file is not as it was written, by the rules that no statement of jobd's can break.

    For whoever met an error that nobody foresaw: SQLite gives a row with a flipped bit to its reader as if it were one.
    """
    try:
        store.open(create=False, upgrade=False)
        wrong = [found for rule in invariants() if rule.name in _OF_THE_BYTES for found in violations(store, rule)]
        why = wrong[0].text if wrong else None
    except NotFound:
        return None
    except StoreUnusable as error:
        return error
    except (sqlite3.Error, ValueError, TypeError) as error:
        why = str(error)
    return (
        unusable(store.path, f"the file is damaged ({why})", hint="jobd doctor; jobd restore BACKUP") if why else None
    )


def _software() -> Iterator[Check]:
    yield Check("jobd", OK, f"{_version('jobd-embedded')}, schema {SCHEMA_VERSION}")
    yield Check("python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("sqlite", OK, f"{sqlite3.sqlite_version}, driver {sqlite3.__name__} of the standard library")
    yield Check("peewee", OK, _version("peewee"))
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        yield Check(
            "wal_reset",
            WARNING,
            f"in SQLite {sqlite3.sqlite_version} two PASSIVE checkpointers can corrupt a file; jobd never runs them,"
            " but another program that opens this file may",
            "SQLite 3.51.3 or later; until then open the file with jobd alone",
        )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed, run from its source"


def _file(store: SqliteStore) -> Iterator[Check]:
    found = os.stat(store.path)  # noqa: PTH116 - never open() the file: closing it would drop SQLite's locks
    yield Check("file", OK, store.path)
    yield Check("size", OK, _megabytes(found.st_size))
    if found.st_mode & 0o077:
        yield Check(
            "mode", WARNING, f"others may read or write the file ({found.st_mode & 0o777:o})", f"chmod 600 {store.path}"
        )
    kind = file_system(store.path)
    if kind in NETWORK:
        yield Check("file_system", WARNING, f"{kind}: locks may not hold", "a path on a local disk")
    else:
        yield Check("file_system", OK, kind or "unknown")
    if bytes_of(store.path + INCOMING):
        yield Check(
            "restore",
            WARNING,
            f"a restore was killed before it put its copy in place: {store.path}{INCOMING}",
            "jobd restore BACKUP, the same again; or remove that file",
        )
    if halves := partial.left(os.path.dirname(store.path)):  # noqa: PTH120 - names are text here
        more = f" and {len(halves) - 1} more" if len(halves) > 1 else ""
        yield Check(
            "partial",
            WARNING,
            f"a backup or a migration was killed before its copy was whole: {halves[0]}{more}",
            f"rm {shlex.quote(halves[0])}"
            if partial.of_migration(halves[0])
            else "the same backup again removes what it left; or remove it",
        )
    log = store.wal_bytes()
    level = WARNING if log > _WAL_LIMIT else OK
    hint = (
        "a program that keeps a reading transaction open holds it back; jobd start empties it" if level != OK else None
    )
    yield Check("wal", level, _megabytes(log), hint)


def _settings(store: SqliteStore) -> Iterator[Check]:
    def pragma(name: str) -> Any:
        return store.read(lambda connection: connection.execute(f"pragma {name}").fetchone()[0])

    mode = pragma("journal_mode")
    yield Check("journal_mode", OK if mode == "wal" else BROKEN, mode)
    synchronous = _SYNCHRONOUS.get(pragma("synchronous"), "unknown")
    promise = (
        "a commit survives a power cut" if synchronous in {"full", "extra"} else
        "a power cut can roll back what was committed since the last checkpoint"
    )  # fmt: skip
    yield Check("durability", OK, f"{synchronous}: {promise}")
    application, version = pragma("application_id"), pragma("user_version")
    level = OK if (application, version) == (APPLICATION_ID, SCHEMA_VERSION) else BROKEN
    yield Check("schema", level, f"version {version}, application id {application:#x}")


def _holder(store: SqliteStore, lock_holder: str | None, now: int) -> Iterator[Check]:
    yield Check("lock", OK, f"held by {lock_holder}" if lock_holder else "free: no daemon is running")
    ahead = store.read(lambda connection: connection.execute("select max(created_at) from jobs").fetchone()[0])
    if ahead is not None and ahead > now + 1_000:
        yield Check("clock", WARNING, "the newest job is from the future: the clock was set back", "check the clock")


def _rules(store: SqliteStore, quick: bool) -> Iterator[Check]:
    for invariant in invariants(quick=quick):
        found = violations(store, invariant)
        if not found:
            yield Check(invariant.name, OK, invariant.sentence)
            continue
        shown = "; ".join(map(_place, found[:_SHOWN]))
        more = (
            f"; and {'at least ' if len(found) == LIMIT else ''}{len(found) - _SHOWN} more"
            if len(found) > _SHOWN
            else ""
        )
        yield Check(invariant.name, BROKEN, f"{shown}{more} (the rule: {invariant.sentence})", _hint(invariant.name))


def _place(violation: Violation) -> str:
    if violation.item_id is not None:
        return f"{violation.job_id}:#{violation.item_id} {violation.text}"
    return violation.text if violation.job_id is None else f"job {violation.job_id} {violation.text}"


def _hint(name: str) -> str:
    if name in {"integrity", "types", "foreign_keys"}:
        return "jobd restore BACKUP"
    return "jobd recover --check-only shows what can be mended from the evidence"


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"
