"""The items of one submission, read once, in chunks that a transaction can take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import DuplicateKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobd.store.base import Connection, Store

CHUNK: Final = 2_000
# Payloads are up to 1 MiB each: without a bound in characters 2,000 of them would be more than a statement takes.
CHUNK_CHARACTERS: Final = 8 * 1024 * 1024
SHOWN: Final = 20


class Chunks:
    """The input of one submission as dicts of key to payload.

    A key that comes twice is kept once, as it came first. With ``skip`` it is counted in ``skipped``; without, the
    input is refused, with the first 20 such keys. ``first`` is the first chunk, and the only one where ``whole``.
    """

    def __init__(self, items: Iterable[tuple[str, str]], *, skip: bool) -> None:
        self.skipped = 0
        self._skip = skip
        self._repeated: dict[str, None] = {}
        self._rest = self._read(items)
        self.first: dict[str, str] = next(self._rest, {})
        # Read ahead, so that what fits into one transaction is known to fit.
        self._second = next(self._rest, None)
        self.whole = self._second is None
        if self.whole:
            self._check()

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Yield every chunk, once.

        Raises:
            DuplicateKeys: there were some, and they are not to be skipped.
        """
        yield self.first
        if self._second is not None:
            yield self._second
            yield from self._rest
        self._check()

    def repeat(self, keys: Iterable[str]) -> None:
        """Take note of keys that came before.

        Raises:
            DuplicateKeys: these make 20 of them.
        """
        for key in keys:
            self.skipped += 1
            if not self._skip:
                self._repeated[key] = None
                if len(self._repeated) == SHOWN:
                    self._check()

    def _check(self) -> None:
        if self._repeated:
            raise DuplicateKeys(tuple(self._repeated))

    def _read(self, items: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
        chunk: dict[str, str] = {}
        size = 0
        for key, payload in items:
            if key in chunk:
                self.repeat((key,))
                continue
            chunk[key] = payload
            size += len(payload)
            if len(chunk) == CHUNK or size >= CHUNK_CHARACTERS:
                yield chunk
                chunk, size = {}, 0
        if chunk:
            yield chunk


class Source(NamedTuple):
    """Items where the database can select them: a subselect of ``key`` and ``payload`` with its parameters.

    It is joined with CROSS JOIN, which keeps it on the outside: left to itself the planner may pass over all the items
    of the job for each chunk.
    """

    text: str
    params: tuple[Any, ...]
    size: int


def source_of(store: Store, chunk: dict[str, str]) -> Source:
    """Return a chunk as one bound parameter."""
    return Source(store.pairs("key", "payload"), (store.pack_pairs(chunk),), len(chunk))


def insert(connection: Connection, job_id: int, source: Source) -> int:
    """Insert items of a new job, but for those that came before, and return how many they are."""
    return _insert(connection, f"{source.text} as m where true", (job_id, *source.params))


def insert_missing(connection: Connection, job_id: int, source: Source) -> int:
    """Insert those items that a known job does not have, and return how many they are."""
    # Looked for first: a conflict takes an id and a page write even where it does nothing.
    missing = f"{source.text} as m where not exists (select 1 from job_items as i where i.job_id=? and i.key=m.key)"
    return _insert(connection, missing, (job_id, *source.params, job_id))


def _insert(connection: Connection, items: str, params: tuple[Any, ...]) -> int:
    # The WHERE that each caller has is needed: without one the parser takes ON CONFLICT for the condition of a join.
    statement = (
        f"insert into job_items (job_id, key, payload) select ?, key, payload from {items}"
        " on conflict (job_id, key) do nothing"
    )
    count: int = connection.execute(statement, params).rowcount
    return count
