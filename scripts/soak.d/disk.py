"""A disk that forgets: every write of a run recorded, and what is left of it when the power goes.

A file holds what it held at its last sync; of what was written since, each sector is there or not, as chance has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import apsw

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

_SECTOR: Final = 512
_KEPT: Final = (".db", "-wal")
WRITE, TRUNCATE, SYNC, DELETE, TOLD = "write", "truncate", "sync", "delete", "told"


class Step(NamedTuple):
    """One thing that was asked of the disk: ``at`` and ``data`` of a write, ``at`` the size of a truncation; or, of no
    file, what somebody was told by then.
    """

    kind: str
    name: str
    at: int = 0
    data: Any = None


class Disk(apsw.VFS):
    """Records, by file name, what SQLite asks of the real one."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        super().__init__("forgetful", "")

    def xOpen(self, name: Any, flags: Any) -> File:  # noqa: N802 - SQLite's names
        return File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - as above
        super().xDelete(filename, syncdir)
        self.note(Step(DELETE, Path(filename).name))

    def note(self, step: Step) -> None:
        if step.name.endswith(_KEPT) or step.kind == TOLD:
            self.steps.append(step)


class File(apsw.VFSFile):
    """One file of it."""

    def __init__(self, disk: Disk, name: Any, flags: Any) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._name = Path(name.filename() if hasattr(name, "filename") else name or "").name

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's names
        super().xWrite(data, offset)
        self._disk.note(Step(WRITE, self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - as above
        super().xTruncate(newsize)
        self._disk.note(Step(TRUNCATE, self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802 - as above
        super().xSync(flags)
        self._disk.note(Step(SYNC, self._name))


class Connection:
    """What jobd asks of the standard library's connection, answered by one on the disk that forgets."""

    def __init__(self, name: str, **_: Any) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
        self._connection = apsw.Connection(name, flags=flags, vfs="forgetful")
        self._connection.set_busy_timeout(5_000)
        # Such a disk gives no memory to share between connections; alone, SQLite needs none.
        self._connection.execute("pragma locking_mode=exclusive")

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def cursor(self, *_: Any) -> Cursor:
        return Cursor(self._connection)

    def execute(self, *arguments: Any) -> Cursor:
        return self.cursor().execute(*arguments)

    def executemany(self, statement: str, rows: Any) -> Cursor:
        return self.cursor().executemany(statement, rows)

    def executescript(self, text: str) -> Cursor:
        return self.cursor().execute(text)

    def close(self) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        # Trace callbacks, progress handlers: nobody looks here.
        return lambda *_, **__: None


class Cursor:
    """A cursor whose rows are all there."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._rows: Iterator[Any] = iter(())
        self.rowcount = -1
        self.lastrowid: int | None = None

    def execute(self, statement: str, parameters: Any = ()) -> Cursor:
        before = self._connection.total_changes()
        self._rows = iter(self._connection.execute(statement, tuple(parameters)).fetchall())
        changed = self._connection.total_changes() - before
        self.rowcount = self._connection.changes() if changed else 0
        self.lastrowid = self._connection.last_insert_rowid()
        return self

    def executemany(self, statement: str, rows: Any) -> Cursor:
        for row in rows:
            self.execute(statement, row)
        return self

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchmany(self, count: int) -> list[Any]:
        return [row for _, row in zip(range(count), self._rows, strict=False)]

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        self._rows = iter(())


def after_a_power_cut(steps: list[Step], cut: int, rng: random.Random) -> dict[str, bytes]:
    """Return what is in each file when the power goes behind the first ``cut`` steps."""
    found: dict[str, bytearray] = {}
    for name in {step.name for step in steps[:cut] if step.kind != TOLD}:
        mine = [step for step in steps[:cut] if step.name == name]
        synced = max((place + 1 for place, step in enumerate(mine) if step.kind == SYNC), default=0)
        content = bytearray()
        share = rng.choice((0.0, 0.5, 0.9, 1.0))
        for place, step in enumerate(mine):
            _apply(content, step, 1.0 if place < synced else share, rng)
        found[name] = content
    return {name: bytes(content) for name, content in found.items()}


def _apply(content: bytearray, step: Step, share: float, rng: random.Random) -> None:
    def kept() -> bool:
        return rng.random() < share

    if step.kind == TRUNCATE and kept():
        del content[step.at :]
    elif step.kind == DELETE and kept():
        content.clear()
    elif step.kind == WRITE:
        at = step.at
        while at < step.at + len(step.data):
            end = min(step.at + len(step.data), (at // _SECTOR + 1) * _SECTOR)
            if kept():
                content.extend(bytes(max(0, end - len(content))))
                content[at:end] = step.data[at - step.at : end - step.at]
            at = end
