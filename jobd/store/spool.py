"""A long input that must be compared whole before any of it is written: kept on disk, beside the database."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, TypeVar

from jobd.store.chunks import Source, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobd.store.base import Connection, Store
    from jobd.store.chunks import Chunks

T = TypeVar("T")

# A temporary table of the thread's own connection: it needs no write lock, and is gone with the connection.
_TABLE: Final = (
    "create temporary table if not exists submitted_items"
    " (position integer primary key, key text not null unique, payload text not null)"
)
_CLEAR: Final = "delete from temp.submitted_items"
_DROP: Final = "drop table if exists temp.submitted_items"
_LAST: Final = "select coalesce(max(position), 0) from temp.submitted_items"
_PAGE: Final = "(select key, payload from temp.submitted_items where position > ? and position <= ?)"


@contextlib.contextmanager
def spooled(store: Store, chunks: Chunks) -> Iterator[list[Source]]:
    """Read the whole input and give it back page by page, as often as wanted.

    Raises:
        DuplicateKeys: keys that came twice, where they are not to be skipped.
    """
    connection = store.connection()
    _judged(store, lambda: connection.execute(_TABLE))
    _judged(store, lambda: connection.execute(_CLEAR))
    try:
        pages: list[Source] = []
        last = 0
        for chunk in chunks:
            end, known = _judged(store, lambda: _append(store, connection, chunk))  # noqa: B023 - called at once
            chunks.repeat(known)
            if end > last:
                pages.append(Source(_PAGE, (last, end), end - last))
            last = end
        yield pages
    finally:
        # What failed before is what is to be told: a table that stays is cleared at its next use.
        with contextlib.suppress(Exception):
            connection.execute(_DROP)


def _append(store: Store, connection: Connection, chunk: dict[str, str]) -> tuple[int, list[str]]:
    """Append a chunk; return the last position, and the keys that came before."""
    source = source_of(store, chunk)
    twice = f"from {source.text} as m cross join temp.submitted_items as s where s.key=m.key"
    known = {row[0] for row in store.gather(connection, "m.key", twice, source.params)}
    connection.execute(
        f"insert into temp.submitted_items (key, payload) select key, payload from {source.text} as m where true"
        " on conflict (key) do nothing",
        source.params,
    )
    return connection.execute(_LAST).fetchone()[0], [key for key in chunk if key in known]


def _judged(store: Store, work: Callable[[], T]) -> T:
    """Run a statement outside ``Store.write``: its errors mean the same."""
    try:
        return work()
    except Exception as error:
        meant = store.judge(error)
        if meant is error:
            raise
        raise meant from error
